"""Every reason has an advice or needs none, and every command in it can be written out."""

from __future__ import annotations

import shlex
import string

import pytest

from chatelaine.diagnosis import binding
from chatelaine.diagnosis.advice import NOTHING_TO_DO, TABLE, advice_on
from chatelaine.diagnosis.names import Names
from chatelaine.model.reasons import Reason
from chatelaine.reconcile.candidates import REQUIREMENTS

EVERYTHING = Names(
    kind="hsmclaim", name="n", namespace="ns", claim="c", hsm="h", policy="p", evidence="e", ek="k", thumbprint="t"
)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_advice_or_needs_none(reason: Reason) -> None:
    assert (reason in TABLE) != (reason in NOTHING_TO_DO)


@pytest.mark.parametrize("reason", list(TABLE))
def test_every_command_can_be_written_out(reason: Reason) -> None:
    told = advice_on(reason.value, EVERYTHING)
    assert [len(commands) for _, commands in TABLE[reason]] == [len(one.commands) for one in told]
    for one in told:
        assert one.text
        assert "{" not in one.text
        assert all(command.split()[0] in ("kubectl", "chatelaine") for command in one.commands)


def test_a_command_of_which_a_name_is_not_known_is_left_out() -> None:
    assert advice_on(Reason.EVIDENCE_REFUTED.value, Names())[2].commands == ()


def test_fields_of_templates_are_names() -> None:
    templates = [command for pairs in TABLE.values() for _, commands in pairs for command in commands]
    asked = {name for command in templates for _, name, _, _ in string.Formatter().parse(command) if name}
    assert asked <= set(Names.__dataclass_fields__)


def test_every_requirement_of_an_hsm_has_its_remedy() -> None:
    """`binding` names requirements by the check that `candidates` gives them."""
    assert len(binding._REMEDIES) >= len(REQUIREMENTS)


@pytest.mark.parametrize("name", ["a; reboot", "$(reboot)", "`reboot`", "a'b", 'a"b', "a\nb"])
def test_a_name_cannot_break_out_of_a_command(name: str) -> None:
    written = Names(hsm=name).fill("kubectl describe hsm {hsm}")
    assert written is not None
    assert shlex.split(written) == ["kubectl", "describe", "hsm", name]
