"""An idle system: one claim with one EC key, from its creation until it is Ready."""

from __future__ import annotations

import time

from tools.lab.system import claim, running

from bench.lab import ClaimWatch, cpu_seconds
from bench.report import Figure, percentile, write

RUNS = 60
P50_GOAL_MS, P99_GOAL_MS = 100.0, 300.0


def run() -> None:
    """Creates claims one after the other, each after the one before is Ready."""
    with running(real=1) as lab:
        watch = ClaimWatch(lab.control_plane)
        watch.start()
        took: list[float] = []
        assert lab.operator.process is not None
        before = cpu_seconds(lab.operator.process.pid)
        for number in range(RUNS):
            name = f"one-{number}"
            begin = time.monotonic()
            lab.control_plane.admin.create(claim(name, clients=True))
            watch.wait(watch.ready, {name}, seconds=30)
            took.append(1000 * (watch.ready[name] - begin))
        cpu_ms = 1000 * (cpu_seconds(lab.operator.process.pid) - before) / RUNS
        watch.stop()
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    write(
        "claims",
        [
            Figure("idle claim to Ready, p50", p50, "ms", f"<= {P50_GOAL_MS:.0f}", p50 <= P50_GOAL_MS),
            Figure("idle claim to Ready, p99", p99, "ms", f"<= {P99_GOAL_MS:.0f}", p99 <= P99_GOAL_MS),
            Figure("operator CPU a claim", cpu_ms, "ms"),
        ],
    )
