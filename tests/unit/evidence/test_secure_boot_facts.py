"""What PCR 7 shows: each test is a host that would like to show something else."""

from __future__ import annotations

import hashlib

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority

from chatelaine.evidence.uefi_secure_boot import SecureBootState
from support.paper_boot import SHIM_LOCK, PaperBoot, facts, lab_log, secure_boot

LOG = lab_log()
CERTIFICATE = authority("Laboratory db")
ENTRY = OWNER.bytes_le + CERTIFICATE


# --- Secure Boot ----------------------------------------------------------------------------------------------


def test_secure_boot_and_its_databases_are_shown():
    shown = facts(LOG).secure_boot
    assert (shown.state, shown.gap, shown.debug_mode) == (SecureBootState.ENABLED, "", False)
    assert [signature.content for signature in shown.allowed] == [CERTIFICATE]
    assert [signature.digest for signature in shown.forbidden] == [
        hashlib.sha256(image).digest() for image in (b"boot loader 0.8", b"boot loader 0.9")
    ]
    assert shown.forbidden_digests == {signature.digest for signature in shown.forbidden}
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


@pytest.mark.parametrize(
    ("name", "content", "off"),
    [
        ("MokSBState", b"\x01", True),
        ("MokSBState", b" ", True),
        ("MokSBState", b"X", True),
        ("MokSBState", b"\x00\x01", True),
        ("MokSBState", b"\x00", False),
        ("MokSBState", b"", False),
        ("SbatLevel", b"\x01", False),
        ("MokListTrusted", b"\x01", False),
    ],
)
def test_boot_loader_that_was_told_to_verify_nothing_is_shown(name, content, off):
    boot = secure_boot()
    boot.entry(content, name, SHIM_LOCK)
    boot.entry(b"\x00", "MokPolicy", SHIM_LOCK)
    shown = facts(boot.data).secure_boot
    assert shown.validation_off is off
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
    assert [authority.number for authority in facts(boot.data).secure_boot.authorities] == [7, 8, 9, 10]
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


def test_of_what_an_old_boot_loader_logs_beside_what_it_measures_one_byte_is_left_out_and_no_more():
    boot = secure_boot()
    for measured in (
        tcg.variable(tcg.IMAGE_SECURITY, "db", b"\x66" * 32),
        tcg.variable(SHIM_LOCK, "Shim", CERTIFICATE),
    ):
        boot.measure(7, tcg.EV_EFI_VARIABLE_AUTHORITY, measured + b"\xaf", measured)
    assert [digest for _, _, digest in authorities(boot)] == [b"\x66" * 32, hashlib.sha256(CERTIFICATE).digest()]
    boot.measure(7, tcg.EV_EFI_VARIABLE_AUTHORITY, measured + b"\xaf\xaf", measured)
    assert facts(boot.data).secure_boot.authorities_gap


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
