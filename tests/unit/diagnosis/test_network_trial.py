"""What two pods found is judged; a network that was not tried is never said to be closed."""

from __future__ import annotations

import pytest

from chatelaine.diagnosis.check import State
from chatelaine.diagnosis.network import judged, unstarted
from chatelaine.model.verdict import Outcome


@pytest.mark.parametrize(
    ("found", "state", "checks"),
    [
        ((True, True, True), State.READY, [Outcome.HOLDS] * 3),
        ((True, False, None), State.NOT_READY, [Outcome.HOLDS, Outcome.REFUTED]),
        ((True, True, False), State.NOT_READY, [Outcome.HOLDS, Outcome.HOLDS, Outcome.REFUTED]),
        ((True, None, None), State.CANNOT_TELL, [Outcome.HOLDS, Outcome.CANNOT_TELL]),
        ((True, True, None), State.CANNOT_TELL, [Outcome.HOLDS, Outcome.HOLDS, Outcome.CANNOT_TELL]),
        ((None, None, None), State.CANNOT_TELL, [Outcome.CANNOT_TELL]),
    ],
)
def test_what_was_found_decides(
    found: tuple[bool | None, bool | None, bool | None], state: State, checks: list[Outcome]
) -> None:
    diagnosis = judged(*found)
    assert diagnosis.state is state
    assert [check.outcome for check in diagnosis.checks] == checks


def test_a_network_on_which_nothing_connects_is_not_said_to_enforce_anything() -> None:
    """Pods that never reach each other look like pods that a policy cuts off."""
    assert judged(False, None, None).state is State.CANNOT_TELL


def test_pods_that_do_not_start_show_nothing_about_policies() -> None:
    found = unstarted("server", "no node")
    assert found.state is State.CANNOT_TELL
    assert "no node" in found.checks[0].found
