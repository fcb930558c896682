"""A list of measurements and the PCR 10 of a real TPM, quoted: what the one says, the other vouches for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools.lab.ima import ImaList
from tools.lab.swtpm import Swtpm

from chatelaine.appraisal.ima_rules import ima_rule
from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.ima import ImaProgress, extend, verify_ima
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Finding, Outcome
from support.paper_ima import file_signature, pem, sha256
from support.paper_tpm import ecc_key
from support.quoting_tpm import QuotingTpm

KEY = ecc_key(alg.NIST_P256, 220)
GATEWAY, EVIL = b"gateway 1.0", b"something nobody approved"
RULES = ImaRules.model_validate(
    {"allow": [{"path": "/usr/bin/gateway", "digests": [sha256(GATEWAY)]}], "signingKeys": [pem(KEY)]}
)


@dataclass
class Host:
    """A TPM with an attestation key, and the list of what ran."""

    tpm: Swtpm
    folder: Path
    bank: Bank

    def __post_init__(self) -> None:
        self.power_on()

    def power_on(self) -> None:
        self.keys = QuotingTpm(self.tpm, self.folder)
        self.keys.make_keys()
        self.ima = ImaList(self.folder / "binary_runtime_measurements", self.tpm)
        self.ima.boot(self.bank.value.lower())

    @property
    def list(self) -> bytes:
        return self.ima.path.read_bytes()

    def quote(self) -> VerifiedQuote:
        return self.keys.verified(Selection(self.bank, tuple(range(11))), secrets.token_bytes(32))


@pytest.fixture(params=list(Bank))
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with Swtpm() as tpm:
        yield Host(tpm, tmp_path, request.param)


def reasons(finding: Finding) -> set[str]:
    return {leaf.reason for leaf in finding.leaves() if leaf.outcome is not Outcome.HOLDS}


def test_what_ran_is_shown_and_judged_as_it_grows(host):
    rule = ima_rule(RULES, None, at=0)
    host.ima.measure("/usr/bin/gateway", GATEWAY)
    quote = host.quote()
    host.ima.measure("/usr/lib/signed.so", b"library", file_signature(KEY, b"library"))
    first = verify_ima(host.list, quote)
    assert [entry.path for entry in first.entries] == ["boot_aggregate", "/usr/bin/gateway"]
    finding = rule.judge_ima(first, quote)
    assert finding.outcome is Outcome.HOLDS
    assert finding.children[0].reason == "BootAggregateMatches"

    quote = host.quote()
    second = verify_ima(host.list[first.progress.offset_bytes :], quote, first.progress)
    assert [(entry.number, entry.path) for entry in second.entries] == [(2, "/usr/lib/signed.so")]
    assert rule.judge_ima(second, quote).outcome is Outcome.HOLDS

    host.ima.violate("/var/log/wtmp")
    host.ima.measure("/tmp/evil", EVIL)
    quote = host.quote()
    third = verify_ima(host.list[second.progress.offset_bytes :], quote, second.progress)
    assert reasons(rule.judge_ima(third, quote)) == {"ImaViolation", "ImaFileNotAllowed"}


def test_file_that_is_left_out_of_the_list_is_seen(host):
    before = host.list
    host.ima.measure("/tmp/evil", EVIL)
    with pytest.raises(errors.ImaNoPrefix):
        verify_ima(before, host.quote())
    host.ima.path.write_bytes(before)
    host.ima.measure("/usr/bin/gateway", GATEWAY)
    with pytest.raises(errors.ImaNoPrefix):
        verify_ima(host.list, host.quote())


def test_list_in_pieces_is_replayed_to_the_same_value(host):
    for number in range(5):
        host.ima.measure(f"/usr/bin/{number}", GATEWAY)
    whole = verify_ima(host.list, quote := host.quote())
    progress, entries = extend(ImaProgress.at_start_of(quote), host.list[:400])
    found = verify_ima(host.list[progress.offset_bytes :], quote, progress)
    assert 0 < len(entries) < 6
    assert ((*entries, *found.entries), found.progress) == (whole.entries, whole.progress)


def test_progress_of_the_boot_before_is_refused(host):
    first = verify_ima(host.list, host.quote())
    host.tpm.reset()
    host.power_on()
    quote = host.quote()
    with pytest.raises(errors.ImaProgressLost):
        verify_ima(b"", quote, first.progress)
    assert verify_ima(host.list, quote).from_entry == 0


def test_pcr_extended_behind_the_kernel_s_back_has_no_list(host):
    host.tpm.extend(10, bytes(alg.BANKS[host.bank].size_bytes), host.bank.value.lower())
    with pytest.raises(errors.ImaNoPrefix):
        verify_ima(host.list, host.quote())


def test_boot_that_changed_under_the_list_is_seen(host):
    listed = host.list
    host.tpm.extend(4, bytes(alg.BANKS[host.bank].size_bytes), host.bank.value.lower())
    quote = host.quote()
    finding = ima_rule(RULES, None, at=0).judge_ima(verify_ima(listed, quote), quote)
    assert reasons(finding) == {"BootAggregateMismatch"}
