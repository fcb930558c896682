"""Stored rounds at the command line: exported, verified, judged again, explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tools.lab import firmware
from typer.testing import CliRunner

from chatelaine.appraisal.bundle_form import decode_bundle, encode_bundle
from chatelaine.appraisal.stored import RoundKind
from chatelaine.appraisal.stored_form import encode_round, parts_of
from chatelaine.cli import evidence, verify
from chatelaine.controller.evidence_folder import EvidenceFolder
from chatelaine.controller.evidence_store import Entry, EvidenceStore
from chatelaine.evidence import cbor
from chatelaine.evidence.errors import Malformed
from chatelaine.model.identifiers import digest_of
from support.stored_rounds import HOST, Told, answer, policy, sha, stored

RUNNER = CliRunner()
GOOD = stored()
TAMPERED = stored(evidence=answer(firmware.Boot(), extended={4: b"behind the log"}), kind=RoundKind.REFUTED).changed(
    received_ms=1_780_000_010_000
)
AK_NAME = HOST.identity.ak_name.hex()


def exported(told: Told) -> bytes:
    return encode_bundle(encode_round(told.round), told.parts.values())


def file_of(folder: Path, told: Told, name: str = "round.cbor") -> str:
    path = folder / name
    path.write_bytes(exported(told))
    return str(path)


def run(*arguments: str, code: int, app=verify.app, data: bytes | None = None):
    done = RUNNER.invoke(app, list(arguments), input=data)
    assert done.exit_code == code, done.output
    return done


def judged(*arguments: str, code: int, **more):
    return json.loads(run(*arguments, "--json", code=code, **more).stdout)


def folder_of(path: Path, *rounds: Told) -> Path:
    """The operator's state folder with these rounds."""
    store = EvidenceStore(EvidenceFolder(path / "evidence"), 2**24, parts_of=parts_of)
    store.open()
    for number, told in enumerate(rounds):
        data = encode_round(told.round)
        entry = Entry(
            told.round.received_ms, told.round.asked.subject_uid, told.round.kind, f"{number:016x}", sha(data)
        )
        store.keep(entry, data, told.parts.values())
    store.close()
    return path


# --- one round ------------------------------------------------------------------------------------------------


def test_trusted_round_is_trusted_again(tmp_path):
    found = judged("bundle", file_of(tmp_path, GOOD), "--ak-name", AK_NAME, code=0)
    assert found["verdict"] == "Trusted"
    assert found["facts"]["akName"] == AK_NAME
    assert found["facts"]["evidenceDigest"] == digest_of(GOOD.round.evidence)


def test_tampered_round_says_what_happened_and_what_to_do(tmp_path):
    trusted = file_of(tmp_path, GOOD, "trusted.cbor")
    found = judged("bundle", file_of(tmp_path, TAMPERED), "--trusted", trusted, code=1)
    told, advice = found["facts"]["explanation"], found["facts"]["advice"]
    assert told[0].startswith("PCR 4 holds a value that its log does not explain: the log ends at event ")
    assert advice[-1].endswith(f"chatelaine.dev/readmit={digest_of(TAMPERED.round.evidence)}")


OTHER_TPM = GOOD.changed(asked=replace(GOOD.round.asked, subject_uid="another"))


@pytest.mark.parametrize("given", [OTHER_TPM, TAMPERED], ids=["of another host", "refuted itself"])
def test_boot_is_compared_with_no_round_that_is_not_a_trusted_one_of_this_host(tmp_path, given):
    trusted = file_of(tmp_path, given, "trusted.cbor")
    done = run("bundle", file_of(tmp_path, TAMPERED), "--trusted", trusted, code=64)
    assert done.stdout == ""
    assert "no trusted round of the TPM" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "name",
    ["zz", "000b", AK_NAME[:-2], f"sha256:{AK_NAME}"],
    ids=["no hexadecimal", "no digest", "cut", "another form"],
)
def test_what_is_no_tpm_name_is_wrong_usage_and_accuses_nobody(tmp_path, name):
    run("bundle", file_of(tmp_path, GOOD), "--ak-name", name, code=64)


def test_report_breaks_no_digest_and_says_nothing_twice(tmp_path):
    shown = run("bundle", file_of(tmp_path, TAMPERED), "--ak-name", AK_NAME, code=1).stdout
    assert AK_NAME in shown
    assert shown.count("; expected ") == 1


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["report", "object"])
@pytest.mark.parametrize("full", [True, False], ids=["disk is full", "reader went"])
def test_verdict_that_cannot_be_written_is_no_verdict(tmp_path, arguments, full):
    command = [sys.executable, "-m", "chatelaine.cli.main", "verify", "bundle", file_of(tmp_path, GOOD), *arguments]
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full").open("wb") if full else os.fdopen(write, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 74
    assert "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) is full


def test_report_for_people_has_expected_found_cause_and_advice(tmp_path):
    shown = " ".join(run("bundle", file_of(tmp_path, TAMPERED), code=1).stdout.split())
    for part in (
        "Untrusted",
        "expected",
        "found",
        "What happened",
        "without an event",
        "What to do",
        "kubectl annotate",
    ):
        assert part in shown


def test_replay_of_an_honest_round_holds(tmp_path):
    for told in (GOOD, TAMPERED):
        found = judged("replay", file_of(tmp_path, told), code=0)
        assert found["facts"]["storedDigest"] == found["facts"]["replayedDigest"]


def test_verdict_that_was_written_by_hand_is_told_with_what_differs(tmp_path):
    forged = TAMPERED.changed(appraisal=GOOD.round.appraisal)
    found = judged("replay", file_of(tmp_path, forged), code=1)
    (same,) = [child for child in found["findings"]["children"] if child["check"] == "same bytes"]
    differing = {child["check"]: child for child in same["children"]}
    assert differing["verdict.verdict"]["expected"] == '"Trusted"'
    assert differing["verdict.verdict"]["found"] == '"Untrusted"'


@pytest.mark.parametrize(
    "appraisal",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"verdict": "Trusted"}',
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":NaN}',
    ],
)
def test_stored_verdict_that_is_none_is_told(tmp_path, appraisal):
    judged("replay", file_of(tmp_path, GOOD.changed(appraisal=appraisal)), code=1)


def test_same_verdict_in_other_bytes_is_no_replay(tmp_path):
    spaced = json.dumps(json.loads(GOOD.round.appraisal)).encode()
    found = judged("replay", file_of(tmp_path, GOOD.changed(appraisal=spaced)), code=1)
    assert "OtherEncoding" in json.dumps(found)


def test_round_of_another_tpm_is_told(tmp_path):
    found = judged("bundle", file_of(tmp_path, GOOD), "--ak-name", "00" * 34, code=1)
    assert "IdentityMismatch" in json.dumps(found)


def test_bundle_whose_tpm_nobody_named_is_not_trusted(tmp_path):
    """Anybody can make a good one, on a TPM of their own."""
    found = judged("bundle", file_of(tmp_path, GOOD), code=2)
    assert found["verdict"] == "Unknown"
    assert "IdentityNotAnchored" in json.dumps(found)
    assert "advice" not in found["facts"], "nothing is refuted, so nobody is to be re-admitted"
    assert judged("bundle", file_of(tmp_path, TAMPERED), code=1)["verdict"] == "Untrusted"
    judged("bundle", file_of(tmp_path, GOOD), "--ak-name", "00" * 34, "--ak-name", AK_NAME.upper(), code=0)


EVIL = "x\x1b[2J\x9b1m\u202e"


def test_texts_of_a_round_steer_no_terminal(tmp_path):
    told = TAMPERED.changed(build=EVIL, asked=replace(TAMPERED.round.asked, subject_uid=EVIL))
    wrong = GOOD.changed(build=EVIL, appraisal=json.dumps({EVIL: EVIL}).encode())
    for command in ("bundle", "replay"):
        for path in (file_of(tmp_path, told), file_of(tmp_path, wrong, "wrong.cbor")):
            for more in ((), ("--json",)):
                shown = RUNNER.invoke(verify.app, [command, path, *more]).stdout
                assert all(c == "\n" or c.isprintable() for c in shown), shown


@pytest.mark.parametrize("name", [EVIL, "$(reboot)", "a b", "", "a;b", "A"])
@pytest.mark.parametrize("what", ["hsm", "policy"])
def test_round_of_an_object_that_can_have_no_such_name_is_refused(what, name):
    """Its name goes into a command that a person is told to type."""
    stamp = GOOD.round.case.stamp
    changes = {"hsm": name} if what == "hsm" else {"case": replace(GOOD.round.case, stamp=replace(stamp, name=name))}
    with pytest.raises(Malformed):
        decode_bundle(exported(GOOD.changed(**changes)))


def test_kind_that_the_verdict_does_not_bear_out_is_no_replay(tmp_path):
    for told in (TAMPERED.changed(kind=RoundKind.TRUSTED), GOOD.changed(kind=RoundKind.REFUTED)):
        found = judged("replay", file_of(tmp_path, told), code=1)
        assert "KindDiffers" in json.dumps(found)


def test_without_a_part_nothing_can_be_told(tmp_path):
    path = file_of(tmp_path, replace(GOOD, parts={}))
    for command in ("bundle", "replay"):
        assert judged(command, path, code=2)["verdict"] == "Unknown"


def test_evidence_that_is_not_genuine_is_refuted(tmp_path):
    forged = GOOD.changed(asked=replace(GOOD.round.asked, subject_uid="another"))
    for command in ("bundle", "replay"):
        assert judged(command, file_of(tmp_path, forged), code=1)["verdict"] == "Untrusted"


def test_policy_that_changed_is_told_apart_from_a_host_that_did(tmp_path):
    told = stored(spec=policy(firmware.Boot(loader=b"boot loader 2.0")), kind=RoundKind.BLOCKED)
    facts = judged("bundle", file_of(tmp_path, told), code=1)["facts"]
    assert facts["explanation"] == [
        "What the host measures has not changed since its last trusted evidence; the policy has."
    ]
    assert "policy diff" in facts["advice"][0]


def test_host_that_changed_is_not_said_to_be_the_same_because_its_round_says_so(tmp_path):
    told = TAMPERED.changed(kind=RoundKind.BLOCKED)
    trusted = file_of(tmp_path, GOOD, "trusted.cbor")
    facts = judged("bundle", file_of(tmp_path, told), "--trusted", trusted, code=1)["facts"]
    assert facts["explanation"][0].startswith("PCR 4 holds a value that its log does not explain")
    assert "policy diff" not in facts["advice"][0]


def test_standard_input_is_read():
    assert judged("replay", "-", code=0, data=exported(GOOD))["verdict"] == "Trusted"


@pytest.mark.parametrize("data", [b"", b"no bundle", exported(GOOD)[:-1], encode_round(GOOD.round)])
def test_what_is_no_bundle_is_a_usage_error(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    for command in ("bundle", "replay"):
        run(command, str(tmp_path / "x"), code=64)
    run("bundle", str(tmp_path / "absent"), code=64)
    (tmp_path / "empty").mkdir()
    run("bundle", str(tmp_path / "empty"), code=64)


@pytest.mark.parametrize(
    "change",
    [
        {"v": "chatelaine/evidence-bundle/v2"},
        {"round": "text"},
        {"parts": {}},
        {"parts": [1]},
        {"parts": [b"a part that nobody names"]},
        {"parts": [*GOOD.parts.values()] * 2},
        {"more": 1},
    ],
)
def test_bent_bundles_are_refused(change):
    value = {"v": "chatelaine/evidence-bundle/v1", "round": encode_round(GOOD.round), "parts": [*GOOD.parts.values()]}
    assert decode_bundle(cbor.encode(value)).round == GOOD.round
    with pytest.raises(Malformed):
        decode_bundle(cbor.encode({**value, **change}))


# --- a folder of them -----------------------------------------------------------------------------------------


def test_folder_is_judged_as_a_whole_each_round_against_the_trusted_one_before(tmp_path):
    state = folder_of(tmp_path, GOOD, TAMPERED)
    found = judged("bundle", str(state / "evidence"), code=1)
    trusted, refuted = found["facts"]["rounds"]
    assert (trusted["kind"], refuted["kind"]) == ("Trusted", "Refuted")
    assert "are those of the last trusted boot, so it was extended after all of them" in refuted["explanation"][1]
    assert judged("replay", str(state / "evidence"), code=0)["verdict"] == "Trusted"


def test_folder_is_told_in_a_line_a_round_and_refused_ones_in_full(tmp_path):
    folder = folder_of(tmp_path, GOOD, TAMPERED)
    lines = run("bundle", str(folder / "evidence"), "--ak-name", AK_NAME, code=1).stdout.splitlines()
    assert lines[0].startswith("✓ ")
    assert digest_of(GOOD.round.evidence) in lines[0]
    assert lines[1].startswith("✗ ")
    assert lines.count("Untrusted") == 1
    assert "What to do" in lines
    assert lines[-1] == "2 rounds: 1 refused, of 0 it cannot be told."


def test_damaged_round_of_a_folder_cannot_be_told(tmp_path):
    state = folder_of(tmp_path, GOOD, TAMPERED)
    name = sha(encode_round(GOOD.round)).hex()
    (state / "evidence" / "sha256" / name[:2] / name[2:]).write_bytes(b"something else")
    assert judged("replay", str(state / "evidence"), code=2)["verdict"] == "Unknown"
    rows = judged("list", "--state-dir", str(state), code=0, app=evidence.app)
    assert "holds something else" in rows[0]["damaged"]


def test_rounds_are_listed_and_exported_by_the_digest_that_the_status_shows(tmp_path):
    state = folder_of(tmp_path, GOOD, TAMPERED)
    rows = judged("list", "--state-dir", str(state), "--hsm", "hsm-a", code=0, app=evidence.app)
    assert [row["kind"] for row in rows] == ["Trusted", "Refuted"]
    assert "Refuted" in run("list", "--state-dir", str(state), code=0, app=evidence.app).stdout
    out = tmp_path / "out.cbor"
    run("export", rows[1]["evidenceDigest"], "--state-dir", str(state), "--out", str(out), code=0, app=evidence.app)
    assert decode_bundle(out.read_bytes()).round == TAMPERED.round
    newest = run("export", "--state-dir", str(state), "--kind", "Trusted", code=0, app=evidence.app)
    assert newest.stdout_bytes == exported(GOOD)


def test_round_that_is_not_there_is_said(tmp_path):
    state = folder_of(tmp_path, GOOD)
    run("export", f"sha256:{'0' * 64}", "--state-dir", str(state), code=1, app=evidence.app)
    run("list", "--state-dir", str(tmp_path / "absent"), code=64, app=evidence.app)
