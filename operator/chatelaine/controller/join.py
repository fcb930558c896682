"""The join endpoint: a host shows an invitation once and gets its first leaves.

Order of a join, so that a stranger can neither learn nor spoil anything:

1. the caller's rate is bounded before its body is read;
2. the requests are checked for possession of two different keys, which costs the invitation nothing, and so does a CA
   that cannot be read;
3. the invitation is used up; of any number of callers one gets on;
4. leaves for `agent.<host>` and `gateway.<host>` are issued.

Outside, every refused invitation looks the same; the reason stands in the log, the secret nowhere. A crash after step 3
leaves the invitation used: a person makes a new one.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from chatelaine.kube.errors import KubeError
from chatelaine.model.identifiers import agent_server_name, gateway_server_name
from chatelaine.pki.authority import Authority
from chatelaine.pki.chain import checked_server_name
from chatelaine.pki.errors import AuthorityMalformed, CsrRefused, NameRefused, PkiError
from chatelaine.pki.invitation import SECRET_BYTES, InvitationOutcome, InvitationStore, secret_digest
from chatelaine.pki.requests import proven_key
from chatelaine.pki.roots import SERIAL_BYTES
from chatelaine.telemetry.log import logger
from chatelaine.wire.messages import MAX_JOIN_BODY_BYTES, CaBundle, JoinRequest, JoinResponse
from chatelaine.wire.serve import Listener, Refused, answer, problems, read

log = logger(__name__)

BURST_REQUESTS: Final = 64
"""A join takes two requests; a rack behind one address may join at once. Secrets are too long to guess at any rate."""
REFILL_SECONDS: Final = 1.0
"""Time after which a peer may ask once more."""
MAX_REMEMBERED_PEERS: Final = 4096
_IPV6_NETWORK_BITS: Final = 64


@dataclass(slots=True)
class _Allowance:
    requests: float
    at_seconds: float


class PeerRates:
    """How often each peer may still ask. An IPv6 peer is its /64: whoever has one address there has them all.

    Args:
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._peers: OrderedDict[str, _Allowance] = OrderedDict()

    def take(self, peer: str) -> None:
        """Count one request.

        Raises:
            Refused: too many from this peer.
        """
        now, key = self._monotonic(), _network_of(peer)
        allowance = self._peers.pop(key, None) or _Allowance(BURST_REQUESTS, now)
        allowance.requests = min(BURST_REQUESTS, allowance.requests + (now - allowance.at_seconds) / REFILL_SECONDS)
        allowance.at_seconds = now
        self._peers[key] = allowance
        if len(self._peers) > MAX_REMEMBERED_PEERS:
            self._peers.popitem(last=False)
        if allowance.requests < 1:
            raise Refused(429, "TooManyRequests", "wait a minute and try again", closes=True)
        allowance.requests -= 1


def _network_of(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))


class JoinEndpoint:
    """Serves `GET /v1/ca` and `POST /v1/join`.

    Args:
        authority: gives the CA as it stands now.
        invitations: who was invited.
        wall_clock: seconds since the epoch.
        monotonic: seconds of a clock that never goes back.
        random_bytes: as `secrets.token_bytes`, for serials.
        refresh: has `authority` give the CA of this moment: leaves of one that no longer signs are never issued.
    """

    def __init__(
        self,
        authority: Callable[[], Authority],
        invitations: InvitationStore,
        *,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._authority = authority
        self._refresh = refresh
        self._invitations = invitations
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._rates = PeerRates(monotonic)
        self._listener: Listener | None = None

    async def start(self, context: ssl.SSLContext, host: str, port: int) -> int:
        """Listen with a server context of the operator's leaf that asks for no client certificate; gives the port.

        Raises:
            OSError: the address cannot be had.
        """
        self._listener = Listener(self.application(), context)
        return await self._listener.start(host, port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stop()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[problems], client_max_size=MAX_JOIN_BODY_BYTES)
        app.add_routes([web.get("/v1/ca", self._ca), web.post("/v1/join", self._join)])
        return app

    async def _ca(self, request: web.Request) -> web.Response:
        self._rates.take(request.remote or "")
        return answer(CaBundle(ca_bundle_pem=self._present_authority().bundle_pem))

    async def _join(self, request: web.Request) -> web.Response:
        peer = request.remote or ""
        self._rates.take(peer)
        asked = await read(request, JoinRequest, max_bytes=MAX_JOIN_BODY_BYTES)
        _check_requests(asked)
        await self._look_again()
        authority = self._present_authority()
        await self._admit(asked, peer)
        answered = self._issue(authority, asked)
        log.info("a host has joined", host_name=asked.host, peer=peer)
        return answer(answered)

    async def _look_again(self) -> None:
        """Before the invitation is used up: if it fails, the host may try again with it."""
        try:
            await self._refresh()
        except (KubeError, PkiError) as error:
            log.warning("nobody can join: the CA could not be read", error=str(error))
            raise Refused(503, "NoAuthority", "the operator cannot read its CA now; try again") from error

    def _present_authority(self) -> Authority:
        try:
            return self._authority()
        except AuthorityMalformed as error:
            log.warning("nobody can join: there is no CA", error=str(error))
            raise Refused(503, "NoAuthority", "the operator has no CA yet; try again") from error

    async def _admit(self, asked: JoinRequest, peer: str) -> None:
        try:
            checked_server_name(agent_server_name(asked.host))
            checked_server_name(gateway_server_name(asked.host))
        except NameRefused:
            raise self._refused("NoHostName", "", peer) from None
        if len(asked.invitation) != SECRET_BYTES:
            raise self._refused(InvitationOutcome.WRONG_SECRET.value, asked.host, peer)
        try:
            outcome = await self._invitations.consume(
                asked.host, secret_digest(asked.invitation), int(self._wall_clock())
            )
        except KubeError as error:
            log.warning("an invitation could not be looked up", host_name=asked.host, peer=peer, error=str(error))
            raise Refused(503, "TryAgain", "try again; if it is refused then, make a new invitation") from error
        if outcome is not InvitationOutcome.CONSUMED:
            raise self._refused(outcome.value, asked.host, peer)

    def _refused(self, reason: str, host: str, peer: str) -> Refused:
        log.warning("a join was refused", reason=reason, host_name=host, peer=peer)
        return Refused(403, "InvitationRefused", "the invitation does not admit this host", closes=True)

    def _issue(self, authority: Authority, asked: JoinRequest) -> JoinResponse:
        now = int(self._wall_clock())
        agent, gateway = (
            authority.issue_leaf(csr, name, now, serial=self._random_bytes(SERIAL_BYTES))
            for csr, name in (
                (asked.agent_csr, agent_server_name(asked.host)),
                (asked.gateway_csr, gateway_server_name(asked.host)),
            )
        )
        return JoinResponse(
            agent_chain_pem=agent.chain_pem, gateway_chain_pem=gateway.chain_pem, ca_bundle_pem=authority.bundle_pem
        )


def _check_requests(asked: JoinRequest) -> None:
    try:
        agent, gateway = proven_key(asked.agent_csr), proven_key(asked.gateway_csr)
    except CsrRefused as error:
        raise Refused(400, "BadRequest", str(error)) from error
    if agent == gateway:
        raise Refused(400, "BadRequest", "agent and gateway need keys of their own")
