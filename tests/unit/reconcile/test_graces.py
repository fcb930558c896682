"""A grace of the reference values ends: hosts that ran the old contents are cut, and none of them has deviated."""

from __future__ import annotations

import pytest

from chatelaine.appraisal.ima_rules import GRACE_ENDED
from chatelaine.model.verdict import Finding, Outcome, all_of
from support.world import World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import condition, put_claim, stage

HOLDS = Finding("files", Outcome.HOLDS, "ImaFilesAllowed")
ENDED = Finding("file /usr/bin/old", Outcome.REFUTED, GRACE_ENDED, "was good until its grace ended")
UNLISTED = Finding("file /tmp/.x", Outcome.REFUTED, "ImaFileNotAllowed", "is not listed")
VIOLATION = Finding("violations", Outcome.REFUTED, "ImaViolation", "a violation")


def judged_by_what_ran() -> World:
    tpm = {
        "pcrs": {"bank": "Sha256", "values": [{"index": index, "anyOf": [GOOD_PCR]} for index in (0, 7)]},
        "ima": {},
    }
    world = stage("hsm-a", tpm=tpm)
    world.hosts["hsm-a"].what_ran = HOLDS
    put_claim(world)
    world.attest()
    world.settle()
    assert world.served("payments", "checkout").serves
    return world


def shows(world: World, *found: Finding) -> tuple[str, str]:
    world.hosts["hsm-a"].what_ran = all_of("ima", found)
    world.attest()
    world.settle()
    return condition(world.hsms["hsm-a"], "Attested")


def test_host_that_ran_old_contents_is_cut_when_their_grace_ends_and_not_untrusted() -> None:
    world = judged_by_what_ran()
    assert shows(world, HOLDS, ENDED) == ("False", "PolicyChanged")
    assert not world.served("payments", "checkout").serves
    # It was started anew, or the grace was made longer: nobody has to re-admit it.
    assert shows(world, HOLDS) == ("True", "EvidenceHolds")
    assert world.served("payments", "checkout").serves


@pytest.mark.parametrize("more", [UNLISTED, VIOLATION])
def test_end_of_a_grace_is_no_excuse_for_anything_else(more: Finding) -> None:
    assert shows(judged_by_what_ran(), ENDED, more) == ("False", "EvidenceRefuted")


def test_end_of_a_grace_is_no_excuse_for_another_pcr() -> None:
    world = judged_by_what_ran()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    assert shows(world, ENDED) == ("False", "EvidenceRefuted")


def test_old_content_that_ran_since_its_grace_ended_is_a_deviation() -> None:
    world = judged_by_what_ran()
    world.hosts["hsm-a"].ran_since = True
    assert shows(world, ENDED) == ("False", "EvidenceRefuted")


def test_host_that_is_cut_by_the_end_of_a_grace_and_runs_something_else_is_untrusted() -> None:
    world = judged_by_what_ran()
    assert shows(world, ENDED) == ("False", "PolicyChanged")
    world.hosts["hsm-a"].ran_since = True
    assert shows(world, ENDED, UNLISTED) == ("False", "EvidenceRefuted")
