"""Event logs of real machines: every bank replays to the values that the machine had, and no mutation does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from tools.lab import event_log_writer as tcg

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.boot_log import verify_boot_log
from chatelaine.evidence.event_log import NO_ACTION, Event, EventLog, parse_event_log, replay
from chatelaine.evidence.tpm_quote import AttestationKey, verify_quote
from chatelaine.evidence.uefi_secure_boot import SecureBootState
from support.paper_boot import facts
from support.vectors import VECTORS, event_log, event_log_names, expected_pcrs, gce, gce_event_log, needs_vectors

pytestmark = needs_vectors

LOGS = event_log_names()
BANK_IDS = {"sha1": alg.SHA1, "sha256": alg.SHA256, "sha384": alg.SHA384}


@pytest.mark.parametrize("name", LOGS)
def test_every_bank_replays_to_the_values_of_the_machine(name):
    log = parse_event_log(event_log(name))
    expected = expected_pcrs(name)
    assert expected
    for bank, values in expected.items():
        found = replay(log, BANK_IDS[bank])
        assert {index: found[index] for index in values} == values
        untouched = set(range(24)) - log.touched()
        assert set(values) == set(found) - untouched
        assert all(set(found[index]) == ({0xFF} if 17 <= index < 23 else {0}) for index in untouched)


def test_every_vector_has_expected_values():
    assert sorted(LOGS) == sorted(json.loads((VECTORS / "tpm/eventlogs/expected-pcrs.json").read_text()))


@pytest.mark.parametrize("bank", [alg.SHA256, alg.SHA384])
def test_log_of_a_quoting_machine_replays_to_its_quote(bank):
    """PCR 10 is IMA's: it grows while the machine runs."""
    log = parse_event_log(gce_event_log())
    quoted = gce(bank).pcrs
    replayed = replay(log, bank)
    assert {index for index in quoted if quoted[index] != replayed[index]} == {10}


def test_startup_locality_enters_the_first_pcr():
    log = parse_event_log(event_log("gdc-host"))
    assert log.startup_locality == 3
    expected = expected_pcrs("gdc-host")["sha256"][0]
    assert replay(log, alg.SHA256)[0] == expected
    other = EventLog(log.algorithms, log.events, 0, log.digest)
    assert replay(other, alg.SHA256)[0] != expected


def test_log_without_a_bank_cannot_be_replayed_for_it():
    with pytest.raises(errors.EventLogBankMissing):
        replay(parse_event_log(event_log("debian-10")), alg.SHA256)
    with pytest.raises(errors.EventLogBankMissing):
        replay(parse_event_log(event_log("gdc-host")), alg.SHA384)


@pytest.mark.parametrize("name", LOGS)
def test_log_cut_anywhere_is_refused_or_replays_to_something_else(name):
    """A log may end after an event; the values then differ. Within an event it is refused."""
    whole = event_log(name)
    log = parse_event_log(whole)
    bank = log.banks[-1]
    real = replay(log, bank)
    taken = 0
    for length in range(0, len(whole), 7):
        try:
            shorter = parse_event_log(whole[:length])
        except errors.Truncated:
            continue
        taken += 1
        left_out = log.events[len(shorter.events) :]
        if any(event.type != NO_ACTION for event in left_out):
            assert replay(shorter, bank) != real
    assert taken <= len(log.events)


@pytest.mark.parametrize("name", LOGS)
def test_bit_flip_never_leaves_log_and_values_both_as_they_were(name):
    """What is not hashed may change (types, data); a digest, a length, an index may not without being seen."""
    whole = event_log(name)
    log = parse_event_log(whole)
    bank = log.banks[-1]
    real = replay(log, bank)
    for position in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[position] ^= 0x01
        try:
            found = parse_event_log(bytes(changed))
        except errors.Malformed:
            continue
        assert found.digest != log.digest
        if replay(found, bank) == real:
            measured = [(event.pcr, event.digest(bank)) for event in log.events if event.type != NO_ACTION]
            assert measured == [(e.pcr, e.digest(bank)) for e in found.events if e.type != NO_ACTION]


@pytest.mark.parametrize("name", LOGS)
def test_tools_of_the_tpm_software_stack_find_the_same_values(name):
    done = subprocess.run(
        ["tpm2_eventlog", str(VECTORS / "tpm/eventlogs" / f"{name}.bin")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = parse_event_log(event_log(name))
    banks = [bank for bank in BANK_IDS if BANK_IDS[bank] in log.banks]
    ours, naive = (
        {bank: {index: replay(read, BANK_IDS[bank])[index] for index in sorted(log.touched())} for bank in banks}
        for read in (log, extended_by_every_event(log))
    )
    # Up to version 5.4 the tool extends events that are none (EV_NO_ACTION), and knows no startup locality.
    assert replayed_by_tools(done.stdout) in (ours, naive)
    assert (ours == naive) is all(event.type != NO_ACTION for event in log.events)


def extended_by_every_event(log: EventLog) -> EventLog:
    """The log as a reader takes it that extends everything, from a PCR 0 of zeros."""
    return EventLog(log.algorithms, tuple(event._replace(type=1) for event in log.events), 0, log.digest)


def replayed_by_tools(shown: str) -> dict[str, dict[int, bytes]]:
    """The table at the end of what tpm2_eventlog prints."""
    found: dict[str, dict[int, bytes]] = {}
    for line in shown[shown.index("\npcrs:") :].splitlines()[2:]:
        name, _, value = line.strip().partition(":")
        if not value.strip():
            found[name] = {}
        else:
            bank = list(found)[-1]
            found[bank][int(name)] = bytes.fromhex(value.strip().removeprefix("0x"))
    return found


# --- what real logs show --------------------------------------------------------------------------------------

OFF = ("gdc-host", "ubuntu-2104-no-dbx", "ubuntu-2104-no-secure-boot")
SHOWN = {
    "confidential-gke-debug-251000_eventlog": (SecureBootState.ENABLED, 4, ["db", "db"], 3),
    "cos-101-amd-sev": (SecureBootState.ENABLED, 4, ["db", "db"], 4),
    "eventlogwithsp800155": (SecureBootState.ENABLED, 4, ["db", "db"], 3),
    "gdc-host": (SecureBootState.DISABLED, 460, [], 38),
    "rhel8-uefi": (SecureBootState.ENABLED, 186, ["db", "Shim"], 3),
    "ubuntu-2104-no-dbx": (SecureBootState.DISABLED, 0, [], 2),
    "ubuntu-2104-no-secure-boot": (SecureBootState.DISABLED, 186, [], 2),
}


@pytest.mark.parametrize("name", SHOWN)
def test_real_machines_show_what_they_booted(name):
    shown = facts(event_log(name))
    boot = shown.secure_boot
    assert not boot.gap + boot.authorities_gap + shown.command_lines.gap
    authorities = [authority.variable for authority in boot.authorities]
    assert (boot.state, len(boot.forbidden), authorities, len(shown.images)) == SHOWN[name]
    assert len({line.text for line in shown.command_lines.lines}) == len(shown.partition_tables) == 1


def test_quoting_machines_log_is_borne_out_by_its_verified_quote():
    vector = gce(alg.SHA256)
    quote = verify_quote(
        vector.attest, vector.signature, ak=AttestationKey.parse(vector.ak), expected_extra_data=vector.extra_data,
        selection=vector.selection, pcrs=vector.pcrs,
    )  # fmt: skip
    boot = verify_boot_log(gce_event_log(), quote).facts.secure_boot
    assert (boot.state, len(boot.authorities), boot.authorities_gap) == (SecureBootState.ENABLED, 3, "")


def rewritten(name: str, change: Callable[[Event], Event]) -> bytes:
    """The log with some events told otherwise: number, PCR and digests stay, or it would not replay."""
    whole = event_log(name)
    log = parse_event_log(whole)
    head = whole[: len(whole) - sum(len(written(event)) for event in log.events)]
    return head + b"".join(written(change(event)) for event in log.events)


def written(event: Event) -> bytes:
    return tcg.record(event.pcr, event.type, dict(event.digests), event.data)


@pytest.mark.parametrize("name", SHOWN)
def test_types_that_lie_change_nothing_of_what_is_shown(name):
    def lying(event: Event) -> Event:
        return event if event.type == NO_ACTION else event._replace(type=tcg.EV_EFI_ACTION + event.number)

    assert rewritten(name, lambda event: event) == event_log(name)
    assert facts(rewritten(name, lying)) == facts(event_log(name))


@pytest.mark.parametrize("name", OFF)
def test_host_without_secure_boot_cannot_tell_it_otherwise(name):
    """Whatever the log says in place of any event of PCR 7, Secure Boot never becomes Enabled."""
    wanted = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")
    for number in [event.number for event in parse_event_log(event_log(name)).events if event.pcr == 7]:
        for said in (wanted, b"", bytes(4), b"a harmless text"):
            lie = rewritten(
                name, lambda e, number=number, said=said: e._replace(data=said) if e.number == number else e
            )
            assert facts(lie).secure_boot.state is not SecureBootState.ENABLED


@pytest.mark.parametrize("name", SHOWN)
def test_real_command_line_cannot_be_hidden_behind_another_text(name):
    """Each event of PCR 8 is told as something harmless: either it still counts, or the gap is seen."""
    honest = {line.text for line in facts(event_log(name)).command_lines.lines}
    for event in parse_event_log(event_log(name)).events:
        if event.pcr == 8 and any(text.encode() in event.data for text in honest):
            lie = b"grub_cmd: set timeout=0\0"
            told = rewritten(name, lambda e, n=event.number, lie=lie: e._replace(data=lie) if e.number == n else e)
            assert facts(told).command_lines.gap
            relabelled = b"grub_cmd: " + event.data.partition(b" ")[2]
            told = rewritten(name, lambda e, n=event.number, r=relabelled: e._replace(data=r) if e.number == n else e)
            found = facts(told).command_lines
            assert found.gap or {line.text for line in found.lines} == honest
