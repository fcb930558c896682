"""What the probes and metrics of an operator look at."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from chatelaine.controller.probes import QUEUE_STUCK_SECONDS, WATCH_STALE_SECONDS, Check
from chatelaine.model.verdict import Verdict

if TYPE_CHECKING:
    from chatelaine.controller.operator import Operator


def checks(operator: Operator) -> tuple[Mapping[str, Check], Mapping[str, Check]]:
    """What a restart would mend, and what keeps this process from knowing how things are."""
    health = {"queue": lambda: _queue(operator), "kopf": lambda: _kopf(operator), "hosts": lambda: _hosts(operator)}
    readiness = {
        "watches": lambda: _watches(operator),
        "verdicts": lambda: _verdicts(operator),
        "certificates": lambda: None if operator.pki.context() is not None else "no certificate of our own yet",
    }
    return health, readiness


def _queue(operator: Operator) -> str | None:
    oldest = operator.queue.depth().oldest_seconds
    return f"a key waits for {oldest:.0f} s" if operator.leads() and oldest > QUEUE_STUCK_SECONDS else None


def _kopf(operator: Operator) -> str | None:
    return "our kinds are not watched" if operator.leads() and not operator.kopf_runs else None


def _hosts(operator: Operator) -> str | None:
    dead = [host.memory.name for host in operator.hosts.all() if any(task.done() for task in host.tasks)]
    return f"not asked any more: {', '.join(sorted(dead)[:8])}" if dead else None


def _watches(operator: Operator) -> str | None:
    for watch in operator.world.watches:
        silent = watch.silent_seconds
        if silent is None:
            return f"{watch.plural}: no complete list yet"
        if silent > WATCH_STALE_SECONDS:
            return f"{watch.plural}: not heard for {silent:.0f} s"
    return None


def _verdicts(operator: Operator) -> str | None:
    """Trusted in the status, and yet not asked successfully for longer than it may stand."""
    late = []
    for host in operator.hosts.all():
        view = operator.snapshots.view(host.memory.name)
        written = view.hsm.status.attestation if view is not None else None
        if view is None or written is None or written.verdict is not Verdict.TRUSTED or view.standing.serves:
            continue
        late.append(host.memory.name)
    return f"run out and not written: {', '.join(sorted(late)[:8])}" if late and operator.leads() else None


def refresh(operator: Operator) -> None:
    """Bring gauges up to date, when somebody looks."""
    metrics, depth = operator.metrics, operator.queue.depth()
    for lane, count in (("fast", depth.fast), ("normal", depth.normal), ("delayed", depth.delayed)):
        metrics.queue_depth.labels(lane).set(count)
    metrics.queue_depth.labels("active").set(depth.active)
    metrics.queue_oldest.set(depth.oldest_seconds)
    metrics.leading.set(1 if operator.leads() else 0)
    metrics.term.set(operator.term)
    for watch in operator.world.watches:
        metrics.watch_silence.labels(watch.plural).set(watch.silent_seconds or 0.0)
    for cache in operator.world.kinds:
        metrics.objects.labels(cache.resource.kind).set(len(cache))
    now = time.time()
    for host in operator.hosts.all():
        view = operator.snapshots.view(host.memory.name)
        until = view.standing.valid_until if view is not None else None
        metrics.freshness.labels(host.memory.name).set(until - now if until is not None else 0.0)
