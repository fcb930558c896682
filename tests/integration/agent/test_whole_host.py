"""A whole HSM host of real parts: swtpm, SoftHSM, the gateway's process, the agent's process."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm

from chatelaine.controller.interrogation import evidence_of
from chatelaine.evidence.bundle import EnrolledIdentity, VerifiedEvidence, verify_evidence
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name, key_label
from chatelaine.model.tpm_policy import Bank
from chatelaine.wire.messages import (
    Activated,
    Activation,
    Change,
    ChangeKind,
    EnsureKey,
    EvidenceRequest,
    EvidenceResponse,
    GatewayHello,
    HostIdentity,
    KeyMade,
)
from chatelaine.wire.peer import PeerClient, PeerRefused, Target
from support.agent_process import PAUSE_SECONDS, START_SECONDS, AgentProcess
from support.gateway import GatewayProcess
from support.pki import new_authority, new_leaf

HOST = "hsm-a"
UID = "5f0c1a9e-0000-4000-8000-000000000001"
SELECTION = Selection(Bank.SHA256, (0, 7))


class WholeHost:
    """The host, and the operator's two lines to it."""

    def __init__(self, folder: Path) -> None:
        self.tpm = Swtpm()
        self.authority = new_authority()
        self.gateway = GatewayProcess(folder / "gateway", self.authority, host=HOST)
        self.agent = AgentProcess(folder, HOST, self.gateway.socket_path, "--tcti", self.tpm.tcti)
        self.operator = new_leaf(self.authority, folder / "operator", OPERATOR_SERVER_NAME)
        new_leaf(self.authority, folder / "agent" / "tls", agent_server_name(HOST))

    def line(self, port: int, name: str) -> PeerClient:
        return PeerClient(
            Target("127.0.0.1", port, name),
            self.operator.client_context(),
            timeout_seconds=START_SECONDS,
            max_answer_bytes=8 << 20,
        )

    def to_agent(self) -> PeerClient:
        return self.line(self.agent.port, agent_server_name(HOST))

    def to_gateway(self) -> PeerClient:
        return self.line(self.gateway.port, gateway_server_name(HOST))

    async def evidence(self) -> VerifiedEvidence:
        """Evidence, asked for again while a part of the host is still starting."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    return await self.round()
                except PeerRefused as error:
                    if error.problem.status != 503:
                        raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def round(self) -> VerifiedEvidence:
        """A round as the operator does it: every key it compares with is one that it saw itself."""
        nonce = secrets.token_bytes(32)
        async with self.to_agent() as agent, self.to_gateway() as gateway:
            identity = (await agent.call("GET", "/v1/identity", None, HostIdentity)).message
            hello = await gateway.call("GET", "/control/v1/hello", None, GatewayHello)
            asked = EvidenceRequest(nonce=nonce, subject_uid=UID, bank="Sha256", indices=SELECTION.indices)
            answer = await agent.call("POST", "/v1/evidence", asked, EvidenceResponse)
        facts = hello.message.identity
        return verify_evidence(
            evidence_of(answer.message),
            nonce=nonce,
            subject_uid=UID,
            identity=EnrolledIdentity(
                identity.ak_public,
                parse_public(identity.ak_public).name,
                facts.attestation_key_spki,
                facts.token.serial,
            ),
            agent_spki=answer.peer_spki,
            gateway_spki=hello.peer_spki,
            selection=SELECTION,
        )


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[WholeHost]:
    made = WholeHost(tmp_path)
    try:
        await asyncio.to_thread(made.gateway.start)
        await made.agent.start()
        yield made
    finally:
        if made.agent.process is not None:
            await made.agent.end(signal.SIGKILL)
        await asyncio.to_thread(made.gateway.close)
        made.tpm.stop()


async def heard(changes: AsyncIterator[Change], kind: ChangeKind) -> Change:
    async with asyncio.timeout(START_SECONDS):
        async for change in changes:
            if change.kind is kind:
                return change
    raise AssertionError("the stream ended")


async def test_the_host_proves_itself_and_opens_a_credential(host: WholeHost) -> None:
    verified = await host.evidence()
    assert verified.statement.pcr_digest == verified.quote.pcr_digest
    assert verified.inventory
    async with host.to_agent() as agent:
        identity = (await agent.call("GET", "/v1/identity", None, HostIdentity)).message
        ek, ak, secret = parse_public(identity.ek_public), parse_public(identity.ak_public), secrets.token_bytes(32)
        blob, encrypted = make_credential(ek, ak.name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
        opened = await agent.call(
            "POST", "/v1/activate", Activation(credential_blob=blob, encrypted_secret=encrypted), Activated
        )
    assert opened.message.secret == secret


async def test_each_kind_of_change_is_told_and_shows_in_the_next_evidence(host: WholeHost) -> None:
    before = await host.evidence()
    async with host.to_agent() as listener, host.to_gateway() as gateway:
        changes = listener.lines("/v1/changes", Change, silence_seconds=START_SECONDS)
        await heard(changes, ChangeKind.ALIVE)
        host.tpm.extend(7, bytes(32))
        await heard(changes, ChangeKind.PCR)
        extended = await host.evidence()
        assert extended.quote.pcrs[7] != before.quote.pcrs[7]
        made = EnsureKey(label=key_label(UID, "signing", 1), type="EcP256", may_generate=True)
        await gateway.call("POST", "/control/v1/keys/ensure", made, KeyMade)
        await heard(changes, ChangeKind.INVENTORY)
        assert len((await host.evidence()).inventory) == len(before.inventory) + 2


async def test_a_killed_gateway_is_told_and_its_return_too(host: WholeHost) -> None:
    before = await host.evidence()
    async with host.to_agent() as listener:
        changes = listener.lines("/v1/changes", Change, silence_seconds=START_SECONDS)
        await heard(changes, ChangeKind.ALIVE)
        assert host.gateway.process is not None
        host.gateway.process.kill()
        await heard(changes, ChangeKind.GATEWAY)
        async with host.to_agent() as agent:
            asked = EvidenceRequest(nonce=bytes(32), subject_uid=UID, bank="Sha256", indices=(0,))
            with pytest.raises(PeerRefused) as refused:
                await agent.call("POST", "/v1/evidence", asked, EvidenceResponse)
        assert refused.value.problem.code == "GatewayUnavailable"
        await asyncio.to_thread(host.gateway.process.wait, START_SECONDS)
        await asyncio.to_thread(host.gateway.start)
        await heard(changes, ChangeKind.GATEWAY)
    after = await host.evidence()
    assert after.ak_name == before.ak_name
    assert after.statement.serial == before.statement.serial
