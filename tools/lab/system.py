"""A whole running system: control plane, operator, an attested pool of hosts, and clients that sign."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from chatelaine.model.identifiers import TOKEN_AUDIENCE
from tools.control_plane.embedded import ControlPlane
from tools.lab.folder import throw_away_folder
from tools.lab.installation import Operator, install
from tools.lab.objects import GROUP, wait_condition
from tools.lab.pool import GATEWAYS, Pool
from tools.lab.workload import Refusal, SigningClient, create_pod

TEAM = "team"
TEAM_LABELS = {"chatelaine.dev/lab": "yes"}


@dataclass(slots=True)
class Lab:
    """Everything that runs."""

    control_plane: ControlPlane
    operator: Operator
    pool: Pool
    clients: list[SigningClient] = field(default_factory=list)

    @contextmanager
    def standby(self) -> Iterator[Operator]:
        """A second operator process beside the first."""
        second = Operator(self.control_plane, self.operator.directory.parent / "standby")
        second.start()
        try:
            yield second
        finally:
            second.stop()

    def claim(self, name: str, namespace: str = TEAM) -> dict[str, Any]:
        """The claim now."""
        return self.control_plane.admin.read(GROUP, "HsmClaim", name, namespace)

    def bind(self, manifest: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """Creates a claim and waits until it is Ready."""
        self.control_plane.admin.create(manifest)
        metadata = manifest["metadata"]
        return wait_condition(
            lambda: self.claim(metadata["name"], metadata["namespace"]), "Ready", "True", seconds=seconds
        )

    def pod(self, name: str, namespace: str = TEAM) -> dict[str, Any]:
        """A pod of the claim's client (service account and label `app` are the claim's name)."""
        return dict(create_pod(self.control_plane, namespace, name, name, {"app": name}))

    def service_account_token(self, pod: dict[str, Any], audience: str = TOKEN_AUDIENCE) -> str:
        """The token that a kubelet would project into `pod`."""
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        return self.control_plane.service_account_token(
            namespace, account, audiences=(audience,), seconds=3600, pod=pod
        )

    def client(self, claim: str, namespace: str = TEAM) -> SigningClient:
        """A client of a claim with one connection; it has no token yet."""
        found = self.claim(claim, namespace)
        hsm = found["status"]["allocation"]["hsm"]["name"]
        data = self.control_plane.admin.read("v1", "Secret", found["status"]["binding"]["name"], namespace)["data"]
        secret = {key: base64.b64decode(value).decode() for key, value in data.items()}
        client = SigningClient(self.pool.address, int(secret["port"]), secret["ca.crt"], hsm, namespace, claim)
        self.clients.append(client)
        return client

    def close_clients(self) -> None:
        """Ends the connections of all clients made so far."""
        while self.clients:
            self.clients.pop().close()

    def signing_client(self, claim: str, pod: dict[str, Any], namespace: str = TEAM) -> SigningClient:
        """A client with a trust token. Until the gateway has heard that the pod lives, it is asked again."""
        client, token = self.client(claim, namespace), self.service_account_token(pod)
        exchange_when_known(client, token)
        return client


@contextmanager
def running(real: int, simulated: int = 0, *, capacity: int = 100, audit: bool = False) -> Iterator[Lab]:
    """A control plane, the operator, and a pool of attested hosts."""
    folder = throw_away_folder("chatelaine-lab-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        control_plane = stack.enter_context(ControlPlane(folder / "control-plane", audit=audit))
        install(control_plane)
        control_plane.create_namespace(GATEWAYS)
        control_plane.create_namespace(TEAM, TEAM_LABELS)
        operator = Operator(control_plane, folder / "operator")
        operator.start()
        pool = Pool(control_plane, operator, folder / "hosts")
        lab = Lab(control_plane, operator, pool)
        try:
            pool.apply_policy(TEAM_LABELS)
            pool.add([f"real-{n}" for n in range(real)], capacity=capacity)
            pool.add([f"simulated-{n}" for n in range(simulated)], simulated=True, capacity=capacity)
            pool.admit()
            yield lab
        finally:
            lab.close_clients()
            pool.stop()
            operator.stop()


def exchange_when_known(client: SigningClient, token: str, seconds: float = 15) -> dict[str, Any]:
    """Trades the token as soon as the gateway has heard of a new pod; returns the gateway's answer.

    Raises:
        Refusal: the gateway still refuses after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.exchange(token)
        except Refusal:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def claim(
    name: str, *, keys: int = 1, clients: bool = False, namespace: str = TEAM, **spec_fields: Any
) -> dict[str, Any]:
    """A claim on any Hsm of the laboratory; `spec_fields` are added to its spec."""
    spec: dict[str, Any] = {"selector": {"matchLabels": {"chatelaine.dev/zone": "lab"}}}
    if keys:
        spec["keys"] = [{"name": f"key-{n}", "type": "EcP256", "usages": ["Sign", "Verify"]} for n in range(keys)]
    if clients:
        spec["clients"] = [
            {
                "serviceAccount": name,
                "podSelector": {"matchLabels": {"app": name}},
                "keys": ["key-0"],
                "usages": ["Sign"],
            }
        ]
        spec["binding"] = {"secretName": name}
    return {
        "apiVersion": GROUP,
        "kind": "HsmClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**spec, **spec_fields},
    }
