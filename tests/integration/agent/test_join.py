"""Joining over real TLS: who is let in, who is not, and what a man in the middle learns."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.cli.host_join import join_host
from chatelaine.controller.join import BURST_REQUESTS, MAX_REMEMBERED_PEERS, REFILL_SECONDS, JoinEndpoint, PeerRates
from chatelaine.kube.errors import Unavailable
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.pki.authority import SETTLED_SECONDS, Authority
from chatelaine.pki.errors import AuthorityMalformed, CertificateRefused, Flaw
from chatelaine.pki.invitation import Invitation, InvitationOutcome, secret_digest
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import MAX_JOIN_BODY_BYTES, JoinRequest, encode
from chatelaine.wire.peer import PeerNotAuthenticated, PeerRefused
from chatelaine.wire.serve import Refused
from support.invitations import MemoryInvitations
from support.pki import as_it_stands, new_authority, new_leaf, new_pair, now

HOST = "hsm-a"


class World:
    """An operator's join endpoint, and who was invited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = new_authority()
        self.store = MemoryInvitations({})
        self.wall: Callable[[], float] = time.time
        self.monotonic_seconds = 0.0
        self.endpoints: list[JoinEndpoint] = []
        self.port = 0

    async def serve(
        self,
        authority: Authority | None = None,
        leaf: ProcessLeaf | None = None,
        *,
        present: Callable[[], Authority] | None = None,
        refresh: Callable[[], Awaitable[None]] = as_it_stands,
    ) -> tuple[int, JoinEndpoint]:
        offered = authority or self.authority
        shown = leaf or new_leaf(offered, self.folder / f"operator-{len(self.endpoints)}", OPERATOR_SERVER_NAME)
        endpoint = JoinEndpoint(
            present or (lambda: offered),
            self.store,
            wall_clock=lambda: self.wall(),
            monotonic=lambda: self.monotonic_seconds,
            random_bytes=secrets.token_bytes,
            refresh=refresh,
        )
        port = await endpoint.start(shown.server_context(client_certificates=False), "127.0.0.1", 0)
        self.endpoints.append(endpoint)
        return port, endpoint

    async def invite(self, host: str = HOST, *, port: int | None = None, lifetime_seconds: int = 1800) -> Invitation:
        secret, expires = secrets.token_bytes(32), now() + lifetime_seconds
        await self.store.create(host, secret_digest(secret), expires)
        return Invitation.make(
            endpoint=f"127.0.0.1:{port or self.port}",
            ca_digest=self.authority.digest,
            host=host,
            secret=secret,
            expires=expires,
        )

    async def join(self, invitation: Invitation, folder: str = "host") -> None:
        await join_host(invitation, self.folder / folder, now=now())

    async def post(self, body: bytes | AsyncIterator[bytes]) -> tuple[int, dict[str, object]]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://127.0.0.1:{self.port}/v1/join", data=body, ssl=False) as response,
        ):
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.port, _ = await made.serve()
    yield made
    for endpoint in made.endpoints:
        await endpoint.stop()


async def test_an_invited_host_gets_leaves_for_agent_and_gateway(world: World) -> None:
    await world.join(await world.invite())
    agent = ProcessLeaf(world.folder / "host" / "agent" / "tls", agent_server_name(HOST))
    gateway = ProcessLeaf(world.folder / "host" / "gateway" / "tls", gateway_server_name(HOST))
    assert agent.spki != gateway.spki
    assert agent.bundle == gateway.bundle == world.authority.bundle
    assert agent.not_after > now()
    assert gateway.not_after > now()


async def test_a_host_that_joins_again_keeps_its_keys(world: World) -> None:
    await world.join(await world.invite())
    before = ProcessLeaf(world.folder / "host" / "agent" / "tls", agent_server_name(HOST)).spki
    await world.join(await world.invite())
    assert ProcessLeaf(world.folder / "host" / "agent" / "tls", agent_server_name(HOST)).spki == before


async def refused(world: World, invitation: Invitation, folder: str = "refused") -> PeerRefused:
    with pytest.raises(PeerRefused) as caught:
        await world.join(invitation, folder)
    assert not (world.folder / folder / "agent" / "tls" / "chain.pem").exists()
    return caught.value


async def test_a_replayed_an_expired_a_guessed_and_an_uninvited_one_look_the_same(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "chatelaine")
    used = await world.invite("hsm-used")
    await world.join(used, "first")
    expired = await world.invite("hsm-late", lifetime_seconds=-1)
    real = await world.invite("hsm-b")
    guessed = Invitation.make(
        endpoint=real.endpoint, ca_digest=real.ca_digest, host="hsm-b", secret=bytes(32), expires=real.expires
    )
    uninvited = Invitation.make(
        endpoint=real.endpoint, ca_digest=real.ca_digest, host="hsm-z", secret=bytes(32), expires=real.expires
    )
    said = [(await refused(world, one)).body for one in (used, expired, guessed, uninvited)]
    assert len(set(said)) == 1
    assert b'"status":403' in said[0]
    reasons = [record.__dict__["facts"]["reason"] for record in caplog.records if "refused" in record.message]
    assert reasons == ["AlreadyUsed", "Expired", "WrongSecret", "NotInvited"]
    assert used.secret not in caplog.text
    assert used.secret_bytes().hex() not in caplog.text


async def test_an_invitation_of_another_host_is_refused(world: World) -> None:
    theirs = await world.invite("hsm-b")
    await world.invite(HOST)
    stolen = Invitation.make(
        endpoint=theirs.endpoint,
        ca_digest=theirs.ca_digest,
        host=HOST,
        secret=theirs.secret_bytes(),
        expires=theirs.expires,
    )
    await refused(world, stolen)
    await world.join(theirs)


async def test_of_two_hosts_with_the_same_token_one_joins(world: World) -> None:
    invitation = await world.invite()
    outcomes = await asyncio.gather(
        world.join(invitation, "one"), world.join(invitation, "two"), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PeerRefused"]


async def test_two_operators_over_one_store_admit_once(world: World) -> None:
    other, _ = await world.serve()
    invitation = await world.invite()
    there = Invitation.make(
        endpoint=f"127.0.0.1:{other}",
        ca_digest=invitation.ca_digest,
        host=HOST,
        secret=invitation.secret_bytes(),
        expires=invitation.expires,
    )
    outcomes = await asyncio.gather(world.join(invitation, "one"), world.join(there, "two"), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PeerRefused"]


async def consumed(world: World, invitation: Invitation) -> InvitationOutcome:
    return await world.store.consume(invitation.host, secret_digest(invitation.secret_bytes()), now())


async def test_a_man_in_the_middle_with_another_ca_is_told_nothing(world: World) -> None:
    port, _ = await world.serve(new_authority())
    invitation = await world.invite(port=port)
    with pytest.raises(CertificateRefused) as caught:
        await world.join(invitation)
    assert caught.value.flaw is Flaw.UNKNOWN_ISSUER
    assert await consumed(world, invitation) is InvitationOutcome.CONSUMED


async def test_a_man_in_the_middle_who_offers_our_public_ca_is_told_nothing(world: World) -> None:
    mallory = new_authority()
    leaf = new_leaf(mallory, world.folder / "mallory", OPERATOR_SERVER_NAME)
    port, _ = await world.serve(world.authority, leaf)
    invitation = await world.invite(port=port)
    with pytest.raises(PeerNotAuthenticated):
        await world.join(invitation)
    assert await consumed(world, invitation) is InvitationOutcome.CONSUMED


async def test_a_host_of_ours_that_poses_as_the_operator_is_told_nothing(world: World) -> None:
    leaf = new_leaf(world.authority, world.folder / "rogue", agent_server_name("hsm-rogue"))
    port, _ = await world.serve(world.authority, leaf)
    invitation = await world.invite(port=port)
    with pytest.raises(PeerNotAuthenticated):
        await world.join(invitation)
    assert await consumed(world, invitation) is InvitationOutcome.CONSUMED


async def test_a_folder_of_another_host_is_refused_before_anything_is_sent(world: World) -> None:
    await world.join(await world.invite("hsm-b"))
    invitation = await world.invite(HOST)
    with pytest.raises(CertificateRefused) as caught:
        await world.join(invitation)
    assert caught.value.flaw is Flaw.OTHER_NAME
    assert await consumed(world, invitation) is InvitationOutcome.CONSUMED


def csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


async def test_bad_requests_do_not_use_up_the_invitation(world: World) -> None:
    invitation = await world.invite()
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    secret = invitation.secret_bytes()
    good = csr(key)
    forged = csr(other).replace(spki(other), spki(key))
    for agent, gateway in ((b"", good), (good, b"x"), (good, good), (csr(other), forged)):
        asked = JoinRequest(host=HOST, invitation=secret, agent_csr=agent, gateway_csr=gateway)
        status, problem = await world.post(encode(asked))
        assert (status, problem["code"]) == (400, "BadRequest")
        world.monotonic_seconds += 100 * REFILL_SECONDS
    await world.join(invitation)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("host", ["", "*", "a/b", "../x", "x" * 260, "a..b", "HSM", "a.chatelaine.internal\n"])
async def test_a_host_name_that_is_none_is_refused(world: World, host: str) -> None:
    await world.store.create(host, secret_digest(bytes(32)), now() + 60)
    one, other = (csr(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    asked = JoinRequest(host=host, invitation=bytes(32), agent_csr=one, gateway_csr=other)
    status, problem = await world.post(encode(asked))
    assert (status, problem["code"]) == (403, "InvitationRefused")


async def test_an_oversized_body_is_refused_whether_or_not_it_says_its_length(world: World) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(MAX_JOIN_BODY_BYTES // 1024 + 2):
            yield b" " * 1024

    for body in (b" " * (MAX_JOIN_BODY_BYTES + 1), unannounced()):
        status, problem = await world.post(body)
        assert (status, problem["code"]) == (413, "BodyTooLarge")


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff\xfe", b'{"host": "hsm-a"}'])
async def test_a_malformed_body_is_refused(world: World, body: bytes) -> None:
    status, problem = await world.post(body)
    assert (status, problem["code"]) == (400, "BadRequest")


async def test_a_peer_that_asks_too_often_is_refused_until_time_has_passed(world: World) -> None:
    for _ in range(BURST_REQUESTS):
        assert (await world.post(b"{"))[0] == 400
    assert (await world.post(b"{"))[0] == 429
    world.monotonic_seconds += REFILL_SECONDS
    assert (await world.post(b"{"))[0] == 400
    assert (await world.post(b"{"))[0] == 429


def test_an_ipv6_peer_gains_nothing_by_another_address_of_its_network() -> None:
    rates = PeerRates(lambda: 0.0)
    for number in range(BURST_REQUESTS):
        rates.take(f"2001:db8::{number:x}")
    with pytest.raises(Refused):
        rates.take("2001:db8::ffff%eth0")
    rates.take("2001:db8:0:1::1")
    rates.take("192.0.2.1")


def test_peers_beyond_number_do_not_fill_the_memory() -> None:
    rates = PeerRates(lambda: 0.0)
    for number in range(2 * MAX_REMEMBERED_PEERS):
        rates.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(rates._peers) == MAX_REMEMBERED_PEERS


async def test_without_a_ca_nobody_joins_and_the_invitation_stays(world: World) -> None:
    def none() -> Authority:
        raise AuthorityMalformed("not read yet")

    invitation = await world.invite()
    world.endpoints[0]._authority = none
    with pytest.raises(PeerRefused) as caught:
        await world.join(invitation)
    assert caught.value.problem.code == "NoAuthority"
    assert await consumed(world, invitation) is InvitationOutcome.CONSUMED


async def test_an_api_server_that_is_away_is_said_and_admits_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(host: str, secret_digest: str, now: int) -> InvitationOutcome:
        raise Unavailable("away")

    invitation = await world.invite()
    monkeypatch.setattr(world.store, "consume", away)
    assert (await refused(world, invitation)).problem.code == "TryAgain"


async def test_a_host_joins_while_the_ca_is_being_rotated(world: World) -> None:
    both = world.authority.publish(new_pair(), now())
    port, _ = await world.serve(both)
    await world.join(await world.invite(port=port))
    joined = ProcessLeaf(world.folder / "host" / "agent" / "tls", agent_server_name(HOST))
    assert joined.bundle == both.bundle


async def test_a_host_that_joins_after_another_operators_step_gets_leaves_of_the_ca_that_signs_now(
    world: World,
) -> None:
    """They would end with the rotation: the old root leaves the bundle once all that had its leaves have others."""
    known = [published := world.authority.publish(new_pair(), now())]
    there = [published.everybody_told(now()).switch(now() + SETTLED_SECONDS)]

    async def refresh() -> None:
        known[:] = there

    leaf = new_leaf(published, world.folder / "ours", OPERATOR_SERVER_NAME)
    port, _ = await world.serve(leaf=leaf, present=lambda: known[0], refresh=refresh)
    await world.join(await world.invite(port=port), "host")
    joined = ProcessLeaf(world.folder / "host" / "agent" / "tls", agent_server_name(HOST))
    assert joined.is_of(there[0].signing.certificate)
    assert joined.bundle == there[0].bundle


async def test_a_ca_that_cannot_be_read_costs_no_invitation(world: World) -> None:
    failing = [True]

    async def refresh() -> None:
        if failing[0]:
            raise Unavailable("the API server is away")

    port, _ = await world.serve(refresh=refresh)
    invitation = await world.invite(port=port)
    assert (await refused(world, invitation)).problem.code == "NoAuthority"
    failing[0] = False
    await world.join(invitation)
