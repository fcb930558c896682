"""The agent's routes over real mutual TLS, on a real TPM."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tools.lab.swtpm import Swtpm

from chatelaine.agent.evidence import SocketGateway
from chatelaine.agent.server import MAX_LEAF_BYTES, MAX_REQUEST_BYTES, MAX_STREAMS, AgentServer
from chatelaine.agent.tpm import TpmAttester
from chatelaine.agent.watch import ChangeCounter, watch_gateway, watch_tpm
from chatelaine.controller.interrogation import evidence_of
from chatelaine.evidence.bundle import EnrolledIdentity, VerifiedEvidence, verify_evidence
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.errors import ExtraDataMismatch
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.model.tpm_policy import Bank
from chatelaine.pki.authority import Authority
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import (
    LINES_MEDIA_TYPE,
    Activated,
    Activation,
    Change,
    ChangeKind,
    EvidenceRequest,
    EvidenceResponse,
    HostIdentity,
    Leaf,
    LeafRequest,
)
from chatelaine.wire.peer import PeerClient, PeerError, PeerRefused, Target
from chatelaine.wire.serve import Listener
from support.pki import new_authority, new_leaf, renew
from support.simulated_gateway import SERIAL, SimulatedGateway

HOST = "hsm-a"
NAME = agent_server_name(HOST)
UID = "5f0c1a9e-0000-4000-8000-000000000001"
SELECTION = Selection(Bank.SHA256, (0, 7, 14))
DEADLINE_SECONDS = 20.0


class World:
    """One host with its agent, and the CA that knows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tpm = Swtpm()
        self.authority: Authority = new_authority()
        self.leaf = new_leaf(self.authority, folder / "agent", NAME)
        self.operator = new_leaf(self.authority, folder / "operator", OPERATOR_SERVER_NAME)
        self.gateway = SimulatedGateway()
        self.port = 0
        self.clock = time.time

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.gateway.start(self.folder / "gw.sock")
        attester, counter = TpmAttester(self.tpm.tcti, self.folder / "state"), ChangeCounter()
        socket = SocketGateway(str(self.folder / "gw.sock"))
        server = AgentServer(attester, socket, self.leaf, counter, lambda: self.clock(), alive_seconds=0.2)
        listener = Listener(server.application(), self.leaf.server_context())
        self.port = await listener.start("127.0.0.1", 0)
        watchers = [
            asyncio.create_task(watch_tpm(attester, counter, poll_seconds=0.02)),
            asyncio.create_task(watch_gateway(socket.client, counter)),
        ]
        try:
            yield
        finally:
            for task in watchers:
                task.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await listener.stop()
            await socket.close()
            await attester.close()
            await self.gateway.stop()
            self.tpm.stop()

    def client(self, leaf: ProcessLeaf | None = None, context: ssl.SSLContext | None = None) -> PeerClient:
        return PeerClient(
            Target("127.0.0.1", self.port, NAME),
            context or (leaf or self.operator).client_context(),
            timeout_seconds=DEADLINE_SECONDS,
            max_answer_bytes=1 << 20,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    async with made.running():
        yield made


@pytest.fixture
async def operator(world: World) -> AsyncIterator[PeerClient]:
    async with world.client() as client:
        yield client


def question(nonce: bytes) -> EvidenceRequest:
    return EvidenceRequest(nonce=nonce, subject_uid=UID, bank="Sha256", indices=SELECTION.indices)


async def evidence(operator: PeerClient, world: World, nonce: bytes, asked: bytes | None = None) -> VerifiedEvidence:
    identity = (await operator.call("GET", "/v1/identity", None, HostIdentity)).message
    assert identity.gateway is not None
    found = await operator.call("POST", "/v1/evidence", question(asked or nonce), EvidenceResponse)
    return verify_evidence(
        evidence_of(found.message),
        nonce=nonce,
        subject_uid=UID,
        identity=EnrolledIdentity(
            identity.ak_public, parse_public(identity.ak_public).name, identity.gateway.attestation_key_spki, SERIAL
        ),
        agent_spki=found.peer_spki,
        gateway_spki=world.gateway.spki,
        selection=SELECTION,
    )


async def test_evidence_for_a_nonce_verifies_with_the_keys_seen_on_tls(operator: PeerClient, world: World) -> None:
    verified = await evidence(operator, world, secrets.token_bytes(32))
    assert verified.quote.selection == SELECTION


async def test_evidence_of_another_nonce_is_refused(operator: PeerClient, world: World) -> None:
    with pytest.raises(ExtraDataMismatch):
        await evidence(operator, world, secrets.token_bytes(32), asked=secrets.token_bytes(32))


async def test_a_tpm_reset_raises_the_reset_count_and_a_clear_changes_the_key(
    operator: PeerClient, world: World
) -> None:
    first = await evidence(operator, world, secrets.token_bytes(32))
    world.tpm.reset()
    second = await evidence(operator, world, secrets.token_bytes(32))
    assert second.quote.reset_count == first.quote.reset_count + 1
    assert second.ak_name == first.ak_name
    world.tpm.tool("tpm2_clear", "-c", "p")
    third = await evidence(operator, world, secrets.token_bytes(32))
    assert third.ak_name != first.ak_name
    assert third.quote.reset_count < second.quote.reset_count


async def test_a_credential_is_activated_and_one_for_another_key_is_not(operator: PeerClient) -> None:
    identity = (await operator.call("GET", "/v1/identity", None, HostIdentity)).message
    ek, ak, secret = parse_public(identity.ek_public), parse_public(identity.ak_public), secrets.token_bytes(32)
    blob, encrypted = make_credential(ek, ak.name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
    asked = Activation(credential_blob=blob, encrypted_secret=encrypted)
    assert (await operator.call("POST", "/v1/activate", asked, Activated)).message.secret == secret
    stranger = ak.name[:-1] + bytes([ak.name[-1] ^ 1])
    blob, encrypted = make_credential(ek, stranger, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
    with pytest.raises(PeerRefused) as refused:
        await operator.call(
            "POST", "/v1/activate", Activation(credential_blob=blob, encrypted_secret=encrypted), Activated
        )
    assert refused.value.problem.code == "ActivationRefused"


async def heard(changes: AsyncIterator[Change], kind: ChangeKind) -> Change:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for change in changes:
            if change.kind is kind:
                return change
    raise AssertionError("the stream ended")


async def test_a_change_is_announced_on_the_stream(operator: PeerClient, world: World) -> None:
    changes = operator.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS)
    before = await heard(changes, ChangeKind.ALIVE)
    world.tpm.extend(7, bytes(32))
    pcr = await heard(changes, ChangeKind.PCR)
    assert pcr.counter > before.counter
    async with asyncio.timeout(DEADLINE_SECONDS):
        await world.gateway.listening.wait()
    world.gateway.tell()
    assert (await heard(changes, ChangeKind.INVENTORY)).counter > pcr.counter


async def test_a_strangers_client_certificate_is_refused(world: World) -> None:
    stranger = new_leaf(new_authority(), world.folder / "stranger", OPERATOR_SERVER_NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.bundle_pem)
    context.load_cert_chain(world.folder / "stranger" / "chain.pem", world.folder / "stranger" / "key.pem")
    async with world.client(stranger, context) as client:
        with pytest.raises(PeerError) as refused:
            await client.call("GET", "/v1/identity", None, HostIdentity)
    assert not isinstance(refused.value, PeerRefused)


async def test_a_caller_without_a_certificate_is_refused(world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.bundle_pem)
    async with world.client(context=context) as client:
        with pytest.raises(PeerError) as refused:
            await client.call("GET", "/v1/identity", None, HostIdentity)
    assert not isinstance(refused.value, PeerRefused)


@pytest.mark.parametrize("name", [gateway_server_name(HOST), agent_server_name("hsm-b"), NAME])
async def test_another_process_of_ours_is_refused(world: World, name: str) -> None:
    other = new_leaf(world.authority, world.folder / "other", name)
    async with world.client(other) as client:
        for method, path in (
            ("GET", "/v1/identity"),
            ("GET", "/v1/changes"),
            ("POST", "/v1/leaf/request"),
            ("GET", "/no"),
        ):
            with pytest.raises(PeerRefused) as refused:
                await client.call(method, path, None, HostIdentity)
            assert (refused.value.problem.status, refused.value.problem.code) == (403, "NotTheOperator")


async def test_an_open_connection_ends_with_the_operators_certificate(operator: PeerClient, world: World) -> None:
    await operator.call("GET", "/v1/identity", None, HostIdentity)
    changes = operator.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS)
    await heard(changes, ChangeKind.ALIVE)
    end = world.operator.not_after
    world.clock = lambda: end + 1.0
    with pytest.raises(PeerRefused) as refused:
        await operator.call("GET", "/v1/identity", None, HostIdentity)
    assert refused.value.problem.code == "NotTheOperator"
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert [change async for change in changes if change.kind is not ChangeKind.ALIVE] == []


async def test_a_leaf_is_renewed_while_connections_go_on(operator: PeerClient, world: World) -> None:
    changes = operator.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS)
    await heard(changes, ChangeKind.ALIVE)
    asked = await operator.call("POST", "/v1/leaf/request", None, LeafRequest)
    issued = world.authority.issue_leaf(asked.message.csr, NAME, int(time.time()), serial=secrets.token_bytes(16))
    renewed = Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=world.authority.bundle_pem)
    await operator.send("PUT", "/v1/leaf", renewed)
    world.tpm.extend(7, bytes(32))
    await heard(changes, ChangeKind.PCR)
    async with world.client() as fresh:
        shown = await fresh.call("POST", "/v1/leaf/request", None, LeafRequest)
    assert shown.peer_not_after == issued.not_after == shown.message.not_after
    assert shown.peer_spki == asked.peer_spki
    assert issued.not_after != asked.message.not_after


async def test_a_leaf_for_another_host_is_refused_and_the_old_one_stays(operator: PeerClient, world: World) -> None:
    asked = await operator.call("POST", "/v1/leaf/request", None, LeafRequest)
    issued = world.authority.issue_leaf(
        asked.message.csr, agent_server_name("hsm-b"), int(time.time()), serial=secrets.token_bytes(16)
    )
    wrong = Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=world.authority.bundle_pem)
    with pytest.raises(PeerRefused) as refused:
        await operator.send("PUT", "/v1/leaf", wrong)
    assert refused.value.problem.code == "LeafRefused"
    after = await operator.call("POST", "/v1/leaf/request", None, LeafRequest)
    assert after.message.not_after == asked.message.not_after


async def test_a_rotated_ca_reaches_the_agent_before_the_operator_uses_it(operator: PeerClient, world: World) -> None:
    from support.pki import new_pair

    both = world.authority.publish(new_pair(), int(time.time()))
    asked = await operator.call("POST", "/v1/leaf/request", None, LeafRequest)
    issued = both.issue_leaf(asked.message.csr, NAME, int(time.time()), serial=secrets.token_bytes(16))
    await operator.send("PUT", "/v1/leaf", Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=both.bundle_pem))
    assert both.upcoming is not None
    switched = Authority(both.upcoming, int(time.time()), former=both.signing.certificate)
    renew(switched, world.operator)
    async with world.client() as fresh:
        await fresh.call("GET", "/v1/identity", None, HostIdentity)


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/evidence", MAX_REQUEST_BYTES), ("/v1/activate", MAX_REQUEST_BYTES), ("/v1/leaf", MAX_LEAF_BYTES)],
)
async def test_an_oversized_body_is_refused_whether_or_not_it_says_its_length(
    world: World, path: str, limit: int
) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(limit // 1024 + 2):
            yield b" " * 1024

    method = "PUT" if path == "/v1/leaf" else "POST"
    async with aiohttp.ClientSession() as session:
        for body in (b" " * (limit + 1), unannounced()):
            async with session.request(
                method,
                f"https://127.0.0.1:{world.port}{path}",
                data=body,
                ssl=world.operator.client_context(),
                server_hostname=NAME,
            ) as response:
                assert response.status == 413
                assert (await response.json(content_type=None))["code"] == "BodyTooLarge"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b'{"nonce": 1}',
        b'{"v":2,"nonce":"' + b"A" * 43 + b'=","subjectUid":"u","bank":"Sha256","indices":[0]}',
        b'{"nonce":"AAAA","subjectUid":"u","bank":"Sha256","indices":[0]}',
        b'{"nonce":"' + b"A" * 43 + b'=","subjectUid":"","bank":"Sha256","indices":[0]}',
        b'{"nonce":"' + b"A" * 43 + b'=","subjectUid":"u","bank":"Sha1","indices":[0]}',
        b'{"nonce":"' + b"A" * 43 + b'=","subjectUid":"u","bank":"Sha256","indices":[]}',
        b'{"nonce":"' + b"A" * 43 + b'=","subjectUid":"u","bank":"Sha256","indices":[24]}',
        b'{"nonce":"' + b"A" * 43 + b'=","subjectUid":"u","bank":"Sha256","indices":[0,0]}',
    ],
)  # fmt: skip
async def test_a_malformed_question_is_refused(world: World, body: bytes) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{world.port}/v1/evidence",
            data=body,
            ssl=world.operator.client_context(),
            server_hostname=NAME,
        ) as response,
    ):
        assert response.status == 400
        expected = "VersionNotSupported" if b'"v":2' in body else "BadRequest"
        assert (await response.json(content_type=None))["code"] == expected


async def test_without_a_gateway_there_is_an_identity_but_no_evidence(operator: PeerClient, world: World) -> None:
    await world.gateway.stop()
    assert (await operator.call("GET", "/v1/identity", None, HostIdentity)).message.gateway is None
    with pytest.raises(PeerRefused) as refused:
        await operator.call("POST", "/v1/evidence", question(bytes(32)), EvidenceResponse)
    assert (refused.value.problem.status, refused.value.problem.code) == (503, "GatewayUnavailable")


async def test_a_tpm_that_is_gone_is_told_and_gives_no_evidence(operator: PeerClient, world: World) -> None:
    changes = operator.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS)
    await heard(changes, ChangeKind.ALIVE)
    world.tpm.power_off()
    await heard(changes, ChangeKind.PCR)
    with pytest.raises(PeerRefused) as refused:
        await operator.call("POST", "/v1/evidence", question(bytes(32)), EvidenceResponse)
    assert (refused.value.problem.status, refused.value.problem.code) == (503, "AttesterUnavailable")
    world.tpm.start()
    await heard(changes, ChangeKind.PCR)
    await operator.call("POST", "/v1/evidence", question(bytes(32)), EvidenceResponse)


async def test_a_change_stream_is_of_the_type_of_all_our_streams(world: World) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"https://127.0.0.1:{world.port}/v1/changes", ssl=world.operator.client_context(), server_hostname=NAME
        ) as response,
    ):
        assert response.content_type == LINES_MEDIA_TYPE


async def test_more_change_streams_than_allowed_are_refused(world: World) -> None:
    clients = [world.client() for _ in range(MAX_STREAMS + 1)]
    streams = [client.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS) for client in clients]
    try:
        for stream in streams[:-1]:
            await heard(stream, ChangeKind.ALIVE)
        with pytest.raises(PeerRefused) as refused:
            await heard(streams[-1], ChangeKind.ALIVE)
        assert refused.value.problem.status == 429
    finally:
        for client in clients:
            await client.close()


async def test_a_listener_that_goes_leaves_its_place_and_no_alarm(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2 * MAX_STREAMS):
        async with world.client() as client, asyncio.timeout(DEADLINE_SECONDS):
            # The one before is noticed within one `Alive`; each question takes a round trip.
            while not await listened(client):
                pass
    assert "a caller was refused" not in caplog.text


async def listened(client: PeerClient) -> bool:
    try:
        await heard(client.lines("/v1/changes", Change, silence_seconds=DEADLINE_SECONDS), ChangeKind.ALIVE)
    except PeerRefused:
        return False
    return True
