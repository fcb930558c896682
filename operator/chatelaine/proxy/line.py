"""Connections to one gateway: pooled, bounded, and none of them used before the gateway's key was recognised."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Final

import aiohttp

from chatelaine.model.identifiers import PKI_DOMAIN, digest_of
from chatelaine.pki.chain import check_leaf_der, pem_of
from chatelaine.pki.errors import CertificateRefused
from chatelaine.proxy.binding import Binding
from chatelaine.proxy.errors import GatewayMalformed, GatewayNotAuthenticated, GatewayUnreachable
from chatelaine.proxy.limits import (
    GATEWAY_CONNECT_SECONDS,
    GATEWAY_IDLE_SECONDS,
    GATEWAY_SECONDS,
    MAX_ANSWER_BYTES,
    MAX_GATEWAY_CONNECTIONS,
)
from chatelaine.wire.connector import CheckedConnector

_CHUNK_BYTES: Final = 65536
_GATEWAYS: Final = "gateway."


@dataclass(frozen=True, slots=True)
class Reply:
    """A gateway's answer, whole."""

    status: int
    content_type: str
    body: bytes


class Line:
    """Connections to the gateway of one binding, all with the same certificate of ours, or with none.

    Args:
        binding: where and who.
        context: made by `context_for`.
    """

    def __init__(self, binding: Binding, context: ssl.SSLContext) -> None:
        self.binding = binding
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._calls = 0
        self._retired = False

    async def call(
        self, method: str, path: str, body: bytes, headers: dict[str, str], *, seconds: float = GATEWAY_SECONDS,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Reply:  # fmt: skip
        """One request and its whole answer, whatever its status.

        Raises:
            GatewayUnreachable: nobody answered in time.
            GatewayNotAuthenticated: somebody else answered; nothing was said to them.
            GatewayMalformed: the answer is over `max_bytes`.
        """
        self._calls += 1
        try:
            async with self._open().request(
                method,
                self.binding.base_url + path,
                data=body or None,
                headers={"accept-encoding": "identity", **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=GATEWAY_CONNECT_SECONDS),
            ) as response:
                return Reply(response.status, response.content_type, await _bounded(response, max_bytes))
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise GatewayNotAuthenticated(f"{self._where()}: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise GatewayUnreachable(
                f"{self._where()}: {_why(error)}. If this lasts, look at the claim's conditions NetworkReady and "
                "Ready, and at NetworkPolicies of this namespace that limit egress"
            ) from error
        finally:
            self._calls -= 1
            await self._close_if_done()

    async def retire(self) -> None:
        """Close, once the calls that are under way have ended."""
        self._retired = True
        await self._close_if_done()

    async def close(self) -> None:
        """Close now."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _close_if_done(self) -> None:
        if self._retired and not self._calls:
            await self.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_PinningConnector(self.binding, self._context),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "chatelaine-proxy"},
            )
        return self._session

    def _where(self) -> str:
        return f"the gateway of {self.binding.name} at {self.binding.host}:{self.binding.port}"


def context_for(binding: Binding) -> ssl.SSLContext:
    """TLS 1.3, by the binding's CAs alone. Names are not compared here: the key is, by the connector."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=pem_of(binding.bundle))
    return context


class _PinningConnector(CheckedConnector):
    """Hands out connections to the attested gateway only, so that nobody else is told anything."""

    def __init__(self, binding: Binding, context: ssl.SSLContext) -> None:
        super().__init__(
            limit=MAX_GATEWAY_CONNECTIONS, keepalive_timeout=GATEWAY_IDLE_SECONDS, ttl_dns_cache=10, ssl=context
        )
        self._binding = binding
        self._known = b""
        self._known_until = 0

    def check(self, certificate: bytes, host: str | None) -> None:
        """See `CheckedConnector`.

        Raises:
            GatewayNotAuthenticated: not the gateway of the binding.
        """
        self._check(certificate, int(time.time()))

    def _check(self, der: bytes, now: int) -> None:
        if der and der == self._known and now <= self._known_until:
            return
        where = f"{self._binding.host}:{self._binding.port}"
        try:
            leaf = check_leaf_der(der, self._binding.bundle, name=None, now=now)
        except CertificateRefused as error:
            raise GatewayNotAuthenticated(f"{where} shows a certificate that is no gateway's: {error}") from error
        found = digest_of(leaf.spki)
        if found not in self._binding.pins or not _is_gateway(leaf.name):
            raise GatewayNotAuthenticated(
                f"{where}: expected a gateway with one of the attested keys {', '.join(sorted(self._binding.pins))} "
                f"(entry gateway-spki of the binding), found {leaf.name} with {found}. Nothing was sent. If the "
                "gateway was given a new key, the binding follows once that is attested; else somebody is in between"
            )
        self._known, self._known_until = der, leaf.not_after


def _is_gateway(name: str) -> bool:
    return name.startswith(_GATEWAYS) and name.endswith(f".{PKI_DOMAIN}")


async def _bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise GatewayMalformed(f"the gateway's answer is over {max_bytes} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _why(error: Exception) -> str:
    """As short as it can be said; the library's own words hold addresses of objects."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
