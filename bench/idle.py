"""An idle installation: what the operator writes and burns while nothing changes."""

from __future__ import annotations

import threading
from collections import Counter

from tools.lab.installation import SERVICE_ACCOUNT
from tools.lab.system import claim, running

from bench.lab import ClaimWatch, cpu_seconds, writes
from bench.report import Figure, write

CLAIMS = 20
SECONDS = 60


def run() -> None:
    """Waits a minute over Ready claims and counts the operator's writes in the API server's audit log."""
    with running(real=1, simulated=2, audit=True) as lab:
        assert lab.operator.process is not None
        assert lab.control_plane.audit_log is not None
        watch = ClaimWatch(lab.control_plane)
        watch.start()
        names = {f"idle-{number}" for number in range(CLAIMS)}
        for name in sorted(names):
            lab.control_plane.admin.create(claim(name, clients=True))
        watch.wait(watch.ready, names, seconds=60)
        watch.stop()
        pause = threading.Event()
        pause.wait(5)
        since = len(lab.control_plane.audit_log.read_text().splitlines())
        cpu = cpu_seconds(lab.operator.process.pid)
        pause.wait(SECONDS)
        share = 100 * (cpu_seconds(lab.operator.process.pid) - cpu) / SECONDS
        made = writes(lab.control_plane.audit_log, SERVICE_ACCOUNT, since_line=since)
    kinds = Counter(entry["objectRef"]["resource"] for entry in made)
    others = sum(count for resource, count in kinds.items() if resource not in ("leases", "hsms"))
    write(
        "idle",
        [
            Figure("writes in a minute, other than the Lease and Hsm freshness", others, "writes", "0", others == 0),
            Figure(
                "Hsm freshness stamps in a minute (three Hsms)", kinds["hsms"], "writes", "<= 3", kinds["hsms"] <= 3
            ),
            Figure("Lease writes in a minute", kinds["leases"], "writes"),
            Figure("operator CPU, three Hsms asked every 5 s", share, "% of a core"),
        ],
    )
