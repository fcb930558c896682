"""`host:port` as people write it."""

from __future__ import annotations

from typing import Final

import typer

_MAX_PORT: Final = 65535


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[address]:port`.

    Raises:
        typer.BadParameter: anything else.
    """
    host, colon, port = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not plain or (":" in plain and plain == host) or not port.isascii() or not port.isdecimal():
        raise typer.BadParameter(f"{text!r} is not host:port")
    if int(port) > _MAX_PORT:
        raise typer.BadParameter(f"{port} is no port")
    return plain, int(port)
