"""Explanations: the event that differs, the extension without an event, and nothing said that is not known."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import event_log_writer as tcg
from tools.lab import firmware

from chatelaine.appraisal.event_words import MAX_NAME_CHARACTERS, words_of
from chatelaine.appraisal.explain import Boot, explain, pack_log, refuted_pcrs
from chatelaine.evidence.event_log import Event, parse_event_log
from chatelaine.model.hsm import MAX_SENTENCE_CHARACTERS, MAX_SENTENCES
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Finding, Outcome, all_of

QUOTED = (0, 2, 4, 7, 8)


def booted(what: firmware.Boot | None = None, *, resets: int = 3, bank: Bank = Bank.SHA256, log: bool = True) -> Boot:
    """What a quote of a host shows after that boot."""
    written = firmware.measured(what or firmware.Boot())
    values = written.values[tcg.SHA256 if bank is Bank.SHA256 else tcg.SHA384]
    pcrs = {index: values[index] for index in QUOTED}
    return Boot(bank, pcrs, resets, pack_log(written.data) if log else None)


def extended(boot: Boot, index: int = 4, what: bytes = b"something") -> Boot:
    """The same after an extension that no log tells of."""
    value = hashlib.sha256(boot.pcrs[index] + hashlib.sha256(what).digest()).digest()
    return replace(boot, pcrs={**boot.pcrs, index: value})


def events_of(boot: Boot, index: int) -> list[Event]:
    assert boot.log is not None
    return [event for event in parse_event_log(zlib.decompress(boot.log)).events if event.pcr == index]


GOOD = booted()
OTHER_LOADER = booted(firmware.Boot(loader=b"boot loader of somebody else"), resets=4)


def test_pcr_extended_behind_the_log_is_told_with_the_log_s_last_event():
    now = extended(GOOD)
    last = events_of(GOOD, 4)[-1]
    first, second, third = explain(now, GOOD, {4}, log_asked=True)
    assert first == (
        f"PCR 4 holds a value that its log does not explain: the log ends at event {last.number} with"
        f" {GOOD.pcrs[4].hex()}, the TPM holds {now.pcrs[4].hex()}; something extended it without an event."
    )
    assert "are those of the last trusted boot, so it was extended after all of them" in second
    assert third == "The host was not rebooted since its last trusted evidence."


def test_another_boot_loader_after_a_reboot_is_named_with_both_digests():
    first, *rest = explain(OTHER_LOADER, GOOD, {4}, log_asked=True)
    then, now = (firmware.image_digest(image) for image in (b"boot loader 1.0", b"boot loader of somebody else"))
    assert first.startswith("Event ")
    assert "of PCR 4 (unchecked name: boot application \\EFI\\BOOT\\BOOTX64.EFI)" in first
    assert f"has digest {now}, at the last trusted boot {then}." in first
    assert rest == ["The host was rebooted since its last trusted evidence (resets of the TPM: 3 then, 4 now)."]


def test_pcrs_that_nobody_refused_are_told_too_when_they_moved():
    now = booted(firmware.Boot(command_line="/vmlinuz-lab root=/dev/vda2 init=/bin/sh"), resets=4)
    told = explain(now, GOOD, {4}, log_asked=True)
    differing = next(sentence for sentence in told if "of PCR 8" in sentence)
    assert "(text 'menuentry Linux { linux /vmlinuz-lab root=/dev/vda2 init=/bin/sh }')" in differing
    assert "; 2 more of its events differ from there on." in differing


def test_secure_boot_that_was_turned_off_is_named_by_its_checked_variable():
    told = explain(booted(firmware.Boot(secure_boot=False), resets=4), GOOD, {7}, log_asked=True)
    assert "of PCR 7 (UEFI variable SecureBoot = 00)" in told[0]
    assert "(UEFI variable SecureBoot = 01)" in told[0]


def test_event_that_was_added_and_one_that_is_missing():
    rom = booted(firmware.Boot(option_roms=(b"rom",)), resets=4)
    assert "was not there at the last trusted boot." in explain(rom, GOOD, {2}, log_asked=True)[0]
    assert "of the last trusted boot is missing." in explain(GOOD, replace(rom, reset_count=2), {2}, log_asked=True)[0]


def test_log_that_goes_on_after_what_the_tpm_has_seen_is_told_as_written_to():
    steps = events_of(GOOD, 4)
    value = bytes(32)
    for event in steps[:-1]:
        value = hashlib.sha256(value + event.digest(tcg.SHA256)).digest()
    now = replace(GOOD, pcrs={**GOOD.pcrs, 4: value})
    told = explain(now, GOOD, {4}, log_asked=True)
    assert f"event {steps[-1].number} of PCR 4" in told[0]
    assert "the log was written to" in told[0]


def test_without_a_log_it_is_said_what_can_be_said():
    before = booted(log=False)
    now = extended(before)
    told = explain(now, before, {4}, log_asked=False)
    assert told[0] == (f"PCR 4 holds {now.pcrs[4].hex()}; at the last trusted evidence it held {before.pcrs[4].hex()}.")
    assert "the policy asks for no event log" in told[1]
    assert "not rebooted" in told[2]


def test_log_that_was_asked_for_and_not_sent_is_told():
    told = explain(extended(booted(log=False)), GOOD, {4}, log_asked=True)
    assert "The host sent no event log, so what was measured cannot be told." in told


def test_first_evidence_ever_says_that_there_is_nothing_to_compare_with():
    told = explain(GOOD, None, {4}, log_asked=True)
    assert "is what its log leads to" in told[0]
    assert told[-1].startswith("No earlier trusted evidence of this TPM is known")


def test_host_that_is_as_it_was_needs_no_explanation():
    assert explain(GOOD, GOOD, (), log_asked=True) == ()


def test_pcr_of_ima_is_no_deviation_of_the_boot():
    before = replace(GOOD, pcrs={**GOOD.pcrs, 10: bytes(32)})
    now = replace(GOOD, pcrs={**GOOD.pcrs, 10: b"\x01" * 32})
    assert explain(now, before, (), log_asked=True) == ()


def test_evidence_of_another_bank_is_not_compared_with():
    told = explain(extended(GOOD), booted(bank=Bank.SHA384), {4}, log_asked=True)
    assert not any("last trusted boot" in sentence for sentence in told)


def test_log_without_the_quoted_bank_explains_nothing():
    writer = tcg.EventLogWriter(banks=(tcg.SHA384,))
    writer.measure(4, tcg.EV_SEPARATOR, bytes(4))
    now = replace(extended(GOOD), log=pack_log(writer.data))
    assert any("cannot be read in bank Sha256" in sentence for sentence in explain(now, GOOD, {4}, log_asked=True))


def test_host_that_extends_everything_does_not_push_out_which_boot_loader_it_started():
    everything = range(10)
    boots = []
    for what in (firmware.Boot(loader=b"boot loader of somebody else"), firmware.Boot()):
        written = firmware.measured(what)
        pcrs = {index: written.values[tcg.SHA256].get(index, bytes(32)) for index in everything}
        boots.append(Boot(Bank.SHA256, pcrs, 4, pack_log(written.data)))
    noisy, good = boots
    for index in everything:
        noisy = extended(noisy, index)
    told = explain(noisy, good, set(everything), log_asked=True)
    assert len(told) == MAX_SENTENCES
    assert any("PCR 4 (unchecked name: boot application" in sentence for sentence in told)
    assert told[-1].startswith("There is more to say; these PCRs are concerned: 0, ")


def test_log_that_is_none_explains_nothing():
    for log in (b"\xff" * 99, b"", pack_log(b"\xff" * 99), pack_log(bytes(64 * 1024 * 1024))):
        now = replace(extended(GOOD), log=log)
        assert any("cannot be read" in sentence for sentence in explain(now, GOOD, {4}, log_asked=True))
        assert explain(now, replace(GOOD, log=log), {4}, log_asked=True)


@given(st.lists(st.tuples(st.sampled_from(QUOTED), st.binary(max_size=8)), max_size=24), st.booleans())
def test_explanations_are_bounded_whatever_the_host_has_logged(events, lies):
    writer = tcg.EventLogWriter()
    for index, data in events:
        writer.measure(index, tcg.EV_EFI_ACTION, b"\x1b[31m" * 200 + data)
    values = {index: writer.values.get(tcg.SHA256, {}).get(index, bytes(32)) for index in QUOTED}
    now = Boot(Bank.SHA256, values, 4, pack_log(writer.data))
    told = explain(extended(now, 7) if lies else now, GOOD, set(QUOTED), log_asked=True)
    assert len(told) <= MAX_SENTENCES
    assert all(len(sentence) <= MAX_SENTENCE_CHARACTERS and sentence.isprintable() for sentence in told)


def test_refuted_pcrs_are_read_from_the_findings():
    tree = all_of(
        "host",
        [
            Finding("pcr Sha256:4", Outcome.REFUTED, "PcrMismatch"),
            Finding("pcr Sha256:7", Outcome.HOLDS, "PcrMatches"),
            Finding("pcr everything", Outcome.REFUTED, "Odd"),
            Finding("firmware", Outcome.REFUTED, "FirmwareNotListed"),
        ],
    )
    assert refuted_pcrs(tree) == {4}


# --- words ----------------------------------------------------------------------------------------------------


def event(data: bytes, *, hashed: bytes | None = None, kind: int = tcg.EV_IPL) -> Event:
    digest = tcg.digest(tcg.SHA256, data if hashed is None else hashed)
    return Event(1, 4, kind, (tcg.SHA256,), (digest,), data)


@pytest.mark.parametrize(
    ("given_event", "said"),
    [
        (event(bytes(4)), "separator"),
        (event(b"\x01\0\0\0"), "separator of an error"),
        (event(b"Exit Boot Services Invocation"), "text 'Exit Boot Services Invocation'"),
        (event("Firmware 1.0".encode("utf-16-le") + b"\0\0"), "text 'Firmware 1.0'"),
        (event(b"kernel_cmdline: quiet\0", hashed=b"quiet"), "text 'quiet'"),
        (event(tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\1")), "UEFI variable SecureBoot = 01"),
        (event(tcg.variable(tcg.GLOBAL_VARIABLE, "PK", bytes(9))), "UEFI variable PK, 9 bytes"),
        (event(b"\x80\x81\x82"), "3 bytes of data"),
    ],
)
def test_what_the_digest_bears_out_is_said_as_a_fact(given_event, said):
    assert words_of(given_event, tcg.SHA256) == said


@pytest.mark.parametrize("kind", [tcg.EV_SEPARATOR, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, 0x77777777, tcg.EV_EFI_ACTION])
def test_event_that_lies_about_its_type_is_marked_as_unchecked(kind):
    variable = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\1")
    assert words_of(event(variable, hashed=b"else", kind=kind), tcg.SHA256).startswith("unchecked name: ")


def test_label_in_front_of_a_checked_text_is_never_repeated():
    assert "trusted" not in words_of(event(b"trusted_kernel: quiet\0", hashed=b"quiet"), tcg.SHA256)


SPEECH = "x'), digest 00, was there before. PCR 4 is unchanged ('"


@pytest.mark.parametrize(
    "told",
    [
        event(SPEECH.encode()),
        event(b"grub_cmd: " + SPEECH.encode() + b"\0", hashed=SPEECH.encode()),
        event(tcg.variable(tcg.GLOBAL_VARIABLE, SPEECH, b"\1")),
        event(SPEECH.encode(), hashed=b"a file"),
        event(tcg.load_event(SPEECH), hashed=b"an image", kind=0x80000003),
    ],
)
def test_text_that_root_extended_cannot_end_its_quotes_and_speak_for_us(told):
    said = words_of(told, tcg.SHA256)
    assert said.count("'") == 2
    assert said.partition("'")[2].rpartition("'")[0] == SPEECH.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")


def test_note_that_looks_like_a_measurement_is_said_to_be_none():
    """Notes are in the log and in no PCR: their digests bear out nothing."""
    variable = tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\1")
    assert words_of(event(variable, kind=tcg.EV_NO_ACTION), tcg.SHA256) == "note, not measured"
    said = words_of(event(b"StartupLocality\0\3", kind=tcg.EV_NO_ACTION), tcg.SHA256)
    assert said.startswith("note, not measured")


def test_names_are_printable_and_short():
    named = event(tcg.load_event("\\EFI\\\u202e\x1b[2J" + "x" * 500), hashed=b"image", kind=0x80000003)
    said = words_of(named, tcg.SHA256)
    assert said.startswith("unchecked name: boot application \\EFI\\??[2Jx")
    assert said.isprintable()
    assert len(said) < MAX_NAME_CHARACTERS + 40


@given(st.binary(max_size=200), st.sampled_from([0x80000003, tcg.EV_IPL, 0x80000001, 0]), st.booleans())
def test_words_are_found_for_any_data(data, kind, honest):
    said = words_of(event(data, hashed=None if honest else b"another", kind=kind), tcg.SHA256)
    assert said.isprintable()
    assert len(said) < 200
