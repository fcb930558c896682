"""A control plane of one worker's own, with an operator in it: what tests of the controller share.

An operator sees all objects of its cluster, so these tests cannot share the control plane of the others. Every operator
runs under the chart's ServiceAccount and roles; what people and controllers of a cluster do is done by `admin`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tools.control_plane.client import ApiError
from tools.control_plane.embedded import ControlPlane
from tools.lab import installation
from tools.lab.network import machine_address
from tools.lab.objects import condition_of

from chatelaine.controller.operator import Operator
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.pki.authority import Authority
from support.control_plane import DEFINITIONS, ROOT
from support.simulated_host import SimulatedHost
from support.waiting import until

SYSTEM = installation.NAMESPACE
OPERATOR_KUBECONFIG = "operator.kubeconfig"
API = "chatelaine.dev/v1alpha1"
ZERO = "0" * 64
KILLED = 137
"""Status of an operator that ended itself as kill -9 would."""
Json = dict[str, Any]


class OperatorCluster:
    """One test's view of the worker's control plane; names of its objects begin with `prefix`."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.prefix = f"t{secrets.token_hex(3)}"
        self.namespace = f"{self.prefix}-team"
        self.hosts: dict[str, SimulatedHost] = {}
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def admin(self) -> Any:
        """Client with all rights."""
        return self.plane.admin

    # --- operators

    @property
    def kubeconfig(self) -> Path:
        """With which operators log in: the chart's ServiceAccount, nothing more."""
        return self.plane.directory / OPERATOR_KUBECONFIG

    def settings(self, **changes: Any) -> OperatorSettings:
        """Settings of an operator for tests: no election, any ports."""
        values: Json = {
            "namespace": SYSTEM,
            "kubeconfig": self.kubeconfig,
            "join_listen": None,
            "metrics_listen": None,
            "leader_election": False,
            "identity": f"test-{secrets.token_hex(4)}",
            **changes,
        }
        return OperatorSettings(**values)

    @contextlib.asynccontextmanager
    async def operator(self, **changes: Any) -> AsyncIterator[Operator]:
        """An operator in this loop."""
        settings = self.settings(**changes)
        async with await KubeAdapter.connect(settings.kubeconfig, user_agent=settings.identity) as kube:
            operator = Operator(settings, kube)
            running = asyncio.create_task(operator.run())
            try:
                yield operator
                assert not running.done(), running.exception()
            finally:
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running

    async def mortal(self, kill_after: int) -> int | None:
        """An operator process that ends itself, as by kill -9, after its `kill_after`th step (see `mortal_operator`).

        Returns when it is dead, or None when it has gone idle without dying (it is ended then).
        """
        idle = self.folder / f"idle-{secrets.token_hex(4)}"
        log = idle.with_suffix(".log")
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "support.mortal_operator",
                str(self.kubeconfig), str(kill_after), str(idle),
                cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"},
                stdout=output, stderr=output,
            )  # fmt: skip
        try:
            await until(
                "the operator dies or rests", lambda: process.returncode is not None or idle.exists(), seconds=60
            )
            assert process.returncode in (None, KILLED), log.read_text()
            return process.returncode
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()

    # --- objects

    async def host(self, name: str = "a", **options: Any) -> SimulatedHost:
        """A host that listens, with leaves of the cluster's CA."""
        full = f"{self.prefix}-{name}"
        await until("the CA is there", lambda: self.find("v1", "Secret", "chatelaine-ca", SYSTEM))
        host = SimulatedHost(full, self.folder / full, self._authority(), **options)
        await host.start()
        self.hosts[full] = host
        return host

    def double(self, host: SimulatedHost, **options: Any) -> SimulatedHost:
        """A host of the same name with good leaves over other keys; it is not started."""
        return SimulatedHost(host.name, self.folder / f"double-{secrets.token_hex(4)}", self._authority(), **options)

    def _authority(self) -> Authority:
        secret = self.find("v1", "Secret", "chatelaine-ca", SYSTEM)
        assert secret is not None
        return Authority.from_secret({key: base64.b64decode(value) for key, value in secret["data"].items()})

    def policy(self, name: str = "base", **spec: Any) -> Json:
        """A policy for simulated hosts: PCRs 4 and 7 as after a reset, claims of this test's namespace let in."""
        rule = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}}
        body = {
            "freshness": {"maxAgeSeconds": 20},
            "tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": i, "anyOf": [ZERO]} for i in (4, 7)]}},
            "release": {"anyOf": [rule]},
            **spec,
        }
        created: Json = self.admin.create(_object("AttestationPolicy", f"{self.prefix}-{name}", None, body))
        return created

    def hsm(self, host: SimulatedHost, *, approved: bool = True, policy: str = "base", **spec: Any) -> Json:
        """The Hsm of a host, approved already unless told otherwise."""
        body = {
            "token": f"pkcs11:token={host.name}",
            "gateway": {"external": {"host": "127.0.0.1", "port": host.gateway_port}},
            "agent": {"host": "127.0.0.1", "port": host.agent_port},
            "attestation": {"policyRef": {"name": f"{self.prefix}-{policy}"}, "intervalSeconds": 2},
            **({"identity": host.identity} if approved else {}),
            **spec,
        }
        created: Json = self.admin.create(_object("Hsm", host.name, None, body, {"test": self.prefix}))
        return created

    def claim(self, name: str = "c1", **spec: Any) -> Json:
        """A claim with one key and one client."""
        body = {
            "selector": {"matchLabels": {"test": self.prefix}},
            "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
            "clients": [
                {
                    "serviceAccount": "app",
                    "podSelector": {"matchLabels": {"app": "app"}},
                    "keys": ["signing"],
                    "usages": ["Sign"],
                }
            ],
            "binding": {"secretName": f"{name}-hsm"},
            **spec,
        }
        body = {key: value for key, value in body.items() if value is not None}
        created: Json = self.admin.create(_object("HsmClaim", name, self.namespace, body))
        return created

    def pod(self, name: str, service_account: str, labels: Json) -> Json:
        """A Pod object that nobody runs."""
        account = {"metadata": {"name": service_account, "namespace": self.namespace}}
        self.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", **account})
        spec = {
            "serviceAccountName": service_account,
            "containers": [{"name": "app", "image": "app"}],
            "terminationGracePeriodSeconds": 0,
        }
        meta = {"name": name, "namespace": self.namespace, "labels": labels}
        found: Json = self.admin.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        return found

    async def hsm_in_cluster(self, host: SimulatedHost, namespace: str) -> None:
        """The Hsm of a host whose gateway is a Service of a namespace made for it; waits until it is Ready."""
        address = machine_address()
        port = await host.listen_also(address)
        self.plane.create_namespace(namespace)
        self.endpoint_slice(namespace, "gateway", address, port)
        selector = {"matchLabels": {"app": "gateway"}}
        service = {"namespace": namespace, "name": "gateway", "podSelector": selector, "podPort": port}
        self.hsm(host, gateway={"service": service})
        await self.hsm_is(host, "Ready", "True")

    def endpoint_slice(self, namespace: str, service: str, address: str, port: int) -> None:
        """Where a Service's pods answer."""
        self.admin.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{service}-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        )

    def find(self, version: str, kind: str, name: str, namespace: str | None = None) -> Json | None:
        """One object, None if it is not there."""
        try:
            found: Json = self.admin.read(version, kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def get_hsm(self, host: SimulatedHost) -> Json:
        """The Hsm of a host."""
        return self.find(API, "Hsm", host.name) or {}

    def get_claim(self, name: str = "c1") -> Json:
        """A claim."""
        return self.find(API, "HsmClaim", name, self.namespace) or {}

    def list(self, path: str) -> list[Json]:
        """Objects of a collection."""
        return list(self.admin.get(path)["items"])

    # --- waiting

    async def hsm_is(self, host: SimulatedHost, type_: str, status: str, reason: str | None = None) -> Json:
        """Wait for a condition of an Hsm."""
        return await self._is(lambda: self.get_hsm(host), f"Hsm {host.name}", type_, status, reason)

    async def claim_is(self, type_: str, status: str, reason: str | None = None, name: str = "c1") -> Json:
        """Wait for a condition of a claim."""
        return await self._is(lambda: self.get_claim(name), f"claim {name}", type_, status, reason)

    async def _is(self, read: Callable[[], Json], what: str, type_: str, status: str, reason: str | None) -> Json:
        def holds() -> Json | None:
            found = read()
            condition = condition_of(found, type_)
            same = condition.get("status") == status and (reason is None or condition.get("reason") == reason)
            return found if same else None

        try:
            return await until(f"{what}: {type_}={status} {reason or ''}", holds)
        except AssertionError as error:
            conditions = read().get("status", {}).get("conditions")
            raise AssertionError(f"{error}; conditions are {conditions}") from None

    async def ready(self, name: str = "a", **spec: Any) -> SimulatedHost:
        """A host, enrolled and Trusted."""
        host = await self.host(name)
        self.hsm(host, **spec)
        await self.hsm_is(host, "Ready", "True")
        return host

    # --- the end

    async def clean(self) -> None:
        """Take this test's objects away, finalizers and all."""
        for host in self.hosts.values():
            await host.stop()
        for kind, path in (("HsmClaim", "hsmclaims"), ("Hsm", "hsms"), ("AttestationPolicy", "attestationpolicies")):
            for found in self.list(f"/apis/{API}/{path}"):
                found |= {"apiVersion": API, "kind": kind}
                with contextlib.suppress(ApiError):
                    if found["metadata"].get("finalizers"):
                        self.admin.merge(found, {"metadata": {"finalizers": []}})
                    self.admin.delete(found)


def _object(kind: str, name: str, namespace: str | None, spec: Json, labels: Json | None = None) -> Json:
    meta: Json = {"name": name, "labels": labels or {}}
    if namespace is not None:
        meta["namespace"] = namespace
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


@contextlib.contextmanager
def operator_plane(folder: Path) -> Any:
    """A control plane with our definitions, the chart, and a kubeconfig of the operator's ServiceAccount."""
    with ControlPlane(folder, audit=True) as plane:
        plane.install_definitions(DEFINITIONS)
        plane.create_namespace(SYSTEM)
        chart = installation.render(SYSTEM, "operator.replicas=0", "crds.enabled=false")
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=chart)
        plane.service_account_kubeconfig(SYSTEM, installation.SERVICE_ACCOUNT, plane.directory / OPERATOR_KUBECONFIG)
        yield plane
