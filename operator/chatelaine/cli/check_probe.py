"""What the pods of `check network` do: one accepts connections, the other tries to make them."""

from __future__ import annotations

import socket
import time
from typing import Final

CUT_IN_A_ROW: Final = 4
"""So many attempts must fail one after the other: one may fail by chance."""
ATTEMPT_SECONDS: Final = 1.0


def accept(port: int, *, connections: int | None = None) -> None:
    """Accept and close, on every address of both families; `connections`: and end after so many."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.create_server(("", port), family=family, dualstack_ipv6=family is socket.AF_INET6) as server:
        while connections is None or connections > 0:
            peer, _ = server.accept()
            peer.close()
            connections = connections - 1 if connections is not None else None


def reached(host: str, port: int, wanted: bool, seconds: float) -> bool:
    """Does it come about within `seconds` that a connection can be made (`wanted`), or cannot any more?"""
    ends, failed = time.monotonic() + seconds, 0
    while True:
        connected = _connects(host, port)
        failed = 0 if connected else failed + 1
        if connected if wanted else failed >= CUT_IN_A_ROW:
            return True
        if time.monotonic() >= ends:
            return False
        # A refusal comes at once, and rules take a moment to be in force.
        time.sleep(min(ATTEMPT_SECONDS / 2, max(0.0, ends - time.monotonic())))


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=ATTEMPT_SECONDS):
            return True
    except OSError:
        return False
