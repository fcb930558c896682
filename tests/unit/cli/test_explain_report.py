"""How a diagnosis is shown, and how it ends."""

from __future__ import annotations

import json

import pytest
import typer

from chatelaine.cli.explain_report import finish
from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State
from chatelaine.model.verdict import Outcome

FAILS = Check(
    "attestation", Outcome.REFUTED, "EvidenceRefuted", "Fresh evidence holds.", "PCR 7 differs.",
    notes=("Event 12.",), advice=(Advice("Look at it.", ("kubectl describe hsm a",)),),
    parts=(Check("rule", Outcome.HOLDS, "Allowed", found="fine"),),
)  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], diagnosis: Diagnosis, *, json: bool = False) -> tuple[int, str]:
    """Exit status and what was printed."""
    with pytest.raises(typer.Exit) as ended:
        finish(diagnosis, json=json)
    return ended.value.exit_code, capsys.readouterr().out


def test_what_decides_stands_first_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    holds = Check("hsm", Outcome.HOLDS, "Examined", "…", "Generation 1 was examined.")
    skipped = Check("keys", None, "NotBound", decides=False)
    status, out = shown(capsys, Diagnosis("Hsm a", State.NOT_READY, (holds, FAILS, skipped)))
    assert status == 1
    assert [line.rstrip() for line in out.splitlines()] == [
        "Hsm a is not Ready.",
        "What decides: attestation (EvidenceRefuted).",
        "",
        "✓ hsm          Examined  Generation 1 was examined.",
        "✗ attestation  EvidenceRefuted",
        "    expected  Fresh evidence holds.",
        "    found     PCR 7 differs.",
        "    Event 12.",
        "    ✓ rule  Allowed  fine",
        "    do        Look at it.",
        "                kubectl describe hsm a",
        "· keys         NotBound",
    ]


@pytest.mark.parametrize(("state", "status"), [(State.READY, 0), (State.NOT_READY, 1), (State.CANNOT_TELL, 2)])
def test_the_state_is_the_exit_status(capsys: pytest.CaptureFixture[str], state: State, status: int) -> None:
    assert shown(capsys, Diagnosis("Hsm a", state, (FAILS,)), json=True)[0] == status


def test_the_object_for_machines_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    _, out = shown(capsys, Diagnosis("Hsm a", State.NOT_READY, (FAILS,)), json=True)
    said = json.loads(out)
    assert (said["subject"], said["state"], said["deciding"]) == ("Hsm a", "NotReady", "attestation")
    assert said["checks"][0]["do"] == [{"text": "Look at it.", "commands": ["kubectl describe hsm a"]}]
    assert said["checks"][0]["checks"] == [{"check": "rule", "outcome": "Holds", "reason": "Allowed", "found": "fine"}]


def test_a_message_that_would_steer_the_terminal_is_only_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A status may be written by somebody else than our operator."""
    evil = "\x1b[2J\x1b]0;pwned\x07[bold red]Ready[/bold red]\nHsm a is Ready."
    check = Check(evil, Outcome.REFUTED, evil, evil, evil, (evil,), (Advice(evil, (evil,)),))
    _, out = shown(capsys, Diagnosis(evil, State.NOT_READY, (check,)))
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold red]Ready[/bold red]" in out
    assert "\nHsm a is Ready." not in out
