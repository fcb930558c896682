"""The gateway's life: parts put together, two listeners, background tasks, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import stat
import struct
import time
import uuid
from collections.abc import Callable
from typing import Any

from uvicorn.server import ServerState

from chatelaine.gateway import limits
from chatelaine.gateway.app import GatewayApp
from chatelaine.gateway.audit import AuditLog
from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.connections import Connections
from chatelaine.gateway.errors import PeerUnknown, ServiceKeyChanged, SettingsRefused
from chatelaine.gateway.inventory_watch import InventoryWatch
from chatelaine.gateway.local import LocalApp
from chatelaine.gateway.metrics import Metrics
from chatelaine.gateway.operations import KeyOperations
from chatelaine.gateway.peer import Peer, Role, identify
from chatelaine.gateway.protocol import GatewayProtocol, Identify, uvicorn_config
from chatelaine.gateway.runtime import Runtime, moment
from chatelaine.gateway.service import prepare
from chatelaine.gateway.settings import GatewaySettings, HsmKind
from chatelaine.gateway.tls import GatewayTls
from chatelaine.gateway.view import LiveView
from chatelaine.pkcs11.errors import HsmError
from chatelaine.pkcs11.port import HsmPort
from chatelaine.pkcs11.settings import HsmEvent, Pkcs11Settings
from chatelaine.pkcs11.simulated import SimulatedHsm
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor
from chatelaine.pki.files import make_private_folder, tell_ready
from chatelaine.telemetry.log import logger

log = logger(__name__)


class Gateway:
    """One gateway. `run` returns after SIGTERM or SIGINT.

    Raises:
        PkiError: the TLS folder or the client CA cannot be used.
        OSError: a folder, a socket or a file cannot be used.
        UriRefused: the token's URI is not one we follow.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        make_private_folder(settings.state_dir)
        self._connections = Connections()
        view = LiveView(uuid.uuid4().hex)
        self._metrics = Metrics(lambda: len(self._connections), lambda: view.seconds_left(moment()))
        hsm = self._hsm()
        client_ca = ClientCa(settings.state_dir, settings.host_name, time.time())
        self._runtime = Runtime(
            hsm=hsm,
            tls=GatewayTls(settings.tls_dir, settings.host_name, client_ca, time.time),
            client_ca=client_ca,
            view=view,
            audit=AuditLog(settings.state_dir, time.time),
            connections=self._connections,
            metrics=self._metrics,
            inventory=InventoryWatch(hsm),
            keys=KeyOperations(hsm),
        )
        self._server_state = ServerState()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Listen, serve, and end in order when asked to."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        servers = [await self._listen_tls(), await self._listen_local()]
        for work in (self._prepare(), self._runtime.inventory.run(), self._sweep()):
            self._tasks.append(asyncio.create_task(work))
        self._tell_ready(servers[0])
        waiting = asyncio.create_task(stop.wait())
        # A background task that ends is a fault: better to end with its error than to serve without it.
        await asyncio.wait({waiting, *self._tasks[1:]}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self._stop(servers)
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _hsm(self) -> HsmPort:
        settings = self._settings
        if settings.hsm is HsmKind.SIMULATED:
            return SimulatedHsm(label=settings.host_name)
        if settings.module is None or settings.pin_file is None:
            raise SettingsRefused("--module and --pin-file are needed")
        return Pkcs11Supervisor(
            Pkcs11Settings(
                module=settings.module,
                token_uri=settings.token_uri,
                pin_file=settings.pin_file,
                state_directory=settings.state_dir / "pkcs11",
                serial=settings.serial,
            ),
            self._worker_event,
        )

    def _worker_event(self, event: HsmEvent) -> None:
        self._metrics.worker_event(event)
        log.warning("PKCS#11 worker", kind=event.kind.value, detail=event.detail, code=event.code, pid=event.pid)

    async def _prepare(self) -> None:
        """Until the token has answered once; then the service keys are known for good."""
        runtime = self._runtime
        if isinstance(runtime.hsm, Pkcs11Supervisor):
            with contextlib.suppress(HsmError):  # told as an event; the supervisor goes on trying by its rules
                await runtime.hsm.start()
        delay, said = limits.PREPARE_FIRST_SECONDS, ""
        while runtime.service is None:
            try:
                runtime.service = await prepare(runtime.hsm, self._settings.state_dir, runtime.tls.server_name)
            except (HsmError, ServiceKeyChanged) as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the service keys cannot be used yet", error=said)
                await asyncio.sleep(delay)
                delay = min(2 * delay, limits.PREPARE_MAX_SECONDS)
        log.info("ready", audience=runtime.service.verifier.audience, host=self._settings.host_name)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limits.SWEEP_SECONDS)
            cut = self._connections.sweep(loop.time())
            if cut:
                self._metrics.cut.inc(cut)

    # --- listeners

    def _protocols(self, app: Any, identify_peer: Identify) -> Callable[[], GatewayProtocol]:
        config = uvicorn_config(app)
        loop = asyncio.get_running_loop()
        return lambda: GatewayProtocol(config, self._server_state, loop, self._connections, identify_peer)

    async def _listen_tls(self) -> asyncio.Server:
        listen = self._settings.listen
        return await asyncio.get_running_loop().create_server(
            self._protocols(GatewayApp(self._runtime), self._tls_peer),
            listen.host,
            listen.port,
            ssl=self._runtime.tls.context,
            backlog=limits.BACKLOG,
            ssl_handshake_timeout=limits.HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=limits.TLS_SHUTDOWN_SECONDS,
        )

    async def _listen_local(self) -> asyncio.Server:
        path = self._settings.local_socket
        make_private_folder(path.parent)
        # What a killed gateway left behind; never anything but a socket.
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
        agent = self._settings.agent_uid
        protocols = self._protocols(LocalApp(self._runtime), functools.partial(_local_peer, agent_uid=agent))
        before = os.umask(0o177 if agent is None else 0o117)
        try:
            return await asyncio.get_running_loop().create_unix_server(protocols, str(path))
        finally:
            os.umask(before)

    def _tls_peer(self, transport: asyncio.BaseTransport) -> Peer:
        tls = transport.get_extra_info("ssl_object")
        name = transport.get_extra_info("peername")
        if tls is None:
            raise PeerUnknown("no TLS")
        runtime = self._runtime
        return identify(
            tls.getpeercert(binary_form=True),
            str(name[0]) if name else "",
            runtime.client_ca,
            runtime.tls.bundle,
            time.time(),
        )

    def _tell_ready(self, server: asyncio.Server) -> None:
        host, port = server.sockets[0].getsockname()[:2]
        log.info("listening", address=host, port=port)
        tell_ready(self._settings.ready_file, host=host, port=port)

    async def _stop(self, servers: list[asyncio.Server]) -> None:
        for server in servers:
            server.close()
        self._connections.close_all()
        deadline = time.monotonic() + limits.STOP_SECONDS
        while self._server_state.tasks and time.monotonic() < deadline:
            await asyncio.wait(set(self._server_state.tasks), timeout=limits.SWEEP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runtime.hsm.close()
        self._runtime.audit.close()
        self._settings.local_socket.unlink(missing_ok=True)
        log.info("stopped")


def _local_peer(transport: asyncio.BaseTransport, *, agent_uid: int | None) -> Peer:
    """Only processes of our own user and the agent's; the socket's mode is no more than a first hurdle."""
    wire = transport.get_extra_info("socket")
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid not in (os.geteuid(), agent_uid):
        raise PeerUnknown(f"user {uid} is neither the gateway's nor the agent's")
    return Peer(Role.LOCAL, "local")
