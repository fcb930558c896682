"""One committer for each Hsm: all seats and retained keys that wait are written in one guarded write.

This is the scarce side: `Hsm.status.allocations` is written before anything of a claim, and only over the very
version that was read (resourceVersion). On a conflict the object is read again and everything is decided anew, so two
operators at once can never give one place twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chatelaine.controller.cache import KindCache
from chatelaine.controller.world import HsmIndex
from chatelaine.kube.errors import Conflict, Invalid, NotFound
from chatelaine.kube.port import HSMS, JsonObject, KubePort
from chatelaine.model.common import MAX_ALLOCATIONS
from chatelaine.model.conditions import timestamp
from chatelaine.model.hsm import MAX_RETAINED_KEYS, Allocation, Hsm, Mode, Retained, RetainedKey
from chatelaine.reconcile.plan import AllocateHsm, ReleaseAllocation, RetainKeys
from chatelaine.telemetry.metrics import OperatorMetrics

FIELD_MANAGER: Final = "chatelaine-seats"
ATTEMPTS: Final = 16

SeatAction = AllocateHsm | ReleaseAllocation | RetainKeys


class SeatRefused(Exception):
    """There is no place, or the Hsm is not the one that was meant; the claim looks for another."""


@dataclass(slots=True)
class _Waiting:
    action: SeatAction
    done: asyncio.Future[None]


class Committer:
    """Of one Hsm (by name and uid)."""

    def __init__(
        self,
        name: str,
        uid: str,
        kube: KubePort,
        hsms: KindCache[Hsm, HsmIndex],
        metrics: OperatorMetrics,
        wall: Callable[[], float],
    ) -> None:
        self._name = name
        self._uid = uid
        self._kube = kube
        self._hsms = hsms
        self._metrics = metrics
        self._wall = wall
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._pending: dict[str, tuple[Mode, str]] = {}

    @property
    def pending(self) -> dict[str, tuple[Mode, str]]:
        """Seats that are about to be written: claim uid to mode and namespace."""
        return self._pending

    async def submit(self, action: SeatAction) -> None:
        """Returns when it is written (or nothing had to be).

        Raises:
            SeatRefused: no place, or another Hsm.
            KubeError: the API server did not write it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(action, done))
        if isinstance(action, AllocateHsm):
            self._pending[action.claim_uid] = (action.mode, action.namespace)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())
        try:
            await done
        finally:
            if isinstance(action, AllocateHsm):
                self._pending.pop(action.claim_uid, None)

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._commit(batch)
            except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)

    async def _commit(self, batch: list[_Waiting]) -> None:
        body = self._cached() or await self._live()
        for _ in range(ATTEMPTS):
            if body is None or body["metadata"].get("uid") != self._uid:
                self._gone(batch)
                return
            hsm = Hsm.model_validate(body)
            seats, retained, written, refused = apply_all(hsm, [one.action for one in batch], self._wall())
            if written:
                try:
                    self._hsms.took(await self._write(hsm, seats, retained))
                except (Conflict, NotFound):
                    body = await self._live()
                    continue
                self._metrics.seats_per_write.observe(written)
            _answer(batch, refused)
            return
        raise Conflict(f"Hsm {self._name} changes faster than seats can be written", 409)

    async def _live(self) -> JsonObject | None:
        try:
            body = await self._kube.get(HSMS, self._name)
        except NotFound:
            return None
        self._hsms.took(body)
        return body

    def _cached(self) -> JsonObject | None:
        stored = self._hsms.find(self._name)
        return stored.body() if stored is not None and stored.uid == self._uid else None

    def _gone(self, batch: list[_Waiting]) -> None:
        for one in batch:
            if one.done.done():
                continue
            if isinstance(one.action, ReleaseAllocation):
                one.done.set_result(None)
            else:
                one.done.set_exception(SeatRefused(f"Hsm {self._name} is gone"))

    async def _write(self, hsm: Hsm, seats: list[Allocation], retained: list[Retained]) -> JsonObject:
        status: JsonObject = {
            "allocations": [seat.dump() for seat in seats],
            "retained": [kept.dump() for kept in retained],
        }
        body: JsonObject = {
            "metadata": {"uid": hsm.metadata.uid, "resourceVersion": hsm.metadata.resource_version},
            "status": status,
        }
        return await self._kube.merge(HSMS, self._name, body, field_manager=FIELD_MANAGER, subresource="status")


def _answer(batch: list[_Waiting], refused: list[Exception | None]) -> None:
    for one, why in zip(batch, refused, strict=True):
        if one.done.done():
            continue
        if why is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(why)


def apply_all(
    hsm: Hsm, actions: list[SeatAction], now: float
) -> tuple[list[Allocation], list[Retained], int, list[Exception | None]]:
    """All `actions` over one read object, in their order.

    Returns:
        Seats and retained keys to write, how many actions changed something, and per action why it was refused.
    """
    seats, retained = list(hsm.status.allocations), list(hsm.status.retained)
    changed = 0
    refused: list[Exception | None] = []
    for action in actions:
        why: Exception | None = None
        news = False
        if isinstance(action, AllocateHsm):
            why = _refusal(hsm, seats, action) or _not_to_be_had(retained, action)
            adopted = retained if why is not None else _adopt(retained, action)
            seated = _sits(seats, action.claim_uid)
            news, retained = why is None and (not seated or adopted != retained), adopted
            if why is None and not seated:
                seats.append(
                    Allocation(
                        claim_uid=action.claim_uid,
                        namespace=action.namespace,
                        name=action.name,
                        mode=action.mode,
                        sequence=action.sequence,
                        at=timestamp(now),
                    )
                )
        elif isinstance(action, ReleaseAllocation):
            news = _sits(seats, action.claim_uid)
            seats = [seat for seat in seats if seat.claim_uid != action.claim_uid]
        else:
            why = _overfull(retained, action)
            merged = retained if why is not None else _retain(retained, action, now)
            news, retained = merged != retained, merged
        changed += news
        refused.append(why)
    return seats, retained, changed, refused


def _sits(seats: list[Allocation], claim_uid: str) -> bool:
    return any(seat.claim_uid == claim_uid for seat in seats)


def _refusal(hsm: Hsm, seats: list[Allocation], action: AllocateHsm) -> SeatRefused | None:
    if _sits(seats, action.claim_uid):
        return None
    name = hsm.metadata.name
    if hsm.metadata.deletion_timestamp is not None:
        return SeatRefused(f"Hsm {name} is being deleted")
    if len(seats) >= action.limit:
        return SeatRefused(f"Hsm {name} is full: {len(seats)} of {action.limit} claims")
    if seats and (action.mode is Mode.EXCLUSIVE or any(seat.mode is Mode.EXCLUSIVE for seat in seats)):
        return SeatRefused(f"Hsm {name} is taken, and one of the claims wants it alone")
    return None


def _not_to_be_had(retained: list[Retained], action: AllocateHsm) -> SeatRefused | None:
    """Keys are handed over once: to the first claim that takes them, by whichever operator."""
    held = {kept.claim_uid: kept.adopted_by for kept in retained}
    for uid in action.adopts:
        if uid not in held:
            return SeatRefused(f"Hsm {action.hsm} retains no keys of claim {uid}")
        if held[uid] not in (None, action.claim_uid):
            return SeatRefused(f"Hsm {action.hsm}: another claim has taken over the keys of claim {uid}")
    return None


def _adopt(retained: list[Retained], action: AllocateHsm) -> list[Retained]:
    """Noted with the seat, in one write."""
    mine = {"adopted_by": action.claim_uid}
    return [kept.model_copy(update=mine) if kept.claim_uid in action.adopts else kept for kept in retained]


def _overfull(retained: list[Retained], action: RetainKeys) -> Invalid | None:
    """What the API server would refuse for its size, told to the one who asked: it must not spoil the whole batch."""
    before = next((kept for kept in retained if kept.claim_uid == action.claim_uid), None)
    known = {(key.name, key.version) for key in (before.keys if before is not None else ())}
    if before is None and len(retained) >= MAX_ALLOCATIONS:
        return Invalid(f"Hsm {action.hsm}: keys of {len(retained)} former claims are retained; there is no room", 422)
    if len(known | {(key.name, key.version) for key in action.keys}) > MAX_RETAINED_KEYS:
        return Invalid(f"Hsm {action.hsm}: at most {MAX_RETAINED_KEYS} keys of one claim can be retained", 422)
    return None


def _retain(retained: list[Retained], action: RetainKeys, now: float) -> list[Retained]:
    before = next((kept for kept in retained if kept.claim_uid == action.claim_uid), None)
    keys: dict[tuple[str, int], RetainedKey] = {}
    for key in (*(before.keys if before is not None else ()), *action.keys):
        keys[key.name, key.version] = key
    merged = Retained(
        claim_uid=action.claim_uid,
        namespace=action.namespace,
        namespace_uid=action.namespace_uid or (before.namespace_uid if before is not None else None),
        name=action.name,
        keys=[keys[place] for place in sorted(keys)],
        at=before.at if before is not None else timestamp(now),
        adopted_by=before.adopted_by if before is not None else None,
    )
    if before is None:
        return [*retained, merged]
    return [merged if kept is before else kept for kept in retained]
