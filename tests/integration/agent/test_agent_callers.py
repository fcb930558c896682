"""Whom the agent lets in, and how its own leaf is renewed."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time

import pytest

from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.pki.authority import Authority
from chatelaine.wire.messages import (
    Change,
    ChangeKind,
    HostIdentity,
    Leaf,
    LeafRequest,
)
from chatelaine.wire.peer import PeerClient, PeerError, PeerRefused
from support.agent_host import DEADLINE_SECONDS, HOST, NAME, AgentHost, heard
from support.pki import new_authority, new_leaf, renew


async def test_a_strangers_client_certificate_is_refused(world: AgentHost) -> None:
    stranger = new_leaf(new_authority(), world.folder / "stranger", OPERATOR_SERVER_NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.bundle_pem)
    context.load_cert_chain(world.folder / "stranger" / "chain.pem", world.folder / "stranger" / "key.pem")
    async with world.client(stranger, context) as client:
        with pytest.raises(PeerError) as refused:
            await client.call("GET", "/v1/identity", None, HostIdentity)
    assert not isinstance(refused.value, PeerRefused)


async def test_a_caller_without_a_certificate_is_refused(world: AgentHost) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.authority.bundle_pem)
    async with world.client(context=context) as client:
        with pytest.raises(PeerError) as refused:
            await client.call("GET", "/v1/identity", None, HostIdentity)
    assert not isinstance(refused.value, PeerRefused)


@pytest.mark.parametrize("name", [gateway_server_name(HOST), agent_server_name("hsm-b"), NAME])
async def test_another_process_of_ours_is_refused(world: AgentHost, name: str) -> None:
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


async def test_an_open_connection_ends_with_the_operators_certificate(operator: PeerClient, world: AgentHost) -> None:
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


async def test_a_leaf_is_renewed_while_connections_go_on(operator: PeerClient, world: AgentHost) -> None:
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


async def test_a_leaf_for_another_host_is_refused_and_the_old_one_stays(operator: PeerClient, world: AgentHost) -> None:
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


async def test_a_rotated_ca_reaches_the_agent_before_the_operator_uses_it(
    operator: PeerClient, world: AgentHost
) -> None:
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
