"""Random stories: hosts are tampered with and mended, people edit, delete and re-admit, the operator dies anywhere.

`World` checks after every write what must always hold; the invariants here hold whenever everything is at rest.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chatelaine.model.conditions import find
from chatelaine.model.hsm import Hsm
from chatelaine.model.reasons import Reason
from chatelaine.reconcile import plan as p
from chatelaine.reconcile.judged import is_sticky
from support.world import Killed, World
from support.world_hosts import BAD_PCR, GOOD_PCR
from support.world_objects import (
    change_claim,
    change_hsm,
    delete_claim,
    delete_hsm,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
)

HSMS = st.sampled_from(["hsm-a", "hsm-b", "hsm-c"])
NAMES = st.sampled_from(["one", "two", "three", "four"])


class Stories(RuleBasedStateMachine):
    """Three small Hsms, up to four claims."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world = stage("hsm-a", "hsm-b", "hsm-c")
        for name in self.world.hsms:
            change_hsm(self.world, name, capacity={"claims": 2})
        self.sequences: dict[str, int] = {}

    @rule(
        name=NAMES,
        mode=st.sampled_from([None, "Exclusive"]),
        failover=st.sampled_from(["Hold", "Rebind"]),
        reclaim=st.sampled_from(["Retain", "Destroy"]),
        own=st.booleans(),
    )
    def claim(self, name: str, mode: str | None, failover: str, reclaim: str, own: bool) -> None:
        if ("payments", name) in self.world.claims:
            return
        if own and "own" not in self.world.policies:
            put_policy(self.world, "own")
        more: dict[str, Any] = {"policyRef": {"name": "own"}} if own else {}
        put_claim(self.world, name, mode=mode, failover=failover, reclaimPolicy=reclaim, **more)

    @rule(name=NAMES)
    def unclaim(self, name: str) -> None:
        if ("payments", name) in self.world.claims:
            delete_claim(self.world, name)

    @rule(name=NAMES, keys=st.sampled_from([[], ["signing"], ["signing", "more"]]))
    def edit_keys(self, name: str, keys: list[str]) -> None:
        if ("payments", name) in self.world.claims:
            spec = [{"name": key, "type": "EcP256", "usages": ["Sign"]} for key in keys]
            change_claim(self.world, name, keys=spec or None, clients=None)

    @rule(name=HSMS)
    def tamper(self, name: str) -> None:
        self.world.hosts[name].pcrs[7] = BAD_PCR

    @rule(name=HSMS)
    def mend(self, name: str) -> None:
        self.world.hosts[name].pcrs[7] = GOOD_PCR

    @rule(name=HSMS)
    def reset(self, name: str) -> None:
        self.world.hosts[name].reset_count += 1

    @rule(name=HSMS, up=st.booleans())
    def reach(self, name: str, up: bool) -> None:
        self.world.hosts[name].reachable = up

    @rule(name=HSMS)
    def readmit(self, name: str) -> None:
        item = self.world.hsms.get(name)
        if item is not None and item.status.attestation is not None:
            readmit(self.world, name)

    @rule(name=HSMS, cordoned=st.sampled_from(["Enabled", None]))
    def cordon(self, name: str, cordoned: str | None) -> None:
        if name in self.world.hsms:
            change_hsm(self.world, name, cordoned=cordoned)

    @rule(name=HSMS)
    def remove(self, name: str) -> None:
        if name in self.world.hsms:
            delete_hsm(self.world, name)

    @rule(name=HSMS)
    def add(self, name: str) -> None:
        if name not in self.world.hsms:
            put_hsm(self.world, name, capacity={"claims": 2})

    @rule(strict=st.booleans(), release=st.booleans())
    def edit_policy(self, strict: bool, release: bool) -> None:
        change: dict[str, Any] = {}
        if strict:
            values = [{"index": i, "anyOf": [GOOD_PCR if i != 9 else BAD_PCR]} for i in (0, 7, 9)]
            change["tpm"] = {"pcrs": {"bank": "Sha256", "values": values}}
        change["release"] = policy_spec()["release"] if release else None
        put_policy(self.world, **change)

    @rule(seconds=st.sampled_from([1, 10, 40]))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule()
    def attest(self) -> None:
        self.world.attest()

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(count=st.integers(0, 6))
    def die_after(self, count: int) -> None:
        left = [count]

        def guard(action: p.Action) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        self.world.before_write = guard
        try:
            for plan in self.world.plans():
                self.world.run(plan)
        except Killed:
            self.world.restart()
        finally:
            self.world.before_write = lambda action: None

    @rule()
    def settle(self) -> None:
        self.world.settle()
        self.world.check_settled()
        again = [plan.writes for plan in self.world.plans() if plan.writes]
        assert again == [], "a settled world has something to write"

    @invariant()
    def an_untrusted_hsm_serves_nobody(self) -> None:
        if not hasattr(self, "world"):
            return
        for (namespace, name), claim in self.world.claims.items():
            said = claim.status.allocation
            item = self.world.hsms.get(said.hsm.name) if said is not None else None
            if item is not None and is_sticky(item.status.attestation) and not _being_readmitted(item):
                assert not self.world.served(namespace, name).serves

    @invariant()
    def sequences_never_fall(self) -> None:
        """Between two looks a claim may move more than once; that each write adds one, the world itself checks."""
        if not hasattr(self, "world"):
            return
        for claim in self.world.claims.values():
            said = claim.status.allocation
            now = said.sequence if said is not None else 0
            assert now >= self.sequences.get(claim.metadata.uid, 0)
            self.sequences[claim.metadata.uid] = now

    @invariant()
    def every_reason_is_a_known_one(self) -> None:
        if not hasattr(self, "world"):
            return
        for item in (*self.world.hsms.values(), *self.world.claims.values(), *self.world.policies.values()):
            for condition in item.status.conditions:
                Reason(condition.reason)
            ready, stalled = find(item.status.conditions, "Ready"), find(item.status.conditions, "Stalled")
            if ready is not None and stalled is not None:
                assert (ready.status, stalled.status) != ("True", "True")


def _being_readmitted(item: Hsm) -> bool:
    """A person has asked for it: the next judgement may let it back in."""
    attestation = item.status.attestation
    asked = item.metadata.annotations.get("chatelaine.dev/readmit")
    return attestation is not None and asked == attestation.evidence_digest


TestStories = Stories.TestCase
TestStories.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
