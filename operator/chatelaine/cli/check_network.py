"""Starts pods that try each other out, and deletes all that it made, however it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from chatelaine import __version__
from chatelaine.cli.explain_access import PersonAdapter
from chatelaine.cli.explain_reading import bodies
from chatelaine.diagnosis.check import Diagnosis
from chatelaine.diagnosis.network import judged, unstarted
from chatelaine.kube.errors import AlreadyExists, Forbidden, Invalid, KubeError, NotFound, Unauthenticated
from chatelaine.kube.port import NAMESPACES, NETWORK_POLICIES, PODS, JsonObject, Selection, metadata_of
from chatelaine.model.identifiers import LABEL_MANAGED_BY

PORT: Final = 8080
MANAGED_BY: Final = "chatelaine-check"
"""Not the operator's own mark: these objects are not its."""
POLL_SECONDS: Final = 0.5
DELETE_SECONDS: Final = 30.0
ROLE: Final = "role"
_RESTRICTED: Final[JsonObject] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

Tell = Callable[[str], None]


class NotStarted(Exception):
    """A pod did not start in time."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


async def tried(kube: PersonAdapter, system: str, image: str | None, *, seconds: float, tell: Tell) -> Diagnosis:
    """Try it out in a namespace of its own, which is gone afterwards.

    Args:
        kube: the API server.
        system: the operator's namespace, where an image is looked for.
        image: of the pods; None: the operator's.
        seconds: how long each step may take.
        tell: hears what is being done.

    Raises:
        KubeError: the API server did not let us, or did not answer.
    """
    image = image or await _image(kube, system)
    name = f"{MANAGED_BY}-{secrets.token_hex(4)}"
    tell(f"trying it out in namespace {name} with image {image}")
    labels = {LABEL_MANAGED_BY: MANAGED_BY, "pod-security.kubernetes.io/enforce": "restricted"}
    made = True  # also where the answer got lost
    try:
        try:
            await kube.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        except (AlreadyExists, Forbidden, Invalid, Unauthenticated):
            made = False
            raise
        return await _Trial(kube, name, image, seconds, tell).run()
    except NotStarted as error:
        return unstarted(error.name, error.why)
    finally:
        if made:
            await asyncio.shield(_deleted(kube, name, tell))


class _Trial:
    """Pods of one namespace."""

    def __init__(self, kube: PersonAdapter, namespace: str, image: str, seconds: float, tell: Tell) -> None:
        self._kube = kube
        self._namespace = namespace
        self._image = image
        self._seconds = seconds
        self._tell = tell

    async def run(self) -> Diagnosis:
        """Each step only where the one before it has shown what it must."""
        await self._account()
        address = await self._server()
        self._tell("is the server reached while there is no policy?")
        before = await self._client("before", address, "open")
        if not before:
            return judged(before, None, None)
        self._tell("is a pod cut off that the policy does not name?")
        await self._kube.create(NETWORK_POLICIES, self._policy(), self._namespace)
        stranger = await self._client("stranger", address, "cut")
        if not stranger:
            return judged(before, stranger, None)
        self._tell("does a pod still connect that the policy names?")
        return judged(before, stranger, await self._client("named", address, "open"))

    async def _account(self) -> None:
        """A namespace takes no pods before the account is there that a controller makes."""
        await self._until(
            lambda: self._get("/serviceaccounts/default"),
            lambda found: bool(found),
            "server",
            lambda found: "no controller has made the account default of its namespace; is this a whole cluster?",
        )

    async def _server(self) -> str:
        args = ["check", "listen", "--port", str(PORT)]
        probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        await self._kube.create(PODS, self._pod("server", args, readinessProbe=probe), self._namespace)
        body = await self._until(lambda: self._get("/pods/server"), _is_ready, "server", _why)
        return str(body["status"]["podIP"])

    async def _client(self, role: str, address: str, expect: str) -> bool | None:
        """Whether it came about; None: the pod ended by something else, or not at all."""
        patience = max(5.0, self._seconds / 2)
        args = ["check", "connect", address, "--port", str(PORT), "--expect", expect, "--seconds", f"{patience:.0f}"]
        await self._kube.create(PODS, self._pod(role, args), self._namespace)
        body = await self._until(
            lambda: self._get(f"/pods/{role}"), lambda found: _ended(found) is not None, role, _why,
            seconds=self._seconds + patience,
        )  # fmt: skip
        status = _ended(body)
        return {0: True, 1: False}.get(status) if status is not None else None

    async def _until(
        self,
        read: Callable[[], Any],
        holds: Callable[[JsonObject], bool],
        pod: str,
        why: Callable[[JsonObject], str],
        *,
        seconds: float | None = None,
    ) -> JsonObject:
        limit = self._seconds if seconds is None else seconds
        ends = time.monotonic() + limit
        while True:
            found: JsonObject = await read()
            if holds(found):
                return found
            if time.monotonic() >= ends:
                raise NotStarted(pod, f"not within {limit:.0f} s: {why(found)}")
            await asyncio.sleep(POLL_SECONDS)

    async def _get(self, path: str) -> JsonObject:
        try:
            return await self._kube.json(f"/api/v1/namespaces/{self._namespace}{path}")
        except NotFound:
            return {}

    def _pod(self, role: str, args: list[str], **container: Any) -> JsonObject:
        main = {
            "name": "main",
            "image": self._image,
            "args": args,
            "securityContext": _RESTRICTED,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
            **container,
        }
        return {
            "metadata": {"name": role, "labels": {ROLE: role, LABEL_MANAGED_BY: MANAGED_BY}},
            "spec": {
                "containers": [main],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
            },
        }

    def _policy(self) -> JsonObject:
        """Closes the server but for one pod."""
        peer = {"podSelector": {"matchLabels": {ROLE: "named"}}}
        return {
            "metadata": {"name": "but-for-one"},
            "spec": {
                "podSelector": {"matchLabels": {ROLE: "server"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": PORT}]}],
            },
        }


async def _image(kube: PersonAdapter, system: str) -> str:
    """The operator's own: it is in the cluster's reach already. Else as the chart names it."""
    selector = "app.kubernetes.io/name=chatelaine,app.kubernetes.io/component=operator"
    try:
        async for body in bodies(kube, Selection(PODS, system, selector)):
            for container in (body.get("spec") or {}).get("containers") or ():
                return str(container.get("image", ""))
    except KubeError:
        pass
    return f"chatelaine:{__version__}"


async def _deleted(kube: PersonAdapter, name: str, tell: Tell) -> None:
    """The namespace with all that is in it; says so where it could not."""
    try:
        await kube.delete(NAMESPACES, name)
        ends = time.monotonic() + DELETE_SECONDS
        while time.monotonic() < ends:
            await kube.get_metadata(NAMESPACES, name)
            await asyncio.sleep(POLL_SECONDS)
        tell(f"namespace {name} is still being deleted")
    except NotFound:
        tell(f"namespace {name} is gone")
    except KubeError as error:
        tell(f"namespace {name} could not be deleted ({error}): kubectl delete namespace {name}")


def _is_ready(body: JsonObject) -> bool:
    status = body.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return ready and bool(status.get("podIP"))


def _ended(body: JsonObject) -> int | None:
    """Exit status of its container, once it has one."""
    for container in (body.get("status") or {}).get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended is not None:
            return int(ended.get("exitCode", 255))
    return None


def _why(body: JsonObject) -> str:
    """What the cluster says of a pod that does not start."""
    status = body.get("status") or {}
    waiting = [
        (container.get("state") or {}).get("waiting") or {} for container in status.get("containerStatuses") or ()
    ]
    for found in waiting:
        if found.get("reason"):
            return f"{found['reason']} {found.get('message', '')}".strip()
    for condition in status.get("conditions") or ():
        if condition.get("status") == "False" and condition.get("message"):
            return str(condition["message"])
    if not metadata_of(body):
        return "it is not there any more; somebody deleted it"
    if not (body.get("spec") or {}).get("nodeName"):
        return "no node was chosen for it; are there nodes, and does a scheduler run?"
    return f"it is {status.get('phase', 'Unknown')}, and its node says no more"
