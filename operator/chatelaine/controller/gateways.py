"""The link to one gateway: keeps its view current, and cuts it at once.

Every update carries (term, number) and either the whole view or a change of the numbered one before. Only what got
dirty is built and sent. While this process does not lead, nothing is widened: a Trusted standing that did not change
is kept fresh, revocations go out, and all else waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from chatelaine.controller.drafts import Draft, Held, Wanted, draft
from chatelaine.controller.hosts import GATEWAY_SECONDS, KEY_SECONDS, HostMemory, Surroundings, gateway_client
from chatelaine.model.backoff import backoff_seconds
from chatelaine.model.identifiers import gateway_server_name
from chatelaine.model.verdict import Verdict
from chatelaine.telemetry.log import logger
from chatelaine.wire.errors import MessageError
from chatelaine.wire.messages import (
    ClaimView,
    ClusterKeys,
    GatewayHello,
    Standing,
    ViewAck,
    ViewUpdate,
    decode,
)
from chatelaine.wire.peer import (
    Answer,
    PeerClient,
    PeerError,
    PeerMalformed,
    PeerNotAuthenticated,
    PeerRefused,
    PeerUnreachable,
)

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0
_log = logger(__name__)


class StaleTerm(Exception):
    """The gateway has heard a later leader; we are silent until we lead in a term above."""


class ViewSource(Protocol):
    """What a gateway may know, as it stands now. Built on demand."""

    def standing(self, hsm: str) -> Standing | None:
        """The HSM's standing; None while nothing was judged."""
        ...

    def claims(self, hsm: str) -> Mapping[str, ClaimView]:
        """All claims that may be served there, by uid."""
        ...

    def claim(self, hsm: str, uid: str) -> ClaimView | None:
        """One of them; None if it may not be served."""
        ...

    def cluster(self) -> ClusterKeys | None:
        """Keys for service-account tokens; None until they have been read."""
        ...

    def term(self) -> int:
        """Number of the time of leading that we are, or last were, in."""
        ...

    def leads(self) -> bool:
        """Do we lead now?"""
        ...

    def outranked(self, term: int) -> bool:
        """An attested gateway follows a later term than ours: go above it. False: no term that we follow."""
        ...


@dataclass(frozen=True, slots=True)
class _Clients:
    """Connections to one address. Only `greeting` speaks to a key that was not attested yet: hello, and cuts."""

    where: object
    greeting: PeerClient
    views: PeerClient
    keys: PeerClient


class GatewayLink:
    """Runs while its Hsm exists."""

    def __init__(self, memory: HostMemory, source: ViewSource, around: Surroundings) -> None:
        self._memory = memory
        self._source = source
        self._around = around
        self._wake = asyncio.Event()
        self._clients: _Clients | None = None
        self._turn = 0
        self._seen: bytes | None = None
        """Key that the gateway proved last; None: ask before relying on it."""
        self._instance: str | None = None
        self._number = 0
        self._base: int | None = None
        self._held = Held()
        """By its last acknowledgement; worth nothing while there is no base."""
        self._dirty: set[str] = set()
        self._timed: frozenset[str] = frozenset()
        """Claims whose own policy gives them a deadline, which moves with every round."""
        self._cut_since: float | None = None

    def refresh(self) -> None:
        """The standing is fresh, or changed."""
        self._dirty |= self._timed
        self._wake.set()

    def cut(self, since: float) -> None:
        """The standing does not serve any more. `since`: monotonic moment of the answer that showed it."""
        if self._cut_since is None:
            self._cut_since = since
        self._wake.set()

    def changed(self, claim_uid: str) -> None:
        """A claim, or the pods of its clients, changed."""
        self._dirty.add(claim_uid)
        self._wake.set()

    def doubt(self) -> None:
        """What was seen on TLS may be old: ask again before the next round of evidence."""
        self._seen = None

    async def proven_key(self) -> bytes:
        """SubjectPublicKeyInfo that the gateway proves on TLS.

        Raises:
            PeerError: it does not answer.
        """
        if self._seen is None:
            try:
                await self._hello()
            except StaleTerm:
                # It has proven its key all the same, and a round of evidence asks for no more.
                self._wake.set()
        if self._seen is None:
            raise PeerNotAuthenticated(f"gateway of {self._memory.name}: no certificate was seen")
        return self._seen

    async def run(self) -> None:
        """Push what is dirty until cancelled."""
        failures = 0
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._push()
                    failures = 0
                except StaleTerm:
                    self._base = None
                    _log.info("the gateway follows a later leader", hsm=self._memory.name)
                    if self._source.leads():
                        failures += 1
                        await self._retry(failures)
                except PeerError as error:
                    failures += 1
                    self._around.metrics.views.labels("update", type(error).__name__).inc()
                    _log.warning("view not taken", hsm=self._memory.name, error=str(error))
                    self._base = self._seen = None
                    self._turn += 1
                    await self._retry(failures)
                except Exception as error:  # noqa: BLE001 - whatever one gateway's answer breaks, the others are told on
                    failures += 1
                    self._around.metrics.views.labels("update", "Fault").inc()
                    _log.exception("fault in telling a view", error, hsm=self._memory.name)
                    self._base = self._seen = None
                    await self._retry(failures)
        finally:
            await self._forget_clients()

    async def _retry(self, failures: int) -> None:
        pause = backoff_seconds(
            failures,
            first_seconds=FIRST_PAUSE_SECONDS,
            longest_seconds=LONGEST_PAUSE_SECONDS,
            jitter=self._around.jitter(),
        )
        await asyncio.sleep(pause)
        self._wake.set()

    # --- views

    async def _push(self) -> None:
        if self._source.standing(self._memory.name) is None:
            return
        if self._base is None or self._seen is None:
            await self._hello()
        try:
            told = await self._tell()
        except PeerRefused as refused:
            if refused.problem.status != 409:
                raise
            self._resync(refused)
            told = await self._tell()
        if told is not None and self._attested(told[1].peer_spki):
            # Only over a key that the enrolled host has bound in a quote: a stolen leaf ends with its day.
            (client, answer), name = told, gateway_server_name(self._memory.name)
            await self._around.renew(client, "/control/v1/leaf", name, answer.peer_spki, answer.peer_not_after)

    async def _tell(self) -> tuple[PeerClient, Answer[ViewAck]] | None:
        """One update over the standing as it is now: it may have been refuted since anything was waited for."""
        clients = await self._connected()
        standing = self._source.standing(self._memory.name)
        if standing is None:
            return None
        trusted = standing.verdict == Verdict.TRUSTED
        if trusted and not self._attested(self._seen or b""):
            # Another key than the one bound in the quote: nothing is opened to it before it is attested.
            return None
        # A cut opens nothing: it is told even where no quote has bound the gateway's key yet.
        client = clients.views if trusted else clients.greeting
        said = self._next(standing)
        if said is None:
            return None
        update = self._update(said)
        answer = await client.call("PUT", "/control/v1/view", update, ViewAck)
        self._acknowledge(update, said.after, answer)
        return client, answer

    def _next(self, standing: Standing) -> Draft | None:
        """The next update; None if nothing may or need be said."""
        source, name, full = self._source, self._memory.name, self._base is None
        dirty, self._dirty = frozenset(self._dirty), set()
        claims = source.claims(name) if full else {uid: source.claim(name, uid) for uid in dirty}
        wanted = Wanted(standing, claims, source.cluster())
        said, left = draft(self._held, wanted, dirty, full=full, leads=source.leads())
        self._dirty |= left
        if said is not None:
            self._timed = self._timed.difference(said.gone) | said.timed
        return said

    def _update(self, said: Draft) -> ViewUpdate:
        self._number += 1
        return ViewUpdate(
            instance=self._instance or "",
            term=self._source.term(),
            number=self._number,
            base=self._base,
            standing=said.after.standing,
            cluster=said.cluster,
            claims=said.claims,
            # A whole view names what is held; nothing else has to go.
            gone=() if self._base is None else said.gone,
        )

    def _acknowledge(self, update: ViewUpdate, after: Held, answer: Answer[ViewAck]) -> None:
        self.saw(answer.peer_spki)
        if (answer.message.term, answer.message.number) != (update.term, update.number):
            raise PeerMalformed("the gateway acknowledged another view than the one sent")
        self._base, self._held = update.number, after
        kind = "full" if update.base is None else "change"
        self._around.metrics.views.labels(kind, "taken").inc()
        if self._cut_since is not None and update.standing is not None and update.standing.verdict != Verdict.TRUSTED:
            self._around.metrics.revoke_seconds.observe(self._around.clock() - self._cut_since)
            self._cut_since = None

    def _resync(self, refused: PeerRefused) -> None:
        try:
            hello = decode(refused.body, GatewayHello)
        except MessageError as error:
            raise PeerMalformed("the gateway refused a view without saying which one it holds") from error
        self._greeted(hello, None)
        # Everything that was dirty is in the full view that follows.
        self._base = None

    async def _hello(self) -> None:
        client = (await self._connected()).greeting
        answer = await client.call("GET", "/control/v1/hello", None, GatewayHello)
        self.saw(answer.peer_spki)
        self._greeted(answer.message, answer.peer_spki)

    def _greeted(self, hello: GatewayHello, spki: bytes | None) -> None:
        """`spki`: the key under which it said so, None where that is not known."""
        if hello.term > self._source.term():
            if spki is not None and self._attested(spki) and self._source.leads():
                self._outranked(hello.term)
            raise StaleTerm
        if hello.instance != self._instance or (self._base is not None and hello.number != self._base):
            self._base = None
        self._instance = hello.instance
        if hello.term == self._source.term():
            self._number = max(self._number, hello.number)

    def _outranked(self, term: int) -> None:
        """We hold the Lease, so nobody later leads: the Lease was made anew, or set back."""
        followed = self._source.outranked(term)
        self._around.metrics.outranked.labels("followed" if followed else "refused").inc()
        _log.warning("a gateway names a later term than ours", hsm=self._memory.name, term=term, followed=followed)

    def saw(self, spki: bytes) -> None:
        """The gateway has just proven this key on TLS."""
        if self._seen is not None and self._seen != spki:
            # The prober must bind the new key in a quote before anything is opened to it.
            self._around.observed(self._memory.name, self._around.clock())
        self._seen = spki

    async def key_client(self) -> PeerClient:
        """A client with time enough for making keys.

        Raises:
            PeerUnreachable: no address is known.
        """
        return (await self._connected()).keys

    # --- connections

    async def _connected(self) -> _Clients:
        name = self._memory.name
        hsm, context = self._around.hsm(name), self._around.context()
        addresses = self._around.addresses(hsm) if hsm is not None else ()
        if context is None or not addresses:
            raise PeerUnreachable(f"gateway of {name}: no address is known")
        address = addresses[self._turn % len(addresses)]
        where = (address, id(context))
        if self._clients is None or self._clients.where != where:
            await self._forget_clients()
            self._clients = _Clients(
                where,
                gateway_client(name, address, context, seconds=GATEWAY_SECONDS),
                gateway_client(name, address, context, seconds=GATEWAY_SECONDS, admits=self._attested),
                gateway_client(name, address, context, seconds=KEY_SECONDS, admits=self._attested),
            )
            self._seen = self._base = None
        return self._clients

    def _attested(self, spki: bytes) -> bool:
        return spki in self._memory.gateway_spkis[:1]

    async def _forget_clients(self) -> None:
        if self._clients is not None:
            clients, self._clients = self._clients, None
            for client in (clients.greeting, clients.views, clients.keys):
                await client.close()
