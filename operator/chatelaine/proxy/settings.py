"""Settings of the sidecar, each with its unit and why it is what it is."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatelaine.proxy.errors import SettingsRefused

UNIX: Final = "unix:"
DEFAULT_LISTEN: Final = "unix:/run/chatelaine/keys.sock"
DEFAULT_TOKEN_FILE: Final = Path("/var/run/secrets/chatelaine/token")
DEFAULT_MODE: Final = "0660"
MAX_PATH_BYTES: Final = 100
"""A Unix socket's path has 107; ours is made under a longer name first."""

_READ_WRITE: Final = 0o666
_MODE_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A Unix socket: where, who may open it (mode), and which group it belongs to (None: as the folder has it)."""

    path: Path
    mode: int
    group: int | None = None

    def __post_init__(self) -> None:
        if not self.path.is_absolute() or len(bytes(self.path)) > MAX_PATH_BYTES:
            raise SettingsRefused(f"--listen: expected an absolute path of at most {MAX_PATH_BYTES} bytes after {UNIX}")
        if self.mode & ~_READ_WRITE or not self.mode & 0o600:
            raise SettingsRefused("--socket-mode: expected who may read and write, such as 0600 or 0660")


@dataclass(frozen=True, slots=True)
class LoopbackPlace:
    """A TCP port that this pod alone can reach. Port 0: the kernel chooses one; `--ready-file` tells which."""

    host: str
    port: int

    def __post_init__(self) -> None:
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise SettingsRefused(
                f"--listen: expected {UNIX}<path>, 127.0.0.1:<port> or [::1]:<port>, found {self.host}. Whoever "
                "reaches this port uses the keys without a token of their own, so it is opened to this pod alone"
            )


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One sidecar, one claim.

    Attributes:
        binding: folder of the claim's binding.
        token_file: the projected service-account token; it is read anew for each exchange.
        listen: where applications ask.
        metrics_listen: host and port of probes and metrics; None: none. No key is reached there.
        ready_file: written when the sidecar listens: JSON {listen, pid, …}.
    """

    binding: Path
    token_file: Path
    listen: UnixPlace | LoopbackPlace
    metrics_listen: tuple[str, int] | None = None
    ready_file: Path | None = None


def parse_mode(text: str) -> int:
    """Octal digits, as chmod takes them.

    Raises:
        SettingsRefused: anything else.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > _MODE_DIGITS or set(text) & {"8", "9"}:
        raise SettingsRefused(f"--socket-mode: expected octal digits such as {DEFAULT_MODE}, found {text!r}")
    return int(text, 8)
