"""Kubernetes Events (events.k8s.io/v1) on transitions. They are for people: losing one never stops anything."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from typing import Final

from chatelaine.kube.errors import AlreadyExists, KubeError
from chatelaine.kube.port import EVENTS, OWN_KINDS, JsonObject, KubePort
from chatelaine.reconcile.plan import EmitEvent
from chatelaine.telemetry.log import logger

CONTROLLER: Final = "chatelaine.dev/operator"
CLUSTER_NAMESPACE: Final = "default"
"""Where Events about cluster-scoped objects live."""
SAME_SECONDS: Final = 60
"""An Event that is said again within this time (after a crash, by a second operator) is the same Event."""
NOTE_CHARACTERS: Final = 1000

_log = logger(__name__)


class Recorder:
    """Writes Events."""

    def __init__(self, kube: KubePort, instance: str, wall: Callable[[], float]) -> None:
        self._kube = kube
        self._instance = instance
        self._wall = wall

    async def emit(self, event: EmitEvent) -> None:
        """Write one; failures are logged."""
        namespace = event.object.namespace or CLUSTER_NAMESPACE
        try:
            await self._kube.create(EVENTS, self._body(event, namespace), namespace)
        except AlreadyExists:
            return
        except KubeError as error:
            _log.warning("event not written", kind=event.object.kind, name=event.object.name, error=str(error))

    def _body(self, event: EmitEvent, namespace: str) -> JsonObject:
        now = self._wall()
        about = event.object
        text = "\x00".join((about.uid, event.reason.value, event.message, str(int(now // SAME_SECONDS))))
        moment = datetime.datetime.fromtimestamp(now, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        note = event.message or event.reason.value
        return {
            "metadata": {
                "name": f"{about.name[:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}",
                "namespace": namespace,
            },
            "eventTime": moment,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": event.type.value,
            "reason": event.reason.value,
            "note": note if len(note) <= NOTE_CHARACTERS else note[: NOTE_CHARACTERS - 1] + "…",
            "regarding": {
                "apiVersion": OWN_KINDS[about.kind].api_version,
                "kind": about.kind,
                "name": about.name,
                "uid": about.uid,
                **({"namespace": about.namespace} if about.namespace else {}),
            },
        }
