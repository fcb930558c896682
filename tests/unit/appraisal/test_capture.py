"""Captured policies hold for the hosts they come from, refuse what was changed since, and say what they left out."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import ima as lab
from tools.lab.firmware import Boot, authority_digest, measured

from chatelaine.appraisal.appraise import appraise
from chatelaine.appraisal.capture import Capture, Wish, capture
from chatelaine.appraisal.capture_pcrs import choose, selected
from chatelaine.appraisal.errors import NothingToCapture
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.boot_log import match_boot_log
from chatelaine.evidence.bundle import LogFlaw, VerifiedEvidence
from chatelaine.evidence.ima import verify_ima
from chatelaine.evidence.reference_files import CompactAllowList
from chatelaine.evidence.reference_values import read_payload
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial, ReferenceValues
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Appraisal, Outcome, PolicyStamp, Verdict
from support.paper_host import PaperHost
from support.paper_ima import PaperIma, sha256

AT = 1_780_000_000
HOST = PaperHost()
INDICES = selected(())
BUNDLE = Wish(series="edge", version=1, issued_at="2026-01-31T12:00:00Z")


def booted(
    boot: Boot | None = None, *, ima: PaperIma | None = None, log: bool = True, **pcrs: bytes
) -> VerifiedEvidence:
    """Evidence of a host that booted so; `pcrs`: values (by `p5`) that are there instead."""
    written = measured(boot or Boot())
    values = {index: written.values[alg.SHA256].get(index, bytes(32)) for index in INDICES}
    values |= {int(name[1:]): value for name, value in pcrs.items()}
    if ima is not None:
        values[10] = ima.pcrs[Bank.SHA256]
    evidence = HOST.judged(HOST.answer(pcrs=values), selection=Selection(Bank.SHA256, tuple(values)))
    if log:
        evidence = dataclasses.replace(evidence, boot_log=match_boot_log(written.data, Bank.SHA256, values))
    if ima is not None:
        evidence = dataclasses.replace(evidence, ima=verify_ima(ima.data, evidence.quote))
    return evidence


def ran(*files: tuple[str, bytes], boot: Boot | None = None) -> PaperIma:
    """The list of a host that booted so (None: of one on which nothing was measured)."""
    values = measured(boot).values[alg.SHA256] if boot is not None else {}
    aggregate = hashlib.sha256(b"".join(values.get(index, bytes(32)) for index in range(10))).digest()
    paper = PaperIma().add("ima-ng", lab.digest_field("sha256", aggregate) + lab.path_field("boot_aggregate"))
    for path, content in files:
        paper.ran(path, content)
    return paper


def material(found: Capture) -> PolicyMaterial:
    """The bundle as if it had been signed; it goes through its own encoding first."""
    if found.bundle is None:
        return NO_MATERIAL
    said = read_payload(found.bundle.encode())
    dbx = frozenset(map(bytes.fromhex, said.dbx_at_least))
    files = CompactAllowList(said.files)
    return PolicyMaterial((), ReferenceValues(said.name, said.version, "sha256:" + "0" * 64, (), said.pcrs, dbx, files))


def judged(found: Capture, evidence: VerifiedEvidence) -> Appraisal:
    policy = (PolicyStamp("captured", "", 0, ""), found.typed(), material(found))
    return appraise(evidence, [policy], subject="x", generation=1, issued_at=AT, accounted=lambda _: True)


def refusals(found: Capture, evidence: VerifiedEvidence) -> set[str]:
    verdict = judged(found, evidence)
    assert verdict.verdict is Verdict.UNTRUSTED
    return {leaf.reason for leaf in verdict.findings.leaves() if leaf.outcome is Outcome.REFUTED}


def left(found: Capture) -> dict[str, str]:
    return {note.what: note.why for note in found.notes if not note.taken}


# --- the same host holds ----------------------------------------------------------------------------------------

BOOTS = st.builds(
    Boot,
    firmware=st.sampled_from(["Laboratory firmware 1.0", "2.0"]),
    secure_boot=st.booleans(),
    revoked=st.lists(st.binary(min_size=1, max_size=4), max_size=3, unique=True).map(tuple),
    option_roms=st.lists(st.binary(min_size=1, max_size=4), max_size=2).map(tuple),
    loader=st.binary(min_size=1, max_size=4),
    command_line=st.sampled_from(["/vmlinuz root=/dev/vda2 lockdown=integrity", "/vmlinuz ro", "/v ima_policy=tcb ro"]),
    serial=st.sampled_from(["a", "b"]),
)
PATHS = st.sampled_from(["/usr/bin/a", "/var/log/wtmp", "/tmp/\x1b[2J x", "/opt/ä", "/var/cache/x/y"])
FILES = st.lists(st.tuples(PATHS, st.binary(min_size=1, max_size=2)), max_size=8)


@given(st.lists(st.tuples(BOOTS, st.none() | FILES), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_captured_policy_holds_for_every_host_it_was_captured_from(hosts, log, into_bundle):
    seen = {}
    for number, (boot, files) in enumerate(hosts):
        paper = None if files is None else ran(*files, boot=boot)
        seen[f"host-{number}"] = booted(boot, ima=paper, log=log)
    found = capture(seen, BUNDLE if into_bundle else Wish())
    for evidence in seen.values():
        verdict = judged(found, evidence)
        assert verdict.verdict is Verdict.TRUSTED, verdict.findings.first(Outcome.REFUTED)


@given(BOOTS)
def test_what_differs_from_host_to_host_or_boot_to_boot_does_not_refuse(boot):
    found = capture({"a": booted(boot)}, Wish())
    other = booted(dataclasses.replace(boot, serial="elsewhere"), p1=b"\x55" * 32, log=False)
    policy = dataclasses.replace(found, spec={**found.spec, "tpm": {"pcrs": found.spec["tpm"]["pcrs"]}})
    assert judged(policy, other).verdict is Verdict.TRUSTED


# --- attacks: what was changed since is refused -----------------------------------------------------------------


def test_other_boot_loader_is_refused():
    found = capture({"a": booted()}, Wish())
    assert "PcrMismatch" in refusals(found, booted(Boot(loader=b"something nobody approved")))


def test_secure_boot_switched_off_is_refused_by_its_own_name():
    found = capture({"a": booted()}, Wish())
    assert {"PcrMismatch", "SecureBootDisabled"} <= refusals(found, booted(Boot(secure_boot=False)))


def test_other_authority_is_refused_by_its_own_name():
    found = capture({"a": booted()}, Wish())
    assert found.spec["tpm"]["eventLog"]["authorities"] == {"allowed": [authority_digest("Laboratory db")]}
    changed = Boot(authority="Stranger", trusted=("Laboratory db", "Stranger"))
    assert "AuthorityNotAllowed" in refusals(found, booted(changed))


def test_dbx_that_goes_back_option_rom_and_weaker_kernel_are_refused():
    found = capture({"a": booted()}, Wish())
    assert "DbxTooOld" in refusals(found, booted(Boot(revoked=(b"boot loader 0.8",))))
    assert "OptionRomMeasured" in refusals(found, booted(Boot(option_roms=(b"rom",))))
    assert "ArgumentMissing" in refusals(found, booted(Boot(command_line="/vmlinuz-lab root=/dev/vda2 ro quiet")))


def test_file_that_was_not_there_is_refused():
    for wish in (Wish(), BUNDLE):
        found = with_ima(ran(("/usr/bin/a", b"a"), boot=Boot()), wish)
        later = ran(("/usr/bin/a", b"a"), ("/usr/bin/b", b"b"), boot=Boot())
        assert refusals(found, booted(log=False, ima=later)) == {"ImaFileNotAllowed"}


def test_extended_pcr_of_those_that_are_taken_is_refused():
    found = capture({"a": booted(log=False)}, Wish())
    for choice in found.spec["tpm"]["pcrs"]["values"]:
        assert refusals(found, booted(log=False, **{f"p{choice['index']}": b"\x66" * 32})) == {"PcrMismatch"}


def test_host_without_a_log_is_refused_where_the_log_was_captured():
    found = capture({"a": booted()}, Wish())
    assert refusals(found, booted(log=False)) == {"EventLogMissing"}


# --- what is left out is said -----------------------------------------------------------------------------------


def test_pcrs_that_change_by_themselves_are_left_out_and_the_reason_is_said():
    found = capture({"a": booted(p10=b"\x01" * 32, p12=b"\x01" * 32, log=False)}, Wish())
    assert [value["index"] for value in found.spec["tpm"]["pcrs"]["values"]] == [0, 2, 4, 7, 8, 9]
    said = left(found)
    for named, word in (
        ("PCR 1 (firmware settings)", "serial"),
        ("PCR 5 (partition table and settings of the boot loader)", "boot counters"),
        ("PCR 10 (IMA: every file that was measured while the machine runs)", "every file"),
        ("PCRs 11, 12, 13, 14, 15", "ask for it"),
        ("PCRs 16, 23", "reset"),
    ):
        assert word in said[named]
        assert f"{named}: {said[named]}" in found.comments["tpm", "pcrs", "values"]


def test_pcr_that_was_asked_for_is_taken_with_a_caution_and_one_that_was_not_wanted_is_not():
    found = capture({"a": booted(log=False)}, Wish(also=frozenset({5}), without=frozenset({9})))
    assert [value["index"] for value in found.spec["tpm"]["pcrs"]["values"]] == [0, 2, 4, 5, 7, 8]
    assert "boot counters" in "\n".join(found.comments["tpm", "pcrs", "values", 3])


def test_hosts_that_differ_are_both_good_and_named():
    found = capture({"a": booted(log=False), "b": booted(Boot(loader=b"2.0"), log=False)}, Wish())
    (four,) = [value for value in found.spec["tpm"]["pcrs"]["values"] if value["index"] == 4]
    assert len(four["anyOf"]) == 2
    assert "of b" in "\n".join(found.comments["tpm", "pcrs", "values", 2])


def test_pcr_with_more_values_than_a_policy_names_is_left_out():
    seen = [(str(n), {0: bytes(32), 4: bytes([n]) * 32}) for n in range(1, 34)]
    by_index = {choice.index: choice for choice in choose(seen)}
    assert by_index[0].taken
    assert not by_index[4].taken
    assert "33 values" in by_index[4].why


def test_nothing_is_captured_from_nobody_and_never_without_a_pcr():
    with pytest.raises(NothingToCapture):
        capture({}, Wish())
    with pytest.raises(NothingToCapture):
        capture({"a": booted()}, Wish(without=frozenset(range(24))))


def test_parts_of_the_base_that_no_host_shows_are_kept():
    base = {
        "freshness": {"maxAgeSeconds": 20},
        "tpm": {"eventLog": {"replay": "Required", "forbiddenImages": ["ab" * 32]}},
        "hsm": {"inventory": "Accounted"},
        "release": {"anyOf": [{"namespaces": {"matchLabels": {"team": "payments"}}}]},
    }
    found = capture({"a": booted()}, Wish(base=base))
    assert found.spec["freshness"] == {"maxAgeSeconds": 20}
    assert found.spec["tpm"]["eventLog"]["forbiddenImages"] == ["ab" * 32]
    assert found.spec["hsm"]["inventory"] == "Accounted"
    assert found.typed().release is not None
    assert "release" not in left(found)
    assert "release" in left(capture({"a": booted()}, Wish()))


def test_log_that_does_not_replay_gives_no_rules_and_the_reason():
    flawed = dataclasses.replace(booted(log=False), boot_log_flaw=LogFlaw("EventLogMismatch", "PCR 4\x1b[2J", True))
    found = capture({"a": flawed}, Wish())
    assert "eventLog" not in found.spec["tpm"]
    assert left(found)["what booted (event log)"] == "a: PCR 4?[2J"


# --- IMA ------------------------------------------------------------------------------------------------------


def with_ima(paper: PaperIma, wish: Wish = BUNDLE) -> Capture:
    return capture({"a": booted(log=False, ima=paper)}, wish)


def test_logs_and_caches_are_not_judged_and_that_is_said():
    found = with_ima(ran(("/var/log/wtmp", b"1"), ("/usr/bin/a", b"a")))
    assert found.spec["tpm"]["ima"] == {"unjudgedPaths": ["/var/log/**"]}
    assert [file.path for file in found.bundle.files] == ["/usr/bin/a"]
    assert "not judged" in "\n".join(found.comments["tpm", "ima"])


def test_more_files_than_a_policy_lists_ask_for_a_bundle():
    paper = ran(*((f"/usr/bin/{number}", b"x") for number in range(65)))
    found = with_ima(paper, Wish())
    assert "ima" not in found.spec["tpm"]
    assert "ask for a bundle" in left(found)["what runs (IMA)"]
    assert len(with_ima(paper).bundle.files) == 65


def test_violations_are_recorded_and_the_person_is_told_to_find_out():
    paper = ran(("/usr/bin/a", b"a")).violated("/usr/bin/a")
    found = with_ima(paper)
    assert found.spec["tpm"]["ima"]["violations"] == "Record"
    assert "Find out which" in "\n".join(found.comments["tpm", "ima"])


def test_file_with_two_contents_is_listed_with_both_and_said():
    found = with_ima(ran(("/usr/bin/a", b"old"), ("/usr/bin/a", b"new")))
    (row,) = found.bundle.files
    assert set(row.digests) == {sha256(b"old"), sha256(b"new")}
    assert "more than one content" in "\n".join(found.comments["tpm", "ima"])


def weak(paper: PaperIma) -> PaperIma:
    return paper.add("ima-ng", lab.digest_field("sha1", bytes(20)) + lab.path_field("/usr/bin/b"))


def unreadable(paper: PaperIma) -> PaperIma:
    return paper.add("ima-ng", lab.field(b"no digest\0") + lab.path_field("/usr/bin/b"))


def elsewhere(paper: PaperIma) -> PaperIma:
    return paper.add("ima-ng", lab.digest_field("sha256", bytes(32)) + lab.path_field("/usr/bin/b"), pcr=11)


@pytest.mark.parametrize(
    ("change", "word"), [(weak, "ima_hash=sha256"), (unreadable, "cannot be judged"), (elsewhere, "another PCR")]
)
def test_list_that_could_never_be_judged_is_left_out_as_a_whole_and_the_host_still_holds(change, word):
    # Whatever entry of the list is the last that PCR 10 vouches for.
    paper = change(ran(("/usr/bin/a", b"a"), boot=Boot())).ran("/usr/bin/c", b"c")
    evidence = booted(log=False, ima=paper)
    found = capture({"a": evidence}, BUNDLE)
    assert "ima" not in found.spec["tpm"]
    assert word in left(found)["what runs (IMA)"]
    assert judged(found, evidence).verdict is Verdict.TRUSTED


@pytest.mark.parametrize("name", [b"/usr/bin/\xff\xfe", b"/usr/bin/*\xff", b"/**/\xff"])
def test_name_that_is_no_text_makes_no_pattern_that_lets_other_files_run(name):
    """Any user can make such a name; as a pattern, it would have been one for `sh`, or for everything."""
    evidence = booted(log=False, ima=ran(("/usr/bin/sh", b"shell"), boot=Boot()).ran(name, b"1"))
    for wish in (Wish(), BUNDLE):
        found = capture({"a": evidence}, wish)
        assert "ima" not in found.spec["tpm"]
        assert "no text" in left(found)["what runs (IMA)"]
        assert judged(found, evidence).verdict is Verdict.TRUSTED


def test_name_that_is_no_text_among_logs_is_not_judged_anyway():
    paper = ran(("/usr/bin/sh", b"shell"), boot=Boot()).ran(b"/var/log/\xff", b"1")
    found = capture({"a": booted(log=False, ima=paper)}, Wish())
    assert found.spec["tpm"]["ima"]["unjudgedPaths"] == ["/var/log/**"]


def comments_of(found: Capture) -> list[Any]:
    return [line for lines in found.comments.values() for line in lines]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40))
def test_hostile_names_of_files_are_no_control_characters_in_notes_or_comments(path):
    paper = ran((f"/tmp/{path}", b"1"), (f"/tmp/{path}", b"2"))
    for found in (with_ima(paper), with_ima(paper, Wish())):
        assert all(line.isprintable() for line in comments_of(found))
        assert all((note.what + note.why).isprintable() for note in found.notes)
