"""Settings of the gateway, each with its unit and why it is what it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from chatelaine.gateway.errors import SettingsRefused


class HsmKind(enum.StrEnum):
    """What stands behind the gateway."""

    PKCS11 = "pkcs11"
    SIMULATED = "simulated"
    """Software keys in memory: benches only. Its statements say so."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: the kernel chooses one; `--ready-file` tells which."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """One gateway, one token.

    Attributes:
        host_name: the `Hsm`'s name; the leaf must carry `gateway.<host name>.chatelaine.internal`.
        state_dir: client CA, pins of the service keys, audit log, memory of refused PINs. 0700, this gateway's alone.
        tls_dir: `key.pem`, `chain.pem`, `ca.pem`, as `host join` writes them.
        listen: the TLS port for clients and operator.
        local_socket: Unix socket for the agent; at most 107 bytes.
        agent_uid: the agent's user, where it is not ours; it must be of our group, to whom the socket is open then.
        hsm: what stands behind the gateway.
        module: the PKCS#11 library.
        token_uri: RFC 7512, never with a PIN.
        serial: the token's serial, if it is known; else the first fitting token is pinned for this process's life.
        pin_file: 0600 or 0400, the gateway user's own. The PIN is read by the worker alone.
        ready_file: written when the gateway listens: JSON {host, port, pid}.
    """

    host_name: str
    state_dir: Path
    tls_dir: Path
    listen: Address
    local_socket: Path
    hsm: HsmKind = HsmKind.PKCS11
    module: Path | None = None
    token_uri: str = ""
    serial: str = ""
    pin_file: Path | None = None
    ready_file: Path | None = None
    agent_uid: int | None = None

    def __post_init__(self) -> None:
        if self.hsm is HsmKind.PKCS11 and (self.module is None or self.pin_file is None or not self.token_uri):
            raise SettingsRefused("with --hsm pkcs11, --module, --token-uri and --pin-file are needed")
        if len(str(self.local_socket).encode()) > 107:
            raise SettingsRefused("--local-socket: a Unix socket's path has at most 107 bytes")
