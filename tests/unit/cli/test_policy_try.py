"""Policies tried on stored evidence, and compared, at the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.lab import firmware
from typer.testing import CliRunner

from chatelaine.appraisal.bundle_form import encode_bundle
from chatelaine.appraisal.stored import RoundKind
from chatelaine.appraisal.stored_form import encode_round
from chatelaine.cli import policy as command
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import Predicate
from chatelaine.model.tpm_policy import Bank
from support.paper_ima import pem
from support.paper_tpm import ecc_key
from support.stored_rounds import Told, answer, policy, stored

RUNNER = CliRunner()
GOOD = stored()
OTHER_LOADER = firmware.Boot(loader=b"boot loader 2.0")
Json = dict[str, Any]


def evidence_file(folder: Path, told: Told = GOOD, name: str = "round.cbor") -> str:
    path = folder / name
    path.write_bytes(encode_bundle(encode_round(told.round), told.parts.values()))
    return str(path)


def policy_file(folder: Path, spec: Json, name: str = "policy.yaml") -> str:
    path = folder / name
    manifest = {
        "apiVersion": "chatelaine.dev/v1alpha1",
        "kind": "AttestationPolicy",
        "metadata": {"name": "base"},
        "spec": spec,
    }
    path.write_text(yaml.safe_dump(manifest))
    return str(path)


def tried(*arguments: str, code: int) -> Json:
    done = RUNNER.invoke(command.app, ["test", *arguments, "--json"])
    assert done.exit_code == code, done.output
    found: Json = json.loads(done.stdout)
    return found


def told(text: str) -> str:
    """What a usage error says, without the box around it."""
    return " ".join(text.replace("│", " ").split())


def reasons(found: Json) -> set[str]:
    def leaves(finding: Json) -> set[str]:
        children = finding.get("children")
        if not children:
            return {finding["reason"]} if finding["outcome"] != "Holds" else set()
        return set().union(*map(leaves, children))

    return set().union(*(leaves(result["findings"]) for result in found["results"]))


# --- test -------------------------------------------------------------------------------------------------------


def test_policy_that_the_evidence_meets_is_accepted(tmp_path: Path) -> None:
    found = tried(policy_file(tmp_path, policy()), evidence_file(tmp_path), code=0)
    assert found["verdict"] == "Trusted"


def test_old_evidence_is_no_reason_to_refuse_and_the_stored_policy_does_not_judge(tmp_path: Path) -> None:
    refuted = stored(OTHER_LOADER, spec=policy(), kind=RoundKind.REFUTED)
    tried(policy_file(tmp_path, policy(OTHER_LOADER)), evidence_file(tmp_path, refuted), code=0)


def test_host_that_booted_something_else_would_be_refused(tmp_path: Path) -> None:
    found = tried(policy_file(tmp_path, policy(OTHER_LOADER)), evidence_file(tmp_path), code=1)
    assert reasons(found) == {"PcrMismatch"}


def test_one_refused_of_several_refuses_the_whole(tmp_path: Path) -> None:
    files = [evidence_file(tmp_path), evidence_file(tmp_path, stored(OTHER_LOADER), "other.cbor")]
    found = tried(policy_file(tmp_path, policy()), *files, code=1)
    assert [result["verdict"] for result in found["results"]] == ["Trusted", "Untrusted"]


def test_rule_that_the_evidence_was_never_asked_about_cannot_be_told(tmp_path: Path) -> None:
    without = stored(evidence=replace(answer(firmware.Boot()), event_log=None), spec=policy(log=False))
    spec = policy(log=False)
    spec["tpm"]["pcrs"]["values"].append({"index": 14, "anyOf": ["ab" * 32]})
    assert reasons(tried(policy_file(tmp_path, spec), evidence_file(tmp_path, GOOD), code=2)) == {"NotInEvidence"}
    spec = policy(log=False)
    spec["tpm"]["ima"] = {"allow": [{"path": "/a", "digests": ["sha256:" + "ab" * 32]}]}
    assert reasons(tried(policy_file(tmp_path, spec), evidence_file(tmp_path, GOOD), code=2)) == {"NotInEvidence"}
    spec = policy()
    spec["tpm"]["eventLog"]["kernelCommandLine"] = {"required": ["lockdown=*"]}
    assert reasons(tried(policy_file(tmp_path, spec), evidence_file(tmp_path, GOOD), code=2)) == {"NotInEvidence"}
    assert without.round.asked.wants_log is False


def test_what_can_be_judged_refuses_whatever_else_cannot_be_told(tmp_path: Path) -> None:
    spec = policy(OTHER_LOADER)
    spec["tpm"]["pcrs"]["values"].append({"index": 14, "anyOf": ["ab" * 32]})
    found = tried(policy_file(tmp_path, spec), evidence_file(tmp_path), code=1)
    assert reasons(found) == {"PcrMismatch", "NotInEvidence"}


def test_evidence_that_was_changed_is_refused(tmp_path: Path) -> None:
    forged = GOOD.changed(asked=replace(GOOD.round.asked, nonce=b"\x01" * 32))
    assert reasons(tried(policy_file(tmp_path, policy()), evidence_file(tmp_path, forged), code=1)) == {
        "ExtraDataMismatch"
    }


def test_log_that_was_not_stored_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "round.cbor").write_bytes(encode_bundle(encode_round(GOOD.round), ()))
    found = tried(policy_file(tmp_path, policy()), str(tmp_path / "round.cbor"), code=2)
    assert reasons(found) == {"EvidencePartMissing"}


KEY = {"name": "release", "publicKey": pem(ecc_key(0x0003, 77))}
SOURCE = {"series": "edge", "file": "x", "keys": [KEY], "threshold": 1}


def bundle_file(folder: Path, **changed: Any) -> str:
    values = firmware.pcr_values(OTHER_LOADER)
    pcrs = {Bank.SHA256: {4: (values[4],), 9: (values[9],)}}
    predicate = Predicate(
        "edge", 2, "2026-01-31T12:00:00Z", pcrs=pcrs, files=(GoodFile("/a", ("sha256:" + "a" * 64,)),)
    )
    path = folder / "bundle.json"
    path.write_bytes(replace(predicate, **changed).encode())
    return str(path)


def test_reference_values_that_are_not_signed_yet_are_tried_too(tmp_path: Path) -> None:
    file, evidence = policy_file(tmp_path, {**policy(), "referenceValues": SOURCE}), tmp_path
    told = evidence_file(evidence, stored(OTHER_LOADER))
    tried(file, told, "--bundle", bundle_file(tmp_path), code=0)
    assert reasons(tried(file, told, code=1)) == {"PcrMismatch", "MaterialMissing"}
    assert reasons(tried(file, evidence_file(tmp_path, GOOD), code=2)) == {"MaterialMissing"}


def test_unsigned_bundle_of_another_series_is_not_tried_as_if_the_operator_would_take_it(tmp_path: Path) -> None:
    file = policy_file(tmp_path, {**policy(), "referenceValues": SOURCE})
    arguments = ["test", file, evidence_file(tmp_path, stored(OTHER_LOADER))]
    done = RUNNER.invoke(command.app, [*arguments, "--bundle", bundle_file(tmp_path, name="other")])
    assert done.exit_code == 64
    assert "SeriesMismatch" in done.stderr


def test_bundle_for_a_policy_that_names_none_is_wrong_usage(tmp_path: Path) -> None:
    arguments = ["test", policy_file(tmp_path, policy()), evidence_file(tmp_path), "--bundle", bundle_file(tmp_path)]
    assert RUNNER.invoke(command.app, arguments).exit_code == 64


@pytest.mark.parametrize("content", [b"", b"{}", b"nothing", b"\xa1\x61a\x01"])
def test_file_that_is_no_evidence_is_wrong_usage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    done = RUNNER.invoke(command.app, ["test", policy_file(tmp_path, policy()), str(tmp_path / "x")])
    assert done.exit_code == 64


# --- diff -------------------------------------------------------------------------------------------------------


def compared(*arguments: str) -> tuple[int, str, str]:
    done = RUNNER.invoke(command.app, ["diff", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_policies_that_differ_end_with_one_and_say_it(tmp_path: Path) -> None:
    files = policy_file(tmp_path, policy(), "a.yaml"), policy_file(tmp_path, policy(OTHER_LOADER), "b.yaml")
    code, out, _ = compared(*files)
    assert code == 1
    assert "PCR 4: " in out
    assert "It may refuse more, and let in more." in out
    assert compared(files[0], files[0])[0] == 0
    code, out, _ = compared(*files, "--json")
    assert {change["path"] for change in json.loads(out)["changes"]} == {"tpm.pcrs.values[4].anyOf"}
    assert code == 1


def test_bundles_are_compared_and_a_policy_with_a_bundle_is_not(tmp_path: Path) -> None:
    one = Path(bundle_file(tmp_path))
    two = tmp_path / "two.json"
    two.write_bytes(one.read_bytes())
    assert compared(str(one), str(two))[0] == 0
    one = Path(bundle_file(tmp_path, version=3))
    assert compared(str(one), str(two))[0] == 1
    assert compared(str(one), policy_file(tmp_path, policy()))[0] == 64


WRONG: list[tuple[str, Callable[[Json], object]]] = [
    ("a field that is none", lambda spec: spec["tpm"].update(eventlog={})),
    ("a field in a list", lambda spec: spec["tpm"]["pcrs"]["values"][0].update(note="x")),
]


@pytest.mark.parametrize(("what", "change"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_misspelt_field_is_named_instead_of_being_passed_over(tmp_path: Path, what: str, change) -> None:
    spec = policy()
    change(spec)
    code, _, err = compared(policy_file(tmp_path, policy(), "a.yaml"), policy_file(tmp_path, spec, "b.yaml"))
    assert code == 64
    assert "is no field of an AttestationPolicy" in told(err)


def test_policy_whose_rule_is_misspelt_accepts_nothing(tmp_path: Path) -> None:
    spec = policy()
    spec["tpm"]["eventlog"] = spec["tpm"].pop("eventLog", {"secureBoot": "Enabled"})
    done = RUNNER.invoke(command.app, ["test", policy_file(tmp_path, spec), evidence_file(tmp_path)])
    assert (done.exit_code, done.stdout) == (64, "")
    assert "spec.tpm.eventlog is no field" in told(done.stderr)


def test_bundle_where_a_policy_is_wanted_is_said_to_be_one(tmp_path: Path) -> None:
    done = RUNNER.invoke(command.app, ["test", bundle_file(tmp_path, version=2), evidence_file(tmp_path)])
    assert done.exit_code == 64
    assert "a bundle of reference values, not an AttestationPolicy" in told(done.stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [("spec:\n a: 1\n  b: 2\n", "line 3: "), ("at: 2026-13-45\n", "not YAML: "), ("a: 1\n---\na: 2\n", "line 2: ")],
    ids=["indentation", "a day that is none", "two documents"],
)
def test_file_that_is_no_yaml_is_told_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    done = RUNNER.invoke(command.app, ["test", str(tmp_path / "p.yaml"), evidence_file(tmp_path)])
    assert done.exit_code == 64
    assert said in told(done.stderr)
    assert "?" not in told(done.stderr).split("not YAML")[1]


def test_key_that_stands_twice_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("spec: {freshness: {maxAgeSeconds: 30, maxAgeSeconds: 60}, tpm: {}}")
    code, _, err = compared(str(path), str(path))
    assert code == 64
    assert "stands twice" in err


@pytest.mark.parametrize(
    ("tpm", "place"),
    [
        ({"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": [digit * 64]} for digit in "ab"]}}, "values[1]"),
        ({"pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": ["a" * 64] * 2}]}}, "values[0].anyOf[1]"),
    ],
    ids=["PCR", "value"],
)
def test_entry_that_no_server_would_take_twice_is_wrong_usage(
    tmp_path: Path, tpm: dict[str, object], place: str
) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"spec": {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm}}))
    code, _, err = compared(str(tmp_path / "p.json"), str(tmp_path / "p.json"))
    assert code == 64
    assert f"spec.tpm.pcrs.{place}" in told(err)
    assert "the API server takes each once" in told(err)


def test_policy_of_another_version_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"apiVersion": "chatelaine.dev/v9", "spec": policy()}))
    code, _, err = compared(str(tmp_path / "p.json"), str(tmp_path / "p.json"))
    assert code == 64
    assert "of apiVersion chatelaine.dev/v9, not chatelaine.dev/v1alpha1" in told(err)


def test_live_and_files_together_are_wrong_usage(tmp_path: Path) -> None:
    file = policy_file(tmp_path, policy())
    assert compared(file, file, "--live", file)[0] == 64
    assert compared(file)[0] == 64


def test_live_without_the_operators_key_cannot_be_told(tmp_path: Path) -> None:
    file = policy_file(tmp_path, policy())
    code, out, err = compared("--live", file, "--state-dir", str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert "holds no key of an operator" in err
