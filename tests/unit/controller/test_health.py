"""Probes fail when the queue, a watch or the refresh of verdicts is stale, and say which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chatelaine.controller import health
from chatelaine.controller.echoes import Echoes
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.handlers import KopfWatch
from chatelaine.controller.hosts import Surroundings
from chatelaine.controller.leadership import Alone
from chatelaine.controller.pki import ClusterPki
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.probes import (
    ECHO_LATE_SECONDS,
    KOPF_STEADY_SECONDS,
    QUEUE_STUCK_SECONDS,
    ROUND_SECONDS,
    ROUNDS_MISSED,
    UNWRITTEN_SECONDS,
    WATCH_STALE_SECONDS,
    Probes,
)
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.reactions import Reactions, hsm_key
from chatelaine.controller.reference_folder import ReferenceFolder
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.source import Views
from chatelaine.controller.world import World
from chatelaine.kube.port import OWN_KINDS, ObjectKey
from chatelaine.model.conditions import timestamp
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME
from chatelaine.pki.authority import Authority
from chatelaine.telemetry.metrics import OperatorMetrics
from support.quiet_server import QuietServer
from support.waiting import until

INTERVAL_SECONDS = 10
VALID_SECONDS = 600
NOW = 1_800_000_000.0


class Clock:
    """Monotonic seconds, and since the epoch, that only a test moves."""

    def __init__(self) -> None:
        self.passed = 1000.0

    def __call__(self) -> float:
        return self.passed

    def wall(self) -> float:
        return NOW + self.passed


def hsm_body(version: int, valid_until: float) -> dict[str, Any]:
    """An Hsm whose status says Trusted until then. Its policy is not there, so nobody can say so anew."""
    digest = "sha256:" + "0" * 64
    return {
        "metadata": {"name": "hsm-a", "uid": "uid-a", "generation": 1, "resourceVersion": str(version)},
        "spec": {
            "token": "pkcs11:token=a",
            "gateway": {"external": {"host": "127.0.0.1", "port": 1}},
            "agent": {"host": "127.0.0.1", "port": 1},
            "attestation": {"policyRef": {"name": "base"}, "intervalSeconds": INTERVAL_SECONDS},
            "identity": {"ekDigest": digest, "attestationKeyThumbprint": digest},
        },
        "status": {
            "identity": {
                "ekDigest": digest,
                "akName": "000b" + "0" * 64,
                "akPublic": "AA==",
                "attestationKey": {"thumbprint": digest},
                "attestationKeyPublic": "AA==",
                "enrolledAt": timestamp(NOW),
            },
            "attestation": {
                "verdict": "Trusted",
                "reason": "EvidenceHolds",
                "policy": {"name": "base", "uid": "uid-p", "generation": 1, "digest": digest},
                "evidenceDigest": digest,
                "epoch": {"resetCount": 1, "restartCount": 1, "generation": 1},
                "validUntil": timestamp(valid_until),
            },
        },
    }


@dataclass
class Subject:
    """The parts of an operator that the probes look at, over an API server that stays silent."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    metrics: OperatorMetrics = field(default_factory=OperatorMetrics)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    """Examinations end as long as it is set."""

    def __post_init__(self) -> None:
        kube, clock = QuietServer(), self.clock
        self.lead = Alone()
        reactions = Reactions(self.metrics, clock)
        self.world = World(kube, reactions, clock, "system")
        book = PolicyBook(self.world, "system", ReferenceFolder(None))
        self.pki = ClusterPki(kube, "system", self.folder, "", leads=lambda: True, wall=clock.wall)
        self.hosts = HostRegistry(self.world)
        emitted = EmittedObjects(self.world)
        self.snapshots = Snapshots(
            self.world, book, self.hosts, emitted, operator=None, bundle=lambda: "", wall=clock.wall
        )
        self.views = Views(self.world, book, self.snapshots, self.lead, clock.wall)
        self.queue: WorkQueue[ObjectKey] = WorkQueue(
            self._work, failed=lambda *_: None, clock=clock, jitter=lambda: 0.5, workers=1
        )
        around = Surroundings(
            hsm=self.world.hsms.typed, policies=lambda _: (), accounted=lambda _: frozenset(),
            addresses=lambda _: (), observed=reactions.observed, context=lambda: None, renew=self.pki.renew,
            clock=clock, wall=clock.wall, jitter=lambda: 0.5, metrics=self.metrics,
        )  # fmt: skip
        self.hosts.bind(around, self.views)
        reactions.bind(self.queue, self.world, book, self.hosts, self.snapshots)
        self.kopf = KopfWatch(lambda: None, lambda *_: None, clock)
        self.echoes = Echoes(OWN_KINDS, clock)
        self.watched = health.Watched(
            lead=self.lead, queue=self.queue, kopf=self.kopf, echoes=self.echoes, world=self.world, hosts=self.hosts,
            snapshots=self.snapshots, views=self.views, pki=self.pki, clock=clock, wall=clock.wall,
        )  # fmt: skip
        self.probes = Probes(
            health.liveness(self.watched), health.readiness(self.watched), self.metrics,
            health.gauges(self.watched, self.metrics),
        )  # fmt: skip

    async def _work(self, _: ObjectKey) -> None:
        await self.free.wait()

    async def gained(self) -> None:
        """Nothing more: kopf has no server here, the tests tell the caches what there is."""

    async def lost(self) -> None:
        """Nothing."""

    def certify(self) -> None:
        """A leaf of our own, of a CA made here."""
        now = int(self.clock.wall())
        authority = Authority(self.pki._new_pair(now), now)
        issued = authority.issue_leaf(self.pki.leaf.request(), OPERATOR_SERVER_NAME, now, serial=b"\x01" * 16)
        self.pki.leaf.install(issued.chain_pem, authority.bundle_pem, now)

    async def ask(self, path: str) -> tuple[int, str]:
        """A probe, as the kubelet makes it."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def why(self, path: str) -> str:
        """What keeps it from being well."""
        status, said = await self.ask(path)
        assert status == 503, said
        return said


@pytest.fixture
async def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    made = Subject(tmp_path)
    made.free.set()
    # Its thread speaks to a server all the time; whether it lives is all that is looked at here.
    monkeypatch.setattr(KopfWatch, "_run", lambda _self, _loop, stop: stop.wait(3600))
    await made.lead.run(made)
    made.kopf.start()
    made.certify()
    tasks = [asyncio.create_task(watch.run()) for watch in made.world.watches]
    tasks.append(asyncio.create_task(made.queue.run()))
    for kind in made.world.kinds:
        await kind.sweep(made.world.kube)
    made.world.hsms.took(hsm_body(2, made.clock.wall() + VALID_SECONDS))
    await until("lists are complete", lambda: made.world.complete)
    await made.queue.settled()
    await until(
        "the round that enrolment asked for has ended",
        lambda: not any(host.prober._signal.is_set() for host in made.hosts.all()),
    )
    made.port = await made.probes.start("127.0.0.1", 0)
    yield made
    await made.probes.stop()
    await made.kopf.stop()
    await made.hosts.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_healthy_operator_is_healthy_and_ready(subject: Subject) -> None:
    assert await subject.ask("/healthz") == (200, "ok\n")
    assert await subject.ask("/readyz") == (200, "ok\n")


async def stuck(subject: Subject) -> None:
    """One examination hangs, another waits for it."""
    subject.free.clear()
    for name in ("hsm-a", "hsm-b"):
        subject.queue.add(hsm_key(name))
    await until("it hangs", lambda: subject.queue.depth().active == 1)
    subject.clock.passed += QUEUE_STUCK_SECONDS + 1


async def test_a_stuck_queue_is_unhealthy(subject: Subject) -> None:
    await stuck(subject)
    assert (await subject.why("/healthz")).startswith("queue: a key waits for")


async def test_a_queue_is_nobodys_business_while_another_leads(subject: Subject) -> None:
    await stuck(subject)
    subject.lead.leads = False
    assert (await subject.ask("/healthz"))[0] == 200


async def test_a_silent_watch_is_not_ready_but_never_unhealthy(subject: Subject) -> None:
    subject.clock.passed += WATCH_STALE_SECONDS + 1
    assert (await subject.ask("/healthz"))[0] == 200
    assert "watches: pods: not heard for" in await subject.why("/readyz")


async def test_a_watch_without_a_list_is_not_ready(subject: Subject, tmp_path: Path) -> None:
    fresh = Subject(tmp_path / "fresh")
    said = health.readiness(fresh.watched)["watches"]()
    assert said == "pods: no complete list yet"


async def test_a_trusted_verdict_that_ran_out_unwritten_is_not_ready(subject: Subject) -> None:
    check = health.readiness(subject.watched)["verdicts"]
    assert check() is None
    subject.clock.passed += VALID_SECONDS + 1
    # Right after it ran out its end is being written.
    assert check() is None
    subject.clock.passed += UNWRITTEN_SECONDS + 1
    assert check() == "run out and not written: hsm-a"
    subject.lead.leads = False
    assert check() is None


async def test_verdicts_are_the_leaders_to_write(subject: Subject) -> None:
    subject.clock.passed += VALID_SECONDS + 1
    subject.lead.leads = False
    assert "verdicts" not in (await subject.ask("/readyz"))[1]


async def test_rounds_that_hang_are_not_ready_but_never_unhealthy(subject: Subject) -> None:
    subject.clock.passed += ROUNDS_MISSED * INTERVAL_SECONDS + ROUND_SECONDS
    assert (await subject.ask("/readyz"))[0] == 200
    subject.clock.passed += 1
    assert await subject.why("/readyz") == "rounds: no round ended lately: hsm-a\n"
    assert (await subject.ask("/healthz"))[0] == 200
    # Whether it leads or not: it keeps those gateways fresh that follow it.
    subject.lead.leads = False
    assert "rounds: " in await subject.why("/readyz")
    for host in subject.hosts.all():
        ended = host.prober.last_round_at
        host.ask(identity=False)
        await until("a round ends", lambda ended=ended, host=host: host.prober.last_round_at > ended)
    assert await subject.ask("/readyz") == (200, "ok\n")


async def test_a_host_that_is_not_asked_any_more_is_unhealthy(subject: Subject) -> None:
    for host in subject.hosts.all():
        host.tasks[0].cancel()
        await asyncio.wait(host.tasks[:1])
    assert "hosts: not asked any more: hsm-a" in await subject.why("/healthz")


async def test_leading_without_a_watch_on_our_kinds_is_unhealthy(subject: Subject) -> None:
    await subject.kopf.stop()
    assert await subject.why("/healthz") == "kopf: our kinds are not watched\n"


async def test_own_write_that_kopf_never_tells_is_not_ready_but_never_unhealthy(subject: Subject) -> None:
    subject.echoes.exists("HsmClaim", 9)
    subject.clock.passed += ECHO_LATE_SECONDS
    assert (await subject.ask("/readyz"))[0] == 200
    subject.clock.passed += 1
    said = await subject.why("/readyz")
    assert "kinds: hsmclaims: what is known to have changed was not told for 61 s" in said
    assert (await subject.ask("/healthz"))[0] == 200
    subject.echoes.heard("HsmClaim", 9)
    assert "kinds" not in (await subject.ask("/readyz"))[1]


async def test_our_kinds_are_watched_by_the_leader_alone(subject: Subject) -> None:
    subject.echoes.exists("HsmClaim", 9)
    subject.world.claims.begin()
    subject.clock.passed += ECHO_LATE_SECONDS + 1
    subject.lead.leads = False
    assert "kinds" not in (await subject.ask("/readyz"))[1]


async def test_picture_that_is_not_complete_is_not_ready(subject: Subject) -> None:
    subject.world.claims.begin()
    assert await subject.why("/readyz") == "kinds: hsmclaims: no complete picture yet\n"


async def test_kopf_that_just_ended_is_not_ready(subject: Subject) -> None:
    subject.kopf.ended_at = subject.clock()
    subject.clock.passed += 7
    assert await subject.why("/readyz") == "kinds: kopf ended 7 s ago\n"
    subject.clock.passed += KOPF_STEADY_SECONDS
    assert await subject.ask("/readyz") == (200, "ok\n")


async def test_no_certificate_of_our_own_is_not_ready(subject: Subject, tmp_path: Path) -> None:
    fresh = Subject(tmp_path / "fresh")
    assert health.readiness(fresh.watched)["certificates"]() == "no certificate of our own yet"
    assert health.readiness(subject.watched)["certificates"]() is None


async def test_gauges_are_brought_up_to_date_when_somebody_looks(subject: Subject) -> None:
    subject.echoes.exists("HsmClaim", 9)
    subject.clock.passed += 20
    _, said = await subject.ask("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))
    assert float(lines['chatelaine_objects{kind="Hsm"}']) == 1
    assert float(lines['chatelaine_hsm_verdict_seconds_left{hsm="hsm-a"}']) == VALID_SECONDS - 20
    assert float(lines['chatelaine_watch_late_seconds{resource="hsmclaims"}']) == 20
    assert float(lines["chatelaine_leading"]) == 1
    assert float(lines["chatelaine_term"]) == 1
    assert float(lines['chatelaine_watch_silence_seconds{resource="pods"}']) == 20
    assert float(lines['chatelaine_queue_depth{lane="active"}']) == 0
