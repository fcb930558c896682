"""Lists of any length, from hosts that lie in every place: what a round makes of them, and what it leaves behind."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from chatelaine.appraisal.ima_history import GROUP_ENTRIES
from chatelaine.appraisal.ima_rules import ima_rule
from chatelaine.controller.ima_reading import MAX_PIECES
from chatelaine.controller.interrogation import Told
from chatelaine.evidence.ima import MAX_IMA_BYTES, MAX_IMA_CHUNK_BYTES
from chatelaine.model.tpm_policy import Bank, ImaRules
from chatelaine.model.verdict import Outcome
from chatelaine.wire.messages import ImaResponse
from support.paper_agent import BAD, GOOD, POLICY, PaperAgent, booted, finding, read, replaced, rule
from support.paper_ima import GracefulFiles, PaperIma, sha256


def is_open(told: Told, reason: str) -> None:
    """Nothing is told, and nothing is kept."""
    assert (finding(told).outcome, finding(told).reason) == (Outcome.CANNOT_TELL, reason)
    assert told.ima is None


def test_a_list_is_read_once_and_then_from_where_it_was_left() -> None:
    agent = PaperAgent(booted())
    first = read(agent)
    assert finding(first).outcome is Outcome.HOLDS
    assert first.ima is not None
    assert first.ima.progress.offset_bytes == len(agent.ima.data)
    agent.ima.ran(*GOOD)
    second = read(agent, first.ima)
    assert finding(second).outcome is Outcome.HOLDS
    assert agent.asked == [("evidence", 0), ("evidence", first.ima.progress.offset_bytes)]
    assert second.evidence.ima_offset == first.ima.progress.offset_bytes


def test_verified_entries_are_not_kept() -> None:
    told = read(PaperAgent(booted()))
    assert told.verified is not None
    assert told.verified.ima is not None
    assert told.verified.ima.entries == ()


def test_an_unlisted_file_in_a_later_increment_is_refused() -> None:
    agent = PaperAgent(booted())
    history = read(agent).ima
    agent.ima.ran(*BAD)
    told = read(agent, history)
    assert (finding(told).outcome, finding(told).reason) == (Outcome.REFUTED, "ImaFileNotAllowed")
    assert told.round.ima.deviates == {POLICY}


def test_what_was_refused_stays_refused_in_later_rounds() -> None:
    agent = PaperAgent(booted().ran(*BAD))
    history = read(agent).ima
    agent.ima.ran(*GOOD)
    told = read(agent, history)
    assert finding(told).reason == "ImaFileNotAllowed"


def test_a_list_that_no_prefix_of_which_leads_to_the_quote_leaves_it_open_and_is_asked_for_again() -> None:
    agent = PaperAgent(booted())
    agent.ima.pcrs[Bank.SHA256] = b"\x01" * 32
    is_open(read(agent), "ImaNoPrefix")
    assert len(agent.asked) == 1


def test_a_replayed_older_list_leaves_it_open() -> None:
    agent = PaperAgent(booted())
    old = agent.ima.data
    agent.ima.ran(*BAD)
    agent.ima.data = old
    is_open(read(agent), "ImaNoPrefix")


def test_an_entry_that_was_taken_out_leaves_it_open() -> None:
    agent = PaperAgent(booted())
    before = agent.ima.data
    hidden = len(agent.ima.ran(*BAD).data)
    agent.ima.ran(*GOOD)
    agent.ima.data = before + agent.ima.data[hidden:]
    is_open(read(agent), "ImaNoPrefix")


def test_an_offset_that_was_lost_makes_the_whole_list_be_read_again() -> None:
    agent = PaperAgent(booted())
    history = read(agent).ima
    other = PaperAgent(PaperIma.booted().ran("/usr/bin/other", b"other").ran(*GOOD))
    told = read(other, history, **{POLICY: rule(GOOD, ("/usr/bin/other", b"other"))})
    assert finding(told).outcome is Outcome.HOLDS
    assert told.evidence.ima_offset == 0


def test_another_boot_makes_the_whole_list_be_read_again() -> None:
    agent = PaperAgent(booted())
    history = read(agent).ima
    rebooted = PaperAgent(booted(), resets=6)
    told = read(rebooted, history)
    assert finding(told).outcome is Outcome.HOLDS
    assert told.ima is not None
    assert told.ima.progress.reset_count == 6
    assert rebooted.asked == [("evidence", 0)]


def test_a_refusal_of_an_earlier_boot_does_not_stay() -> None:
    history = read(PaperAgent(booted().ran(*BAD))).ima
    assert finding(read(PaperAgent(booted(), resets=6), history)).outcome is Outcome.HOLDS


def test_a_policy_that_has_not_judged_the_beginning_makes_the_whole_list_be_read_again() -> None:
    agent = PaperAgent(booted().ran("/usr/bin/old", b"old"))
    history = read(agent, **{POLICY: rule(GOOD, ("/usr/bin/old", b"old"))}).ima
    told = read(agent, history, policy="sha256:" + "b" * 64)
    assert finding(told, "sha256:" + "b" * 64).reason == "ImaFileNotAllowed"
    # It had run before: the policy has changed, not the host.
    assert told.round.ima.deviates == frozenset()


def test_what_ran_since_the_policy_changed_is_told_from_what_ran_before() -> None:
    agent = PaperAgent(booted().ran("/usr/bin/old", b"old"))
    history = read(agent, **{POLICY: rule(GOOD, ("/usr/bin/old", b"old"))}).ima
    agent.ima.ran(*BAD)
    other = "sha256:" + "b" * 64
    assert read(agent, history, policy=other).round.ima.deviates == {other}


@pytest.mark.parametrize("offset", [7, 2**31, 2**62])
def test_an_offset_that_lies_leaves_it_open(offset: int) -> None:
    agent = PaperAgent(booted(), alter=lambda message: replaced(message, ima_offset=offset))
    is_open(read(agent), "Malformed")


def test_a_piece_that_is_too_long_leaves_it_open() -> None:
    long = bytes(MAX_IMA_CHUNK_BYTES + 1)
    is_open(read(PaperAgent(booted(), alter=lambda message: replaced(message, ima_list=long))), "Oversized")


def long_list(entries: int) -> PaperIma:
    ima = PaperIma.booted()
    for _ in range(entries):
        ima.ran(*GOOD)
    return ima


def test_a_list_longer_than_a_piece_is_fetched_piece_by_piece() -> None:
    agent = PaperAgent(long_list(GROUP_ENTRIES + 100), limit_bytes=100_000)
    told = read(agent)
    assert finding(told).outcome is Outcome.HOLDS
    assert told.ima is not None
    assert told.ima.progress.entries == GROUP_ENTRIES + 101
    assert [what for what, _ in agent.asked].count("evidence") == 2
    # All of it is the evidence: stored together, it can be judged again.
    assert hashlib.sha256(agent.ima.data).digest() == hashlib.sha256(told.evidence.ima_list or b"").digest()


def test_a_refused_file_in_the_first_piece_of_many_is_found() -> None:
    ima = PaperIma.booted().ran(*BAD)
    for _ in range(GROUP_ENTRIES * 2):
        ima.ran(*GOOD)
    assert finding(read(PaperAgent(ima, limit_bytes=100_000))).reason == "ImaFileNotAllowed"


def test_the_answer_does_not_depend_on_the_pieces() -> None:
    ima = long_list(GROUP_ENTRIES * 2 + 7).ran(*BAD)
    one, many = read(PaperAgent(ima)), read(PaperAgent(ima, limit_bytes=50_000))
    assert finding(one) == finding(many)
    assert one.evidence.ima_list == many.evidence.ima_list
    assert one.ima == many.ima


def test_a_list_that_grows_while_it_is_read_is_read_to_the_quote() -> None:
    def happens(agent: PaperAgent) -> None:
        for _ in range(200):
            agent.ima.ran(*GOOD)

    agent = PaperAgent(long_list(GROUP_ENTRIES), limit_bytes=100_000, happens=happens)
    told = read(agent)
    assert finding(told).outcome is Outcome.HOLDS
    assert told.ima is not None
    assert told.ima.progress.offset_bytes == len(agent.ima.data)


def test_a_list_that_grows_faster_than_it_is_read_leaves_it_open() -> None:
    """It is there, and was shown: nothing speaks against the host."""

    def happens(agent: PaperAgent) -> None:
        for _ in range(300):
            agent.ima.ran(*GOOD)

    def alter(message: Any) -> Any:
        return replaced(message, more=False) if isinstance(message, ImaResponse) else message

    is_open(read(PaperAgent(long_list(600), limit_bytes=20_000, happens=happens, alter=alter)), "ImaNoPrefix")


def test_a_list_that_begins_anew_while_it_is_read_leaves_it_open() -> None:
    def alter(message: Any) -> Any:
        return replaced(message, offset=0) if isinstance(message, ImaResponse) and message.offset else message

    is_open(read(PaperAgent(long_list(3000), limit_bytes=50_000, alter=alter)), "ImaProgressLost")


def test_a_list_over_its_bound_leaves_it_open() -> None:
    """32 MiB and a byte, in pieces of a mebibyte: the last ones are not even asked for."""
    entry = PaperIma().ran("/" + "x" * 4000, b"y").data
    ima = PaperIma.booted()
    ima.data += entry * (MAX_IMA_BYTES // len(entry) + 1)
    ima.pcrs[Bank.SHA256] = b"\x01" * 32
    agent = PaperAgent(ima)
    is_open(read(agent), "Oversized")
    assert len(agent.asked) <= MAX_IMA_BYTES // MAX_IMA_CHUNK_BYTES + 3


def test_a_list_that_comes_in_crumbs_is_given_up() -> None:
    agent = PaperAgent(long_list(3 * MAX_PIECES), limit_bytes=200)
    is_open(read(agent), "Oversized")
    assert len([1 for what, _ in agent.asked if what == "piece"]) <= MAX_PIECES


def test_an_entry_longer_than_a_piece_ends_the_reading() -> None:
    def alter(message: Any) -> Any:
        if isinstance(message, ImaResponse):
            return replaced(message, piece=message.piece[:10], more=True)
        return replaced(message, ima_list=message.ima_list[:10], ima_more=True)

    is_open(read(PaperAgent(booted(), alter=alter)), "Malformed")


def test_a_host_that_withholds_its_list_is_refused() -> None:
    told = read(PaperAgent(booted(), alter=lambda message: replaced(message, ima_list=None)))
    assert (finding(told).outcome, finding(told).reason) == (Outcome.REFUTED, "ImaListMissing")


def test_an_empty_list_on_a_host_that_measures_nothing_is_refused() -> None:
    told = read(PaperAgent(PaperIma()))
    assert (finding(told).outcome, finding(told).reason) == (Outcome.REFUTED, "ImaNothingMeasured")


def test_an_empty_list_of_a_host_that_measures_leaves_it_open() -> None:
    agent = PaperAgent(booted())
    agent.ima.data = b""
    is_open(read(agent), "ImaNoPrefix")


# --- graces -----------------------------------------------------------------------------------------------------

OLD = ("/usr/bin/old", b"old")
END = 100


def graceful(at: int) -> Any:
    """Allows the good file, and the old one before `END`."""
    allow = [{"path": GOOD[0], "digests": [sha256(GOOD[1])]}]
    files = GracefulFiles({OLD[0]: {sha256(OLD[1]): END}})
    return ima_rule(ImaRules.model_validate({"allow": allow}), files, at=at)


def test_an_old_content_is_refused_when_its_grace_ends_though_nothing_new_ran() -> None:
    """Else it would be, but only after a restart of the operator: for every host that restarts nobody, at once."""
    agent = PaperAgent(booted().ran(*OLD))
    before = read(agent, **{POLICY: graceful(END - 1)})
    assert finding(before).outcome is Outcome.HOLDS
    after = read(agent, before.ima, **{POLICY: graceful(END)})
    assert (finding(after).outcome, finding(after).reason) == (Outcome.REFUTED, "ImaGraceEnded")
    assert finding(after) == finding(read(agent, **{POLICY: graceful(END)}))
    assert after.round.ima.deviates == frozenset()


def test_a_list_is_not_read_again_while_no_grace_ends() -> None:
    agent = PaperAgent(booted().ran(*OLD))
    history = read(agent, **{POLICY: graceful(1)}).ima
    for at in (2, END - 1):
        history = read(agent, history, **{POLICY: graceful(at)}).ima
    assert [offset for _, offset in agent.asked] == [0, len(agent.ima.data), len(agent.ima.data)]
    history = read(agent, history, **{POLICY: graceful(END)}).ima
    read(agent, history, **{POLICY: graceful(END + 1)})
    assert [offset for _, offset in agent.asked][3:] == [0, len(agent.ima.data)]


@pytest.mark.parametrize("last_seen", [END - 1, END])
def test_an_old_content_that_runs_after_its_grace_is_a_change_of_the_host(last_seen: int) -> None:
    agent = PaperAgent(booted())
    history = read(agent, **{POLICY: graceful(last_seen)}).ima
    agent.ima.ran(*OLD)
    told = read(agent, history, **{POLICY: graceful(END + 1)})
    assert finding(told).reason == "ImaGraceEnded"
    assert told.round.ima.deviates == {POLICY}


@pytest.mark.parametrize("between", [0, 2 * GROUP_ENTRIES])
def test_a_file_that_was_never_listed_does_not_hide_behind_an_ended_grace(between: int) -> None:
    ima = booted().ran(*OLD)
    for _ in range(between):
        ima.ran(*GOOD)
    ima.ran(*BAD)
    agent = PaperAgent(ima)
    assert finding(read(agent, **{POLICY: graceful(END)})).reason == "ImaFileNotAllowed"
    # Nor where it ran later.
    agent = PaperAgent(booted().ran(*OLD))
    history = read(agent, **{POLICY: graceful(END)}).ima
    agent.ima.ran(*BAD)
    assert finding(read(agent, history, **{POLICY: graceful(END)})).reason == "ImaFileNotAllowed"
