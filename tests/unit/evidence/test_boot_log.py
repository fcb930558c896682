"""Boot logs held against quotes, and what they may show: each test is a host that would like to show something else."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority

from chatelaine.evidence import errors
from chatelaine.evidence.boot_log import CACHED_LOG_BYTES, MAX_KEPT_BYTES, match_boot_log, verify_boot_log
from chatelaine.evidence.event_log import parse_event_log, replay
from chatelaine.evidence.tpm_quote import VerifiedQuote
from chatelaine.evidence.tpm_types import Selection
from chatelaine.evidence.uefi_secure_boot import SecureBootState
from chatelaine.model.tpm_policy import Bank
from support.paper_boot import ALL_PCRS, SHIM_LOCK, PaperBoot, facts, lab_log, secure_boot, verified

LOG = lab_log()
VALUES = replay(parse_event_log(LOG), tcg.SHA256)
CERTIFICATE = authority("Laboratory db")
ENTRY = OWNER.bytes_le + CERTIFICATE


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


# --- Secure Boot ----------------------------------------------------------------------------------------------


def test_secure_boot_and_its_databases_are_shown():
    shown = facts(LOG).secure_boot
    assert (shown.state, shown.gap, shown.debug_mode) == (SecureBootState.ENABLED, "", False)
    assert [signature.content for signature in shown.allowed] == [CERTIFICATE]
    assert [signature.digest for signature in shown.forbidden] == [
        hashlib.sha256(image).digest() for image in (b"boot loader 0.8", b"boot loader 0.9")
    ]
    assert (len(shown.platform_key), len(shown.key_exchange_keys)) == (1, 1)
    assert [(a.variable, a.signature.content) for a in shown.authorities] == [("db", CERTIFICATE)]


def test_secure_boot_that_was_off_is_shown_as_off():
    assert facts(lab_log(secure_boot=False)).secure_boot.state is SecureBootState.DISABLED


def gap(boot: PaperBoot) -> str:
    shown = facts(boot.data).secure_boot
    assert shown.state is SecureBootState.NOT_SHOWN
    assert (shown.allowed, shown.forbidden, shown.authorities) == (None, None, ())
    assert shown.authorities_gap == shown.gap
    return shown.gap


def test_forged_secure_boot_after_the_separator_does_not_count():
    """A host that booted with Secure Boot off extends PCR 7 by what it wants to be read."""
    boot = secure_boot(on=False)
    boot.config("SecureBoot", b"\x01")
    assert "SecureBoot was measured" in gap(boot)


def test_secure_boot_that_comes_only_after_the_separator_does_not_count():
    boot = PaperBoot()
    boot.databases()
    boot.separate(7)
    boot.config("SecureBoot", b"\x01")
    assert "after the separator" in gap(boot)


def test_secure_boot_whose_data_does_not_hash_to_the_digest_is_not_believed():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x00", said=tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01"))
    boot.separate(7)
    assert "is not what its data says" in gap(boot)


def test_option_rom_that_hides_the_real_secure_boot_and_appends_its_own_is_seen():
    """Before the separator an option ROM can append as well; the log then garbles the event of the firmware."""
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x00", said=b"a harmless text")
    boot.config("SecureBoot", b"\x01")
    boot.separate(7)
    assert "event 1 before the separator" in gap(boot)


@pytest.mark.parametrize("name", ["SecureBoot", "PK", "KEK", "db", "dbx"])
def test_variable_measured_twice_is_refused(name):
    boot = PaperBoot()
    for _ in range(2):
        boot.config(name, b"\x01" if name == "SecureBoot" else b"")
    boot.separate(7)
    assert "measured twice" in gap(boot)


@pytest.mark.parametrize("name", ["PK", "KEK", "db", "dbx"])
def test_database_that_comes_after_the_separator_is_refused(name):
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.separate(7)
    boot.config(name, b"")
    assert f"{name} was measured after" in gap(boot)


def test_pcr_without_separator_shows_nothing():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    assert "no separator" in gap(boot)


def test_separator_known_by_its_type_alone_is_none():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.measure(7, tcg.EV_SEPARATOR, b"abcd")
    assert "no separator" in gap(boot)


def test_separator_under_another_name_ends_the_firmwares_part():
    boot = PaperBoot()
    boot.measure(7, tcg.EV_EFI_ACTION, b"not a separator at all", bytes(4))
    boot.config("SecureBoot", b"\x01")
    assert "after the separator" in gap(boot)


def test_second_separator_is_refused():
    boot = secure_boot()
    boot.separate(7)
    assert "two separators" in gap(boot)


def test_separator_that_tells_of_an_error_shows_nothing():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.separate(7, data=b"\x01\x00\x00\x00")
    assert "error" in gap(boot)


def test_pcr_without_secure_boot_shows_nothing():
    boot = PaperBoot()
    boot.databases()
    boot.separate(7)
    assert "no variable SecureBoot" in gap(boot)


def test_firmware_that_knows_no_secure_boot_has_it_off():
    """It measures the variable all the same, without content; its dbx is there to be judged."""
    boot = PaperBoot()
    boot.config("SecureBoot", b"")
    boot.databases()
    boot.separate(7)
    shown = facts(boot.data).secure_boot
    assert (shown.state, len(shown.forbidden)) == (SecureBootState.DISABLED, 3)


@pytest.mark.parametrize("content", [b"\x02", b"\x01\x00"])
def test_secure_boot_that_is_neither_on_nor_off_is_refused(content):
    boot = PaperBoot()
    boot.config("SecureBoot", content)
    boot.separate(7)
    assert "neither 0 nor 1" in gap(boot)


def test_secure_boot_of_another_namespace_is_another_variable():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01", owner=OWNER)
    boot.separate(7)
    assert "no variable SecureBoot" in gap(boot)


def test_binary_that_nobody_understands_before_the_separator_is_refused():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.measure(7, tcg.EV_EFI_ACTION, b"\x00\x01\x02")
    boot.separate(7)
    assert "neither a variable nor a text" in gap(boot)


def test_secure_boot_in_a_pcr_that_was_not_quoted_is_not_shown():
    shown = facts(LOG, quoted=(0, 4)).secure_boot
    assert (shown.state, shown.gap) == (SecureBootState.NOT_SHOWN, "PCR 7 was not quoted")


def test_note_that_looks_like_secure_boot_was_never_extended():
    """An event that says it was not extended is not in the PCR, whatever its digest."""
    boot = PaperBoot()
    content = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")
    note = tcg.record(7, tcg.EV_NO_ACTION, {bank: tcg.digest(bank, content) for bank in boot.banks}, content)
    boot.databases()
    boot.separate(7)
    spec_bytes = len(tcg.spec_id_event(boot.banks))
    shown = facts(boot.data[:spec_bytes] + note + boot.data[spec_bytes:]).secure_boot
    assert shown.state is SecureBootState.NOT_SHOWN


def test_secure_boot_in_another_pcr_is_not_shown():
    boot = PaperBoot()
    boot.measure(1, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01"))
    boot.separate(1, 7)
    assert "no variable SecureBoot" in gap(boot)


def test_firmware_in_its_debug_mode_is_shown():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.measure(7, tcg.EV_EFI_ACTION, b"UEFI Debug Mode")
    boot.separate(7)
    assert facts(boot.data).secure_boot.debug_mode


def test_boot_loader_that_was_told_to_verify_nothing_is_shown():
    boot = secure_boot()
    boot.entry(b"\x01", "MokSBState", SHIM_LOCK)
    shown = facts(boot.data).secure_boot
    assert shown.validation_off
    assert not shown.authorities_gap


def test_database_that_cannot_be_read_is_not_shown():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.config("dbx", b"not a list of signatures, but long enough to look like one")
    boot.separate(7)
    shown = facts(boot.data).secure_boot
    assert (shown.state, shown.forbidden) == (SecureBootState.ENABLED, None)


# --- authorities ----------------------------------------------------------------------------------------------


def authorities(boot: PaperBoot) -> list[tuple[str, str, bytes]]:
    shown = facts(boot.data).secure_boot
    assert not shown.authorities_gap
    return [(a.variable, a.signature.kind.value, a.signature.digest) for a in shown.authorities]


def test_authorities_of_firmware_and_of_shim_are_read():
    boot = secure_boot()
    boot.entry(ENTRY)
    boot.entry(CERTIFICATE, "Shim", SHIM_LOCK)
    boot.entry(OWNER.bytes_le + b"\x55" * 32)
    boot.entry(b"\x66" * 32)
    boot.entry(b"sbat,1,2021030218\n", "SbatLevel", SHIM_LOCK)
    digest = hashlib.sha256(CERTIFICATE).digest()
    assert authorities(boot) == [
        ("db", "Certificate", digest),
        ("Shim", "Certificate", digest),
        ("db", "Sha256", b"\x55" * 32),
        ("db", "Sha256", b"\x66" * 32),
    ]


def test_authority_of_a_driver_may_come_before_the_separator():
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.databases()
    boot.entry(ENTRY)
    boot.separate(7)
    assert [variable for variable, _, _ in authorities(boot)] == ["db"]


def test_authority_padded_by_an_old_boot_loader_is_read():
    """Old versions of shim measure some zeros more, and log one byte more than they measure."""
    boot = secure_boot()
    measured = tcg.variable(tcg.IMAGE_SECURITY, "db", CERTIFICATE) + bytes(5)
    boot.measure(7, tcg.EV_EFI_VARIABLE_AUTHORITY, measured + b"\xaf", measured)
    assert authorities(boot) == [("db", "Certificate", hashlib.sha256(CERTIFICATE).digest())]


@pytest.mark.parametrize(
    "hidden",
    [
        (tcg.variable(tcg.IMAGE_SECURITY, "db", CERTIFICATE), b"a harmless text"),
        (tcg.variable(tcg.IMAGE_SECURITY, "db", b"what is this?"), None),
        (tcg.variable(SHIM_LOCK, "Unheard", b"\x01"), None),
        (b"\x00\x01\x02\x03\x04", None),
    ],
    ids=["its data says something else", "no entry", "a setting that is not known", "no variable"],
)
def test_authority_that_the_log_hides_leaves_open_who_verified(hidden):
    measured, said = hidden
    boot = secure_boot()
    boot.entry(ENTRY)
    boot.measure(7, tcg.EV_EFI_ACTION, measured if said is None else said, measured)
    shown = facts(boot.data).secure_boot
    assert shown.state is SecureBootState.ENABLED
    assert shown.authorities_gap.startswith("event 8 ")


def test_authority_under_another_type_is_seen():
    boot = secure_boot()
    boot.measure(7, tcg.EV_EFI_ACTION, tcg.variable(tcg.IMAGE_SECURITY, "db", ENTRY))
    assert len(authorities(boot)) == 1


# --- images, option ROMs, partitions --------------------------------------------------------------------------


def test_images_are_what_was_measured_besides_separators_and_known_texts():
    shown = facts(lab_log(option_roms=(b"rom",)))
    assert [(image.pcr, image.digest) for image in shown.images] == [
        (2, hashlib.sha256(b"rom").digest()),
        (4, hashlib.sha256(b"boot loader 1.0").digest()),
        (4, hashlib.sha256(b"kernel 1.0").digest()),
    ]
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
