"""Makes an invitation in the cluster."""

from __future__ import annotations

from pathlib import Path

from chatelaine.controller.pki import ENDPOINT_KEY, KubeInvitations
from chatelaine.controller.rotation import BUNDLE_KEY
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import NotFound
from chatelaine.kube.port import CONFIG_MAPS
from chatelaine.model.identifiers import CA_NAME
from chatelaine.pki.chain import load_bundle, spki_digest
from chatelaine.pki.invitation import INVITATION_LIFETIME_SECONDS, Invitation, secret_digest


async def invite_host(name: str, namespace: str, kubeconfig: Path | None, *, now: int, secret: bytes) -> Invitation:
    """Keep the digest of `secret` (32 fresh bytes) in the operator's namespace; gives what the host must bring.

    Raises:
        KubeError: the API server did not do it, or the operator has not published its CA yet.
        PkiError: the name is none for a host, or what the operator published is no CA.
    """
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-host-invite") as kube:
        try:
            published = (await kube.get(CONFIG_MAPS, CA_NAME, namespace)).get("data") or {}
        except NotFound as error:
            raise NotFound(
                f"there is no ConfigMap {CA_NAME} in namespace {namespace}: is the operator there, and running?"
            ) from error
        expires = now + INVITATION_LIFETIME_SECONDS
        invitation = Invitation.make(
            endpoint=str(published.get(ENDPOINT_KEY, "")),
            ca_digest=spki_digest(load_bundle(str(published.get(BUNDLE_KEY, "")))[0]),
            host=name,
            secret=secret,
            expires=expires,
        )
        await KubeInvitations(kube, namespace).create(name, secret_digest(secret), expires)
        return invitation
