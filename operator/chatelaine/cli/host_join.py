"""Joins with an invitation: the host learns whom it talks to before it says anything.

The first connection believes nobody; it only fetches our CAs and picks the one whose key has the invitation's digest.
The second connection trusts that CA alone, for the operator's name alone, and only there the secret is shown.
"""

from __future__ import annotations

import os
import pwd
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509

from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.pki.chain import load_bundle, pem_of, spki_digest
from chatelaine.pki.errors import CertificateRefused, Flaw
from chatelaine.pki.invitation import Invitation
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import MAX_JOIN_BODY_BYTES, CaBundle, JoinRequest, JoinResponse
from chatelaine.wire.peer import PeerClient, Target

CALL_SECONDS: Final = 20.0
MAX_ANSWER_BYTES: Final = 4 * MAX_JOIN_BODY_BYTES
SHARED_FOLDER_MODE: Final = 0o711


async def join_host(invitation: Invitation, state_dir: Path, *, now: int) -> None:
    """Make keys for agent and gateway under `state_dir`, and get their first leaves. Keys that are there are kept.

    Raises:
        CertificateRefused: somebody else answers at the endpoint, or `state_dir` belongs to another host.
        PeerError: nobody answers, somebody else does, or the invitation is refused.
        PkiError: a key file is damaged or exposed.
        OSError: `state_dir` cannot be written.
    """
    agent = ProcessLeaf(state_dir / "agent" / "tls", agent_server_name(invitation.host))
    gateway = ProcessLeaf(state_dir / "gateway" / "tls", gateway_server_name(invitation.host))
    ca = await _pinned_ca(invitation)
    async with _client(invitation, _context(ca)) as client:
        request = JoinRequest(
            host=invitation.host,
            invitation=invitation.secret_bytes(),
            agent_csr=agent.request(),
            gateway_csr=gateway.request(),
        )
        answered = (await client.call("POST", "/v1/join", request, JoinResponse)).message
    _find(answered.ca_bundle_pem, invitation.ca_digest)
    agent.install(answered.agent_chain_pem, answered.ca_bundle_pem, now)
    gateway.install(answered.gateway_chain_pem, answered.ca_bundle_pem, now)


def known_users(*users: str) -> None:
    """To be asked before an invitation is used up. Empty names are passed over.

    Raises:
        LookupError: this machine has no such user.
    """
    for user in users:
        _account(user)


def hand_over(state_dir: Path, *, agent_user: str, gateway_user: str) -> None:
    """Give what `join_host` has made to the users that run agent and gateway, each its own part. For root.

    Raises:
        LookupError: this machine has no such user.
        OSError: we may not.
    """
    owners = [(state_dir / part, _account(user)) for part, user in (("agent", agent_user), ("gateway", gateway_user))]
    if agent_user or gateway_user:
        # Both have to get through; what is in it, each one's own folder guards.
        state_dir.chmod(SHARED_FOLDER_MODE)
    for folder, account in owners:
        if account is None:
            continue
        for path in (folder, *folder.rglob("*")):
            # By name and never through a link: the folders are those users' own after the first time.
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _account(user: str) -> pwd.struct_passwd | None:
    if not user:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError as error:
        raise LookupError(
            f"this machine has no user {user}; packaging/sysusers.d/chatelaine.conf makes it (systemd-sysusers)"
        ) from error


async def _pinned_ca(invitation: Invitation) -> x509.Certificate:
    async with _client(invitation, _context(None)) as client:
        offered = (await client.call("GET", "/v1/ca", None, CaBundle)).message
    return _find(offered.ca_bundle_pem, invitation.ca_digest)


def _find(bundle_pem: str, digest: str) -> x509.Certificate:
    for certificate in load_bundle(bundle_pem):
        if spki_digest(certificate) == digest:
            return certificate
    raise CertificateRefused(
        Flaw.UNKNOWN_ISSUER,
        "whoever answers at the endpoint does not have the CA of this invitation; nothing was sent to it",
    )


def _client(invitation: Invitation, context: ssl.SSLContext) -> PeerClient:
    host, port = invitation.address
    return PeerClient(
        Target(host, port, OPERATOR_SERVER_NAME),
        context,
        timeout_seconds=CALL_SECONDS,
        max_answer_bytes=MAX_ANSWER_BYTES,
    )


def _context(ca: x509.Certificate | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca is None:
        # To fetch the CAs only: what comes is believed by the invitation's digest, and nothing is told before that.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=pem_of((ca,)))
    return context
