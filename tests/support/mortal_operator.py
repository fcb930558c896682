"""An operator process that ends itself at once after a given number of steps, or tells when it has nothing to do.

Usage: python -m support.mortal_operator KUBECONFIG KILL_AFTER IDLE_FILE

A step is an action of a plan that was done (so also every write of seats by a committer, which is the action that asked
for it), or a view that a gateway has taken and that opens or closes something. Rounds of evidence are no steps: they
leave nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatelaine.controller.operator import Operator
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.plan import Action, RequestEvidence, RequestIdentity
from chatelaine.wire.messages import ViewUpdate
from chatelaine.wire.peer import PeerClient
from support.operator_cluster import KILLED, SYSTEM

REST_SECONDS = 1.5
"""Without a step for this long (and Hsms judged) the operator counts as idle."""


def after_each_view(step: Callable[[], None]) -> None:
    """Have `step` called when a gateway has taken a view that changes what it serves."""
    call = PeerClient.call

    async def call_and_tell(self: PeerClient, method: str, path: str, message: Any, kind: Any) -> Any:
        answer = await call(self, method, path, message, kind)
        if isinstance(message, ViewUpdate):
            serves = message.standing is None or message.standing.verdict == Verdict.TRUSTED
            if message.claims or message.gone or not serves:
                step()
        return answer

    PeerClient.call = call_and_tell  # type: ignore[method-assign,assignment]  # in this process there is no other operator


async def main(kubeconfig: str, kill_after: int, idle: Path) -> None:
    """Run until dead or idle (then until killed)."""
    done, last = 0, time.monotonic()

    def step() -> None:
        nonlocal done, last
        last = time.monotonic()
        done += 1
        if done >= kill_after:
            os._exit(KILLED)

    def after(_: int, action: Action) -> None:
        if not isinstance(action, RequestEvidence | RequestIdentity):
            step()

    after_each_view(step)

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
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
