"""Boot logs held against quotes, and what they may show: each test is a host that would like to show something else."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER

from chatelaine.evidence import boot_log, errors
from chatelaine.evidence.boot_log import CACHED_LOG_BYTES, MAX_KEPT_BYTES, match_boot_log, verify_boot_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.evidence.uefi_secure_boot import SecureBootState
from chatelaine.model.tpm_policy import Bank
from support.paper_boot import ALL_PCRS, PaperBoot, facts, lab_log, secure_boot, verified

LOG = lab_log()
VALUES = replay(parse_event_log(LOG), tcg.SHA256)


def quote(values: dict[int, bytes], bank: Bank = Bank.SHA256) -> VerifiedQuote:
    return VerifiedQuote("", Selection(bank, tuple(values)), values, b"", b"", b"", 0, 1, 0, True, 0)


# --- the log and the quote ------------------------------------------------------------------------------------


def test_log_that_replays_to_the_quote_is_verified():
    log = verify_boot_log(LOG, quote(VALUES))
    assert (log.bank, log.digest) == (Bank.SHA256, hashlib.sha256(LOG).digest())
    assert log.facts.quoted == tuple(index for index in ALL_PCRS if index != 10)
    assert verify_boot_log(LOG, quote(VALUES)) is log


@pytest.mark.parametrize("index", [index for index in ALL_PCRS if index != 10])
def test_pcr_that_was_extended_without_an_event_is_seen(index):
    moved = {**VALUES, index: hashlib.sha256(VALUES[index] + bytes(32)).digest()}
    with pytest.raises(errors.EventLogMismatch, match=f"PCR {index};") as refusal:
        verify_boot_log(LOG, quote(moved))
    assert refusal.value.authenticated
    others = {i: value for i, value in moved.items() if i != index}
    assert verify_boot_log(LOG, quote(others)).facts.quoted


def test_all_differing_pcrs_are_named():
    with pytest.raises(errors.EventLogMismatch, match="PCRs 1, 8"):
        verify_boot_log(LOG, quote({**VALUES, 1: bytes(32), 8: bytes(32)}))


def test_pcr_that_ima_extends_is_not_compared():
    assert verify_boot_log(LOG, quote({**VALUES, 10: b"\x77" * 32}))


def test_log_without_the_quoted_bank_tells_nothing():
    boot = PaperBoot(banks=(tcg.SHA256,))
    boot.separate(7)
    with pytest.raises(errors.EventLogBankMissing) as refusal:
        verify_boot_log(boot.data, quote({7: bytes(48)}, Bank.SHA384))
    assert not refusal.value.authenticated


def test_each_bank_is_replayed_by_its_own_digests():
    log = verified(LOG, bank=Bank.SHA384)
    assert log.facts.secure_boot.state is SecureBootState.ENABLED
    with pytest.raises(errors.EventLogMismatch):
        match_boot_log(LOG, Bank.SHA384, {4: VALUES[4] + bytes(16)})


def test_what_was_kept_of_a_log_does_not_pass_for_another_quote():
    assert verify_boot_log(LOG, quote(VALUES))
    with pytest.raises(errors.EventLogMismatch):
        verify_boot_log(LOG, quote({**VALUES, 4: bytes(32)}))
    assert verify_boot_log(LOG, quote({4: VALUES[4]})).facts.secure_boot.state is SecureBootState.NOT_SHOWN


def test_long_log_is_verified_as_well():
    boot = secure_boot()
    boot.measure(1, tcg.EV_EFI_ACTION, bytes(CACHED_LOG_BYTES))
    assert verified(boot.data).facts.secure_boot.state is SecureBootState.ENABLED


@pytest.mark.parametrize(
    ("bound", "short"), [("MAX_KEPT_BYTES", 0), ("MAX_KEPT_BYTES", 1), ("CACHED_LOG_BYTES", 0), ("CACHED_LOG_BYTES", 1)]
)
def test_logs_are_kept_up_to_what_they_take_in_memory(monkeypatch, bound, short):
    """Counted by what is held of one: events and digests, entries of databases, images, partitions, characters."""
    boot = PaperBoot()
    boot.measure(2, tcg.EV_IPL, f"{bound} {short}".encode())
    boot.config("SecureBoot", b"\x01")
    boot.databases()
    boot.separate(7)
    boot.entry(b"\x55" * 32)
    boot.entry(b"\x66" * 32)
    boot.measure(5, tcg.EV_EFI_GPT_EVENT, tcg.partition_table(OWNER, [(OWNER, OWNER, "a")] * 5))
    boot.measure(8, tcg.EV_IPL, b"/vmlinuz ro")
    boot.measure(8, tcg.EV_IPL, b"/vmlinuz quiet")
    entries = 1 + 1 + 1 + 3 + 2 + 5 + 1  # PK, KEK, db, dbx, authorities, partitions, images
    held = 2 * len(boot.data) + 12 * (400 + 2 * 96) + entries * 240 + (len("/vmlinuz ro") + len("/vmlinuz quiet")) * 32
    exact = {"MAX_KEPT_BYTES": held, "CACHED_LOG_BYTES": len(boot.data)}[bound]
    monkeypatch.setattr(boot_log, bound, exact - short)
    assert (verified(boot.data) is verified(boot.data)) is (short == 0)


def hostile(letter: bytes) -> dict[str, bytes]:
    """Logs that take much more memory than they are long, each another one by its letter."""
    events, lines, lists = (PaperBoot(banks=(tcg.SHA256,)) for _ in range(3))
    for number in range(1500):
        events.measure(2, tcg.EV_IPL, b"%d" % number + letter)
    for number in range(800):
        lines.measure(8, tcg.EV_IPL, b"/%d" % number + letter + b" ab" * 12)
    lists.config("SecureBoot", b"\x01")
    for name in ("PK", "KEK", "db", "dbx"):
        lists.config(name, tcg.signature_list(OWNER, OWNER, [letter] * 1500))
    lists.separate(7)
    return {"events": events.data, "lines": lines.data, "lists": lists.data}


@pytest.mark.parametrize("kind", ["events", "lines", "lists"])
def test_host_that_sends_another_log_every_time_does_not_fill_the_verifiers_memory(kind):
    """256 logs that are 100 KB long each took half a gigabyte, which is all that the operator may have."""
    tracemalloc.start()
    try:
        for letter in b"abcdefgh":
            log = hostile(bytes([letter]))[kind]
            assert len(log) < CACHED_LOG_BYTES
            before = tracemalloc.get_traced_memory()[0]
            verified(log)
            assert tracemalloc.get_traced_memory()[0] - before < MAX_KEPT_BYTES
    finally:
        tracemalloc.stop()


def test_log_of_an_honest_host_is_read_once():
    log = lab_log(serial="a host that is asked again")
    assert verified(log) is verified(bytes(bytearray(log)))


# --- images, option ROMs, partitions --------------------------------------------------------------------------


def test_images_are_what_was_measured_besides_separators_and_known_texts():
    shown = facts(lab_log(option_roms=(b"rom",)))
    assert [(image.pcr, image.digest) for image in shown.images] == [
        (2, hashlib.sha256(b"rom").digest()),
        (4, hashlib.sha256(b"boot loader 1.0").digest()),
        (4, hashlib.sha256(b"kernel 1.0").digest()),
    ]
    measured = {event.number: event.pcr for event in parse_event_log(lab_log(option_roms=(b"rom",))).events}
    assert [measured[image.number] for image in shown.images] == [2, 4, 4]
    assert [image.digest for image in shown.option_roms] == [hashlib.sha256(b"rom").digest()]


def test_image_whose_data_is_the_image_itself_is_an_image_all_the_same():
    boot = PaperBoot()
    boot.measure(4, tcg.EV_EFI_ACTION, b"MZ, the very bytes that were hashed")
    assert len(facts(boot.data).images) == 1


def test_image_called_a_known_text_is_an_image():
    boot = PaperBoot()
    boot.measure(4, tcg.EV_EFI_ACTION, b"Calling EFI Application from Boot Option", b"MZ")
    assert [image.digest for image in facts(boot.data).images] == [hashlib.sha256(b"MZ").digest()]


def test_error_of_the_firmware_in_pcr_2_passes_for_an_option_rom():
    boot = PaperBoot()
    boot.separate(2, data=b"\x01\x00\x00\x00")
    assert len(facts(boot.data).option_roms) == 1


def test_nothing_of_a_pcr_that_was_not_quoted_is_shown():
    assert facts(LOG, quoted=(4,)).option_roms is None
    shown = facts(LOG, quoted=(7,))
    assert (shown.images, shown.partition_tables) == ((), ())


def test_partition_table_is_shown_from_checked_data_only():
    (table,) = facts(LOG).partition_tables
    assert [partition.label for partition in table.partitions] == ["EFI System", "root"]
    boot = PaperBoot()
    boot.measure(5, tcg.EV_EFI_GPT_EVENT, tcg.partition_table(OWNER, ()), b"another")
    assert facts(boot.data).partition_tables == ()


def test_partition_table_that_is_measured_into_another_pcr_is_none():
    """Software may extend PCR 8 to 15 as it likes after the boot."""
    boot = PaperBoot()
    boot.measure(14, tcg.EV_EFI_GPT_EVENT, tcg.partition_table(OWNER, ()))
    assert facts(boot.data).partition_tables == ()


def test_pcr_has_ended_by_a_separator_that_tells_of_no_error_and_by_nothing_else():
    boot = PaperBoot()
    boot.separate(1)
    boot.separate(2, data=b"\xff" * 4)
    boot.separate(3, data=b"\x01\x00\x00\x00")
    boot.measure(4, tcg.EV_SEPARATOR, bytes(4), b"another")
    boot.measure(5, tcg.EV_EFI_ACTION, b"a text")
    boot.note(bytes(4), pcr=6)
    boot.measure(6, tcg.EV_EFI_ACTION, b"called something else", bytes(4))
    assert facts(boot.data).separators == {1, 2, 6}
    assert facts(boot.data).option_roms == ()
    assert facts(boot.data, quoted=(1, 3)).separators == {1}
