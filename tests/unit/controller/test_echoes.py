"""What kopf owes us: versions that are known to exist, and were not told."""

from __future__ import annotations

import pytest

from chatelaine.controller.echoes import Echoes


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def echoes(clock: Clock) -> Echoes:
    return Echoes(("Hsm", "HsmClaim"), clock)


def test_nothing_is_owed_while_nothing_is_known(echoes: Echoes, clock: Clock) -> None:
    clock.now += 1000
    assert echoes.late_seconds("Hsm") == 0


def test_own_write_that_does_not_come_back_is_late_from_its_moment_on(echoes: Echoes, clock: Clock) -> None:
    echoes.exists("Hsm", 7)
    clock.now += 30
    echoes.exists("Hsm", 9)
    clock.now += 30
    assert echoes.late_seconds("Hsm") == 60
    assert echoes.late_seconds("HsmClaim") == 0


def test_a_later_event_settles_it_whichever_object_it_is_about(echoes: Echoes, clock: Clock) -> None:
    echoes.exists("Hsm", 7)
    clock.now += 30
    echoes.heard("Hsm", 6)
    assert echoes.late_seconds("Hsm") == 30
    echoes.heard("Hsm", 8)
    assert echoes.late_seconds("Hsm") == 0


def test_writes_made_while_one_was_waited_for_are_waited_for_next(echoes: Echoes, clock: Clock) -> None:
    echoes.exists("Hsm", 7)
    echoes.exists("Hsm", 9)
    clock.now += 30
    echoes.heard("Hsm", 7)
    assert echoes.late_seconds("Hsm") == 0
    clock.now += 5
    assert echoes.late_seconds("Hsm") == 5
    echoes.heard("Hsm", 9)
    clock.now += 5
    assert echoes.late_seconds("Hsm") == 0


def test_write_whose_event_overtook_its_answer_owes_nothing(echoes: Echoes, clock: Clock) -> None:
    echoes.heard("Hsm", 7)
    echoes.exists("Hsm", 7)
    clock.now += 30
    assert echoes.late_seconds("Hsm") == 0


def test_list_that_names_what_was_never_told_is_waited_for(echoes: Echoes, clock: Clock) -> None:
    echoes.heard("Hsm", 7)
    echoes.listed("Hsm", 9, 20)
    clock.now += 30
    assert echoes.late_seconds("Hsm") == 30
    echoes.listed("Hsm", 9, 25)
    assert echoes.late_seconds("Hsm") == 30
    echoes.heard("Hsm", 9)
    assert echoes.late_seconds("Hsm") == 0


def test_object_that_was_deleted_unseen_is_not_waited_for_for_ever(echoes: Echoes, clock: Clock) -> None:
    echoes.heard("Hsm", 7)
    echoes.exists("Hsm", 9)
    clock.now += 30
    echoes.listed("Hsm", 7, 20)
    assert echoes.late_seconds("Hsm") == 0


def test_list_that_is_older_than_our_own_write_settles_nothing(echoes: Echoes, clock: Clock) -> None:
    echoes.heard("Hsm", 7)
    echoes.exists("Hsm", 21)
    clock.now += 30
    echoes.listed("Hsm", 7, 20)
    assert echoes.late_seconds("Hsm") == 30


def test_a_watch_that_starts_anew_owes_nothing_yet(echoes: Echoes, clock: Clock) -> None:
    echoes.exists("Hsm", 7)
    echoes.begin()
    clock.now += 30
    assert echoes.late_seconds("Hsm") == 0
