"""What a kubelet does for the sidecar of a real Pod object: its volumes, its container's arguments, its process."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tools.control_plane.access import ClusterAccess

from support.sidecar import Sidecar, project

SIDECAR = "keys"


def container_of(pod_spec: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's container, whichever kind it is."""
    parts = [*pod_spec.get("initContainers", ()), *pod_spec["containers"]]
    return next(dict(part) for part in parts if part["name"] == SIDECAR)


class PodSidecar(Sidecar):
    """The sidecar container of `pod`, run here. `address` is what names of Services lead to: there is no DNS."""

    def __init__(self, cluster: ClusterAccess, pod: dict[str, Any], folder: Path, address: str) -> None:
        super().__init__(folder)
        self.cluster, self.pod, self.address = cluster, pod, address
        self.container = container_of(pod["spec"])
        # What the application's containers see as the folder of the socket.
        self.mounts = {mount["mountPath"]: self._volume(mount["name"]) for mount in self.container["volumeMounts"]}
        if any(argument.startswith("--listen=127.") for argument in self.container["args"]):
            self.listen = "127.0.0.1:0"

    def sync(self) -> None:
        """Bring every volume up to date, as the kubelet does from time to time."""
        metadata = self.pod["metadata"]
        for volume in self.pod["spec"]["volumes"]:
            if "secret" in volume:
                secret = self.cluster.admin.read("v1", "Secret", volume["secret"]["secretName"], metadata["namespace"])
                files = {name: base64.b64decode(value) for name, value in secret["data"].items()}
                project(self._volume(volume["name"]), {**files, "host": self.address})
            elif "projected" in volume:
                (source,) = volume["projected"]["sources"]
                wanted = source["serviceAccountToken"]
                token = self.cluster.service_account_token(
                    metadata["namespace"],
                    self.pod["spec"]["serviceAccountName"],
                    audiences=(wanted["audience"],),
                    seconds=wanted["expirationSeconds"],
                    pod=self.pod,
                )
                project(self._volume(volume["name"]), {wanted["path"]: token})

    @property
    def command(self) -> list[str]:
        """The container's own arguments, with its paths as they are on this machine and ports of our own."""
        ours = {"--metrics-listen=0.0.0.0:8081": "--metrics-listen=127.0.0.1:0", "--listen=127.0.0.1:8200": ""}
        arguments = [self._mapped(ours.get(argument, argument)) for argument in self.container["args"]]
        if not any("--token-file" in argument for argument in arguments):
            from chatelaine.proxy.settings import DEFAULT_TOKEN_FILE

            arguments.append(self._mapped(f"--token-file={DEFAULT_TOKEN_FILE}"))
        listen = [] if self.listen.startswith("unix:") else ["--listen", self.listen]
        return [*self.program, *[one for one in arguments if one], *listen, "--ready-file", str(self.ready)]

    def _mapped(self, argument: str) -> str:
        for path, folder in self.mounts.items():
            argument = argument.replace(path, str(folder))
        return argument

    def _volume(self, name: str) -> Path:
        return self.run if name == "socket" else self.folder / name
