"""`KubePort` over the official client (`kubernetes.aio`): its login, TLS and connections, our paths and errors.

The generated model classes are not used: they cost two thirds of a call. What is sent and received is JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client.rest import RESTClientObject

from chatelaine.kube.errors import Gone, Unauthenticated, Unavailable, error_of
from chatelaine.kube.login import authorization, login
from chatelaine.kube.port import (
    NO_GUARD,
    ClusterIdentity,
    Guard,
    JsonObject,
    Page,
    Resource,
    Selection,
    WatchEvent,
    WatchKind,
)

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
_METADATA_ONE: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_RELOGIN_SECONDS: Final = 1.0
CALL_SECONDS: Final = 10.0
"""Bound on one call; the API server itself gives up writes after 10 s where etcd is slow."""
LIST_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 290
"""After this the server ends a watch cleanly and it is resumed; half of it is jitter of the server's."""
SILENCE_SECONDS: Final = 120.0
"""Bookmarks come every minute; a watch silent for longer hangs."""


class KubeAdapter:
    """The API server over HTTPS. Make it with `connect`; close it when done."""

    def __init__(self, configuration: Any, kubeconfig: Path | None, user_agent: str) -> None:
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._user_agent = user_agent
        self._rest = RESTClientObject(configuration)
        self._logged_in_at = time.monotonic()
        self._login_lock = asyncio.Lock()
        self._retired: list[Any] = []

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None, user_agent: str = "chatelaine") -> Self:
        """Log in (without a call to the server).

        Raises:
            LoginFailed: no usable credentials.
        """
        return cls(await login(kubeconfig), kubeconfig, user_agent)

    @property
    def configuration(self) -> Any:
        """The official client's configuration in use, for kopf's login."""
        return self._configuration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        for rest in [*self._retired, self._rest]:
            await rest.close()

    # --- reading

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._json("GET", resource.path(namespace, name))

    async def get_metadata(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._json("GET", resource.path(namespace, name), accept=_METADATA_ONE)

    async def list_page(self, selection: Selection, *, limit: int, continue_token: str = "") -> Page:
        """See `KubePort`."""
        query = _query(labelSelector=selection.label_selector, limit=str(limit), **{"continue": continue_token})
        accept = _METADATA_LIST if selection.metadata_only else "application/json"
        body = await self._json(
            "GET", selection.resource.path(selection.namespace) + query, accept=accept, seconds=LIST_SECONDS
        )
        meta = body.get("metadata") or {}
        return Page(
            tuple(body.get("items") or ()), str(meta.get("resourceVersion", "")), str(meta.get("continue") or "")
        )

    async def watch(self, selection: Selection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """See `KubePort`."""
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=str(WATCH_SECONDS),
            labelSelector=selection.label_selector,
            resourceVersion=resource_version,
        )
        accept = _METADATA_ONE if selection.metadata_only else "application/json"
        what = f"watch {selection.resource.plural}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            response = await self._send("GET", selection.resource.path(selection.namespace) + query, accept, timeout)
            try:
                if response.status >= 300:
                    raise error_of(response.status, await response.read(), what)
                async for line in _lines(response, what):
                    yield _event(line, what)
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from error

    async def cluster_identity(self) -> ClusterIdentity:
        """See `KubePort`."""
        discovery = await self._json("GET", "/.well-known/openid-configuration")
        jwks = await self._json("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
        return ClusterIdentity(str(discovery.get("issuer", "")), json.dumps(jwks, sort_keys=True))

    # --- writing

    async def create(self, resource: Resource, body: JsonObject, namespace: str | None = None) -> JsonObject:
        """See `KubePort`."""
        return await self._json("POST", resource.path(namespace), _typed(resource, body))

    async def apply(
        self,
        resource: Resource,
        name: str,
        body: JsonObject,
        *,
        field_manager: str,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """See `KubePort`."""
        path = resource.path(namespace, name, subresource) + _query(fieldManager=field_manager, force="true")
        return await self._json("PATCH", path, _typed(resource, body), content_type=APPLY)

    async def merge(
        self,
        resource: Resource,
        name: str,
        body: JsonObject,
        *,
        field_manager: str,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> JsonObject:
        """See `KubePort`."""
        path = resource.path(namespace, name, subresource) + _query(fieldManager=field_manager)
        return await self._json("PATCH", path, body, content_type=MERGE)

    async def replace(self, resource: Resource, name: str, body: JsonObject, namespace: str | None) -> JsonObject:
        """See `KubePort`."""
        return await self._json("PUT", resource.path(namespace, name), _typed(resource, body))

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, guard: Guard = NO_GUARD
    ) -> None:
        """See `KubePort`."""
        preconditions = {"uid": guard.uid, "resourceVersion": guard.resource_version}
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {key: value for key, value in preconditions.items() if value},
        }
        await self._json("DELETE", resource.path(namespace, name), body)

    # --- one call

    async def _json(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        accept: str = "application/json",
        content_type: str = "application/json",
        seconds: float = CALL_SECONDS,
    ) -> JsonObject:
        async def once() -> JsonObject:
            return await self._once(method, path, body, accept, content_type, seconds)

        try:
            return await once()
        except Unauthenticated:
            await self._login_again()
        return await once()

    async def _once(
        self, method: str, path: str, body: JsonObject | None, accept: str, content_type: str, seconds: float
    ) -> JsonObject:
        what = f"{method} {path.split('?', 1)[0]}"
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            response = await self._send(method, path, accept, timeout, body, content_type)
            async with response:
                data = await response.read()
                parsed = msgspec.json.decode(data) if response.status < 300 else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}") from error
        except ValueError as error:
            raise Unavailable(f"{what}: the answer is no JSON") from error
        if response.status >= 300:
            raise error_of(response.status, data, what, response.headers.get("Retry-After"))
        return parsed if isinstance(parsed, dict) else {}

    async def _send(
        self,
        method: str,
        path: str,
        accept: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own bound, which also covers reading the body
        body: JsonObject | None = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": accept, "User-Agent": self._user_agent, "Content-Type": content_type}
        token = await authorization(self._configuration)
        if token is not None:
            headers["Authorization"] = token
        answer = await self._rest.request(
            method, self._configuration.host + path, headers=headers, body=body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _login_again(self) -> None:
        """After a 401: the token or certificate may have been renewed in its file."""
        async with self._login_lock:
            if time.monotonic() - self._logged_in_at < _RELOGIN_SECONDS:
                return
            self._configuration = await login(self._kubeconfig)
            # Streams may still use the old connections; they are closed with the adapter.
            for rest in self._retired[:-1]:
                await rest.close()
            self._retired = [*self._retired[-1:], self._rest]
            self._rest = RESTClientObject(self._configuration)
            self._logged_in_at = time.monotonic()


def _query(**parameters: str) -> str:
    kept = {key: value for key, value in parameters.items() if value}
    return "?" + urlencode(kept) if kept else ""


def _typed(resource: Resource, body: JsonObject) -> JsonObject:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


async def _lines(response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
    """Lines of a watch; objects of 1.5 MiB and more are whole lines, so the reader's own limit does not do."""
    pending = bytearray()
    async for chunk in response.content.iter_any():
        pending += chunk
        if b"\n" not in chunk:
            if len(pending) > _MAX_BODY_BYTES:
                raise Unavailable(f"{what}: a line is over {_MAX_BODY_BYTES} bytes")
            continue
        *whole, rest = bytes(pending).split(b"\n")
        pending = bytearray(rest)
        for line in whole:
            if line:
                yield line


def _event(line: bytes, what: str) -> WatchEvent:
    try:
        event = msgspec.json.decode(line)
        kind, body = event["type"], event["object"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{what}: a line is no watch event") from error
    if kind == "ERROR":
        code = body.get("code", 500) if isinstance(body, dict) else 500
        if code == 410:
            raise Gone(f"{what}: {body.get('message', 'the version is too old')}", 410)
        raise error_of(int(code), json.dumps(body).encode(), what)
    return WatchEvent(WatchKind(kind), body)
