"""One connection to a gateway, byte by byte where a test wants that."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self

from support.waiting import DEADLINE_SECONDS


@dataclass(frozen=True)
class Reply:
    """An answer. `closes` tells whether the server said that it ends the connection."""

    status: int
    body: bytes
    closes: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Line:
    """One keep-alive HTTP/1.1 connection over TLS."""

    def __init__(self, port: int, context: ssl.SSLContext, server_name: str) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        try:
            self.socket = context.wrap_socket(raw, server_hostname=server_name)
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        lengths = {} if body is None else {"content-length": str(len(body))}
        rows = [f"{name}: {value}" for name, value in {**(headers or {}), **lengths}.items()]
        return self.raw(method, "\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *rows]), body or b"")

    def raw(self, method: str, head: str, body: bytes = b"") -> Reply:
        """Send these very bytes (the head without its end) and read one answer. The socket stays with the test."""
        self.socket.sendall(head.encode("latin-1") + b"\r\n\r\n" + body)
        answer = http.client.HTTPResponse(self.socket, method=method)
        answer.begin()
        return Reply(answer.status, answer.read(), (answer.getheader("connection") or "") == "close")

    def closed_by_peer(self) -> bool:
        """Has the gateway ended this connection? Does not wait."""
        self.socket.settimeout(0)
        try:
            return self.socket.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except (ssl.SSLError, ConnectionError):
            return True
        finally:
            self.socket.settimeout(DEADLINE_SECONDS)
