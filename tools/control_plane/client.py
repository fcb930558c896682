"""A small synchronous client for the API server: what tests and the demo need, standard library only."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
INITIALIZING = b"storage is (re)initializing"
INITIALIZING_SECONDS = 30.0
"""For a moment after its definition was made or changed, a kind answers like that: ask again."""


class ApiError(RuntimeError):
    """The API server refused. `status` is the HTTP status, `reason` and `message` those of the `Status` object."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiClient:
    """Requests with one identity: a client certificate, or a bearer token."""

    def __init__(
        self, server: str, certificate_authority: Path, *, identity: tuple[Path, Path] | None = None, token: str = ""
    ) -> None:
        address = urlsplit(server)
        self.server = server
        self._host, self._port = address.hostname or "", address.port or 443
        self.context = ssl.create_default_context(cafile=str(certificate_authority))
        if identity is not None:
            self.context.load_cert_chain(*identity)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    def raw(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """HTTP status and body.

        Raises:
            OSError: nobody answers.
        """
        connection = http.client.HTTPSConnection(self._host, self._port, context=self.context, timeout=30)
        try:
            headers = {**self._headers, "Accept": "application/json, */*", "Content-Type": content_type}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def request(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        """The object in the answer.

        Raises:
            ApiError: the API server refused.
            OSError: nobody answers.
        """
        data = None if body is None else json.dumps(body).encode()
        status, answer = self.raw(method, path, data, content_type=content_type)
        deadline = time.monotonic() + INITIALIZING_SECONDS
        while status == 429 and INITIALIZING in answer and time.monotonic() < deadline:
            time.sleep(0.1)
            status, answer = self.raw(method, path, data, content_type=content_type)
        try:
            parsed = json.loads(answer)
        except ValueError:
            parsed = {"message": answer[:1000].decode(errors="replace")}
        if status >= 400:
            raise ApiError(status, str(parsed.get("reason", "")), str(parsed.get("message", "")))
        return dict(parsed)

    def get(self, path: str) -> Object:
        """GET of an API path."""
        return self.request("GET", path)

    def read(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object by kind and name."""
        return self.get(f"{self.collection(api_version, kind, namespace)}/{name}")

    def create(self, obj: Object) -> Object:
        """POST of an object."""
        return self.request("POST", self._collection_of(obj), obj)

    def apply(self, obj: Object, *, manager: str = "embedded", force: bool = True, subresource: str = "") -> Object:
        """Server-side apply."""
        query = urlencode({"fieldManager": manager, "force": "true" if force else "false"})
        return self.request("PATCH", f"{self.path_of(obj, subresource)}?{query}", obj, content_type=APPLY)

    def merge(self, obj: Object, change: Object, *, subresource: str = "") -> Object:
        """JSON merge patch of an existing object."""
        return self.request("PATCH", self.path_of(obj, subresource), change, content_type=MERGE)

    def replace(self, obj: Object, *, subresource: str = "") -> Object:
        """PUT of an object."""
        return self.request("PUT", self.path_of(obj, subresource), obj)

    def delete(self, obj: Object) -> None:
        """DELETE; an object that is gone already is fine."""
        try:
            self.request("DELETE", self.path_of(obj))
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def path_of(self, obj: Object, subresource: str = "") -> str:
        """API path of an object."""
        path = f"{self._collection_of(obj)}/{obj['metadata']['name']}"
        return f"{path}/{subresource}" if subresource else path

    def collection(self, api_version: str, kind: str, namespace: str | None = None) -> str:
        """API path of all objects of a kind (in one namespace, if the kind has namespaces and one is given).

        Raises:
            ApiError: the API server does not know the kind.
        """
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        if (api_version, kind) not in self._plurals:
            for resource in self.get(root)["resources"]:
                if "/" not in resource["name"]:
                    self._plurals[api_version, resource["kind"]] = resource["name"], bool(resource["namespaced"])
        if (api_version, kind) not in self._plurals:
            raise ApiError(http.HTTPStatus.NOT_FOUND, "NotFound", f"the server has no {kind} in {api_version}")
        plural, namespaced = self._plurals[api_version, kind]
        return f"{root}/namespaces/{namespace}/{plural}" if namespaced and namespace else f"{root}/{plural}"

    def _collection_of(self, obj: Object) -> str:
        return self.collection(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace"))
