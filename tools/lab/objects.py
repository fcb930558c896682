"""What people and controllers do to objects of a cluster: publish a gateway, approve a host, wait for a condition."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError
from tools.control_plane.processes import StartError
from tools.lab.workload import create_pod

GROUP = "chatelaine.dev/v1alpha1"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
POLL_SECONDS = 0.05


def condition_of(found: dict[str, Any], type_: str) -> dict[str, Any]:
    """One condition, or an empty dict."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def wait_condition(
    read: Callable[[], dict[str, Any]], type_: str, status: str, *, reason: str | None = None, seconds: float = 60
) -> dict[str, Any]:
    """Waits for a condition; returns the object.

    Raises:
        StartError: it did not come in time; the message says what the conditions say instead.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = read()
        condition = condition_of(found, type_)
        if condition.get("status") == status and reason in (None, condition.get("reason")):
            return found
        if time.monotonic() > deadline:
            said = "; ".join(
                f"{c['type']}={c['status']} {c['reason']}: {c.get('message', '')}"
                for c in found.get("status", {}).get("conditions", [])
            )
            wanted = f"{type_}={status}" + (f", {reason}" if reason else "")
            raise StartError(
                f"{found['metadata']['name']}: {wanted} not within {seconds:.0f} s; it says: {said or '-'}"
            )
        time.sleep(POLL_SECONDS)


def publish_gateway(cluster: ClusterAccess, namespace: str, name: str, address: str, port: int) -> None:
    """What a cluster does for a gateway's pod: Pod, Service and EndpointSlice."""
    try:
        create_pod(cluster, namespace, name, name, {"app": name})
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    entry = {"name": "https", "port": port, "protocol": "TCP"}
    cluster.admin.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"ports": [{**entry, "targetPort": port}]},
        }
    )
    cluster.admin.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [entry],
        }
    )


def approve(cluster: ClusterAccess, name: str) -> tuple[str, str]:
    """What a person does: takes the two digests from the message of `Enrolled` and commits them.

    Returns:
        The digests of the endorsement key and of the HSM attestation key.

    Raises:
        StartError: the message does not name two digests.
    """
    message = condition_of(cluster.admin.read(GROUP, "Hsm", name), "Enrolled").get("message", "")
    digests = DIGEST.findall(message)
    if len(digests) != 2:
        raise StartError(f"{name}: two digests expected in the message, found: {message!r}")
    identity = {"ekDigest": digests[0], "attestationKeyThumbprint": digests[1]}
    hsm = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": name}}
    cluster.admin.merge(hsm, {"spec": {"identity": identity}})
    return digests[0], digests[1]
