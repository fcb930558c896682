"""What the probes and metrics of an operator look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chatelaine.controller.echoes import Echoes
from chatelaine.controller.handlers import KopfWatch
from chatelaine.controller.leadership import Lead
from chatelaine.controller.pki import ClusterPki
from chatelaine.controller.probes import (
    ECHO_LATE_SECONDS,
    KOPF_STEADY_SECONDS,
    QUEUE_STUCK_SECONDS,
    ROUND_SECONDS,
    ROUNDS_MISSED,
    UNWRITTEN_SECONDS,
    WATCH_STALE_SECONDS,
    Check,
)
from chatelaine.controller.queue import WorkQueue
from chatelaine.controller.registry import HostRegistry
from chatelaine.controller.snapshots import Snapshots
from chatelaine.controller.source import Views
from chatelaine.controller.world import World
from chatelaine.kube.port import ObjectKey
from chatelaine.model.verdict import Verdict
from chatelaine.telemetry.metrics import OperatorMetrics


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts that are looked at. `clock`: monotonic seconds; `wall`: seconds since the epoch."""

    lead: Lead
    queue: WorkQueue[ObjectKey]
    kopf: KopfWatch
    echoes: Echoes
    world: World
    hosts: HostRegistry
    snapshots: Snapshots
    views: Views
    pki: ClusterPki
    clock: Callable[[], float]
    wall: Callable[[], float]


def liveness(watched: Watched) -> Mapping[str, Check]:
    """What a restart would mend."""
    return {"queue": lambda: _queue(watched), "kopf": lambda: _kopf(watched), "hosts": lambda: _hosts(watched)}


def readiness(watched: Watched) -> Mapping[str, Check]:
    """What keeps this process from knowing how things are."""
    unwritten: dict[str, float] = {}
    return {
        "watches": lambda: _watches(watched),
        "kinds": lambda: _kinds(watched),
        "rounds": lambda: _rounds(watched),
        "verdicts": lambda: _verdicts(watched, unwritten),
        "certificates": lambda: None if watched.pki.context() is not None else "no certificate of our own yet",
    }


def _queue(watched: Watched) -> str | None:
    oldest = watched.queue.depth().oldest_seconds
    return f"a key waits for {oldest:.0f} s" if watched.lead.leads and oldest > QUEUE_STUCK_SECONDS else None


def _kopf(watched: Watched) -> str | None:
    return "our kinds are not watched" if watched.lead.leads and not watched.kopf.runs else None


def _hosts(watched: Watched) -> str | None:
    dead = [host.memory.name for host in watched.hosts.all() if any(task.done() for task in host.tasks)]
    return f"not asked any more: {_some(dead)}" if dead else None


def _watches(watched: Watched) -> str | None:
    for watch in watched.world.watches:
        silent = watch.silent_seconds
        if silent is None:
            return f"{watch.plural}: no complete list yet"
        if silent > WATCH_STALE_SECONDS:
            return f"{watch.plural}: not heard for {silent:.0f} s"
    return None


def _kinds(watched: Watched) -> str | None:
    """Of our own kinds, which only the leader watches."""
    if not watched.lead.leads:
        return None
    ended = watched.kopf.ended_at
    if ended is not None and watched.clock() - ended < KOPF_STEADY_SECONDS:
        return f"kopf ended {watched.clock() - ended:.0f} s ago"
    for kind in watched.world.kinds:
        late = watched.echoes.late_seconds(kind.resource.kind)
        if not kind.complete.is_set():
            return f"{kind.resource.plural}: no complete picture yet"
        if late > ECHO_LATE_SECONDS:
            return f"{kind.resource.plural}: what is known to have changed was not told for {late:.0f} s"
    return None


def _rounds(watched: Watched) -> str | None:
    """Rounds that hang. Never a reason to end this process: one host must not take all others' gateways along."""
    hung, now = [], watched.clock()
    for host in watched.hosts.all():
        hsm = watched.world.hsms.typed(host.memory.name)
        interval = hsm.spec.attestation.interval_seconds if hsm is not None else 0
        if now - host.prober.last_round_at > ROUNDS_MISSED * interval + ROUND_SECONDS:
            hung.append(host.memory.name)
    return f"no round ended lately: {_some(hung)}" if hung else None


def _verdicts(watched: Watched, unwritten: dict[str, float]) -> str | None:
    """Trusted in the status, and yet not trusted by us: for a moment after every cut, and then not any more.

    `unwritten`: since when this is seen, by Hsm.
    """
    now = watched.clock()
    found = set()
    for host in watched.hosts.all():
        view = watched.snapshots.view(host.memory.name)
        written = view.hsm.status.attestation if view is not None else None
        if view is None or written is None or written.verdict is not Verdict.TRUSTED or view.standing.serves:
            continue
        found.add(host.memory.name)
    for name in unwritten.keys() - found:
        del unwritten[name]
    late = [name for name in found if now - unwritten.setdefault(name, now) > UNWRITTEN_SECONDS]
    return f"run out and not written: {_some(late)}" if late and watched.lead.leads else None


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:8])


def gauges(watched: Watched, metrics: OperatorMetrics) -> Callable[[], None]:
    """Brings gauges up to date, when somebody looks."""

    def refresh() -> None:
        depth = watched.queue.depth()
        for lane, count in (("fast", depth.fast), ("normal", depth.normal), ("delayed", depth.delayed)):
            metrics.queue_depth.labels(lane).set(count)
        metrics.queue_depth.labels("active").set(depth.active)
        metrics.queue_oldest.set(depth.oldest_seconds)
        metrics.leading.set(1 if watched.lead.leads else 0)
        metrics.term.set(watched.views.term())
        for watch in watched.world.watches:
            metrics.watch_silence.labels(watch.plural).set(watch.silent_seconds or 0.0)
        for cache in watched.world.kinds:
            metrics.objects.labels(cache.resource.kind).set(len(cache))
            metrics.watch_late.labels(cache.resource.plural).set(watched.echoes.late_seconds(cache.resource.kind))
        now = watched.wall()
        for host in watched.hosts.all():
            view = watched.snapshots.view(host.memory.name)
            until = view.standing.valid_until if view is not None else None
            metrics.freshness.labels(host.memory.name).set(until - now if until is not None else 0.0)

    return refresh
