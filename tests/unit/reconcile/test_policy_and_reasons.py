from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import chatelaine.reconcile
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.reasons import EXPLAINED, Reason
from chatelaine.reconcile import policy as policy_room
from chatelaine.reconcile.claim_snapshot import NamespaceFacts
from chatelaine.reconcile.plan import EmitEvent, SetPolicyStatus
from chatelaine.reconcile.policy import contradictions
from chatelaine.reconcile.snapshot import PolicySnapshot
from support.world import START, World
from support.world_hosts import GOOD_PCR
from support.world_objects import condition, message, policy_spec, put_claim, put_hsm, put_policy

EK = "sha256:" + "1" * 64


def spec(**changes: Any) -> AttestationPolicySpec:
    return AttestationPolicySpec.model_validate(policy_spec(**changes))


def test_status_says_digest_and_uses_and_is_written_once() -> None:
    world = World()
    item = put_policy(world)
    put_hsm(world, "hsm-a")
    put_claim(world, policyRef={"name": "baseline"})
    world.namespaces["payments"] = NamespaceFacts("u", {})
    world.settle()
    status = world.policies["baseline"].status
    assert status.digest == item.spec.digest()
    assert status.used_by is not None
    assert (status.used_by.hsms, status.used_by.claims) == (1, 1)
    assert condition(world.policies["baseline"], "Valid") == ("True", "RulesValid")
    assert condition(world.policies["baseline"], "Ready") == ("True", "AllReady")
    assert policy_room.reconcile(PolicySnapshot(world.now, world.policies["baseline"], 1, 1)).actions == ()


PCR = {"index": 0, "anyOf": [GOOD_PCR]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tpm": {"pcrs": {"bank": "Sha256", "values": [PCR, PCR]}}}, "names PCR 0 twice"),
        ({"tpm": {"pcrs": {"bank": "Sha384", "values": [PCR]}}}, "not 96 hexadecimal digits"),
        (
            {"tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["0" * 96]}]}}},
            "not 64 hexadecimal digits",
        ),
        (
            {"tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": [GOOD_PCR, GOOD_PCR]}]}}},
            f"lists {GOOD_PCR} twice",
        ),
        ({"hsm": {"firmware": [{"model": "m", "anyOf": ["1"]}, {"model": "m", "anyOf": ["2"]}]}}, "model m twice"),
        (
            {"hsm": {"compliance": [{"model": "m", "firmware": "1", "holds": ["X"]}] * 2}},
            "two rows for m 1",
        ),
        (
            {"tpm": {"endorsement": {}, "pcrs": {"bank": "Sha256", "values": [PCR]}}},
            "neither TPMs nor roots",
        ),
        (
            {
                "tpm": {
                    "endorsement": {"listed": [{"ekDigest": EK}, {"ekDigest": EK}]},
                    "pcrs": {"bank": "Sha256", "values": [PCR]},
                }
            },
            f"names {EK} twice",
        ),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], text: str) -> None:
    assert any(text in sentence for sentence in contradictions(spec(**changes)))


def test_an_invalid_policy_says_so_and_judges_nobody() -> None:
    world = World()
    put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": [PCR, PCR]}})
    put_hsm(world, "hsm-a")
    world.settle()
    item = world.policies["baseline"]
    assert condition(item, "Valid") == ("False", "RulesInvalid")
    assert "twice" in message(item, "Ready")
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "PolicyInvalid")
    assert condition(world.hsms["hsm-a"], "Stalled") == ("True", "PolicyInvalid")
    assert [event.reason for event in world.events if event.object.kind == "AttestationPolicy"] == [
        Reason.RULES_INVALID
    ]


def test_empty_policy_is_invalid() -> None:
    empty = spec().model_copy(
        update={"tpm": spec().tpm.model_copy(update={"pcrs": spec().tpm.pcrs.model_copy(update={"values": []})})}
    )
    assert contradictions(empty) == ["tpm.pcrs.values is empty; a policy must name at least one PCR"]


def test_an_event_is_sent_once() -> None:
    world = World()
    put_policy(world, tpm={"pcrs": {"bank": "Sha256", "values": [PCR, PCR]}})
    plan = policy_room.reconcile(PolicySnapshot(START, world.policies["baseline"]))
    assert [type(action) for action in plan.actions] == [SetPolicyStatus, EmitEvent]
    world.run(plan)
    assert policy_room.reconcile(PolicySnapshot(START, world.policies["baseline"])).actions == ()


def test_reasons_are_explained_and_none_is_written_as_a_bare_text() -> None:
    assert set(EXPLAINED) == set(Reason)
    known = {reason.value for reason in Reason}
    room = Path(chatelaine.reconcile.__file__).parent
    for path in room.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "put":
                for argument in node.args:
                    text = argument.value if isinstance(argument, ast.Constant) else None
                    assert text not in known, f"{path.name}: {text}"
