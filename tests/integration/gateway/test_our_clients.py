"""The operator's and the agent's own client code against a real gateway."""

from __future__ import annotations

import time

import pytest

from chatelaine.evidence.inventory import decode_inventory
from chatelaine.model.identifiers import gateway_server_name
from chatelaine.wire.messages import (
    MAX_CONTROL_BODY_BYTES,
    Change,
    ChangeKind,
    EnsureKey,
    GatewayHello,
    GatewayIdentity,
    Inventory,
    KeyMade,
    LeafRequest,
    ViewAck,
)
from chatelaine.wire.peer import PeerClient, PeerNotAuthenticated, PeerRefused, Target


def _client(operator, name: str = gateway_server_name("hsm-a")) -> PeerClient:
    target = Target("127.0.0.1", operator.gateway.port, name)
    context = operator.leaf.client_context()
    return PeerClient(target, context, timeout_seconds=30.0, max_answer_bytes=MAX_CONTROL_BODY_BYTES)


async def test_operator_says_hello_tells_a_view_and_looks_at_the_token(operator):
    async with _client(operator) as client:
        hello = await client.call("GET", "/control/v1/hello", None, GatewayHello)
        assert hello.peer_spki == hello.message.identity.gateway_spki == operator.gateway.leaf.spki
        assert hello.peer_not_after > time.time()
        ack = await client.call("PUT", "/control/v1/view", operator.update(), ViewAck)
        assert ack.message.number == operator.number
        inventory = await client.call("GET", "/control/v1/inventory", None, Inventory)
        assert decode_inventory(inventory.message.inventory)
        asked = await client.call("POST", "/control/v1/leaf/request", None, LeafRequest)
        assert asked.message.not_after == hello.peer_not_after


async def test_refusals_reach_the_operator_with_their_code(operator):
    async with _client(operator) as client:
        with pytest.raises(PeerRefused) as refused:
            await client.call("PUT", "/control/v1/view", operator.update(instance="x"), ViewAck)
        assert refused.value.problem.status == 409
        ensure = EnsureKey(label="chat/service/token/1", type="EcP256", may_generate=True)
        with pytest.raises(PeerRefused) as refused:
            await client.call("POST", "/control/v1/keys/ensure", ensure, KeyMade)
        assert refused.value.problem.code == "LabelRefused"


async def test_gateway_of_another_name_is_not_taken_for_this_one(operator):
    async with _client(operator, gateway_server_name("hsm-b")) as client:
        with pytest.raises(PeerNotAuthenticated):
            await client.call("GET", "/control/v1/hello", None, GatewayHello)


async def test_agent_reads_identity_and_changes_over_the_socket(operator):
    target = Target("local", 80, None, unix_path=str(operator.gateway.socket_path))
    async with PeerClient(target, None, timeout_seconds=30.0, max_answer_bytes=65536) as client:
        identity = await client.call("GET", "/local/v1/identity", None, GatewayIdentity)
        assert identity.message == operator.hello().identity
        async for change in client.lines("/local/v1/changes", Change, silence_seconds=30.0):
            assert change.kind is ChangeKind.ALIVE
            break
