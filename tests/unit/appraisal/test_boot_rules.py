"""Rules over boot logs: what each refuses, and that nothing holds which the log leaves open."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority, authority_digest, image_digest

from chatelaine.appraisal.boot_rules import boot_pcrs, boot_rules
from chatelaine.evidence import errors
from chatelaine.evidence.bundle import LogFlaw
from chatelaine.model.material import ReferenceValues
from chatelaine.model.tpm_policy import Bank, TpmRules
from chatelaine.model.verdict import Finding, Outcome
from support.boot_judging import found, holds, reason, spec
from support.paper_boot import SHIM_LOCK, PaperBoot, lab_log, secure_boot, verified
from support.paper_host import PaperHost

LOADERS_CERTIFICATE = authority_digest("Laboratory db")
OTHER_CERTIFICATE = authority_digest("Somebody else")
REVOKED = [hashlib.sha256(image).hexdigest() for image in (b"boot loader 0.8", b"boot loader 0.9")]


def bundle(dbx: frozenset[bytes]) -> ReferenceValues:
    return ReferenceValues("lab", 1, "sha256:", (), {}, dbx, files=None)  # type: ignore[arg-type] # no file is asked for


# --- the log --------------------------------------------------------------------------------------------------


def test_policy_without_rules_for_the_log_has_none():
    pcrs = {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}
    rules = TpmRules.model_validate({"pcrs": pcrs})
    assert boot_rules(rules, bundle(frozenset((bytes(32),)))) == ()
    assert boot_pcrs(rules, None) == frozenset()


def judged(**changed: object) -> Finding:
    evidence = replace(PaperHost().judged(), **changed)
    (rule,) = boot_rules(spec(), None)
    return rule.judge(evidence)


def test_host_that_answers_without_its_log_is_refused():
    finding = judged()
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, "EventLogMissing")
    assert finding.check == "event log"
    assert "answered without one" in finding.detail


def test_log_that_does_not_replay_refutes():
    error = errors.EventLogMismatch("the event log does not replay", expected=b"\x01", found=b"\x02")
    finding = judged(boot_log_flaw=LogFlaw.of(error))
    assert (finding.outcome, finding.reason) == (Outcome.REFUTED, "EventLogMismatch")
    assert (finding.expected, finding.found) == ("01", "02")
    assert (finding.check, finding.detail) == ("event log", "the event log does not replay")


@pytest.mark.parametrize("error", [errors.EventLogBankMissing("no such bank"), errors.Truncated("ends early")])
def test_log_that_tells_nothing_is_neither_trusted_nor_refuted(error):
    finding = judged(boot_log_flaw=LogFlaw.of(error))
    assert (finding.outcome, finding.reason) == (Outcome.CANNOT_TELL, error.reason)


def test_log_that_replays_holds():
    assert judged(boot_log=verified(lab_log())).outcome is Outcome.HOLDS
    holds(lab_log())


def test_log_that_was_held_against_no_pcr_at_all_does_not_hold():
    """A policy whose only PCR is IMA's: any log would do."""
    finding = found(lab_log(), quoted=(10,))
    assert (finding.outcome, finding.reason) == (Outcome.CANNOT_TELL, "EventLogNotAnchored")
    assert "PCR 10 is IMA's" in finding.detail


def test_one_rule_that_is_refused_refutes_the_whole():
    finding = found(lab_log(secure_boot=False), secureBoot="Enabled", optionRoms="Refuse")
    assert [child.outcome for child in finding.children] == [Outcome.HOLDS, Outcome.REFUTED, Outcome.HOLDS]
    assert finding.outcome is Outcome.REFUTED


# --- Secure Boot ----------------------------------------------------------------------------------------------


def test_host_without_secure_boot_is_refused():
    holds(lab_log(), secureBoot="Enabled")
    assert reason(lab_log(secure_boot=False), secureBoot="Enabled") == "SecureBootDisabled"


def test_secure_boot_that_is_not_shown_is_refused():
    assert reason(lab_log(), quoted=(0,), secureBoot="Enabled") == "SecureBootNotShown"
    forged = secure_boot(on=False)
    forged.config("SecureBoot", b"\x01")
    assert reason(forged.data, secureBoot="Enabled") == "SecureBootNotShown"


def test_secure_boot_that_verifies_nothing_is_refused():
    debug = PaperBoot()
    debug.config("SecureBoot", b"\x01")
    debug.measure(7, tcg.EV_EFI_ACTION, b"UEFI Debug Mode")
    debug.separate(7)
    assert reason(debug.data, secureBoot="Enabled") == "FirmwareDebugMode"
    assert reason(validation_off(b"\x01").data, secureBoot="Enabled") == "BootLoaderValidationOff"
    for boot in (debug, validation_off(b"\x01")):
        assert found(boot.data, secureBoot="Enabled").children[1].check == "secure boot"


@pytest.mark.parametrize("content", [b"\x02", b"\xff", b"\x00\x01"])
def test_validation_turned_off_by_another_value_than_one_is_seen(content):
    """shim holds any value but zero for yes."""
    assert reason(validation_off(content).data, secureBoot="Enabled") == "BootLoaderValidationOff"
    holds(validation_off(b"\x00").data, secureBoot="Enabled")


def validation_off(content: bytes) -> PaperBoot:
    """What shim measures of its setting."""
    boot = secure_boot()
    boot.entry(content, "MokSBState", SHIM_LOCK)
    return boot


# --- authorities ----------------------------------------------------------------------------------------------


def test_authorities_that_are_asked_for_are_found():
    rules = {"required": [LOADERS_CERTIFICATE], "allowed": [LOADERS_CERTIFICATE], "forbidden": [OTHER_CERTIFICATE]}
    holds(lab_log(), authorities=rules)


def test_authority_that_verified_nothing_is_missed():
    assert reason(lab_log(), authorities={"required": [OTHER_CERTIFICATE]}) == "AuthorityMissing"
    assert reason(lab_log(), authorities={"required": [LOADERS_CERTIFICATE, OTHER_CERTIFICATE]}) == "AuthorityMissing"


def test_rule_that_software_can_meet_after_the_boot_says_so():
    """Who is required can be appended to PCR 7, a whole command line to PCR 8, if the boot loader measured none."""
    alone = found(lab_log(), authorities={"required": [LOADERS_CERTIFICATE]}).children[1]
    assert (alone.outcome, "after the boot" in alone.detail) == (Outcome.HOLDS, True)
    both = {"required": [LOADERS_CERTIFICATE], "allowed": [LOADERS_CERTIFICATE]}
    assert not found(lab_log(), authorities=both).children[1].detail
    line = {"kernelCommandLine": {"required": ["ro"]}}
    assert "PCR 4" in found(lab_log(), **line).children[1].detail
    judging = spec(**line).model_dump(mode="json", by_alias=True, exclude_none=True)
    judging["pcrs"]["values"].append({"index": 4, "anyOf": ["00" * 32]})
    (rule,) = boot_rules(TpmRules.model_validate(judging), None)
    assert not rule.judge_log(verified(lab_log())).children[1].detail


def test_boot_loader_that_another_authority_verified_is_refused():
    log = lab_log(authority="Somebody else", trusted=("Laboratory db", "Somebody else"))
    assert reason(log, authorities={"allowed": [LOADERS_CERTIFICATE]}) == "AuthorityNotAllowed"
    assert reason(log, authorities={"forbidden": [OTHER_CERTIFICATE]}) == "AuthorityForbidden"


def test_authority_appended_after_the_boot_does_not_hide_the_real_one():
    boot = secure_boot()
    for name in ("Somebody else", "Laboratory db"):
        boot.entry(OWNER.bytes_le + authority(name))
    rules = {"required": [LOADERS_CERTIFICATE], "allowed": [LOADERS_CERTIFICATE]}
    assert reason(boot.data, authorities=rules) == "AuthorityNotAllowed"


@pytest.mark.parametrize("rule", ["required", "allowed", "forbidden"])
def test_authorities_that_are_not_shown_are_refused(rule):
    boot = secure_boot()
    boot.entry(OWNER.bytes_le + authority("Laboratory db"))
    boot.measure(7, tcg.EV_EFI_ACTION, b"a harmless text", b"an authority that nobody may see")
    digest = OTHER_CERTIFICATE if rule == "forbidden" else LOADERS_CERTIFICATE
    assert reason(boot.data, authorities={rule: [digest]}) == "AuthoritiesNotShown"
    assert reason(lab_log(), quoted=(0,), authorities={rule: [digest]}) == "AuthoritiesNotShown"


@pytest.mark.parametrize("rule", ["required", "allowed"])
def test_authority_appended_to_a_boot_that_nobody_verified_is_not_believed(rule):
    """Secure Boot off, or shim told to verify nothing: whatever ran then can extend PCR 7 with a good authority."""
    for boot, expected in (
        (secure_boot(on=False), "SecureBootDisabled"),
        (validation_off(b"\x01"), "BootLoaderValidationOff"),
    ):
        boot.entry(OWNER.bytes_le + authority("Laboratory db"))
        assert reason(boot.data, authorities={rule: [LOADERS_CERTIFICATE]}) == expected


@pytest.mark.parametrize("rule", ["allowed", "forbidden"])
def test_boot_that_shows_no_authority_at_all_is_refused(rule):
    """Somebody verified what booted, if Secure Boot was on; that nobody is named does not show who."""
    assert reason(secure_boot().data, authorities={rule: [OTHER_CERTIFICATE]}) == "AuthoritiesNotShown"
    assert reason(lab_log(secure_boot=False), authorities={rule: [OTHER_CERTIFICATE]}) == "SecureBootDisabled"


def test_image_that_its_own_digest_verified_is_named_by_it():
    boot = secure_boot()
    boot.entry(OWNER.bytes_le + b"\x55" * 32)
    holds(boot.data, authorities={"allowed": ["sha256:" + "55" * 32]})
    assert reason(boot.data, authorities={"forbidden": ["sha256:" + "55" * 32]}) == "AuthorityForbidden"


@pytest.mark.parametrize("rule", ["allowed", "forbidden"])
def test_variable_name_that_would_steer_a_terminal_or_flood_a_status_is_told_harmlessly(rule):
    boot = secure_boot()
    boot.entry(OWNER.bytes_le + authority("Somebody else"), name="db\x1b[2J\nTrusted\u202e" + "x" * 480)
    digest = OTHER_CERTIFICATE if rule == "forbidden" else LOADERS_CERTIFICATE
    detail = found(boot.data, authorities={rule: [digest]}).children[1].detail
    assert "db?[2J?Trusted?" in detail
    assert detail.isprintable()
    assert len(detail) < 320


# --- dbx ------------------------------------------------------------------------------------------------------


def test_dbx_with_what_is_asked_for_holds():
    holds(lab_log(), dbxAtLeast=REVOKED)
    holds(lab_log(), dbxAtLeast=REVOKED[:1], reference=bundle(frozenset((bytes.fromhex(REVOKED[1]),))))


def test_dbx_that_is_too_old_is_refused():
    old = lab_log(revoked=(b"boot loader 0.8",))
    assert reason(old, dbxAtLeast=REVOKED) == "DbxTooOld"
    assert reason(lab_log(revoked=()), dbxAtLeast=REVOKED) == "DbxTooOld"


def test_dbx_that_lacks_an_entry_of_the_bundle_is_refused():
    assert reason(lab_log(), reference=bundle(frozenset((b"\x42" * 32,)))) == "DbxTooOld"


def test_dbx_that_is_not_shown_is_refused():
    assert reason(lab_log(), quoted=(0,), dbxAtLeast=REVOKED) == "DbxNotShown"
    boot = PaperBoot()
    boot.config("SecureBoot", b"\x01")
    boot.separate(7)
    assert reason(boot.data, dbxAtLeast=REVOKED) == "DbxNotShown"


# --- option ROMs, images --------------------------------------------------------------------------------------


def test_option_rom_is_refused():
    holds(lab_log(), optionRoms="Refuse")
    assert reason(lab_log(option_roms=(b"rom", b"rom")), optionRoms="Refuse") == "OptionRomMeasured"


def test_option_rom_under_another_type_is_refused():
    boot = PaperBoot()
    boot.measure(2, tcg.EV_SEPARATOR, bytes(4), b"rom")
    assert reason(boot.data, optionRoms="Refuse") == "OptionRomMeasured"


def test_option_roms_that_are_not_shown_are_refused():
    assert reason(lab_log(), quoted=(4,), optionRoms="Refuse") == "OptionRomsNotShown"


def test_firmware_that_measures_nothing_shows_no_absence():
    """A PCR without separator: the firmware did not say that this is all."""
    assert reason(secure_boot().data, optionRoms="Refuse") == "OptionRomsNotShown"
    for ended in ((2,), (4,)):
        boot = PaperBoot()
        boot.separate(*ended)
        assert reason(boot.data, forbiddenImages=["00" * 32]) == "ImagesNotShown"


def test_forbidden_image_is_refused():
    holds(lab_log(), forbiddenImages=[image_digest(b"boot loader 0.9")])
    assert reason(lab_log(), forbiddenImages=[image_digest(b"boot loader 1.0")]) == "ImageForbidden"


def test_forbidden_image_in_any_quoted_pcr_and_under_any_type_is_refused():
    boot = PaperBoot()
    boot.measure(5, tcg.EV_EFI_ACTION, b"harmless", b"forbidden image")
    assert reason(boot.data, forbiddenImages=[image_digest(b"forbidden image")]) == "ImageForbidden"


def test_digest_in_a_pcr_that_was_not_quoted_says_nothing():
    boot = PaperBoot()
    boot.separate(2, 4)
    boot.measure(5, tcg.EV_EFI_ACTION, b"harmless", b"forbidden image")
    holds(boot.data, quoted=(2, 4), forbiddenImages=[image_digest(b"forbidden image")])


def test_images_that_are_not_shown_are_refused():
    for quoted in ((2,), (4,)):
        assert reason(lab_log(), quoted=quoted, forbiddenImages=["00" * 32]) == "ImagesNotShown"


def test_forbidden_digests_of_another_bank_tell_nothing():
    finding = found(lab_log(), forbiddenImages=[image_digest(b"boot loader 1.0", tcg.SHA384)])
    assert (finding.outcome, finding.reason) == (Outcome.CANNOT_TELL, "ImagesOfOtherBank")
    (rule,) = boot_rules(spec(forbiddenImages=[image_digest(b"boot loader 1.0", tcg.SHA384)]), None)
    assert rule.judge_log(verified(lab_log(), bank=Bank.SHA384)).reason == "ImageForbidden"


# --- which PCRs must be quoted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "pcrs"),
    [
        ({}, set()),
        ({"secureBoot": "Enabled"}, {7}),
        ({"authorities": {"allowed": [LOADERS_CERTIFICATE]}}, {7}),
        ({"dbxAtLeast": REVOKED}, {7}),
        ({"optionRoms": "Refuse"}, {2}),
        ({"forbiddenImages": REVOKED}, {2, 4}),
        ({"secureBoot": "Enabled", "forbiddenImages": REVOKED}, {2, 4, 7}),
        ({"kernelCommandLine": {"forbidden": ["init=*"]}}, {8, 12}),
    ],
)
def test_each_rule_holds_on_the_pcrs_that_it_asks_for_and_on_no_fewer(rules, pcrs):
    asked = boot_pcrs(spec(**rules), None)
    assert asked == pcrs
    holds(lab_log(), quoted=asked or (0,), **rules)
    for left_out in asked:
        assert reason(lab_log(), quoted=(asked - {left_out}) | {0}, **rules)


def test_bundle_with_a_dbx_asks_for_its_pcr():
    assert boot_pcrs(spec(), bundle(frozenset((bytes(32),)))) == {7}
