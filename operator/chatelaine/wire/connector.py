"""A connector that looks at the peer's certificate before anything is said on a connection, kept ones included."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.connector import Connection


class CheckedConnector(aiohttp.TCPConnector):
    """Hands out connections that `check` has let pass, so that others are told nothing."""

    def check(self, certificate: bytes, host: str | None) -> None:
        """Raises whatever refuses this peer.

        Args:
            certificate: what it showed, DER; empty where it showed none.
            host: that was dialled.
        """
        raise NotImplementedError

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> Connection:
        """As aiohttp's, with one question in between.

        Raises:
            Exception: what `check` raises; the connection is closed.
        """
        connection = await super().connect(req, traces, timeout)
        try:
            self.check(certificate_of(connection), req.url.host)
        except Exception:
            connection.close()
            raise
        return connection


def certificate_of(connection: Connection) -> bytes:
    """The certificate that the peer of a connection showed, DER; empty if there is none."""
    tls = connection.transport.get_extra_info("ssl_object") if connection.transport is not None else None
    return (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""
