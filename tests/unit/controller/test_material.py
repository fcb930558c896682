"""What lies under the names in a policy, and what it comes to: whole, or a sentence for each thing that is wrong."""

from __future__ import annotations

import base64
import functools
import os
from pathlib import Path
from typing import Any

import pytest

from chatelaine.controller.material import Contents, Looked, entries_of, look, named_by
from chatelaine.controller.reference_folder import NO_FILE, ReferenceFolder
from chatelaine.evidence.certificates import MAX_FILE_BYTES
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES
from chatelaine.model.material import NO_MATERIAL
from chatelaine.model.policy import AttestationPolicySpec, ReferenceValuesStatus
from chatelaine.reconcile.policy import used_of
from support.reference_bundles import ALICE, BOB, MALLORY, PREDICATE, SERIES, Signer, bundle
from support.vendors import Vendor

ROOTS = ("vendors", "one.pem"), ("more-vendors", "two.pem")


def refs(*places: tuple[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "key": key} for name, key in places]


def spec(
    *roots: tuple[str, str], pieces: int = 0, signers: tuple[Signer, ...] = (ALICE, BOB), threshold: int = 1,
    file: str | None = None,
) -> AttestationPolicySpec:  # fmt: skip
    pcrs = {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}
    body: dict[str, Any] = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": pcrs}}
    if roots:
        body["tpm"]["endorsement"] = {"roots": [{"configMapRef": ref} for ref in refs(*roots)]}
    if pieces or file:
        body["referenceValues"] = {
            "series": SERIES,
            "keys": [signer.listed().dump() for signer in signers],
            "threshold": threshold,
            **({"file": file} if file else {"configMapRefs": refs(*((f"piece-{n}", "part") for n in range(pieces)))}),
        }
    return AttestationPolicySpec.model_validate(body)


@functools.cache
def vendor(name: str = "one") -> Vendor:
    return Vendor(name)


def config_maps(**changes: Any) -> dict[str, Any]:
    """Both ConfigMaps of vendors as they should be, but for `changes` (underscores for hyphens)."""
    honest = {
        "vendors": {"one.pem": vendor().pem.encode(), "note": b"hello"},
        "more-vendors": {"two.pem": vendor("two").pem.encode()},
    }
    return {**honest, **{name.replace("_", "-"): value for name, value in changes.items()}}


def looked(rules: AttestationPolicySpec, found: dict[str, Any], used: ReferenceValuesStatus | None = None) -> Looked:
    return look(named_by(rules), Contents(found), used)


def pieces(envelope: bytes, number: int) -> dict[str, Any]:
    size = -(-len(envelope) // number)
    return {f"piece-{n}": {"part": envelope[n * size : (n + 1) * size]} for n in range(number)}


def refused(found: Looked, words: str) -> None:
    assert found.material.reference is None
    assert found.envelope is None
    assert len(found.material.missing) == 1
    assert words in found.material.missing[0]


# --- vendors


def test_policy_that_names_nothing_leans_on_nothing() -> None:
    assert look(named_by(spec()), Contents({}), None).material is NO_MATERIAL


def test_all_vendors_that_are_named_count_once() -> None:
    found = looked(spec(*ROOTS, ROOTS[0]), config_maps()).material
    assert found.endorsement_roots == (*vendor().der, *vendor("two").der)
    assert found.missing == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vendors": "does not exist in namespace x"}, "roots[0]: ConfigMap vendors does not exist in namespace x"),
        ({"vendors": {}}, "ConfigMap vendors has no key one.pem"),
        ({"vendors": {"one.pem": b""}}, "CertificateMalformed"),
        ({"vendors": {"one.pem": os.urandom(2**20)}}, "Oversized"),
        ({"vendors": {"one.pem": b"\x30" * MAX_FILE_BYTES}}, "CertificateMalformed"),
        ({"more_vendors": {"two.pem": b"-----BEGIN CERTIFICATE-----\ngarbage"}}, "roots[1]: CertificateMalformed"),
    ],
)
def test_half_of_the_vendors_is_no_set_of_vendors(changes: dict[str, Any], words: str) -> None:
    found = looked(spec(*ROOTS), config_maps(**changes)).material
    assert found.endorsement_roots == ()
    assert len(found.missing) == 1
    assert words in found.missing[0]
    assert len(found.missing[0]) <= 400


def test_intermediates_without_any_root_are_told() -> None:
    middle = vendor().pem.split("-----END CERTIFICATE-----\n")[1] + "-----END CERTIFICATE-----\n"
    found = looked(spec(ROOTS[0]), config_maps(vendors={"one.pem": middle.encode()})).material
    assert "none of the certificates is self-signed" in found.missing[0]
    assert found.endorsement_roots == ()


def test_both_kinds_of_entries_are_read() -> None:
    der = vendor().der[0]
    body = {"data": {"a": "text"}, "binaryData": {"b": base64.b64encode(der).decode(), "c": "no base64"}}
    assert entries_of(body) == {"a": b"text", "b": der}
    assert entries_of({"data": None, "binaryData": []}) == {}


# --- signed reference values


@pytest.mark.parametrize("number", [1, 2, 5])
def test_pieces_are_put_together_in_their_order(number: int) -> None:
    envelope = bundle(ALICE)
    found = looked(spec(pieces=number), pieces(envelope, number))
    assert found.material.missing == ()
    assert found.material.reference is not None
    assert (found.material.reference.version, found.material.reference.signed_by) == (7, ("alice",))
    assert found.envelope == envelope


def test_pieces_in_the_wrong_order_are_refused() -> None:
    found = pieces(bundle(ALICE), 3)
    found["piece-0"], found["piece-1"] = found["piece-1"], found["piece-0"]
    refused(looked(spec(pieces=3), found), "EnvelopeMalformed")


def test_missing_piece_is_refused() -> None:
    found = pieces(bundle(ALICE), 3)
    refused(looked(spec(pieces=2), found), "Envelope")
    found["piece-1"] = "does not exist in namespace x"
    refused(looked(spec(pieces=3), found), "referenceValues: ConfigMap piece-1 does not exist in namespace x")


def test_unsigned_bundle_is_refused() -> None:
    refused(looked(spec(pieces=1), {"piece-0": {"part": PREDICATE.encode()}}), "Envelope")


def test_bundle_signed_by_a_stranger_is_refused() -> None:
    refused(looked(spec(pieces=1), pieces(bundle(MALLORY), 1)), "referenceValues: ")


def test_bundle_signed_by_too_few_is_refused() -> None:
    rules = spec(pieces=1, threshold=2)
    refused(looked(rules, pieces(bundle(ALICE, MALLORY), 1)), "referenceValues: ")
    assert looked(rules, pieces(bundle(ALICE, BOB), 1)).material.missing == ()


def test_megabyte_of_garbage_is_no_bundle() -> None:
    found = looked(spec(pieces=1), {"piece-0": {"part": os.urandom(2**20)}})
    refused(found, "Envelope")
    assert len(found.material.missing[0]) <= 400


def used(version: int, **changes: Any) -> ReferenceValuesStatus:
    status = used_of(looked(spec(pieces=1), pieces(bundle(ALICE, version=version), 1)).material.reference)
    assert status is not None
    return status.model_copy(update=changes)


def test_older_bundle_than_one_already_used_is_refused() -> None:
    refused(looked(spec(pieces=1), pieces(bundle(ALICE), 1), used(8)), "ReferenceRolledBack")
    for version in (6, 7):
        assert looked(spec(pieces=1), pieces(bundle(ALICE), 1), used(version)).material.missing == ()


def test_other_content_under_a_used_version_is_refused() -> None:
    other = bundle(ALICE, issued_at="2026-11-22T12:00:00Z")
    refused(looked(spec(pieces=1), pieces(other, 1), used(7)), "already used with another content")


def test_version_of_another_series_does_not_count() -> None:
    assert looked(spec(pieces=1), pieces(bundle(ALICE), 1), used(9, name="another")).material.missing == ()


def test_bundle_of_another_series_is_refused() -> None:
    refused(looked(spec(pieces=1), pieces(bundle(ALICE, name="another", version=99), 1)), "SeriesMismatch")


def test_what_is_wrong_with_either_is_told() -> None:
    found = looked(spec(*ROOTS, pieces=1), {}).material
    assert len(found.missing) == 3
    assert found.endorsement_roots == ()


# --- files


def from_file(folder: ReferenceFolder, name: str) -> Looked:
    _, data = folder.read(name)
    return look(named_by(spec(file=name)), Contents({}, data), None)


def test_file_of_the_operators_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "baseline").write_bytes(bundle(ALICE))
    folder = ReferenceFolder(tmp_path)
    mark, data = folder.read("baseline")
    assert from_file(folder, "baseline").material.missing == ()
    assert folder.mark("baseline") == mark != NO_FILE
    (tmp_path / "baseline").write_bytes(b"x")
    assert folder.mark("baseline") != mark
    assert data == bundle_of(data)


def bundle_of(data: bytes | str) -> bytes:
    assert isinstance(data, bytes)
    return data


def test_names_that_are_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", MAX_ENVELOPE_BYTES + 1)
    folder = ReferenceFolder(tmp_path / "folder")
    for name in (".", ".."):
        refused(from_file(folder, name), "is no file")
    folder = ReferenceFolder(tmp_path)
    refused(from_file(folder, "absent"), "cannot be read")
    refused(from_file(folder, "folder"), "is no file")
    refused(from_file(folder, "pipe"), "is no file")
    refused(from_file(folder, "big"), "is over")


def test_operator_without_a_folder_says_so() -> None:
    folder = ReferenceFolder(None)
    refused(from_file(folder, "baseline"), "--reference-values-dir")
    assert folder.mark("baseline") == NO_FILE
