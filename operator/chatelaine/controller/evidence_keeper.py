"""Stores rounds as they are judged, and remembers after a restart what was trusted last. Never on the event loop.

Storing is for people and for explanations: no verdict waits for it, and where it fails, what is lost is told and
counted. What is read back was verified again, under the identity that stands in the Hsm's status.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

from chatelaine.appraisal.explain import Boot
from chatelaine.appraisal.replay import boot_of
from chatelaine.appraisal.stored import MAX_ROUND_BYTES, RoundKind, StoredRound
from chatelaine.appraisal.stored_form import decode_round, encode_round
from chatelaine.controller.evidence_course import Course, JudgedRound, kind_of, to_store
from chatelaine.controller.evidence_folder import StoreError
from chatelaine.controller.evidence_store import Entry, EvidenceStore, StoreFull
from chatelaine.controller.hosts import HostMemory
from chatelaine.controller.interrogation import enrolled_of
from chatelaine.evidence.bundle import EnrolledIdentity
from chatelaine.evidence.errors import EvidenceError, EvidencePartMissing
from chatelaine.model.hsm import EnrolledIdentity as EnrolledStatus
from chatelaine.model.hsm import Hsm
from chatelaine.reconcile.judged import Standing
from chatelaine.reconcile.snapshot import HostKeys, TrustedBoot
from chatelaine.telemetry.log import logger
from chatelaine.telemetry.metrics import OperatorMetrics

MAX_WAITING: Final = 2048
"""Rounds that wait to be written; a thousand hosts that are trusted for the first time come at once."""
RETRY_SECONDS: Final = 30.0
RECALL_SECONDS: Final = 5.0
"""Longest that the first round of a host waits for what was stored of it."""
RECALLED_ROUNDS: Final = 4
"""Newest stored rounds that are tried, should one be damaged."""

T = TypeVar("T")

_log = logger(__name__)


class EvidenceKeeper:
    """One for an operator process.

    Args:
        store: where rounds go; used in one thread of ours alone.
        metrics: what is counted.
        build: version of this program.
        envelope: signed reference values that the policy of that name leans on now.
        living: UIDs of the Hsms that are there; None while that is not known.
    """

    def __init__(
        self,
        store: EvidenceStore,
        metrics: OperatorMetrics,
        *,
        build: str,
        envelope: Callable[[str], bytes | None],
        living: Callable[[], Collection[str] | None],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._build = build
        self._envelope = envelope
        self._living = living
        self._courses: dict[str, Course] = {}
        self._waiting: asyncio.Queue[JudgedRound] = asyncio.Queue(MAX_WAITING)
        self._opened = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evidence-store")

    # --- rounds

    def judged(self, memory: HostMemory, standing: Standing) -> None:
        """What is known of a host was judged; keep the round that it rests on, if the rule says so. Returns at once."""
        kind, told = kind_of(standing), memory.told
        if kind is None or told is None or standing.judged is None or standing.attestation is None:
            return
        if standing.judged.appraisal.evidence_digest != told.round.evidence_digest:
            return
        # Once: the same round is judged again whenever something else changes.
        memory.told = None
        round_ = JudgedRound(
            hsm=memory.name,
            kind=kind,
            asked=told.asked,
            evidence=replace(told.evidence, event_log=None),
            packed_log=memory.packed_log(told),
            envelope=self._envelope(standing.judged.case.stamp.name),
            judged=standing.judged,
            inventory=told.verified.inventory if told.verified is not None else (),
            facts=tuple(standing.attestation.facts),
            received_at=told.round.received_at,
        )
        course = self._courses.setdefault(told.asked.subject_uid, Course())
        for one in course.take(round_):
            self._put(one)

    def _put(self, round_: JudgedRound) -> None:
        try:
            self._waiting.put_nowait(round_)
        except asyncio.QueueFull:
            self._metrics.evidence_stored.labels(round_.kind.value, "skipped").inc()

    # --- writing

    async def run(self) -> None:
        """Open the store, and write what comes, until cancelled."""
        try:
            await self._open()
            while True:
                await self._write(await self._waiting.get())
        finally:
            self._thread.shutdown(wait=True)
            self._store.close()

    async def written(self) -> None:
        """Returns when nothing waits to be written. For tests."""
        await self._waiting.join()

    async def _open(self) -> None:
        while not self._opened.is_set():
            try:
                opened = await self._in_thread(self._store.open)
            except StoreError as error:
                _log.warning("evidence store cannot be used", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for damage in opened.damaged:
                _log.warning("stored evidence is damaged and was given up", what=damage)
            self._metrics.evidence_damaged.inc(len(opened.damaged))
            self._show()
            self._opened.set()
            _log.info("evidence store opened", rounds=opened.rounds, bytes=self._store.used_bytes)

    async def _write(self, round_: JudgedRound) -> None:
        kind, before = round_.kind.value, self._store.pruned
        living = self._living()
        if living is not None:
            self._courses = {uid: course for uid, course in self._courses.items() if uid in living}
        try:
            await self._in_thread(lambda: self._keep(round_, living))
        except StoreFull as error:
            self._metrics.evidence_stored.labels(kind, "full").inc()
            _log.warning("evidence was not stored", hsm=round_.hsm, kind=kind, error=str(error))
        except (StoreError, EvidenceError) as error:
            self._metrics.evidence_stored.labels(kind, "failed").inc()
            _log.warning("evidence was not stored", hsm=round_.hsm, kind=kind, error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever one host's evidence breaks here, hosts are asked on
            self._metrics.evidence_stored.labels(kind, "failed").inc()
            _log.exception("fault while storing evidence", error, hsm=round_.hsm, kind=kind)
        else:
            self._metrics.evidence_stored.labels(kind, "stored").inc()
            if round_.kind is not RoundKind.TRUSTED:
                digest = round_.judged.appraisal.evidence_digest
                _log.info("evidence stored", hsm=round_.hsm, kind=kind, evidence=digest)
        finally:
            self._waiting.task_done()
        self._metrics.evidence_pruned.inc(self._store.pruned - before)
        self._show()

    def _keep(self, round_: JudgedRound, living: Collection[str] | None) -> None:
        try:
            self._keep_parts(*to_store(round_, self._build), round_.group, living)
        except StoreFull as error:
            if round_.evidence.ima_list is None:
                raise
            # The quote, the statement and the log refute by themselves, and take little room.
            self._keep_parts(*to_store(round_, self._build, with_list=False), round_.group, living)
            _log.warning("evidence was stored without its IMA list", hsm=round_.hsm, error=str(error))

    def _keep_parts(
        self, stored: StoredRound, parts: tuple[bytes, ...], group: str, living: Collection[str] | None
    ) -> None:
        data = encode_round(stored)
        # What could not be read again is not worth its room.
        decode_round(data)
        entry = Entry(stored.received_ms, stored.asked.subject_uid, stored.kind, group, hashlib.sha256(data).digest())
        self._store.keep(entry, data, parts, living=living)

    def _show(self) -> None:
        self._metrics.evidence_bytes.set(self._store.used_bytes)
        self._metrics.evidence_files.set(self._store.objects)
        self._metrics.evidence_rounds.set(len(self._store))

    # --- reading back

    async def recall(self, hsm: Hsm) -> TrustedBoot | None:
        """What the last stored trusted evidence of the enrolled identity showed; None where none can be had."""
        identity = hsm.status.identity
        if identity is None:
            return None
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                await self._opened.wait()
                found = await self._in_thread(lambda: self._newest(hsm, identity))
        except TimeoutError:
            return None
        if found is None:
            return None
        entry, boot = found
        course = self._courses.setdefault(hsm.metadata.uid, Course())
        if not course.group:
            course.group, course.stored_at = entry.group, entry.received_ms / 1000
        return TrustedBoot(HostKeys.enrolled(identity), boot)

    def _newest(self, hsm: Hsm, identity: EnrolledStatus) -> tuple[Entry, Boot] | None:
        uid = hsm.metadata.uid
        entries = [entry for entry in self._store.entries(uid) if entry.kind is RoundKind.TRUSTED]
        for entry in entries[: -RECALLED_ROUNDS - 1 : -1]:
            try:
                boot = self._boot(entry, enrolled_of(identity, None))
            except (StoreError, EvidenceError) as error:
                self._metrics.evidence_damaged.inc()
                _log.warning("stored evidence cannot be used", hsm=hsm.metadata.name, what=entry.mark, error=str(error))
                continue
            if boot is not None:
                return entry, boot
        return None

    def _boot(self, entry: Entry, enrolled: EnrolledIdentity) -> Boot | None:
        """Of one stored round; None where it is of another identity than the enrolled one."""
        round_ = decode_round(self._store.read(entry.digest, MAX_ROUND_BYTES))
        asked = round_.asked
        theirs = (asked.identity.ak_name, asked.identity.ak_public, asked.identity.attestation_key_spki)
        ours = (enrolled.ak_name, enrolled.ak_public, enrolled.attestation_key_spki)
        if theirs != ours or asked.subject_uid != entry.hsm_uid or round_.kind is not RoundKind.TRUSTED:
            return None
        return boot_of(round_, self._part)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _part(self, digest: bytes) -> bytes:
        try:
            return self._store.read(digest)
        except StoreError as error:
            raise EvidencePartMissing(str(error), found=digest) from error
