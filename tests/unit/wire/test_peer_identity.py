"""Who our client talks to: strangers are told nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.wire.messages import Activated, Change
from chatelaine.wire.peer import (
    PeerClient,
    PeerNotAuthenticated,
    PeerUnreachable,
    Target,
    _key_of,
)
from support.pki import new_authority, new_leaf
from support.scripted_peer import (
    BOUND_BYTES,
    GOOD,
    LONG_SECONDS,
    NAME,
    Pki,
    activation,
    client,
    listening,
    once,
    peer,
    plain,
    said,
)


async def test_a_peer_of_another_ca_is_not_authenticated_and_told_nothing(pki: Pki, tmp_path: Path) -> None:
    heard: list[bytes] = []
    stranger = new_leaf(new_authority(), tmp_path / "stranger", NAME)
    async with peer(listening(heard), stranger.server_context()) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("POST", "/v1/activate", activation(), Activated)
    assert heard == []


async def test_a_peer_with_another_name_is_not_authenticated_and_told_nothing(pki: Pki) -> None:
    heard: list[bytes] = []
    other = new_leaf(pki.authority, pki.folder / "other", agent_server_name("hsm-b"))
    async with peer(listening(heard), other.server_context()) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("POST", "/v1/activate", activation(), Activated)
        with pytest.raises(PeerNotAuthenticated):
            await anext(asking.lines("/v1/changes", Change, silence_seconds=LONG_SECONDS))
    assert heard == []


async def test_a_key_that_is_not_admitted_is_told_nothing(pki: Pki) -> None:
    heard: list[bytes] = []
    asked: list[bytes] = []

    def admits(spki: bytes) -> bool:
        asked.append(spki)
        return False

    async with peer(listening(heard), pki.agent.server_context()) as port, client(pki, port, admits=admits) as asking:
        with pytest.raises(PeerNotAuthenticated, match="not the key that was attested"):
            await asking.call("POST", "/v1/activate", activation(), Activated)
    assert asked == [pki.agent.spki]
    assert heard == []


@pytest.mark.parametrize("der", [b"", b"junk", b"\x30\x03\x02\x01\x01"])
def test_a_certificate_that_cannot_be_read_authenticates_nobody(der: bytes) -> None:
    with pytest.raises(PeerNotAuthenticated):
        _key_of(der)


async def test_a_peer_without_tls_is_not_authenticated(pki: Pki) -> None:
    async def greets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said(GOOD))

    async with plain(greets) as port, client(pki, port) as asking:
        with pytest.raises(PeerNotAuthenticated):
            await asking.call("GET", "/v1/identity", None, Activated)


async def test_a_peer_that_does_not_accept_our_certificate_gives_no_answer(pki: Pki, tmp_path: Path) -> None:
    """In TLS 1.3 it says so only after the handshake, by an alert or by hanging up."""
    stranger = new_leaf(new_authority(), tmp_path / "stranger", OPERATOR_SERVER_NAME)
    context = stranger.client_context()
    context.load_verify_locations(cadata=pki.authority.bundle_pem)
    async with peer(once(said(GOOD)), pki.agent.server_context()) as port:
        asking = PeerClient(
            Target("127.0.0.1", port, NAME), context, timeout_seconds=LONG_SECONDS, max_answer_bytes=BOUND_BYTES
        )
        async with asking:
            with pytest.raises((PeerNotAuthenticated, PeerUnreachable)):
                await asking.call("GET", "/v1/identity", None, Activated)
