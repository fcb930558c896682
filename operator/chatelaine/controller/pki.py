"""The internal CA in the cluster: made once, kept in a Secret, rotated under guard; leaves for us and for hosts.

Secret `chatelaine-ca` holds the CA with its key, ConfigMap `chatelaine-ca` what people need for an invitation. Of
several operators that start at once one creates the Secret, the others read it.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.kube.errors import AlreadyExists, Conflict, Forbidden, KubeError, NotFound
from chatelaine.kube.port import CONFIG_MAPS, SECRETS, Guard, JsonObject, KubePort
from chatelaine.model.identifiers import LABEL_MANAGED_BY, MANAGED_BY, OPERATOR_SERVER_NAME, digest_of
from chatelaine.pki.authority import Authority, RotationStep, renewal_due
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

CA_NAME: Final = "chatelaine-ca"
BUNDLE_KEY: Final = "ca.crt"
ENDPOINT_KEY: Final = "join-endpoint"
FIELD_MANAGER: Final = "chatelaine-pki"
LOOK_SECONDS: Final = 60.0

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
        before = self.bundle_pem
        self._authority = await self._read()
        await self._rotate()
        now = int(self._wall())
        if self._leaf.renewal_due(now) or before != self.bundle_pem:
            issued = self.authority().issue_leaf(
                self._leaf.request(), OPERATOR_SERVER_NAME, now, serial=secrets.token_bytes(SERIAL_BYTES)
            )
            self._leaf.install(issued.chain_pem, self.bundle_pem, now)
        self.ready.set()
        if before != self.bundle_pem:
            self._changed()
        await self._publish()

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Look again every minute, until cancelled. Leaves live long enough to outlast an outage."""
        while True:
            await sleep(LOOK_SECONDS if self._authority is not None else 1.0)
            try:
                await self.look()
            except (KubeError, PkiError) as error:
                _log.warning("CA not looked after", error=str(error))

    async def renew(self, client: PeerClient, path: str, server_name: str, spki: bytes, not_after: int) -> None:
        """Renew a host's leaf over the key that it has just proven, if little of its life is left."""
        now = int(self._wall())
        if self._authority is None or not not_after or not renewal_due(not_after, now):
            return
        try:
            request = (await client.call("POST", f"{path}/request", None, LeafRequest)).message
            issued = self.authority().issue_leaf(
                request.csr, server_name, now, serial=secrets.token_bytes(SERIAL_BYTES)
            )
            if issued.spki != spki:
                # A new key would have to be bound in a quote first.
                _log.warning("renewal refused", peer=server_name, why="the request is over another key")
                return
            await client.send("PUT", path, Leaf(chain_pem=issued.chain_pem, ca_bundle_pem=self.bundle_pem))
            _log.info("leaf renewed", peer=server_name, key=digest_of(spki), not_after=issued.not_after)
        except (PeerError, PkiError) as error:
            _log.warning("leaf not renewed", peer=server_name, error=str(error))

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

    async def _rotate(self) -> None:
        now = int(self._wall())
        authority = self.authority()
        step = authority.step_due(now)
        if step is RotationStep.NOTHING or not self._leads():
            return
        if step is RotationStep.PUBLISH:
            after = authority.publish(self._new_pair(now), now)
        else:
            after = authority.switch(now) if step is RotationStep.SWITCH else authority.retire(now)
        body = _secret(CA_NAME, self._namespace, after.to_secret(), "Opaque")
        body["metadata"]["resourceVersion"] = self._version
        try:
            stored = await self._kube.replace(SECRETS, CA_NAME, body, self._namespace)
        except Conflict:
            self._authority = await self._read()
            return
        self._version = str(stored["metadata"]["resourceVersion"])
        self._authority = after
        _log.info("CA rotated", step=step.value)

    async def _publish(self) -> None:
        data = {BUNDLE_KEY: self.bundle_pem, ENDPOINT_KEY: self._endpoint}
        try:
            standing = await self._kube.get(CONFIG_MAPS, CA_NAME, self._namespace)
            if standing.get("data") == data:
                return
        except NotFound:
            pass
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
