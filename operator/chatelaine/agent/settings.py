"""Settings of an agent, each with its unit and the reason for its default."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from chatelaine.agent.tpm_kinds import AkKind, EkKind
from chatelaine.agent.watch import POLL_SECONDS
from chatelaine.wire.messages import ALIVE_SECONDS


class AttesterKind(enum.StrEnum):
    """Which root of trust answers."""

    TPM = "tpm"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told at start.

    Attributes:
        host_name: the name under which the host joined; its `Hsm` has the same.
        state_dir: keeps the attestation key's blob.
        tls_dir: keeps key, chain and bundle.
        listen_host: address to listen at; all addresses by default, since only the operator's certificate is let in.
        listen_port: TCP port; 0 takes a free one, which `ready_file` then tells.
        gateway_socket: Unix socket of the gateway on this host.
        tcti: where the TPM is; the kernel's resource manager by default.
        attester: a TPM, or a simulation that proves nothing.
        ek_kind: endorsement key; RSA-2048 is the one that every TPM's maker certifies.
        ak_kind: attestation key; ECDSA P-256 signs fastest.
        event_log: the boot event log; None: this host shows none.
        ima_list: IMA's binary list; None: this host keeps none.
        poll_seconds: how often the TPM is asked for change.
        alive_seconds: longest silence on a change stream.
        ready_file: written once the agent listens: JSON `{"port": n, "pid": n}`.
    """

    host_name: str
    state_dir: Path
    tls_dir: Path
    gateway_socket: Path
    listen_host: str = "0.0.0.0"  # noqa: S104 - the operator dials from another machine; mTLS lets in only it
    listen_port: int = 8444
    tcti: str = "device:/dev/tpmrm0"
    attester: AttesterKind = AttesterKind.TPM
    ek_kind: EkKind = EkKind.RSA_2048
    ak_kind: AkKind = AkKind.ECC_P256
    event_log: Path | None = None
    ima_list: Path | None = None
    poll_seconds: float = POLL_SECONDS
    alive_seconds: float = ALIVE_SECONDS
    ready_file: Path | None = None
