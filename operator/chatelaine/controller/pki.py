"""The internal CA in the cluster: made once, kept in a Secret, rotated under guard; leaves for us and for hosts.

Secret `chatelaine-ca` holds the CA with its key, and how far a rotation is; ConfigMap `chatelaine-ca` what people need
for an invitation, what they ask for, and what is shown of a rotation. Of several operators that start at once one
creates the Secret, the others read it. Each look takes one step at most, and one write of the Secret takes it: whoever
is killed in between has taken it, or has not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.controller.rotation import BUNDLE_KEY, NOBODY, Asked, Everybody, Tellings, report, stage_of
from chatelaine.kube.errors import AlreadyExists, Conflict, Forbidden, KubeError, NotFound
from chatelaine.kube.port import CONFIG_MAPS, SECRETS, Guard, JsonObject, KubePort
from chatelaine.model.identifiers import CA_NAME, LABEL_MANAGED_BY, MANAGED_BY, OPERATOR_SERVER_NAME, digest_of
from chatelaine.pki.authority import Authority, Phase, RotationStep, renewal_due
from chatelaine.pki.errors import AuthorityMalformed, PkiError
from chatelaine.pki.invitation import (
    INVITATION_DIGEST_KEY,
    INVITATION_EXPIRES_KEY,
    INVITATION_SECRET_TYPE,
    InvitationOutcome,
    digests_equal,
    invitation_secret_name,
)
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.pki.roots import SERIAL_BYTES, CaPair
from chatelaine.telemetry.log import logger
from chatelaine.wire.messages import Leaf, LeafRequest
from chatelaine.wire.peer import PeerClient, PeerError

ENDPOINT_KEY: Final = "join-endpoint"
ROTATION_KEY: Final = "rotation"
FIELD_MANAGER: Final = "chatelaine-pki"
LOOK_SECONDS: Final = 20.0
LOOK_WHILE_ROTATING_SECONDS: Final = 2.0

_log = logger(__name__)


class ClusterPki:
    """Our CA, our own leaf, and the leaves of hosts.

    Args:
        kube: the API server.
        namespace: the operator's.
        folder: where our own key and leaf live; lost with the process, made anew at the next start.
        endpoint: `host:port` under which hosts reach the join endpoint.
        leads: only the leader rotates.
        wall: seconds since the epoch.
        changed: told when there is another bundle.
        everybody: who has to be told before a rotation goes on.
    """

    def __init__(
        self,
        kube: KubePort,
        namespace: str,
        folder: Path,
        endpoint: str,
        *,
        leads: Callable[[], bool],
        wall: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
        everybody: Everybody = NOBODY,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._endpoint = endpoint
        self._leads = leads
        self._wall = wall
        self._changed = changed
        self._leaf = ProcessLeaf(folder, OPERATOR_SERVER_NAME)
        self._authority: Authority | None = None
        self._version = ""
        self._announced = ""
        self._tellings = Tellings(kube, everybody)
        self._waiting: frozenset[str] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._hasten = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once there is a leaf of our own."""

    @property
    def leaf(self) -> ProcessLeaf:
        """Our own TLS identity."""
        return self._leaf

    def authority(self) -> Authority:
        """The CA as it stands now.

        Raises:
            AuthorityMalformed: it has not been read yet.
        """
        if self._authority is None:
            raise AuthorityMalformed("the CA has not been read yet")
        return self._authority

    @property
    def bundle_pem(self) -> str:
        """CAs to trust, PEM; empty until the CA was read."""
        return self._authority.bundle_pem if self._authority is not None else ""

    def context(self) -> ssl.SSLContext | None:
        """TLS client context with our leaf; None until there is one."""
        return self._leaf.client_context() if self._leaf.not_after else None

    async def look(self) -> None:
        """Read (or make) the CA, take a rotation step that is due, renew our own leaf, publish what people need.

        Raises:
            KubeError: the API server did not do it.
            PkiError: what stands in the Secret is no CA.
        """
        async with self._one_at_a_time:
            self._adopt(await self._read())
            published = await self._published()
            asked = Asked.read(published)
            await self._rotate(asked)
            await self._publish(published, asked)

    async def refresh(self) -> None:
        """Read the CA again: another operator may have taken a step meanwhile.

        Raises:
            KubeError: the API server did not answer.
            PkiError: what stands in the Secret is no CA.
        """
        async with self._one_at_a_time:
            self._adopt(await self._read())

    async def run(self) -> None:
        """Look again every now and then, until cancelled. Leaves live long enough to outlast an outage."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._hasten.wait()
            self._hasten.clear()
            try:
                await self.look()
            except (KubeError, PkiError) as error:
                _log.warning("CA not looked after", error=str(error))

    def hasten(self) -> None:
        """Look now: we may have become the leader, and have not seen what the one before us did."""
        self._hasten.set()

    def _pause_seconds(self) -> float:
        if self._authority is None:
            return 1.0
        told = self._authority.phase is Phase.SETTLED or self._authority.pace.told_at is not None
        next_at = self._authority.next_at()
        until_next = next_at - self._wall() if next_at is not None and told else LOOK_SECONDS
        longest = LOOK_SECONDS if told else LOOK_WHILE_ROTATING_SECONDS
        return max(min(longest, until_next), LOOK_WHILE_ROTATING_SECONDS / 10)

    async def renew(self, client: PeerClient, path: str, server_name: str, spki: bytes, not_after: int) -> None:
        """Give a host a new leaf over the key that it has just proven: if little of the old one's life is left, or if
        a rotation has to become known to it.
        """
        now = int(self._wall())
        if self._authority is None or not not_after:
            return
        if not renewal_due(not_after, now) and not self._tellings.wanted(self._authority, server_name, now):
            return
        try:
            authority = await self._newest()
            request = (await client.call("POST", f"{path}/request", None, LeafRequest)).message
            issued = authority.issue_leaf(request.csr, server_name, now, serial=secrets.token_bytes(SERIAL_BYTES))
            if issued.spki != spki:
                # A new key would have to be bound in a quote first.
                _log.warning("renewal refused", peer=server_name, why="the request is over another key")
                return
            await client.send("PUT", path, Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=authority.bundle_pem))
            self._tellings.took(server_name, stage_of(authority))
            _log.info("leaf renewed", peer=server_name, key=digest_of(spki), not_after=issued.not_after)
        except (PeerError, PkiError, KubeError) as error:
            _log.warning("leaf not renewed", peer=server_name, error=str(error))

    async def _newest(self) -> Authority:
        """The CA that signs now: a leaf of one that another operator has retired would shut its host out.

        Raises:
            KubeError: a rotation is under way, and nobody can tell how far it is.
            PkiError: what stands in the Secret is no CA.
        """
        try:
            await self.refresh()
        except KubeError:
            # Leaves are renewed through outages of the API server too, in which nobody takes a step.
            if self.authority().phase is not Phase.SETTLED:
                raise
        return self.authority()

    def _adopt(self, authority: Authority) -> None:
        """Go by this CA from now on: our own leaf is of the root that signs, and shown with all that are trusted."""
        self._authority = authority
        now = int(self._wall())
        ours = self._leaf.bundle == authority.bundle and self._leaf.is_of(authority.signing.certificate)
        if not ours or self._leaf.renewal_due(now):
            issued = authority.issue_leaf(
                self._leaf.request(), OPERATOR_SERVER_NAME, now, serial=secrets.token_bytes(SERIAL_BYTES)
            )
            self._leaf.install(issued.chain_pem, authority.bundle_pem, now)
        self.ready.set()
        if self._announced != authority.bundle_pem:
            self._announced = authority.bundle_pem
            self._changed()

    # --- the Secret

    async def _read(self) -> Authority:
        try:
            stored = await self._kube.get(SECRETS, CA_NAME, self._namespace)
        except NotFound:
            stored = await self._make()
        self._version = str(stored["metadata"]["resourceVersion"])
        return Authority.from_secret(_decoded(stored))

    async def _make(self) -> JsonObject:
        now = int(self._wall())
        fresh = Authority(self._new_pair(now), now)
        body = _secret(CA_NAME, self._namespace, fresh.to_secret(), "Opaque")
        try:
            made = await self._kube.create(SECRETS, body, self._namespace)
        except AlreadyExists:
            return await self._kube.get(SECRETS, CA_NAME, self._namespace)
        _log.info("CA made", digest=fresh.digest)
        return made

    def _new_pair(self, now: int) -> CaPair:
        return CaPair.make(ec.generate_private_key(ec.SECP256R1()), now=now, serial=secrets.token_bytes(SERIAL_BYTES))

    async def _rotate(self, asked: Asked) -> None:
        """Take one step, if one is due and we lead."""
        self._waiting = None
        if not self._leads():
            return
        now, authority = int(self._wall()), self.authority()
        step = authority.step_due(now, request=asked.request)
        if step is RotationStep.PUBLISH:
            pair = self._new_pair(now)
            after = authority.publish(pair, now, request=asked.request, grace_seconds=asked.grace_seconds)
        elif step is not RotationStep.NOTHING:
            after = authority.switch(now) if step is RotationStep.SWITCH else authority.retire(now)
        elif authority.phase is not Phase.SETTLED and authority.pace.told_at is None:
            self._waiting = await self._tellings.waiting(authority)
            if self._waiting:
                return
            after = authority.everybody_told(now)
        else:
            return
        await self._store(after)

    async def _store(self, after: Authority) -> None:
        """Write the CA over the one that we read; if somebody was faster, go by theirs."""
        body = _secret(CA_NAME, self._namespace, after.to_secret(), "Opaque")
        body["metadata"]["resourceVersion"] = self._version
        self._waiting = None
        try:
            stored = await self._kube.replace(SECRETS, CA_NAME, body, self._namespace)
        except Conflict:
            self._adopt(await self._read())
            return
        self._version = str(stored["metadata"]["resourceVersion"])
        told = after.pace.told_at is not None
        _log.info("CA rotation", phase=after.phase.value, told=told, signing=after.digest, steps=after.pace.steps)
        self._adopt(after)

    async def _published(self) -> JsonObject:
        try:
            return await self._kube.get(CONFIG_MAPS, CA_NAME, self._namespace)
        except NotFound:
            return {}

    async def _publish(self, published: JsonObject, asked: Asked) -> None:
        standing: dict[str, str] = published.get("data") or {}
        data = {BUNDLE_KEY: self.bundle_pem, ENDPOINT_KEY: self._endpoint}
        if self._leads():
            data[ROTATION_KEY] = report(self.authority(), self._waiting, asked.problem).encode()
        elif ROTATION_KEY in standing:
            # Who has been told, the leader alone knows.
            data[ROTATION_KEY] = standing[ROTATION_KEY]
        if standing == data:
            return
        body = {"metadata": {"name": CA_NAME, "labels": {LABEL_MANAGED_BY: MANAGED_BY}}, "data": data}
        await self._kube.apply(CONFIG_MAPS, CA_NAME, body, field_manager=FIELD_MANAGER, namespace=self._namespace)


class KubeInvitations:
    """Invitations as Secrets of the operator's namespace (`pki.invitation.InvitationStore`)."""

    def __init__(self, kube: KubePort, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def create(self, host: str, secret_digest: str, expires_at: int) -> None:
        """See `InvitationStore`.

        Raises:
            KubeError: it could not be kept.
        """
        name = invitation_secret_name(host)
        data = {INVITATION_DIGEST_KEY: secret_digest.encode(), INVITATION_EXPIRES_KEY: str(expires_at).encode()}
        body = _secret(name, self._namespace, data, INVITATION_SECRET_TYPE)
        try:
            await self._kube.create(SECRETS, body, self._namespace)
        except AlreadyExists:
            try:
                await self._kube.delete(SECRETS, name, self._namespace)
            except Forbidden as error:
                # Those who may only create invitations take none away from each other.
                raise AlreadyExists(
                    f"host {host} has an invitation that was not used yet, and you may not replace it: let it join"
                    f" with that one, or ask for the Secret {self._namespace}/{name} to be deleted"
                ) from error
            await self._kube.create(SECRETS, body, self._namespace)

    async def consume(self, host: str, secret_digest: str, now: int) -> InvitationOutcome:
        """See `InvitationStore`: the deletion of exactly the Secret that was read decides between several callers.

        Raises:
            KubeError: the API server did not answer; the invitation may be used then, and a new one is needed.
        """
        name = invitation_secret_name(host)
        try:
            stored = await self._kube.get(SECRETS, name, self._namespace)
        except NotFound:
            return InvitationOutcome.NOT_INVITED
        meta, data = stored["metadata"], _decoded(stored)
        if stored.get("type") != INVITATION_SECRET_TYPE:
            return InvitationOutcome.NOT_INVITED
        kept = data.get(INVITATION_DIGEST_KEY, b"").decode(errors="replace")
        if not kept or not digests_equal(kept, secret_digest):
            return InvitationOutcome.WRONG_SECRET
        expires = data.get(INVITATION_EXPIRES_KEY, b"0")
        if not expires.isdigit() or int(expires) <= now:
            return InvitationOutcome.EXPIRED
        try:
            guard = Guard(str(meta["uid"]), str(meta["resourceVersion"]))
            await self._kube.delete(SECRETS, name, self._namespace, guard)
        except (Conflict, NotFound):
            return InvitationOutcome.ALREADY_USED
        return InvitationOutcome.CONSUMED


def _secret(name: str, namespace: str, data: dict[str, bytes], type_: str) -> JsonObject:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "type": type_,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _decoded(secret: JsonObject) -> dict[str, bytes]:
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in (secret.get("data") or {}).items()}
    except ValueError as error:
        raise AuthorityMalformed(f"Secret {CA_NAME}: a value is no base64") from error
