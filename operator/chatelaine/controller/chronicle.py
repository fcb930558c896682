"""What is logged of plans: one line for each scarce thing that was done, with the claim's uid and the Hsm's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatelaine.controller.world import World
from chatelaine.model.identifiers import parse_key_label
from chatelaine.reconcile import plan as planned
from chatelaine.telemetry.log import logger

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    message: str
    facts: Mapping[str, object]

    def write(self) -> None:
        """Once it is true."""
        _log.info(self.message, **self.facts)


class Chronicle:
    """Finds the words before an action, while it can still be seen what the action changes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def lines(self, action: planned.Action) -> tuple[Line, ...]:
        """What is true once `action` was done."""
        match action:
            case planned.AllocateHsm():
                return (_about(action, "seat given", mode=action.mode.value, sequence=action.sequence),)
            case planned.ReleaseAllocation():
                return (_about(action, "seat released"),)
            case planned.RetainKeys():
                return (_about(action, "keys retained", versions=len(action.keys)),)
            case planned.EnsureKey():
                return _of_key(action, "key made")
            case planned.DestroyKey():
                return _of_key(action, "key destroyed")
            case planned.CutHsm():
                return self._cut(action)
            case planned.SetClaimStatus():
                return self._bound(action)
            case _:
                return ()

    def _cut(self, action: planned.CutHsm) -> tuple[Line, ...]:
        stored = self._world.hsms.find(action.hsm)
        seats = stored.index.seats if stored is not None and stored.uid == action.hsm_uid else {}
        return tuple(
            Line("cut", {"claim_uid": uid, "hsm": action.hsm, "reason": action.reason.value}) for uid in sorted(seats)
        )

    def _bound(self, action: planned.SetClaimStatus) -> tuple[Line, ...]:
        """A claim's allocation changes only whole, with its number."""
        stored, after = self._world.claim_stored(action.claim.uid), action.status.allocation
        before = stored.index if stored is not None else None
        was = before.hsm[0] if before is not None and before.hsm is not None else None
        facts: dict[str, object] = {
            "claim_uid": action.claim.uid,
            "namespace": action.claim.namespace,
            "name": action.claim.name,
        }
        if after is None:
            return (Line("unbound", {**facts, "hsm": was}),) if was is not None else ()
        if before is not None and before.sequence == after.sequence:
            return ()
        facts |= {"hsm": after.hsm.name, "sequence": after.sequence}
        return (Line("bound", facts) if was is None else Line("rebound", {**facts, "before": was}),)


def _about(
    action: planned.AllocateHsm | planned.ReleaseAllocation | planned.RetainKeys, message: str, **more: object
) -> Line:
    return Line(message, {"claim_uid": action.claim_uid, "hsm": action.hsm, **more})


def _of_key(action: planned.EnsureKey | planned.DestroyKey, message: str) -> tuple[Line, ...]:
    parsed = parse_key_label(action.label)
    if parsed is None:
        return ()
    facts = {"claim_uid": parsed.claim_uid, "hsm": action.hsm, "key": parsed.key, "version": parsed.version}
    return (Line(message, facts),)
