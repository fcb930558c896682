"""An HSM host in the test's own loop: the real agent application over a simulated TPM, and a gateway's control routes.

All of it speaks the real wire: TLS 1.3 with leaves of the operator's CA, typed messages, views with (term, number).
The world is in `tpm`, `gateway` and `held`; tests change it as a host's owner, or an attacker, would.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tools.lab.firmware import Boot

from chatelaine.agent.attester import Attester
from chatelaine.agent.logs import LogFiles
from chatelaine.agent.server import AgentServer
from chatelaine.agent.simulated import SimulatedAttester, SimulatedTpm
from chatelaine.agent.watch import ChangeCounter
from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.identifiers import agent_server_name, digest_of, gateway_server_name, key_id
from chatelaine.pki.authority import LEAF_LIFETIME_SECONDS, Authority
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.pki.roots import SERIAL_BYTES
from chatelaine.wire.messages import (
    MAX_CONTROL_BODY_BYTES,
    ChangeKind,
    ClaimView,
    DestroyKey,
    EnsureKey,
    GatewayHello,
    GatewayIdentity,
    KeyGone,
    KeyMade,
    Leaf,
    LeafRequest,
    Standing,
    ViewAck,
    ViewUpdate,
    encode,
)
from chatelaine.wire.serve import Listener, Refused, answer, problems, read
from support.simulated_gateway import SimulatedGateway
from support.simulated_logs import HostLogs


@dataclass
class HostGateway(SimulatedGateway):
    """The simulated gateway with the TLS key that its listener really shows."""

    shown_spki: bytes = b""

    @property
    def spki(self) -> bytes:
        """Its TLS key."""
        return self.shown_spki

    async def identity(self) -> GatewayIdentity:
        """With what the token can make."""
        shown = await super().identity()
        facts = msgspec.structs.replace(shown.token, key_types=("EcP256", "Rsa3072"))
        return msgspec.structs.replace(shown, token=facts)


@dataclass
class Held:
    """What the gateway was told last, and all that it ever took."""

    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    term: int = 0
    number: int = 0
    standing: Standing | None = None
    claims: dict[str, ClaimView] = field(default_factory=dict)
    taken: list[ViewUpdate] = field(default_factory=list)
    issuer: str = ""
    greeted: int = 0
    """How often it was asked who it is."""


Fault = Callable[[web.Request, web.Response], Awaitable[web.Response]]


class HostAgent(AgentServer):
    """The real agent, which can be made to answer with what it answered before, or with what `fault` makes of it."""

    recorded: web.Response | None = None
    replays = False
    fault: Fault | None = None

    async def _evidence(self, request: web.Request) -> web.Response:
        if self.fault is not None:
            return await self.fault(request, await super()._evidence(request))
        if self.replays and self.recorded is not None:
            return web.Response(body=self.recorded.body, content_type="application/json")
        self.recorded = await super()._evidence(request)
        return self.recorded


class SimulatedHost:
    """One host. Call `start`, then create its Hsm from `agent_port` and `gateway_port`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        authority: Authority,
        tpm: SimulatedTpm | None = None,
        *,
        lifetime_seconds: int = LEAF_LIFETIME_SECONDS,
        boot: Boot | None = None,
    ) -> None:
        self.name = name
        self.tpm = tpm or SimulatedTpm()
        self.attester: Attester = SimulatedAttester(self.tpm)
        self.agent_leaf = _leaf(authority, folder / "agent", agent_server_name(name), lifetime_seconds)
        self.logs = HostLogs(folder / "logs", self.tpm)
        if boot is not None:
            self.logs.boot(boot)
        self.gateway_leaf = _leaf(authority, folder / "gateway", gateway_server_name(name), lifetime_seconds)
        self.gateway = HostGateway(shown_spki=self.gateway_leaf.spki)
        self.held = Held()
        self.pairs: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.key_fault: Refused | None = None
        self.made: list[str] = []
        self.agent_port = self.gateway_port = 0
        self.agent: HostAgent | None = None
        self.log_files: LogFiles | None = None
        """What the agent reads instead of `logs`."""
        self._counter = ChangeCounter()
        self._listeners: list[Listener] = []
        self._starts = 0

    async def start(self) -> None:
        """Listen, on the same ports as before if this is a restart."""
        agent = self.agent = HostAgent(
            self.attester,
            self.gateway,
            self.agent_leaf,
            self._counter,
            time.time,
            logs=self.log_files or (self.logs.files if self.logs.event_log.exists() else None),
            alive_seconds=1.0,
        )
        for application, leaf, port in (
            (agent.application(), self.agent_leaf, "agent_port"),
            (self._control(), self.gateway_leaf, "gateway_port"),
        ):
            application.middlewares.insert(0, self._while_on())
            listener = Listener(application, leaf.server_context())
            setattr(self, port, await listener.start("127.0.0.1", getattr(self, port)))
            self._listeners.append(listener)

    async def listen_also(self, address: str) -> int:
        """The gateway answers at another address of this machine too; gives the port there."""
        listener = Listener(self._control(), self.gateway_leaf.server_context())
        self._listeners.append(listener)
        return await listener.start(address, 0)

    async def stop(self) -> None:
        """Silence."""
        self._starts += 1
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.stop()

    def _while_on(self) -> Middleware:
        """A process that ends takes its connections along, those too whose handshake is under way. We do not end."""
        of_start = self._starts

        @web.middleware
        async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._starts == of_start:
                return await handler(request)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)

        return answered

    def changed(self) -> None:
        """The agent says that something changed."""
        self._counter.announce(ChangeKind.PCR)

    def measured(self) -> None:
        """The agent says that a file ran."""
        self._counter.announce(ChangeKind.PCR, only_ima=True)

    def tamper(self, pcr: int = 4) -> None:
        """Extend a PCR; the agent notices and says so."""
        self.tpm.extend(pcr, hashlib.sha256(b"something nobody approved").digest())
        self.changed()

    @property
    def identity(self) -> dict[str, str]:
        """`spec.identity` as a person commits it."""
        ek = self.tpm.ek.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key = self.gateway.attestation_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"ekDigest": digest_of(ek), "attestationKeyThumbprint": digest_of(key)}

    @property
    def served(self) -> set[str]:
        """Uids of the claims that this gateway would serve now."""
        standing = self.held.standing
        if standing is None or standing.verdict != "Trusted" or standing.valid_until <= time.time():
            return set()
        return set(self.held.claims)

    # --- the gateway's side

    def _control(self) -> web.Application:
        app = web.Application(middlewares=[problems], client_max_size=MAX_CONTROL_BODY_BYTES)
        app.add_routes(
            [
                web.get("/control/v1/hello", self._hello),
                web.put("/control/v1/view", self._view),
                web.post("/control/v1/keys/ensure", self._ensure),
                web.post("/control/v1/keys/destroy", self._destroy),
                web.post("/control/v1/leaf/request", self._leaf_request),
                web.put("/control/v1/leaf", self._leaf),
            ]
        )
        return app

    async def _greeting(self) -> GatewayHello:
        held = self.held
        identity = await self.gateway.identity()
        return GatewayHello(instance=held.instance, term=held.term, number=held.number, identity=identity)

    async def _hello(self, _: web.Request) -> web.Response:
        self.held.greeted += 1
        return answer(await self._greeting())

    async def _view(self, request: web.Request) -> web.Response:
        update, held = await read(request, ViewUpdate, max_bytes=MAX_CONTROL_BODY_BYTES), self.held
        new = (update.term, update.number) > (held.term, held.number)
        follows = update.base is None or (update.term == held.term and update.base == held.number)
        if update.instance != held.instance or not new or not follows:
            return web.Response(status=409, body=encode(await self._greeting()), content_type="application/json")
        claims = {} if update.base is None else {u: c for u, c in held.claims.items() if u not in update.gone}
        held.claims = claims | {claim.uid: claim for claim in update.claims}
        held.term, held.number = update.term, update.number
        held.standing = update.standing or held.standing
        held.issuer = update.cluster.issuer if update.cluster is not None else held.issuer
        held.taken.append(update)
        return answer(ViewAck(instance=held.instance, term=held.term, number=held.number))

    async def _ensure(self, request: web.Request) -> web.Response:
        asked = await read(request, EnsureKey, max_bytes=MAX_CONTROL_BODY_BYTES)
        if self.key_fault is not None:
            raise self.key_fault
        created = asked.label not in self.pairs
        if created and not asked.may_generate:
            raise Refused(404, "KeyAbsent", asked.label)
        if created:
            self.made.append(asked.label)
            self.pairs[asked.label] = ec.generate_private_key(ec.SECP256R1())
            self._list_keys()
        public = self.pairs[asked.label].public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        uri = f"pkcs11:token={self.name};object={asked.label.replace('/', '%2F')};type=private"
        return answer(KeyMade(label=asked.label, spki=spki, pkcs11_uri=uri, created=created))

    async def _destroy(self, request: web.Request) -> web.Response:
        asked = await read(request, DestroyKey, max_bytes=MAX_CONTROL_BODY_BYTES)
        existed = self.pairs.pop(asked.label, None) is not None
        self._list_keys()
        return answer(KeyGone(label=asked.label, existed=existed))

    def _list_keys(self) -> None:
        self.gateway.keys = [
            InventoryKey(key_id(label), label, "private", "EC", ("CKA_SIGN",), True, False, True, True)
            for label in sorted(self.pairs)
        ]
        self._counter.announce(ChangeKind.INVENTORY)

    async def _leaf_request(self, _: web.Request) -> web.Response:
        return answer(LeafRequest(csr=self.gateway_leaf.request(), not_after=self.gateway_leaf.not_after))

    async def _leaf(self, request: web.Request) -> web.Response:
        leaf = await read(request, Leaf, max_bytes=MAX_CONTROL_BODY_BYTES)
        self.gateway_leaf.install(leaf.chain_pem, leaf.ca_bundle_pem, int(time.time()))
        return web.Response(status=204)


def _leaf(authority: Authority, folder: Path, name: str, lifetime_seconds: int) -> ProcessLeaf:
    leaf, now = ProcessLeaf(folder, name), int(time.time())
    issued = authority.issue_leaf(
        leaf.request(), name, now, serial=secrets.token_bytes(SERIAL_BYTES), lifetime_seconds=lifetime_seconds
    )
    leaf.install(issued.chain_pem, authority.bundle_pem, now)
    return leaf
