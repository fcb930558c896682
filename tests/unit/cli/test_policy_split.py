"""`chatelaine policy split`: ConfigMaps that hold a bundle."""

from __future__ import annotations

import json
import secrets

import pytest
import yaml

from chatelaine.cli.policy_split import MAX_PIECES, PIECE_BYTES
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import verify_bundle
from support.policy_command import run
from support.reference_bundles import ALICE, PREDICATE, bundle, signed, source


def many(count: int, folder: str = "/usr/lib") -> tuple[GoodFile, ...]:
    return tuple(GoodFile(f"{folder}/{n}", (f"sha256:{secrets.token_hex(32)}",)) for n in range(count))


@pytest.mark.parametrize(("count", "pieces"), [(1, 1), (20_000, 3)])
def test_pieces_put_together_are_the_bundle(tmp_path, count, pieces):
    (tmp_path / "envelope").write_bytes(bundle(files=many(count)))
    text = run("split", tmp_path / "envelope", "--namespace", "keys").stdout
    manifests = list(yaml.safe_load_all(text))
    names = [manifest["metadata"]["name"] for manifest in manifests]
    assert names == [f"baseline-v7-{number}" for number in range(pieces)]
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"keys"}
    refs = yaml.safe_load("\n".join(line[2:] for line in text.splitlines() if line.startswith("# ")))
    by_name = {manifest["metadata"]["name"]: manifest["data"] for manifest in manifests}
    found = [by_name[ref["name"]][ref["key"]] for ref in refs["configMapRefs"]]
    assert all(len(piece) <= PIECE_BYTES for piece in found)
    assert len(verify_bundle("".join(found).encode(), source(), not_below=7).files) == count


def test_white_space_of_an_envelope_is_not_carried_on(tmp_path):
    (tmp_path / "envelope").write_text(json.dumps(json.loads(bundle()), indent=4) + "\n")
    (manifest,) = yaml.safe_load_all(run("split", tmp_path / "envelope", "--name", "x").stdout)
    assert verify_bundle(manifest["data"]["envelope"].encode(), source(), not_below=7)


def test_bundle_that_no_policy_could_name_is_not_split(tmp_path):
    files = (file for number in range(3800) for file in many(1, f"/{number}/{'x' * 2900}"))
    (tmp_path / "envelope").write_bytes(bundle(files=tuple(files)))
    assert MAX_PIECES * PIECE_BYTES < (tmp_path / "envelope").stat().st_size < 16 * 1024 * 1024
    done = run("split", tmp_path / "envelope")
    assert (done.exit_code, done.stdout_bytes) == (64, b"")
    assert "mount it" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("content", "status"),
    [(signed(PREDICATE.encode()).encode(), 64), (PREDICATE.encode(), 64), (signed(b"{}", ALICE).encode(), 1)],
    ids=["unsigned", "payload", "other payload"],
)
def test_what_is_no_signed_bundle_is_not_split(content, status):
    done = run("split", "-", stdin=content)
    assert (done.exit_code, done.stdout_bytes) == (status, b"")
