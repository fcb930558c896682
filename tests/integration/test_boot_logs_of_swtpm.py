"""Boots of the laboratory's firmware on a real TPM, quoted: the log, the values and the tools agree, or it is seen."""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import BOOT_PCRS, COMMAND_LINE, Boot, Firmware, authority_digest, image_digest, pcr_values
from tools.lab.swtpm import Swtpm

from chatelaine.appraisal.boot_rules import boot_pcrs, boot_rules
from chatelaine.evidence import errors
from chatelaine.evidence.boot_log import verify_boot_log
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, TpmRules
from chatelaine.model.verdict import Finding, Outcome
from support.quoting_tpm import QuotingTpm

RULES = TpmRules.model_validate(
    {
        "pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]},
        "eventLog": {
            "replay": "Required",
            "secureBoot": "Enabled",
            "authorities": {"allowed": [authority_digest("Laboratory db")]},
            "dbxAtLeast": [image_digest(b"boot loader 0.9")],
            "optionRoms": "Refuse",
            "kernelCommandLine": {"required": ["lockdown=*"], "forbidden": ["init=*"]},
        },
    }
)


@dataclass
class Host:
    """A TPM with an attestation key, and firmware that measures into it."""

    keys: QuotingTpm
    firmware: Firmware
    bank: Bank

    @property
    def tpm(self) -> Swtpm:
        return self.keys.tpm

    @property
    def log(self) -> bytes:
        return self.firmware.log_file.read_bytes()

    def boot(self, **changes: object) -> None:
        self.tpm.reset()
        self.firmware.next_boot = replace(Boot(), **changes)
        self.firmware.boot(self.tpm)
        self.keys.make_keys()

    def pcrs(self, indices: tuple[int, ...]) -> dict[int, bytes]:
        return self.keys.pcrs(Selection(self.bank, indices))

    def quote(self) -> VerifiedQuote:
        indices = tuple(sorted(boot_pcrs(RULES, None) | set(BOOT_PCRS)))
        return self.keys.verified(Selection(self.bank, indices), secrets.token_bytes(32))

    def judged(self) -> Finding:
        (rule,) = boot_rules(RULES, None)
        return rule.judge_log(verify_boot_log(self.log, self.quote()))


@pytest.fixture(params=list(Bank))
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with Swtpm() as tpm:
        found = Host(QuotingTpm(tpm, tmp_path), Firmware(tmp_path / "binary_bios_measurements"), request.param)
        found.boot()
        yield found


def test_boot_is_borne_out_by_the_quote_and_judged(host):
    log = verify_boot_log(host.log, host.quote())
    assert host.judged().outcome is Outcome.HOLDS
    assert {line.text for line in log.facts.command_lines.lines} == {COMMAND_LINE}
    good = pcr_values(Boot(), BANKS[host.bank].tpm_id)
    assert {index: value.hex() for index, value in host.pcrs(BOOT_PCRS).items()} == good


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secure_boot": False}, "SecureBootDisabled"),
        ({"authority": "Somebody else"}, "AuthorityNotAllowed"),
        ({"revoked": ()}, "DbxTooOld"),
        ({"option_roms": (b"rom",)}, "OptionRomMeasured"),
        ({"command_line": "/vmlinuz-lab init=/bin/sh"}, "ArgumentForbidden"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_boot_is_refused_for_what_it_shows(host, changes, reason):
    host.boot(**changes)
    finding = host.judged()
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, reason)


def test_pcr_that_something_extended_behind_the_logs_back_is_seen(host):
    host.tpm.extend(4, hashlib.new(host.bank.value.lower(), b"evil").digest(), host.bank.value.lower())
    with pytest.raises(errors.EventLogMismatch, match="PCR 4;"):
        verify_boot_log(host.log, host.quote())


def test_log_of_the_last_boot_does_not_pass_for_this_one(host):
    good = host.log
    host.boot(loader=b"boot loader nobody signed off")
    with pytest.raises(errors.EventLogMismatch, match="PCR 4;"):
        verify_boot_log(good, host.quote())


def test_host_that_forges_secure_boot_after_the_boot_is_not_believed(host):
    """It extends PCR 7 of its own TPM by the variable that it would like to have, and logs it."""
    host.boot(secure_boot=False)
    wanted = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")
    digests = {bank: tcg.digest(bank, wanted) for bank in (tcg.SHA256, tcg.SHA384)}
    for bank, value in digests.items():
        host.tpm.extend(7, value, tcg.BANK_NAMES[bank])
    forged = tcg.record(7, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, digests, wanted)
    host.firmware.log_file.write_bytes(host.log + forged)
    finding = host.judged()
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, "SecureBootNotShown")


def test_tools_of_the_tpm_software_stack_read_the_same_log(host):
    done = subprocess.run(
        ["tpm2_eventlog", str(host.firmware.log_file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout[done.stdout.index(f"\n  {host.bank.value.lower()}:") :].splitlines()[2:]
    found = dict(re.findall(r"^\s+(\d+)\s*:\s*0x([0-9a-f]+)$", "\n".join(shown[: len(BOOT_PCRS)]), re.MULTILINE))
    quoted = {str(index): value.hex() for index, value in host.pcrs(BOOT_PCRS).items()}
    # Up to version 5.4 the tool extends PCR 0 by the note of the startup locality.
    assert {**found, "0": ""} == {**quoted, "0": ""}
