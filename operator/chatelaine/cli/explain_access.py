"""The API server as a person asks it: with their own rights, and with questions that the operator never has."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Self

import aiohttp

from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import KubeError, Unavailable, error_of
from chatelaine.kube.port import JsonObject, Resource

USER_AGENT: Final = "chatelaine-person"
CALL_SECONDS: Final = 10.0
ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


@dataclass(frozen=True, slots=True)
class Wish:
    """Something that somebody would do."""

    verb: str
    resource: Resource
    namespace: str | None = None
    subresource: str = ""

    def __str__(self) -> str:
        what = self.resource.plural + (f"/{self.subresource}" if self.subresource else "")
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{where}"


class PersonAdapter(KubeAdapter):
    """`KubeAdapter` for people at a terminal."""

    @classmethod
    async def of(cls, kubeconfig: Path | None) -> Self:
        """Log in as kubectl does: $KUBECONFIG, else a pod's own account, else ~/.kube/config.

        Raises:
            LoginFailed: no usable credentials.
        """
        return await cls.connect(kubeconfig or _home_kubeconfig(), USER_AGENT)

    async def may(self, wish: Wish) -> bool:
        """Would the API server let us?

        Raises:
            KubeError: it did not say.
        """
        attributes = {
            "verb": wish.verb,
            "group": wish.resource.group,
            "resource": wish.resource.plural,
            "subresource": wish.subresource,
            "namespace": wish.namespace or "",
        }
        asked = {"spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}}}
        answer = await self.create(ACCESS_REVIEWS, asked)
        return (answer.get("status") or {}).get("allowed") is True

    async def version(self) -> str:
        """Version of the API server.

        Raises:
            KubeError: it did not say.
        """
        return str((await self._json("GET", "/version")).get("gitVersion", ""))

    async def skew_seconds(self) -> float:
        """How far our clock is ahead of the server's, by the header `Date`, which has whole seconds.

        Raises:
            KubeError: it did not say.
        """
        before = time.time()
        headers, _ = await self._raw("/version", 64 * 1024)
        middle = (before + time.time()) / 2
        try:
            theirs = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except ValueError as error:
            raise Unavailable("the API server's answer has no usable Date") from error
        # Half a second on average was cut off.
        return middle - (theirs + 0.5)

    async def text(self, path: str, *, most_bytes: int) -> str:
        """A path that answers with text, such as a pod's log; what is longer is cut.

        Raises:
            KubeError: it did not answer.
        """
        _, body = await self._raw(path, most_bytes)
        return body.decode(errors="replace")

    async def json(self, path: str) -> JsonObject:
        """A path that answers with an object.

        Raises:
            KubeError: it did not answer.
        """
        return await self._json("GET", path)

    async def _raw(self, path: str, most_bytes: int) -> tuple[dict[str, str], bytes]:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            response = await self._send("GET", path, "*/*", timeout)
            try:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) >= most_bytes:
                        break
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"GET {path.split('?', 1)[0]}: {error or type(error).__name__}") from error
        if response.status >= 300:
            raise error_of(response.status, bytes(body), f"GET {path.split('?', 1)[0]}")
        return dict(response.headers), bytes(body[:most_bytes])


def _home_kubeconfig() -> Path | None:
    """Kubectl's default, where neither the environment nor a pod's account says who we are."""
    if os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST"):
        return None
    found = Path("~/.kube/config").expanduser()
    return found if found.is_file() else None


__all__ = ["ACCESS_REVIEWS", "KubeError", "PersonAdapter", "Wish"]
