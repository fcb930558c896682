"""The stage: control plane, three HSM hosts, the operator, and what a person or a workload does on it."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tools.control_plane.embedded import ControlPlane
from tools.control_plane.processes import StartError
from tools.lab.host import HsmHost, Ports
from tools.lab.installation import ROOT, Operator, install
from tools.lab.network import machine_address
from tools.lab.objects import GROUP, publish_gateway
from tools.lab.workload import SigningClient, create_pod

EXAMPLES = ROOT / "examples" / "quickstart"
HOSTS = ("hsm-a", "hsm-b", "hsm-c")


class Stage:
    """Everything that runs during the demo."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = machine_address()
        self.control_plane = ControlPlane(directory / "control-plane")
        self.hosts: dict[str, HsmHost] = {}
        self.operator: Operator | None = None
        self.policy_file = directory / "policy.yaml"
        self._pods = 0

    def start_control_plane(self) -> None:
        """etcd, kube-apiserver, kube-controller-manager."""
        self.control_plane.start()

    def start_hosts(self) -> None:
        """Three hosts: token, TPM, a measured boot. Nobody knows them yet."""
        for manifest in yaml.safe_load_all((EXAMPLES / "hsms.yaml").read_text()):
            spec = manifest["spec"]
            ports = Ports(
                spec["agent"]["host"], spec["agent"]["port"], self.address, spec["gateway"]["service"]["podPort"]
            )
            name = manifest["metadata"]["name"]
            self.hosts[name] = HsmHost(name, self.directory / name, ports)
            self.hosts[name].power_on()

    def install(self) -> None:
        """The chart, and the operator under the chart's own ServiceAccount."""
        install(self.control_plane)
        self.operator = Operator(self.control_plane, self.directory / "operator")
        self.operator.start()

    def apply(self, file: str) -> None:
        """Kubectl apply of one file of the quickstart."""
        self.control_plane.kubectl("apply", "-f", str(EXAMPLES / file))

    def capture_policy(self) -> tuple[str, str]:
        """`chatelaine policy capture` of all hosts, as in the operator's pod: the manifest, and the report."""
        return self._policy("capture", *HOSTS, "--base", str(EXAMPLES / "rules.yaml"))

    def try_policy(self, manifest: str) -> str:
        """`chatelaine policy diff --live`: what would become of the hosts."""
        self.policy_file.write_text(manifest)
        return self._policy("diff", "--live", str(self.policy_file))[0]

    def _policy(self, *arguments: str) -> tuple[str, str]:
        assert self.operator is not None
        done = self.operator.policy(*arguments)
        if done.returncode:
            raise StartError(
                f"chatelaine policy {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout, done.stderr

    def publish_gateways(self) -> None:
        """Pod, Service and EndpointSlice of each gateway."""
        for name, host in self.hosts.items():
            service = name.replace("hsm", "gateway")
            publish_gateway(self.control_plane, "hsm-system", service, self.address, host.ports.gateway)

    def hsm(self, name: str) -> dict[str, Any]:
        """The Hsm object now."""
        return self.control_plane.admin.read(GROUP, "Hsm", name)

    def claim(self, name: str) -> dict[str, Any]:
        """The claim now."""
        return self.control_plane.admin.read(GROUP, "HsmClaim", name, "payments")

    def client(self, claim: str) -> tuple[SigningClient, str]:
        """A new client pod of a claim: service account, Pod object, projected token; and a client for it."""
        hsm = self.claim(claim)["status"]["allocation"]["hsm"]["name"]
        self._pods += 1
        pod = create_pod(self.control_plane, "payments", f"{claim}-{self._pods}", claim, {"app": claim})
        token = self.control_plane.service_account_token(
            "payments", claim, audiences=("chatelaine.dev",), seconds=600, pod=pod
        )
        secret = self.binding(claim)
        # The Secret names the Service; without a cluster's DNS the address of its EndpointSlice is dialled instead.
        client = SigningClient(self.address, int(secret["port"]), secret["ca.crt"], hsm, "payments", claim)
        return client, token

    def binding(self, claim: str) -> dict[str, str]:
        """The binding Secret as a pod sees it mounted."""
        name = self.claim(claim)["status"]["binding"]["name"]
        data = self.control_plane.admin.read("v1", "Secret", name, "payments")["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def openssl_verifies(self, claim: str, key: str, message: bytes, signature: bytes) -> str:
        """Openssl's own words on the signature, with the public key that the claim's status shows."""
        keys = {entry["name"]: entry for entry in self.claim(claim)["status"]["keys"]}
        public = next(v["publicKey"] for v in keys[key]["versions"] if v["state"] == "Active")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            (path / "public.pem").write_text(public)
            (path / "message").write_bytes(message)
            (path / "signature").write_bytes(signature)
            done = subprocess.run(
                ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"],
                cwd=path, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
        if done.returncode:
            raise StartError(f"openssl does not verify the signature: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def network_policies(self, claim: str) -> list[str]:
        """Names of the NetworkPolicies that belong to this claim, in all namespaces."""
        uid = self.claim(claim)["metadata"]["uid"]
        path = f"/apis/networking.k8s.io/v1/networkpolicies?labelSelector=chatelaine.dev%2Fclaim-uid%3D{uid}"
        items = self.control_plane.admin.get(path)["items"]
        return [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items]

    def events(self, kind: str, name: str) -> list[str]:
        """Events about one object, as `Reason: note`."""
        items = self.control_plane.admin.get("/apis/events.k8s.io/v1/events")["items"]
        return [
            f"{item['reason']}: {item.get('note', '')}"
            for item in items
            if item["regarding"].get("kind") == kind and item["regarding"].get("name") == name
        ]

    def stop(self) -> None:
        """Ends everything, in the order in which it came up, backwards."""
        if self.operator is not None:
            self.operator.stop()
        for host in self.hosts.values():
            host.stop()
        self.control_plane.stop()
