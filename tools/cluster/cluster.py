"""A whole cluster of one node in a folder: control plane, kubelet, containerd, DNS, Services, NetworkPolicies.

All its processes run in one sandbox, which is what makes it end without a trace: `tools.cluster.sandbox`. Names of
images are resolved among those that were loaded; nothing is ever pulled.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.cluster import control_plane, images, node
from tools.cluster.layout import NODE, SERVICE_NETWORK, Layout
from tools.cluster.requirements import COMMANDS, ensure_commands, require_root
from tools.cluster.sandbox import Sandbox, remove_leftovers
from tools.control_plane import build
from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError
from tools.control_plane.processes import Child, StartError, wait_until

MANIFESTS = Path(__file__).resolve().parent / "manifests"
BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
    "pause",
    "coredns",
)
READY_SECONDS = 180.0
"""Longer than any start on a busy machine."""


class Cluster(ClusterAccess):
    """Starts and stops its processes; use it as a context manager.

    Args:
        directory: emptied at the start; gets keys, data, logs and kubeconfigs. What is heavy in it (data, containers)
            is gone after `stop`; keys and logs stay.
        archives: images to load, as `tools.image` writes them, besides those that the node itself needs.

    Raises:
        MissingError: (by `start`) this machine cannot run it.
        BuildError: (by `start`) a binary could not be built.
        StartError: (by `start`) a process ended or was not ready in time.
    """

    def __init__(self, directory: Path, *, archives: tuple[Path, ...] = ()) -> None:
        super().__init__(directory.absolute())
        self._archives = archives
        self._sandbox = Sandbox(NODE, self.directory)
        self._layout = Layout(self.directory)
        self._children: dict[str, Child] = {}

    def start(self) -> Self:
        """Starts everything and returns when the node is Ready and names are answered.

        Removes first what a cluster left whose process was killed.
        """
        require_root("a cluster with a node")
        ensure_commands(COMMANDS)
        build.ensure(BINARIES)
        remove_leftovers()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        atexit.register(self.stop)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything. May be called at any time, and again."""
        self._sandbox.stop()
        for child in self._children.values():
            child.stop(hard=True)
        self._children.clear()
        self.__dict__.pop("admin", None)
        for heavy in ("etcd", "lib"):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.directory / heavy)
        atexit.unregister(self.stop)

    @property
    def sandbox(self) -> Sandbox:
        """What all of it runs in."""
        return self._sandbox

    def load_image(self, archive: Path) -> None:
        """Makes the images of an OCI archive known to the node.

        Raises:
            StartError: containerd refused; the message holds what it said.
        """
        self._sandbox.run(*node.ctr("images", "import", archive))

    def run_on_node(self, *command: str | Path) -> str:
        """Standard output of a command among the node's processes, mounts and interfaces.

        Raises:
            StartError: it failed; the message holds what it said.
        """
        return self._sandbox.run(*command)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self._sandbox.start()
        self._layout = layout = Layout(self.directory, self._sandbox.address)
        # Calls of processes on the node to Services, which the node's own rules then send where they belong.
        self._sandbox.run("ip", "route", "add", SERVICE_NETWORK, "via", self._sandbox.outside)
        layout.write_keys()
        node.write_configuration(layout)
        # The API server waits for etcd by itself, and images are loaded meanwhile.
        self._child("etcd", control_plane.etcd(layout))
        api = self._child("apiserver", control_plane.api_server(layout))
        runtime = self._child("containerd", node.containerd(layout))
        runtime.wait_ready(self._runtime_answers, seconds=READY_SECONDS)
        for archive in (*images.archives(), *self._archives):
            self.load_image(archive)
        api.wait_ready(self._api_is_ready, seconds=READY_SECONDS)
        self._child("controllers", control_plane.controllers(layout))
        self._child("scheduler", control_plane.scheduler(layout))
        self._child("proxy", node.proxy(layout))
        kubelet = self._child("kubelet", node.kubelet(layout))
        self.kubectl("apply", "--filename", str(MANIFESTS))
        policies = self._child("policies", node.policies(layout))
        policies.wait_ready(lambda: policies.log.stat().st_size > 0, seconds=READY_SECONDS)
        kubelet.wait_ready(self._node_is_ready, seconds=READY_SECONDS)
        self._wait_for_names()

    def _child(self, name: str, command: list[str | Path]) -> Child:
        child = self._children[name] = Child(name, self._sandbox.command(*command), self._layout.log(name))
        return child

    def _check(self) -> None:
        for child in self._children.values():
            child.check()

    def _runtime_answers(self) -> bool:
        with contextlib.suppress(StartError):
            self._sandbox.run(*node.ctr("version"))
            return True
        return False

    def _api_is_ready(self) -> bool:
        self._check()
        try:
            status, _ = self.admin.raw("GET", "/readyz")
        except OSError:
            return False
        return status == 200

    def _node_is_ready(self) -> bool:
        self._check()
        try:
            found = self.admin.read("v1", "Node", NODE)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        conditions = {condition["type"]: condition["status"] for condition in found["status"].get("conditions", ())}
        return conditions.get("Ready") == "True"

    def _wait_for_names(self) -> None:
        def answered() -> bool:
            self._check()
            deployment = self.admin.read("apps/v1", "Deployment", "coredns", "kube-system")
            return bool(deployment.get("status", {}).get("readyReplicas"))

        wait_until(answered, "the cluster's DNS", seconds=READY_SECONDS)
