"""An idle system: one claim with one EC key, from its creation until it is Ready."""

from __future__ import annotations

import time
from functools import partial

from tools.control_plane.client import ApiError
from tools.control_plane.processes import wait_until
from tools.lab.objects import GROUP
from tools.lab.system import TEAM, Lab, claim, running

from bench.lab import ClaimWatch, cpu_seconds
from bench.report import Figure, percentile, write

RUNS = 100
P50_GOAL_MS, P99_GOAL_MS = 100.0, 300.0


def run() -> None:
    """Creates claims one after the other, each after the one before was Ready and has gone with its key."""
    with running(real=1) as lab:
        watch = ClaimWatch(lab.control_plane)
        watch.start()
        took: list[float] = []
        assert lab.operator.process is not None
        before = cpu_seconds(lab.operator.process.pid)
        for number in range(RUNS):
            name = f"one-{number}"
            begin = time.monotonic()
            manifest = claim(name, clients=True)
            manifest["spec"]["reclaimPolicy"] = "Destroy"
            created = lab.control_plane.admin.create(manifest)
            watch.wait(watch.ready, {name}, seconds=30)
            took.append(1000 * (watch.ready[name] - begin))
            lab.control_plane.admin.delete(created)
            wait_until(partial(_gone, lab, name), f"{name} to go", seconds=30)
        cpu_ms = 1000 * (cpu_seconds(lab.operator.process.pid) - before) / RUNS
        watch.stop()
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    write(
        "claims",
        [
            Figure("idle claim to Ready, p50", p50, "ms", f"<= {P50_GOAL_MS:.0f}", p50 <= P50_GOAL_MS),
            Figure("idle claim to Ready, p99", p99, "ms", f"<= {P99_GOAL_MS:.0f}", p99 <= P99_GOAL_MS),
            Figure("operator CPU a claim, made and deleted", cpu_ms, "ms"),
        ],
    )


def _gone(lab: Lab, name: str) -> bool:
    try:
        lab.control_plane.admin.read(GROUP, "HsmClaim", name, TEAM)
    except ApiError as error:
        return error.status == 404
    return False
