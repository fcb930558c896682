"""An operator process that ends itself at once after a given number of steps of a rotation of its CA.

Usage: python -m support.mortal_rotation KUBECONFIG STATE_DIR KILL_AFTER

A step is a write of the CA's Secret or of what is published of it, a certificate of the operator's own, a leaf that a
host has taken (counted before the operator knows that it has), or a binding Secret. Without a grace for clients, and
without an end of its own: who started it kills it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from chatelaine.cli import operator as command
from chatelaine.controller import pki
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.observed import ObservedKube
from chatelaine.kube.port import CONFIG_MAPS, SECRETS
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import Leaf
from chatelaine.wire.peer import PeerClient
from support.operator_cluster import KILLED, SYSTEM


def mortal(kill_after: int) -> None:
    """Have this process end after so many steps."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done >= kill_after:
            os._exit(KILLED)

    def after(owner: Any, name: str, counts: Any) -> None:
        method = getattr(owner, name)

        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            answer = await method(self, *arguments, **options)
            if counts(arguments):
                step()
            return answer

        setattr(owner, name, call)

    after(ObservedKube, "replace", lambda arguments: arguments[0] is SECRETS)
    after(ObservedKube, "apply", lambda arguments: arguments[0] in (SECRETS, CONFIG_MAPS))
    after(PeerClient, "send", lambda arguments: isinstance(arguments[2], Leaf))
    install = ProcessLeaf.install

    def installed(self: ProcessLeaf, chain_pem: str, ca_bundle_pem: str, now: int) -> None:
        install(self, chain_pem, ca_bundle_pem, now)
        step()

    ProcessLeaf.install = installed  # type: ignore[method-assign]  # in this process there is no other leaf


if __name__ == "__main__":
    pki.LOOK_SECONDS = pki.LOOK_WHILE_ROTATING_SECONDS = 0.2  # type: ignore[misc]  # nobody waits for a person here
    mortal(int(sys.argv[3]))
    asyncio.run(
        command.serve(
            OperatorSettings(
                namespace=SYSTEM,
                kubeconfig=Path(sys.argv[1]),
                state_folder=Path(sys.argv[2]),
                join_listen=None,
                metrics_listen=None,
                leader_election=False,
            )
        )
    )
