"""Labels in a token are whatever somebody wrote there: none of them holds up a refutation or overfills the status."""

from __future__ import annotations

import pytest

from chatelaine.model.common import MAX_ALLOCATIONS
from chatelaine.model.hsm import MAX_RETAINED_KEYS, HsmStatus
from chatelaine.model.identifiers import key_label, parse_key_label
from chatelaine.reconcile import hsm as hsm_room
from chatelaine.reconcile.plan import RetainKeys
from support.world import World
from support.world_hosts import BAD_PCR
from support.world_objects import condition, put_claim, stage
from support.world_rules import Refused
from support.world_writes import WRITES

NOT_OURS = (
    "chat/x/NOT A NAME!/1",
    "chat/x/Signing/1",
    "chat/x/-signing/1",
    "chat/x/" + "k" * 64 + "/1",
    "chat//signing/1",
    "chat/" + "u" * 65 + "/signing/1",
    "chat/x y/signing/1",
    "chat/x/signing/\u0661",
    "chat/x/signing/01",
    "chat/x/signing/0",
    "chat/x/signing/1000001",
    "chat/x/signing/" + "9" * 900,
    "chat/x/signing/1\n",
    "chat/x/signing/1/1",
    "chat/service/signing/1",
    "chat/",
)


def lose_status(world: World) -> None:
    lost = HsmStatus()
    world.put_hsm(world.hsms["hsm-a"], **{name: getattr(lost, name) for name in HsmStatus.model_fields})
    world.restart()


def abandon(world: World) -> str:
    """A claim with a seat and a key, whose object somebody has taken away, finalizer and all."""
    put_claim(world)
    world.settle()
    return world.claims.pop(("payments", "checkout")).metadata.uid


@pytest.mark.parametrize("label", NOT_OURS)
def test_label_that_is_not_exactly_ours_does_not_hold_up_the_refutation(label: str) -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].labels.add(label)
    world.attest()
    world.settle()
    assert parse_key_label(label) is None
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "EvidenceRefuted")


def test_label_under_a_claim_that_is_gone_but_not_ours_in_form_is_not_accounted_for() -> None:
    world = stage("hsm-a")
    uid = abandon(world)
    world.hosts["hsm-a"].labels.add(f"chat/{uid}/NOT A NAME!/1")
    world.attest()
    world.settle()
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "EvidenceRefuted")


def test_label_of_a_key_is_read_back() -> None:
    label = key_label("0b8a0a5e-0000-4000-8000-000000000001", "signing", 10**6)
    assert parse_key_label(label) == ("0b8a0a5e-0000-4000-8000-000000000001", "signing", 10**6)


def test_token_flooded_with_keys_of_one_claim_does_not_overfill_the_status() -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].labels |= {key_label("flood", "signing", number) for number in range(1, 80)}
    lose_status(world)
    world.settle()
    status = world.hsms["hsm-a"].status
    assert [len(kept.keys) for kept in status.retained] == [MAX_RETAINED_KEYS]
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "AwaitingReadmission")


def test_token_flooded_with_keys_of_many_claims_does_not_overfill_the_status() -> None:
    world = stage("hsm-a")
    world.hosts["hsm-a"].labels |= {key_label(f"flood-{number}", "signing", 1) for number in range(MAX_ALLOCATIONS + 9)}
    lose_status(world)
    world.settle()
    assert len(world.hsms["hsm-a"].status.retained) == MAX_ALLOCATIONS
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "AwaitingReadmission")


def test_seat_of_a_claim_that_is_gone_stays_while_its_keys_cannot_all_be_retained() -> None:
    """Giving it up would leave keys that nobody accounts for: a tenant could have the HSM refuted that way."""
    world = stage("hsm-a")
    uid = abandon(world)
    world.hosts["hsm-a"].labels |= {key_label(uid, "signing", number) for number in range(1, 80)}
    world.attest()
    world.settle()
    status = world.hsms["hsm-a"].status
    assert [seat.claim_uid for seat in status.allocations] == [uid]
    assert [len(kept.keys) for kept in status.retained] == [MAX_RETAINED_KEYS]
    assert condition(world.hsms["hsm-a"], "Attested") == ("True", "EvidenceHolds")


def test_settling_that_fails_does_not_hold_up_the_refutation(monkeypatch: pytest.MonkeyPatch) -> None:
    world = stage("hsm-a")
    abandon(world)

    def refuse(world: World, action: RetainKeys) -> None:
        raise Refused("the seats cannot be written")

    monkeypatch.setitem(WRITES, RetainKeys, refuse)
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.run(hsm_room.reconcile(world.hsm_snapshot("hsm-a")))
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "EvidenceRefuted")
