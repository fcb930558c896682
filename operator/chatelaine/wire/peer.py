"""HTTP client for one of our own processes: dials an address, but knows the peer by the name in its certificate.

Failures (all `PeerError`):

    PeerError
    ├── PeerUnreachable       nobody answered in time
    ├── PeerNotAuthenticated  somebody answered who is not this peer
    ├── PeerMalformed         the answer is too large or is no message of ours
    └── PeerRefused           the peer said no; carries its `Problem`
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Generic, Self, TypeVar

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import LineTooLong
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.model.printable import printable
from chatelaine.wire.connector import CheckedConnector, certificate_of
from chatelaine.wire.errors import MessageError
from chatelaine.wire.messages import Message, Problem, decode, encode

M = TypeVar("M", bound=Message)

_CHUNK_BYTES = 65536
_MAX_LINE_BYTES = 4096
_MAX_SHOWN_BYTES = 512
"""Of each text in a peer's problem document."""


class PeerError(Exception):
    """A call to one of our processes did not give an answer that can be used."""


class PeerUnreachable(PeerError):
    """Nobody answered in time: refused, reset, timed out, name not resolved."""


class PeerNotAuthenticated(PeerError):
    """The certificate is not this peer's, or it does not accept ours."""


class PeerMalformed(PeerError):
    """The answer is over its bound, or does not parse."""


class PeerRefused(PeerError):
    """The peer answered with a problem document."""

    def __init__(self, problem: Problem, body: bytes) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail or problem.title}")
        self.problem = problem
        self.body = body


@dataclass(frozen=True, slots=True)
class Answer(Generic[M]):
    """A decoded answer, how long it was, and the public key (SubjectPublicKeyInfo, DER) that the peer proved on this
    connection.
    """

    message: M
    peer_spki: bytes
    peer_not_after: int
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to dial, and the name that the peer's certificate must carry. `unix_path` wins over host and port."""

    host: str
    port: int
    server_name: str | None
    unix_path: str | None = None

    @property
    def base_url(self) -> str:
        """URL up to the path."""
        scheme = "https" if self.server_name else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


class PeerClient:
    """Keeps connections to one peer alive. Not shared between event loops.

    Args:
        target: where and who.
        context: client TLS context that trusts our CA and holds our leaf; None for a Unix socket.
        timeout_seconds: bound on each whole call.
        max_answer_bytes: bound on each answer.
        admits: asked with the public key (SubjectPublicKeyInfo, DER) of every TLS connection before anything is
            said on it; None admits every key that the certificate's name vouches for.
    """

    def __init__(
        self,
        target: Target,
        context: ssl.SSLContext | None,
        *,
        timeout_seconds: float,
        max_answer_bytes: int,
        admits: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._target = target
        self._context = context
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._admits = admits
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._target.unix_path is not None:
                connector = aiohttp.UnixConnector(self._target.unix_path, limit=8)
            else:
                connector = _PinningConnector(self._admits)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                auto_decompress=False,
                response_class=_Response,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def call(self, method: str, path: str, request: Message | None, answer: type[M]) -> Answer[M]:
        """One request, one decoded answer.

        Raises:
            PeerError: one of the four kinds above.
        """
        body, spki, not_after = await self._exchange(method, path, request)
        try:
            return Answer(decode(body, answer), spki, not_after, len(body))
        except MessageError as error:
            raise PeerMalformed(f"{path}: {error}") from error

    async def send(self, method: str, path: str, request: Message | None) -> None:
        """One request whose answer has no body.

        Raises:
            PeerError: one of the four kinds above.
        """
        await self._exchange(method, path, request)

    async def _exchange(self, method: str, path: str, request: Message | None) -> tuple[bytes, bytes, int]:
        try:
            async with self._open().request(
                method,
                self._target.base_url + path,
                data=None if request is None else encode(request),
                headers={"content-type": "application/json"},
                ssl=self._context if self._context is not None else True,
                server_hostname=self._target.server_name,
                allow_redirects=False,
            ) as response:
                spki, not_after = _peer_certificate(response)
                body = await self._bounded(response, path)
                if response.status >= 300:
                    raise PeerRefused(_problem(response.status, body), body)
                return body, spki, not_after
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise PeerNotAuthenticated(f"{self._where()}: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerUnreachable(f"{self._where()}: {_why(error)}") from error

    async def _bounded(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._max_answer_bytes:
                raise PeerMalformed(f"{path}: the answer is over {self._max_answer_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def lines(self, path: str, item: type[M], *, silence_seconds: float) -> AsyncIterator[M]:
        """A stream of JSON lines, until the peer ends it or is silent for too long.

        Raises:
            PeerError: one of the four kinds above; silence is `PeerUnreachable`.
        """
        try:
            async with self._open().get(
                self._target.base_url + path,
                ssl=self._context if self._context is not None else True,
                server_hostname=self._target.server_name,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_seconds),
            ) as response:
                if response.status >= 300:
                    body = await self._bounded(response, path)
                    raise PeerRefused(_problem(response.status, body), body)
                while True:
                    async with asyncio.timeout(silence_seconds):
                        line = await _line(response, path)
                    if not line:
                        return
                    yield decode(line, item)
        except MessageError as error:
            raise PeerMalformed(f"{path}: a line is {error}") from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise PeerNotAuthenticated(f"{self._where()}: {_why(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerUnreachable(f"{self._where()}: {_why(error)}") from error

    def _where(self) -> str:
        if self._target.unix_path is not None:
            return self._target.unix_path
        return f"{self._target.server_name or 'peer'} at {self._target.host}:{self._target.port}"


class _PinningConnector(CheckedConnector):
    """Hands out connections only to peers whose key is admitted, so that others are told nothing."""

    def __init__(self, admits: Callable[[bytes], bool] | None) -> None:
        super().__init__(limit=8, ttl_dns_cache=10)
        self._admits = admits

    def check(self, certificate: bytes, host: str | None) -> None:
        """See `CheckedConnector`.

        Raises:
            PeerNotAuthenticated: the key is not admitted.
        """
        if self._admits is not None and not self._admits(_key_of(certificate)[0]):
            raise PeerNotAuthenticated(f"{host}: not the key that was attested")


class _Response(aiohttp.ClientResponse):
    """Remembers the peer's certificate: aiohttp lets go of the connection as soon as a short body is in."""

    peer_certificate = b""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """See `aiohttp.ClientResponse`."""
        self.peer_certificate = certificate_of(connection)
        return await super().start(connection)


def _peer_certificate(response: aiohttp.ClientResponse) -> tuple[bytes, int]:
    """The peer's SubjectPublicKeyInfo (DER) and the end of its certificate; empty and 0 on a Unix socket."""
    if response.url.scheme != "https":
        return b"", 0
    return _key_of(response.peer_certificate if isinstance(response, _Response) else b"")


@lru_cache(maxsize=1024)
def _key_of(der: bytes) -> tuple[bytes, int]:
    """Asked several times a call, and a peer's certificate stays the same for most of a day."""
    if not der:
        raise PeerNotAuthenticated("the peer showed no certificate")
    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return spki, int(certificate.not_valid_after_utc.timestamp())
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise PeerNotAuthenticated(f"the peer's certificate cannot be read: {error}") from error


async def _line(response: aiohttp.ClientResponse, path: str) -> bytes:
    """The next line, empty at the end."""
    try:
        return await response.content.readline(max_line_length=_MAX_LINE_BYTES)
    except LineTooLong as error:
        raise PeerMalformed(f"{path}: a line is over {_MAX_LINE_BYTES} bytes") from error


def _why(error: Exception) -> str:
    """As short as it can be said; the library's own words hold addresses of objects, which differ in each process."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _problem(status: int, body: bytes) -> Problem:
    try:
        problem = decode(body, Problem)
    except MessageError:
        problem = Problem(code="NotAProblemDocument", detail=body[:_MAX_SHOWN_BYTES].decode(errors="replace"))
    # Every field has a default, so another message parses too: the status is what HTTP said. Texts end up in logs
    # and conditions, and the peer may be anybody's.
    return Problem(status=status, title=_shown(problem.title), code=_shown(problem.code), detail=_shown(problem.detail))


def _shown(text: str) -> str:
    return printable(text, _MAX_SHOWN_BYTES)
