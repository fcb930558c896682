"""The gateway's local socket as an agent sees it, with a software attestation key: for tests of the agent alone."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.evidence.hsm_statement import HsmStatement, statement_to_sign
from chatelaine.evidence.inventory import InventoryKey, encode_inventory
from chatelaine.wire.messages import (
    Change,
    ChangeKind,
    GatewayIdentity,
    StatementRequest,
    StatementResponse,
    TokenFacts,
    encode,
)
from chatelaine.wire.serve import answer, problems, read

SERIAL = "0123456789abcdef"
MECHANISMS = hashlib.sha256(b"mechanisms").digest()


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class SimulatedGateway:
    """The world of one gateway. Change `keys`, then call `tell`."""

    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    tls_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    keys: list[InventoryKey] = field(default_factory=list)
    counter: int = 1
    nonce_override: bytes | None = None
    streams: list[asyncio.Queue[int]] = field(default_factory=list)
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    @property
    def spki(self) -> bytes:
        """Its TLS key."""
        return _spki(self.tls_key)

    async def identity(self) -> GatewayIdentity:
        """See `Gateway`."""
        facts = TokenFacts(
            serial=SERIAL, manufacturer="Simulated", model="sim", firmware="2.6", hardware_version="1.0",
            mechanisms_digest="sha256:" + MECHANISMS.hex(),
        )  # fmt: skip
        return GatewayIdentity(gateway_spki=self.spki, attestation_key_spki=_spki(self.attestation_key), token=facts)

    async def statement(self, request: StatementRequest) -> StatementResponse:
        """See `Gateway`."""
        inventory = encode_inventory(self.keys)
        statement = HsmStatement(
            serial=SERIAL,
            manufacturer="Simulated",
            model="sim",
            firmware="2.6",
            hardware_version="1.0",
            flags=0,
            mechanisms_digest=MECHANISMS,
            pcr_digest=request.pcr_digest,
            inventory_digest=hashlib.sha256(inventory).digest(),
            nonce=self.nonce_override or request.nonce,
            log_digest=request.log_digest,
        )
        der = self.attestation_key.sign(statement_to_sign(statement), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        return StatementResponse(
            statement=statement.encode(),
            signature=r.to_bytes(32) + s.to_bytes(32),
            inventory=inventory,
            attestation_key_spki=_spki(self.attestation_key),
            gateway_spki=self.spki,
        )

    def tell(self) -> None:
        """Say that the inventory has changed."""
        self.counter += 1
        for stream in self.streams:
            stream.put_nowait(self.counter)

    async def start(self, socket_path: Path) -> None:
        """Serve the local routes."""
        app = web.Application(middlewares=[problems])
        app.add_routes(
            [
                web.get("/local/v1/identity", self._identity),
                web.post("/local/v1/statement", self._statement),
                web.get("/local/v1/changes", self._changes),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket_path)).start()

    async def stop(self) -> None:
        """Close socket and streams."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        self.listening.clear()

    async def _identity(self, _: web.Request) -> web.Response:
        return answer(await self.identity())

    async def _statement(self, request: web.Request) -> web.Response:
        return answer(await self.statement(await read(request, StatementRequest, max_bytes=4096)))

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        stream: asyncio.Queue[int] = asyncio.Queue()
        self.streams.append(stream)
        try:
            await response.write(encode(Change(kind=ChangeKind.ALIVE, counter=self.counter)) + b"\n")
            self.listening.set()
            while True:
                counter = await stream.get()
                await response.write(encode(Change(kind=ChangeKind.INVENTORY, counter=counter)) + b"\n")
        finally:
            self.streams.remove(stream)
