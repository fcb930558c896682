"""An operator process that ends itself at once after a given number of writes, or tells when it has nothing to do.

Usage: python -m support.mortal_operator KUBECONFIG KILL_AFTER IDLE_FILE [KIND …]

Writes are counted from the first action of one of the named kinds of action (of any, if none is named).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from chatelaine.controller.operator import Operator
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.reconcile.plan import Action, RequestEvidence, RequestIdentity
from support.operator_cluster import KILLED, SYSTEM

REST_SECONDS = 1.5
"""Without a write for this long (and Hsms judged) the operator counts as idle."""


async def main(kubeconfig: str, kill_after: int, idle: Path, kinds: tuple[str, ...]) -> None:
    """Run until dead or idle (then until killed)."""
    done, counting, last = 0, not kinds, time.monotonic()

    def after(_: int, action: Action) -> None:
        nonlocal done, counting, last
        if isinstance(action, RequestEvidence | RequestIdentity):
            return
        last = time.monotonic()
        counting = counting or type(action).__name__ in kinds
        done += counting
        if done >= kill_after:
            os._exit(KILLED)

    settings = OperatorSettings(
        namespace=SYSTEM, kubeconfig=Path(kubeconfig), join_listen=None, metrics_listen=None, leader_election=False
    )
    async with await KubeAdapter.connect(settings.kubeconfig) as kube:
        operator = Operator(settings, kube, after_action=after)
        running = asyncio.create_task(operator.run())
        while not running.done():
            await asyncio.sleep(0.05)
            views = operator.snapshots.views()
            judged = all(view.host is not None and view.host.reach is not None for view in views)
            depth = operator.queue.depth()
            busy = depth.fast + depth.normal + depth.active > 0
            if operator.world.complete and judged and not busy and time.monotonic() - last > REST_SECONDS:
                idle.touch()  # noqa: ASYNC240 - once, into a local folder
            elif busy:
                last = time.monotonic()
        await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), tuple(sys.argv[4:])))
