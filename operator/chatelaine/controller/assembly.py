"""Makes the parts of an operator process and puts them together; nothing runs yet."""

from __future__ import annotations

import atexit
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from chatelaine.appraisal.stored_form import parts_of
from chatelaine.controller import health
from chatelaine.controller.addresses import gateway_addresses
from chatelaine.controller.coverage import Coverage
from chatelaine.controller.echoes import Echoes
from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.events import Recorder
from chatelaine.controller.evidence_folder import EVIDENCE, EvidenceFolder
from chatelaine.controller.evidence_keeper import EvidenceKeeper
from chatelaine.controller.evidence_store import EvidenceStore
from chatelaine.controller.executor import AfterAction, Executor
from chatelaine.controller.handlers import Deliver, KopfWatch
from chatelaine.controller.hosts import Surroundings
from chatelaine.controller.join import JoinEndpoint
from chatelaine.controller.leadership import Alone, Lead, Leadership
from chatelaine.controller.pki import ClusterPki, KubeInvitations
from chatelaine.controller.policies import PolicyBook
from chatelaine.controller.probes import Probes
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.reactions import Reactions
from chatelaine.controller.reconciling import Reconciler
from chatelaine.controller.reference_folder import ReferenceFolder
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.rotation import Everybody
from chatelaine.controller.settings import OperatorSettings
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.source import Views
from chatelaine.controller.world import World
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.observed import ObservedKube, Write
from chatelaine.kube.port import OWN_KINDS, JsonObject, KubePort, ObjectKey
from chatelaine.kube.watch import version_of
from chatelaine.reconcile.snapshot import OperatorPods
from chatelaine.telemetry.metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class Parts:
    """What an operator process is made of, as far as it has to be run or looked at."""

    kube: KubePort
    metrics: OperatorMetrics
    lead: Lead
    world: World
    book: PolicyBook
    pki: ClusterPki
    hosts: HostRegistry
    snapshots: Snapshots
    views: Views
    queue: WorkQueue[ObjectKey]
    kopf: KopfWatch
    echoes: Echoes
    join: JoinEndpoint
    probes: Probes
    keeper: EvidenceKeeper


def _passing_folder() -> Path:
    """A folder that goes with the process, whatever ends it in order: a private key lies in it."""
    folder = tempfile.mkdtemp(prefix="chatelaine-operator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def assemble(settings: OperatorSettings, adapter: KubeAdapter, after_action: AfterAction) -> Parts:
    """All parts, each over those above it; at the end those that know each other are told so."""
    jitter = random.SystemRandom().random
    metrics = OperatorMetrics()
    echoes = Echoes(OWN_KINDS, time.monotonic)
    kube = ObservedKube(adapter, _note_in(metrics, echoes))
    lead = _lead(settings, kube)
    reactions = Reactions(metrics, time.monotonic)
    world = World(kube, reactions, time.monotonic, settings.namespace)
    book = PolicyBook(world, settings.namespace, ReferenceFolder(settings.reference_values_folder))
    state_folder = settings.state_folder or _passing_folder()
    pki = ClusterPki(
        kube,
        settings.namespace,
        state_folder,
        settings.join_endpoint,
        leads=lambda: lead.leads,
        changed=reactions.bundle_changed,
        everybody=Everybody.of(world),
    )
    emitted = EmittedObjects(world)
    hosts = HostRegistry(world)
    snapshots = Snapshots(
        world,
        book,
        hosts,
        emitted,
        operator=OperatorPods(settings.namespace, dict(settings.pod_labels)),
        bundle=lambda: pki.bundle_pem,
        wall=time.time,
    )
    views = Views(world, book, snapshots, lead, time.time)
    executor = Executor(
        world,
        hosts,
        Recorder(kube, settings.identity, time.time),
        emitted,
        metrics,
        may_write=lambda: lead.leads,
        after_action=after_action,
    )
    reconciler = Reconciler(world, snapshots, executor, emitted, metrics, clock=time.monotonic, wall=time.time)
    queue = WorkQueue(
        reconciler.work,
        failed=reconciler.failed,
        clock=time.monotonic,
        jitter=jitter,
        workers=settings.workers,
    )
    keeper = EvidenceKeeper(
        EvidenceStore(EvidenceFolder(state_folder / EVIDENCE), settings.evidence_bytes, parts_of=parts_of),
        metrics,
        build=version("chatelaine"),
        envelope=book.envelope,
        living=lambda: {stored.uid for stored in world.hsms} if world.hsms.complete.is_set() else None,
    )
    coverage = Coverage(world, book, hosts, snapshots)
    around = Surroundings(
        hsm=world.hsms.typed,
        policies=coverage.policies,
        accounted=coverage.accounted,
        addresses=lambda hsm: gateway_addresses(hsm, world.slices),
        observed=reactions.observed,
        context=pki.context,
        renew=pki.renew,
        clock=time.monotonic,
        wall=time.time,
        jitter=jitter,
        metrics=metrics,
        recall=keeper.recall,
    )
    kopf = KopfWatch(lambda: adapter.configuration, _deliver_to(world, echoes), time.monotonic)
    join = JoinEndpoint(
        pki.authority,
        KubeInvitations(kube, settings.namespace),
        wall_clock=time.time,
        monotonic=time.monotonic,
        random_bytes=secrets.token_bytes,
        refresh=pki.refresh,
    )
    watched = health.Watched(
        lead=lead,
        queue=queue,
        kopf=kopf,
        echoes=echoes,
        world=world,
        hosts=hosts,
        snapshots=snapshots,
        views=views,
        pki=pki,
        clock=time.monotonic,
        wall=time.time,
    )
    probes = Probes(health.liveness(watched), health.readiness(watched), metrics, health.gauges(watched, metrics))
    # Those that know each other: what changes is examined, what was examined has more to be examined.
    hosts.bind(around, views)
    reconciler.queue = queue
    reactions.bind(queue, world, book, hosts, snapshots, keeper.judged)
    return Parts(
        kube, metrics, lead, world, book, pki, hosts, snapshots, views, queue, kopf, echoes, join, probes, keeper
    )


def _lead(settings: OperatorSettings, kube: KubePort) -> Lead:
    if not settings.leader_election:
        return Alone()
    return Leadership(
        kube,
        settings.namespace,
        settings.lease_name,
        settings.identity,
        clock=time.monotonic,
        wall=time.time,
        jitter=random.SystemRandom().random,
    )


def _note_in(metrics: OperatorMetrics, echoes: Echoes) -> Callable[[Write], None]:
    """What is written is counted; what is written of our kinds has to come back as an event."""

    def wrote(write: Write) -> None:
        where = f"{write.resource.plural}/{write.subresource}" if write.subresource else write.resource.plural
        metrics.writes.labels(write.verb, where, write.result).inc()
        if write.answer is not None and write.resource.kind in OWN_KINDS:
            echoes.exists(write.resource.kind, version_of(write.answer))

    return wrote


def _deliver_to(world: World, echoes: Echoes) -> Deliver:
    """What kopf tells of our kinds goes into their caches."""
    caches = {cache.resource.kind: cache for cache in world.kinds}

    def deliver(kind: str, body: JsonObject, deleted: bool) -> None:
        echoes.heard(kind, version_of(body))
        if deleted:
            caches[kind].gone(body)
        else:
            caches[kind].took(body)

    return deliver
