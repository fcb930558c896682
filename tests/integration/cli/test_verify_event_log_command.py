"""`chatelaine verify event-log` as people and scripts run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import Boot, measured

from support.vectors import event_log, event_log_names, expected_pcrs, gce, gce_event_log, needs_vectors
from support.verify_command import reasons, run_here

BANKS = {"sha256": tcg.SHA256, "sha384": tcg.SHA384}


def run(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str]:
    done = run_here("event-log", *arguments, stdin=stdin)
    return done.exit_code, done.stdout


def judged(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, dict]:
    status, shown = run(*arguments, "--json", stdin=stdin)
    report = json.loads(shown)
    assert set(report) == {"verdict", "findings", "facts"}
    assert status == {"Trusted": 0, "Untrusted": 1, "Unknown": 2}[report["verdict"]]
    return status, report


class Files:
    """A log, and the values that it stands for."""

    def __init__(self, folder: Path, boot: Boot) -> None:
        self.folder, self.log = folder, folder / "log"
        written = measured(boot)
        self.log.write_bytes(written.data)
        self.values = {
            name: {str(index): value.hex() for index, value in written.values[bank].items()}
            for name, bank in BANKS.items()
        }

    def pcrs(self, *banks: str, **changed: str) -> Path:
        """A file of values; `changed` by index (`pcr_4`)."""
        values = {bank: dict(self.values.get(bank, {})) for bank in banks or ("sha256",)}
        for name, value in changed.items():
            for found in values.values():
                found[name.removeprefix("pcr_")] = value
        return write(self.folder / "pcrs", values)

    def policy(self, bank: str = "Sha256", value: str | None = None, **rules: object) -> Path:
        good = value or self.values[bank.lower()]["0"]
        pcrs = {
            "bank": bank,
            "values": [{"index": 0, "anyOf": [good]}, {"index": 12, "anyOf": ["00" * (len(good) // 2)]}],
        }
        tpm = {"pcrs": pcrs, "eventLog": {"replay": "Required", **rules}}
        return write(self.folder / "policy", {"freshness": {"maxAgeSeconds": 30}, "tpm": tpm})


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, Boot())


def test_log_is_judged_in_a_process_of_its_own(files):
    done = subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.main", "verify", "event-log", "-", "--pcrs", files.pcrs(), "--json"],
        input=files.log.read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    assert facts["pcrs"] == files.values
    assert facts["secureBoot"] == "Enabled"
    assert [event["number"] for event in facts["events"]] == list(range(1, len(facts["events"]) + 1))


def test_log_that_nothing_anchors_ends_with_2(files):
    status, report = judged(files.log)
    assert status == 2
    assert "EventLogNotAnchored" in reasons(report)
    assert report["facts"]["pcrs"] == files.values


@pytest.mark.parametrize("values", [{}, {"10": "00" * 32}])
def test_values_that_a_boot_log_does_not_lead_to_anchor_nothing(files, values):
    assert judged(files.log, "--pcrs", write(files.folder / "none", {"sha256": values}))[0] == 2


def test_log_that_replays_to_other_values_ends_with_1_and_names_them(files):
    status, report = judged(files.log, "--pcrs", files.pcrs(pcr_4="11" * 32))
    assert status == 1
    (bank,) = report["findings"]["children"][1]["children"]
    (wrong,) = bank["children"]
    assert (wrong["check"], wrong["expected"], wrong["found"]) == (
        "pcr sha256:4", "11" * 32, files.values["sha256"]["4"],
    )  # fmt: skip
    assert report["facts"]["secureBoot"] == "NotShown"


def test_policy_judges_what_booted(files):
    line = {"required": ["lockdown=*"], "forbidden": ["init=*"]}
    values = files.pcrs(pcr_12="00" * 32)
    good = files.policy(secureBoot="Enabled", optionRoms="Refuse", kernelCommandLine=line)
    assert judged(files.log, "--pcrs", values, "--policy", good)[0] == 0
    status, report = judged(files.log, "--pcrs", values, "--policy", files.policy(dbxAtLeast=["77" * 32]))
    assert (status, reasons(report) & {"DbxTooOld"}) == (1, {"DbxTooOld"})


def test_policy_judges_the_values_as_well(files):
    values = files.pcrs(pcr_12="00" * 32)
    status, report = judged(files.log, "--pcrs", values, "--policy", files.policy(value="22" * 32))
    assert (status, reasons(report) & {"PcrMismatch"}) == (1, {"PcrMismatch"})
    assert judged(files.log, "--pcrs", files.pcrs(), "--policy", files.policy())[0] == 2


def test_policy_of_a_bank_whose_values_were_not_given_cannot_tell(files):
    """What the log says of that bank, nothing bears out."""
    status, report = judged(files.log, "--pcrs", files.pcrs("sha384"), "--policy", files.policy(secureBoot="Enabled"))
    assert (status, "EventLogNotAnchored" in reasons(report)) == (2, True)


def test_values_of_a_bank_that_the_log_has_not_cannot_tell(files):
    path = write(files.folder / "other", {"sha512": {"0": "00" * 64}})
    assert judged(files.log, "--pcrs", path)[0] == 2


def test_malformed_log_ends_with_1(files):
    files.log.write_bytes(files.log.read_bytes()[:-1])
    status, report = judged(files.log, "--pcrs", files.pcrs())
    assert (status, reasons(report)) == (1, {"Truncated"})


def test_sha1_values_show_nothing(tmp_path):
    event = tcg.sha1_record(4, 1, tcg.digest(tcg.SHA1, b"x"), b"x")
    log = tmp_path / "log"
    log.write_bytes(event)
    value = tcg.digest(tcg.SHA1, bytes(20) + tcg.digest(tcg.SHA1, b"x")).hex()
    status, report = judged(log, "--pcrs", write(tmp_path / "pcrs", {"sha1": {"4": value}}))
    assert (status, "Sha1ShowsNothing" in reasons(report)) == (2, True)
    assert report["facts"]["pcrs"] == {"sha1": {"4": value}}
    assert judged(log, "--pcrs", write(tmp_path / "pcrs", {"sha1": {"4": "00" * 20}}))[0] == 1


def test_report_for_people_names_what_differs_and_lists_the_events(files):
    status, shown = run(files.log, "--pcrs", files.pcrs(pcr_4="11" * 32))
    assert status == 1
    assert "Untrusted" in shown
    assert "EventLogMismatch" in shown
    assert "what it measures" in shown
    status, shown = run(files.log, "--pcrs", files.pcrs())
    assert (status, "secureBoot" in shown) == (0, True)


@pytest.mark.parametrize("arguments", [(), ("missing",), ("-", "--pcrs", "-"), ("log", "--policy", "log")])
def test_wrong_usage_ends_with_64(files, arguments, monkeypatch):
    monkeypatch.chdir(files.folder)
    assert run(*arguments)[0] == 64


@needs_vectors
@pytest.mark.parametrize("name", event_log_names())
def test_logs_of_real_machines_replay_to_their_values(tmp_path, name):
    log, expected = tmp_path / "log", expected_pcrs(name)
    log.write_bytes(event_log(name))
    values = {bank: {str(i): value.hex() for i, value in found.items()} for bank, found in expected.items()}
    status, report = judged(log, "--pcrs", write(tmp_path / "pcrs", values))
    assert status == (2 if list(values) == ["sha1"] else 0)
    shown = report["facts"]["pcrs"]
    assert {bank: shown[bank] for bank in values} == values
    off = {"gdc-host", "ubuntu-2104-no-dbx", "ubuntu-2104-no-secure-boot"}
    states = {"debian-10": "NotShown", **dict.fromkeys(off, "Disabled")}
    assert report["facts"]["secureBoot"] == states.get(name, "Enabled")


@needs_vectors
def test_log_of_a_quoting_machine_agrees_with_its_quote(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(gce_event_log())
    values = {"sha256": {str(index): value.hex() for index, value in gce(tcg.SHA256).pcrs.items()}}
    status, report = judged(log, "--pcrs", write(tmp_path / "pcrs", values))
    assert (status, report["facts"]["secureBoot"], len(report["facts"]["authorities"])) == (0, "Enabled", 3)
