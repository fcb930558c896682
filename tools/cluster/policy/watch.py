"""Follows objects of some kinds in the API server, for as long as the process lives."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from tools.cluster.policy.objects import Object
from tools.control_plane.client import ApiClient, ApiError

_WATCH_SECONDS = 300
_AGAIN_SECONDS = 0.2


class Followed:
    """The objects of each kind as they are now, by namespace and name. `changed` is set at each change."""

    def __init__(self, client: ApiClient, paths: Mapping[str, str]) -> None:
        self.changed = threading.Event()
        self._client = client
        self._lock = threading.Lock()
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        for kind, path in paths.items():
            threading.Thread(target=self._follow, args=(kind, path), daemon=True, name=kind).start()
        self._kinds = frozenset(paths)

    def snapshot(self) -> dict[str, list[Object]] | None:
        """All objects by kind; None before every kind has been listed once."""
        with self._lock:
            if self._objects.keys() != self._kinds:
                return None
            return {kind: list(found.values()) for kind, found in self._objects.items()}

    def _follow(self, kind: str, path: str) -> None:
        while True:
            try:
                self._watch(kind, path, self._list(kind, path))
            except (OSError, http.client.HTTPException, ValueError, ApiError) as error:
                print(f"{kind}: {error}", file=sys.stderr, flush=True)
                time.sleep(_AGAIN_SECONDS)

    def _list(self, kind: str, path: str) -> str:
        answer = self._client.get(path)
        with self._lock:
            self._objects[kind] = {_key(obj): obj for obj in answer["items"]}
        self.changed.set()
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, kind: str, path: str, version: str) -> None:
        """Returns when the API server ends the watch, or has forgotten the version."""
        address = urlsplit(self._client.server)
        query = urlencode({"watch": "1", "timeoutSeconds": _WATCH_SECONDS, "resourceVersion": version})
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=self._client.context, timeout=_WATCH_SECONDS + 30
        )
        try:
            connection.request("GET", f"{path}?{query}")
            for line in connection.getresponse():
                event = json.loads(line)
                if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
                    return
                self._take(kind, event["type"], event["object"])
        finally:
            connection.close()

    def _take(self, kind: str, change: str, obj: Object) -> None:
        with self._lock:
            if change == "DELETED":
                self._objects[kind].pop(_key(obj), None)
            else:
                self._objects[kind][_key(obj)] = obj
        self.changed.set()


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
