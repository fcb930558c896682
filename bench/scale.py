"""1,000 claims at once over ten Hsms (three real, seven simulated through the real wire): Bound, and Ready."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tools.lab.installation import SERVICE_ACCOUNT
from tools.lab.system import Lab, claim, running

from bench.lab import ClaimWatch, cpu_seconds, rss_megabytes, writes
from bench.report import Figure, write

CLAIMS = 1000
REAL, SIMULATED = 3, 7


def run() -> None:
    """Two storms on one installation: claims without keys until Bound, then claims with a key until Ready."""
    with running(REAL, SIMULATED, capacity=250, audit=True) as lab:
        figures = _storm(lab, "bound", keys=0, goal_seconds=7.0) + _storm(lab, "ready", keys=1, goal_seconds=20.0)
    write("scale", figures)


def _storm(lab: Lab, kind: str, *, keys: int, goal_seconds: float) -> list[Figure]:
    assert lab.operator.process is not None
    assert lab.control_plane.audit_log is not None
    pid = lab.operator.process.pid
    watch = ClaimWatch(lab.control_plane)
    watch.start()
    names = {f"{kind}-{number}" for number in range(CLAIMS)}
    since = len(lab.control_plane.audit_log.read_text().splitlines())
    cpu, begin = cpu_seconds(pid), time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: lab.control_plane.admin.create(claim(name, keys=keys)), sorted(names)))
    created = time.monotonic() - begin
    times = watch.bound if kind == "bound" else watch.ready
    watch.wait(times, names, seconds=300)
    seconds = max(times[name] for name in names) - begin
    used = cpu_seconds(pid) - cpu
    made = writes(lab.control_plane.audit_log, SERVICE_ACCOUNT, since_line=since)
    watch.stop()
    what = f"{CLAIMS} claims, {keys} key(s) each"
    figures = [
        Figure(f"{what}: to {kind}", seconds, "s", f"<= {goal_seconds:.0f}", seconds <= goal_seconds),
        Figure(f"{what}: of that, creating them took", created, "s"),
        Figure(f"{what}: operator CPU", used, "s", "<= 4" if not keys else None, used <= 4 if not keys else None),
        Figure(f"{what}: operator RSS", rss_megabytes(pid), "MB"),
    ]
    each = len(made) / CLAIMS
    goal = ("<= 3.4", each <= 3.4) if not keys else (None, None)
    return [*figures, Figure(f"{what}: API writes of the operator each", each, "writes", *goal)]
