"""Settings of the supervisor, and the events that it tells its owner."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ENVIRONMENT_OF_MODULES: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "SOFTHSM2_CONF",
    "P11_KIT_SERVER_ADDRESS",
    "TPM2_PKCS11_STORE",
    "TPM2_PKCS11_TCTI",
    "ChrystokiConfigurationPath",
    "CS_PKCS11_R3_CFG",
    "CKNFAST_LOADSHARING",
    "YUBIHSM_PKCS11_CONF",
)
"""Names of variables that a worker inherits: where modules look for their configuration. Paths, not secrets."""


def module_environment() -> dict[str, str]:
    """Those of this process's variables that a PKCS#11 module may need."""
    return {name: os.environ[name] for name in ENVIRONMENT_OF_MODULES if name in os.environ}


@dataclass(frozen=True, slots=True)
class Pkcs11Settings:
    """One token behind one module.

    `serial` is the one pinned at enrolment; empty: the first token that fits `token_uri` is pinned for the life of the
    supervisor. `pin_file` is a 0600 or 0400 file of the gateway's user. `state_directory` holds the memory of refused
    PINs and a lock, and is this gateway's alone.
    """

    module: Path
    token_uri: str
    pin_file: Path
    state_directory: Path
    serial: str = ""
    environment: Mapping[str, str] = field(default_factory=module_environment)
    call_timeout_seconds: float = 10.0
    """Every call but those that make or list keys."""
    slow_call_timeout_seconds: float = 60.0
    """Making, destroying, listing: an RSA key takes some devices half a minute."""
    start_timeout_seconds: float = 60.0
    stall_seconds: float = 90.0
    """A worker that has owed an answer this long hangs in its library and is killed."""
    max_pending_calls: int = 1024
    restart_first_seconds: float = 0.1
    restart_max_seconds: float = 30.0
    pin_file_poll_seconds: float = 1.0
    """How soon a changed PIN file is noticed after a refused login."""


class EventKind(enum.StrEnum):
    """What happened to the worker."""

    STARTED = "WorkerStarted"
    REFUSED = "WorkerRefused"
    """It could not log in; `code` says why."""
    DIED = "WorkerDied"
    STALLED = "WorkerStalled"
    REPLACED = "WorkerReplaced"
    """It asked to be started anew, because its library's view of the token could no longer be believed."""


@dataclass(frozen=True, slots=True)
class HsmEvent:
    """One thing worth a metric and a log line. `detail` is a sentence without secrets."""

    kind: EventKind
    detail: str
    code: str = ""
    pid: int = 0


OnEvent = Callable[[HsmEvent], None]
