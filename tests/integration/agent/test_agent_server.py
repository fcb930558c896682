"""The agent's routes over real mutual TLS, on a real TPM: evidence, and bodies that are none."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest

from chatelaine.agent.server import MAX_LEAF_BYTES, MAX_REQUEST_BYTES
from chatelaine.controller.interrogation import evidence_of
from chatelaine.evidence.bundle import EnrolledIdentity, VerifiedEvidence, verify_evidence
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.errors import ExtraDataMismatch
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.wire.messages import (
    Activated,
    Activation,
    Change,
    ChangeKind,
    EvidenceRequest,
    EvidenceResponse,
    HostIdentity,
)
from chatelaine.wire.peer import PeerClient, PeerRefused
from support.agent_host import DEADLINE_SECONDS, NAME, SELECTION, UID, AgentHost, heard
from support.simulated_gateway import SERIAL


def question(nonce: bytes) -> EvidenceRequest:
    return EvidenceRequest(nonce=nonce, subject_uid=UID, bank="Sha256", indices=SELECTION.indices)


async def evidence(
    operator: PeerClient, world: AgentHost, nonce: bytes, asked: bytes | None = None
) -> VerifiedEvidence:
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


async def test_evidence_for_a_nonce_verifies_with_the_keys_seen_on_tls(operator: PeerClient, world: AgentHost) -> None:
    verified = await evidence(operator, world, secrets.token_bytes(32))
    assert verified.quote.selection == SELECTION


async def test_evidence_of_another_nonce_is_refused(operator: PeerClient, world: AgentHost) -> None:
    with pytest.raises(ExtraDataMismatch):
        await evidence(operator, world, secrets.token_bytes(32), asked=secrets.token_bytes(32))


async def test_a_tpm_reset_raises_the_reset_count_and_a_clear_changes_the_key(
    operator: PeerClient, world: AgentHost
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


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/evidence", MAX_REQUEST_BYTES), ("/v1/activate", MAX_REQUEST_BYTES), ("/v1/leaf", MAX_LEAF_BYTES)],
)
async def test_an_oversized_body_is_refused_whether_or_not_it_says_its_length(
    world: AgentHost, path: str, limit: int
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
async def test_a_malformed_question_is_refused(world: AgentHost, body: bytes) -> None:
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


async def test_without_a_gateway_there_is_an_identity_but_no_evidence(operator: PeerClient, world: AgentHost) -> None:
    await world.gateway.stop()
    assert (await operator.call("GET", "/v1/identity", None, HostIdentity)).message.gateway is None
    with pytest.raises(PeerRefused) as refused:
        await operator.call("POST", "/v1/evidence", question(bytes(32)), EvidenceResponse)
    assert (refused.value.problem.status, refused.value.problem.code) == (503, "GatewayUnavailable")


async def test_a_tpm_that_is_gone_is_told_and_gives_no_evidence(operator: PeerClient, world: AgentHost) -> None:
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
