"""One agent from start to end: what belongs together is built, watched and taken down here."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatelaine.agent.attester import Attester
from chatelaine.agent.errors import AttesterError, TpmStackMissing
from chatelaine.agent.evidence import SocketGateway
from chatelaine.agent.logs import LogFiles
from chatelaine.agent.server import AgentServer
from chatelaine.agent.settings import AgentSettings, AttesterKind
from chatelaine.agent.watch import ChangeCounter, watch_gateway, watch_tpm
from chatelaine.model.identifiers import agent_server_name
from chatelaine.pki.files import make_private_folder, tell_ready
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.telemetry.log import logger
from chatelaine.wire.serve import Listener

log = logger(__name__)


async def run_agent(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        PkiError: the host has not joined, or its TLS folder is damaged.
        StateDamaged: the state folder is damaged.
        TpmStackMissing: the libraries for talking to a TPM are not installed.
        OSError: a folder or the address cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _agent(settings) as port:
        log.info("the agent listens", host_name=settings.host_name, port=port, attester=settings.attester.value)
        await stop.wait()
        log.info("the agent stops")


@asynccontextmanager
async def _agent(settings: AgentSettings) -> AsyncIterator[int]:
    leaf = ProcessLeaf(settings.tls_dir, agent_server_name(settings.host_name))
    context = leaf.server_context()
    if leaf.not_after <= time.time():
        log.error("the certificate has ended, no operator will talk to us; let the host join again")
    attester = build_attester(settings)
    gateway = SocketGateway(str(settings.gateway_socket))
    counter = ChangeCounter()
    logs = LogFiles(settings.event_log, settings.ima_list)
    server = AgentServer(attester, gateway, leaf, counter, time.time, logs=logs, alive_seconds=settings.alive_seconds)
    listener = Listener(server.application(), context)
    try:
        await _warm_up(attester)
        port = await listener.start(settings.listen_host, settings.listen_port)
        async with asyncio.TaskGroup() as watchers:
            tasks = [
                watchers.create_task(watch_tpm(attester, counter, poll_seconds=settings.poll_seconds)),
                watchers.create_task(watch_gateway(gateway.client, counter)),
            ]
            tell_ready(settings.ready_file, port=port)
            yield port
            for task in tasks:
                task.cancel()
    finally:
        await listener.stop()
        await gateway.close()
        await attester.close()


async def _warm_up(attester: Attester) -> None:
    """Make or load the keys before anybody waits for them. A TPM that does not answer yet is no reason to die."""
    try:
        await attester.identity()
    except AttesterError as error:
        log.warning("the TPM does not answer yet", error=str(error))


def build_attester(settings: AgentSettings) -> Attester:
    """The root of trust that the settings name.

    Raises:
        StateDamaged: the simulated TPM's file is damaged.
        TpmStackMissing: the TPM software stack is not installed.
    """
    # Each drags in libraries that the other does not need; a host without a TPM has no TPM software stack.
    if settings.attester is AttesterKind.SIMULATED:
        from chatelaine.agent.simulated import SimulatedAttester
        from chatelaine.agent.simulated_state import kept_tpm

        make_private_folder(settings.state_dir)
        return SimulatedAttester(kept_tpm(settings.state_dir))
    try:
        from chatelaine.agent.tpm import TpmAttester
    except ImportError as error:
        raise TpmStackMissing(
            f"the TPM software stack is not installed ({error}); install it with: pip install 'chatelaine[agent]'"
        ) from error

    return TpmAttester(settings.tcti, settings.state_dir, ek_kind=settings.ek_kind, ak_kind=settings.ak_kind)
