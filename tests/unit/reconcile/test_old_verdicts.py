"""A verdict that ran out long ago is no proof, however often the operator is started again."""

from __future__ import annotations

import pytest

from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.judged import STAMP_SECONDS
from chatelaine.reconcile.standing import judge
from support.world import World
from support.world_objects import condition, put_claim, stage

MAX_AGE = 30


def silent_since_its_last_stamp() -> World:
    """A host that was Trusted, and an operator that is not there to see it fall silent."""
    world = stage("hsm-a")
    put_claim(world)
    world.settle()
    world.hosts["hsm-a"].reachable = False
    return world


@pytest.mark.parametrize("away", [STAMP_SECONDS + MAX_AGE, 7 * 86400])
def test_verdict_that_ran_out_long_ago_is_not_trusted_again_by_a_restart(away: int) -> None:
    world = silent_since_its_last_stamp()
    world.pass_time(away)
    world.restart()
    assert judge(world.hsm_snapshot("hsm-a")).verdict is Verdict.UNKNOWN
    assert not world.served("payments", "checkout").serves
    world.settle()
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "EvidenceExpired")


def test_operator_that_is_restarted_again_and_again_keeps_no_verdict_alive() -> None:
    world = silent_since_its_last_stamp()
    for _ in range(40):
        world.pass_time(MAX_AGE - 1)
        world.restart()
        last = judge(world.hsm_snapshot("hsm-a"))
    assert not last.serves


def test_verdict_whose_stamp_may_be_old_outlives_a_restart_by_no_more_than_the_stamps_interval() -> None:
    world = silent_since_its_last_stamp()
    world.pass_time(STAMP_SECONDS + MAX_AGE - 1)
    world.restart()
    assert judge(world.hsm_snapshot("hsm-a")).valid_until == world.now + 1
