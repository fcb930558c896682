"""Lets a host join that may invite itself: a pod whose service account makes invitations of its own name.

Nothing is lost by that: an invitation gives a name on TLS connections and no trust. What the host is, its TPM has to
show, and a person approves (ADR 5). What is gained: nobody carries a secret, and a host that was off for longer than
its certificates live comes back by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatelaine.cli.host_invite import invite_host
from chatelaine.cli.host_join import join_host
from chatelaine.kube.errors import KubeError
from chatelaine.model.identifiers import agent_server_name, gateway_server_name
from chatelaine.pki.errors import InvitationMalformed
from chatelaine.pki.invitation import SECRET_BYTES
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.peer import PeerError

RETRY_SECONDS: Final = 2.0
FAILURES: Final = (KubeError, PeerError, InvitationMalformed)
"""What another try may mend: the operator is not there yet, or has not published where it listens."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Who enters, and where.

    Attributes:
        host: its name; its Hsm gets the same.
        state_dir: gets `agent/tls` and `gateway/tls`.
        namespace: the operator's.
        kubeconfig: None: `$KUBECONFIG`, else the pod's service account.
        patience_seconds: for how long an operator that is not there is waited for.
    """

    host: str
    state_dir: Path
    namespace: str
    kubeconfig: Path | None
    patience_seconds: float


async def enter_host(
    entry: Entry,
    *,
    wall: Callable[[], float],
    random_bytes: Callable[[int], bytes],
    sleep: Callable[[float], Awaitable[None]],
    tell: Callable[[str], None],
) -> bool:
    """Join, unless the certificates are good for a while yet. Tells whether there are new ones.

    Where they are due for renewal and have not ended, one failure is enough to go on with them.

    Raises:
        KubeError: we may not invite ourselves, or the API server did not answer in time.
        PeerError: the operator did not answer in time.
        PkiError: a key or certificate in `state_dir` is damaged or another host's.
        OSError: `state_dir` cannot be used.
    """
    leaves = _leaves(entry)
    if not any(leaf.renewal_due(int(wall())) for leaf in leaves):
        return False
    last = wall() + entry.patience_seconds
    while True:
        try:
            now = int(wall())
            secret = random_bytes(SECRET_BYTES)
            invitation = await invite_host(entry.host, entry.namespace, entry.kubeconfig, now=now, secret=secret)
            await join_host(invitation, entry.state_dir, now=int(wall()))
        except FAILURES as error:
            tell(str(error))
            if all(leaf.not_after > wall() for leaf in leaves):
                return False
            if wall() > last:
                raise
            await sleep(RETRY_SECONDS)
        else:
            return True


def _leaves(entry: Entry) -> tuple[ProcessLeaf, ProcessLeaf]:
    return (
        ProcessLeaf(entry.state_dir / "agent" / "tls", agent_server_name(entry.host)),
        ProcessLeaf(entry.state_dir / "gateway" / "tls", gateway_server_name(entry.host)),
    )
