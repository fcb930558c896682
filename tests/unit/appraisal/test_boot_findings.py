"""What rules over boot logs tell: check, reason, what was expected and found; and who is named where many are."""

from __future__ import annotations

from typing import Any

import pytest
from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority, authority_digest, image_digest

from chatelaine.appraisal.boot_rules import IMAGES_NOT_JUDGED, REQUIRED_ALONE, boot_rules
from chatelaine.model.material import ReferenceValues
from chatelaine.model.verdict import Finding, Outcome
from support.boot_judging import found, holds, reason, spec
from support.paper_boot import SHIM_LOCK, PaperBoot, lab_log, secure_boot, verified

MINE, OTHER = authority_digest("Laboratory db"), authority_digest("Somebody else")
REVOKED = [f"{number:064x}" for number in range(1, 11)]
LINE = "/vmlinuz root=/dev/mapper/root ro lockdown=integrity"


def told(log: bytes, **more: Any) -> tuple[Any, ...]:
    """Of the one rule besides the replay."""
    finding = found(log, **more)
    (_, judged) = finding.children
    assert finding.check == "event log"
    return judged.check, judged.outcome, judged.reason, judged.expected, judged.found


def refuted(check: str, reason: str, expected: str | None = None, found: str | None = None) -> tuple[Any, ...]:
    return check, Outcome.REFUTED, reason, expected, found


def held(check: str, reason: str, found: str | None = None) -> tuple[Any, ...]:
    return check, Outcome.HOLDS, reason, None, found


def boot(*entries: bytes, on: bool = True) -> bytes:
    made = secure_boot(on)
    for entry in entries:
        made.entry(OWNER.bytes_le + entry)
    return made.data


def without_databases() -> bytes:
    made = PaperBoot()
    made.config("SecureBoot", b"\1")
    made.separate(7)
    return made.data


def images(*contents: bytes, ended: tuple[int, ...] = (2, 4)) -> bytes:
    made = PaperBoot()
    made.separate(*ended)
    for content in contents:
        made.measure(2, tcg.EV_EFI_ACTION, b"said", content)
    return made.data


def lines(*texts: str) -> bytes:
    made = PaperBoot()
    for text in texts:
        made.measure(8, tcg.EV_IPL, f"kernel_cmdline: {text}\0".encode(), text.encode())
    return made.data


def authorities(**rules: list[str]) -> dict[str, Any]:
    return {"authorities": rules}


@pytest.mark.parametrize(
    ("log", "rules", "said"),
    [
        (boot(), {"secureBoot": "Enabled"}, held("secure boot", "SecureBootEnabled", "Enabled")),
        (boot(on=False), {"secureBoot": "Enabled"},
         refuted("secure boot", "SecureBootDisabled", "Enabled", "Disabled")),
        (lab_log(), {"secureBoot": "Enabled", "quoted": (0,)}, refuted("secure boot", "SecureBootNotShown")),
        (lab_log(), authorities(required=[MINE]), held("authorities", "AuthoritiesAccepted", MINE)),
        (boot(authority("Laboratory db"), authority("Somebody else")), authorities(allowed=[MINE]),
         refuted("authorities", "AuthorityNotAllowed", MINE, OTHER)),
        (lab_log(), authorities(forbidden=[MINE]), refuted("authorities", "AuthorityForbidden", None, MINE)),
        (lab_log(), authorities(required=[OTHER, MINE]), refuted("authorities", "AuthorityMissing", OTHER, MINE)),
        (boot(), authorities(allowed=[MINE]), refuted("authorities", "AuthoritiesNotShown")),
        (boot(on=False), authorities(allowed=[MINE]),
         refuted("authorities", "SecureBootDisabled", "Enabled", "Disabled")),
        (lab_log(), authorities(allowed=[MINE]) | {"quoted": (0,)}, refuted("authorities", "AuthoritiesNotShown")),
        (boot(), {"dbxAtLeast": ["02" * 32]}, held("dbx", "DbxComplete", "3 entries")),
        (boot(), {"dbxAtLeast": ["02" * 32, "03" * 32]},
         refuted("dbx", "DbxTooOld", "2 entries at least", "3 entries")),
        (lab_log(), {"dbxAtLeast": ["02" * 32], "quoted": (0,)}, refuted("dbx", "DbxNotShown")),
        (images(), {"optionRoms": "Refuse"}, held("option ROMs", "NoOptionRom")),
        (images(b"rom", b"another"), {"optionRoms": "Refuse"},
         refuted("option ROMs", "OptionRomMeasured", "none", image_digest(b"rom"))),
        (images(), {"optionRoms": "Refuse", "quoted": (4,)}, refuted("option ROMs", "OptionRomsNotShown")),
        (images(b"image"), {"forbiddenImages": ["00" * 32]}, held("forbidden images", "NoForbiddenImage")),
        (images(b"image"), {"forbiddenImages": [image_digest(b"image")]},
         refuted("forbidden images", "ImageForbidden", None, image_digest(b"image"))),
        (images(ended=(2,)), {"forbiddenImages": ["00" * 32]}, refuted("forbidden images", "ImagesNotShown")),
        (images(), {"forbiddenImages": ["00" * 48, "00" * 32]},
         ("forbidden images", Outcome.CANNOT_TELL, "ImagesOfOtherBank", None, None)),
        (lines("/a ro", "/b ro"), {"kernelCommandLine": {"required": ["ro"]}},
         held("kernel command line", "CommandLineAccepted", "/b ro")),
        (lines("/a ro", "/b rw"), {"kernelCommandLine": {"required": ["ro"]}},
         refuted("kernel command line", "ArgumentMissing", "ro", "/b rw")),
        (lines("/a ro", "/b init=x"), {"kernelCommandLine": {"forbidden": ["init=*"]}},
         refuted("kernel command line", "ArgumentForbidden", None, "/b init=x")),
        (boot(), {"kernelCommandLine": {"required": ["ro"]}}, refuted("kernel command line", "CommandLineNotShown")),
        (lines("/a ro"), {"kernelCommandLine": {"required": ["ro"]}, "quoted": (8,)},
         refuted("kernel command line", "CommandLineNotShown")),
    ],
)  # fmt: skip
def test_each_rule_tells_what_it_expected_and_found(log: bytes, rules: dict[str, Any], said: tuple[Any, ...]) -> None:
    assert told(log, **rules) == said


def detail(log: bytes, **rules: Any) -> str:
    return found(log, **rules).children[1].detail


@pytest.mark.parametrize(
    ("log", "rules", "text"),
    [
        (lab_log(), {"optionRoms": "Refuse", "quoted": (4,)}, "PCR 2 was not quoted"),
        (images(ended=(4,)), {"optionRoms": "Refuse"}, "PCR 2 has no separator"),
        (images(ended=(2,)), {"forbiddenImages": ["00" * 32]}, "PCR 4 has no separator"),
        (images(ended=()), {"forbiddenImages": ["00" * 32], "quoted": (5,)}, "PCR 2 was not quoted"),
        (images(b"rom"), {"optionRoms": "Refuse"}, "PCR 2"),
        (lab_log(), authorities(allowed=[MINE]) | {"quoted": (0,)}, "PCR 7 was not quoted"),
        (lab_log(), authorities(required=[OTHER, MINE]), OTHER),
        (images(b"image"), {"forbiddenImages": [image_digest(b"image")]}, "event 3 of PCR 2"),
        (lines("/a ro"), {"kernelCommandLine": {"required": ["ro"]}, "quoted": (8,)}, "was not quoted"),
        (lines("/a ro", "/b rw"), {"kernelCommandLine": {"required": ["ro"]}}, "event 2: the kernel was not told ro"),
        (lines("/b init=x"), {"kernelCommandLine": {"forbidden": ["init=*"]}}, "event 1: the kernel was told init=x"),
        (images(b"rom", b"rom"), {"optionRoms": "Refuse"}, "PCR 2 (and 1 more)"),
        (images(b"rom", b"rom", b"rom"), {"optionRoms": "Refuse"}, "PCR 2 (and 2 more)"),
        (images(), {"forbiddenImages": ["00" * 48, "11" * 48, "00" * 32]}, "2 forbidden digests"),
        (lab_log(), {"dbxAtLeast": ["02" * 32], "quoted": (0,)}, "PCR 7 was not quoted"),
        (lab_log(), {"secureBoot": "Enabled", "quoted": (0,)}, "PCR 7 was not quoted"),
        (without_databases(), {"dbxAtLeast": ["02" * 32]}, "dbx was not measured, or cannot be read"),
        (lab_log(), authorities(required=[MINE]), REQUIRED_ALONE),
        (boot(), {"dbxAtLeast": ["02" * 32, "03" * 32, "04" * 32]}, f"2 of 3 entries: {'03' * 32}, {'04' * 32}"),
        (lines("/a ro"), {"kernelCommandLine": {"required": ["ro"]}}, IMAGES_NOT_JUDGED),
    ],
)
def test_each_rule_says_why(log: bytes, rules: dict[str, Any], text: str) -> None:
    said = detail(log, **rules)
    assert text in said
    assert ("more" in said) == ("more" in text)


def test_nothing_is_said_of_more_option_roms_where_there_is_one() -> None:
    assert detail(images(b"rom"), optionRoms="Refuse").endswith("PCR 2")


@pytest.mark.parametrize(("lacking", "more"), [(8, ""), (9, " and 1 more"), (10, " and 2 more")])
def test_what_lacks_is_named_up_to_a_bound_and_in_order(lacking: int, more: str) -> None:
    said = detail(boot(), dbxAtLeast=REVOKED[:lacking][::-1])
    assert said.partition("entries: ")[2] == ", ".join(REVOKED[:8]) + more


def test_replay_tells_how_many_events_lead_to_which_pcrs() -> None:
    log = images(b"a", b"b")
    replayed = found(log, quoted=(2, 4, 10)).children[0]
    assert (replayed.check, replayed.outcome, replayed.reason) == ("replay", Outcome.HOLDS, "EventLogReplays")
    assert replayed.detail == f"{len(verified(log).log.events)} events replay to the quoted PCRs (2, 4)"
    alone = found(log, quoted=(10,)).children[0]
    assert (alone.check, alone.outcome) == ("replay", Outcome.CANNOT_TELL)


# --- what a wrong rule would let through -----------------------------------------------------------------------


def of_bundle(*entries: str) -> ReferenceValues:
    dbx = frozenset(map(bytes.fromhex, entries))
    return ReferenceValues("lab", 1, "sha256:", (), {}, dbx, files=None)  # type: ignore[arg-type] # no file is asked for


def test_dbx_must_hold_what_the_policy_and_what_the_bundle_asks_for() -> None:
    ours, theirs = "02" * 32, "03" * 32
    assert reason(boot(), dbxAtLeast=[ours], reference=of_bundle(theirs)) == "DbxTooOld"
    assert reason(boot(), dbxAtLeast=[theirs], reference=of_bundle(ours)) == "DbxTooOld"
    assert reason(boot(), dbxAtLeast=[theirs], reference=of_bundle()) == "DbxTooOld"
    holds(boot(), dbxAtLeast=[ours], reference=of_bundle("01" * 32))


def test_every_rule_of_a_policy_is_judged() -> None:
    rules = {
        "secureBoot": "Enabled",
        "authorities": {"required": [MINE]},
        "dbxAtLeast": ["02" * 32],
        "optionRoms": "Refuse",
        "forbiddenImages": ["00" * 32],
        "kernelCommandLine": {"required": ["ro"]},
    }
    checks = [child.check for child in found(lab_log(), **rules).children]
    assert checks == [
        "replay", "secure boot", "authorities", "dbx", "option ROMs", "forbidden images", "kernel command line"
    ]  # fmt: skip
    (none,) = boot_rules(spec(), None)
    assert none.rules == ()


def test_last_of_several_authorities_is_judged_like_the_first() -> None:
    log = boot(authority("Laboratory db"), authority("Laboratory db"), authority("Somebody else"))
    assert reason(log, **authorities(forbidden=[OTHER])) == "AuthorityForbidden"
    assert reason(log, **authorities(allowed=[MINE], required=[MINE])) == "AuthorityNotAllowed"
    holds(log, **authorities(allowed=[MINE, OTHER], required=[MINE]))


def test_last_command_line_and_last_glob_are_judged_like_the_first() -> None:
    log = lines("/a ro quiet", "/b ro init=x")
    assert reason(log, kernelCommandLine={"forbidden": ["debug", "init=*"]}) == "ArgumentForbidden"
    assert reason(log, kernelCommandLine={"required": ["ro", "quiet"]}) == "ArgumentMissing"


def test_command_lines_too_long_to_be_remembered_are_judged_all_the_same() -> None:
    long = lines(*(f"/vmlinuz {'a' * 1500} {number}" for number in range(3)), "/vmlinuz init=x")
    assert reason(long, kernelCommandLine={"forbidden": ["init=*"]}) == "ArgumentForbidden"


def test_shim_that_was_told_to_verify_is_not_taken_for_one_that_was_not() -> None:
    made = secure_boot()
    made.entry(b"\x00", "MokSBState", SHIM_LOCK)
    made.entry(OWNER.bytes_le + authority("Laboratory db"))
    judged: Finding = found(made.data, secureBoot="Enabled", **authorities(allowed=[MINE]))
    assert judged.outcome is Outcome.HOLDS
