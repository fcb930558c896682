"""What the tutorial runs on: a control plane, Chatelaine, and one HSM host that nobody has approved yet.

`python -m tools.docs.laboratory` starts it and keeps it until Ctrl-C. Another terminal reads `build/tutorial/env.sh`,
and has `kubectl`, `chatelaine` and `lab` then. `lab ORDER` asks this process to do what a machine or a kubelet does:

    pod      runs the application's pod: its Pod object, what the kubelet mounts, and the sidecar of its container
    tamper   measures something into the host's TPM that nobody approved
    reboot   resets the host's TPM and boots it cleanly, as after a repair
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from tools.control_plane import build
from tools.control_plane.embedded import ControlPlane, exit_on_signals
from tools.control_plane.processes import Child
from tools.lab.folder import throw_away_folder
from tools.lab.installation import NAMESPACE, ROOT, Operator, install
from tools.lab.objects import wait_condition
from tools.lab.pool import GATEWAYS, Pool
from tools.lab.workload import create_pod

TUTORIAL: Final = ROOT / "build" / "tutorial"
HOST: Final = "hsm-a"
TEAM: Final = "payments"
APPLICATION: Final = "checkout"
ANSWER_BYTES: Final = 4096

ENVIRONMENT: Final = """\
# Read by `source` in the terminal in which you follow the tutorial.
export KUBECONFIG="{kubeconfig}"
export PATH="{programs}:{kubectl}:$PATH"
lab() {{ (cd "{root}" && "{python}" -m tools.docs.laboratory --folder "{folder}" "$@"); }}
# In a cluster: kubectl exec -i -n {namespace} deploy/chatelaine-operator -- chatelaine "$@"
chatelaine_in_pod() {{ chatelaine "$@" --state-dir "{state}" --kubeconfig "{operator}"; }}
# In a cluster: kubectl exec in the application's container.
ask_keys() {{ curl --silent --show-error --fail-with-body --unix-socket "{keys}" "$@"; }}
"""


class Laboratory:
    """Everything that runs, in a folder of its own; `folder` is where the reader's terminal finds it."""

    def __init__(self, folder: Path, scratch: Path, stack: ExitStack) -> None:
        self.folder, self.scratch = folder, scratch
        self.plane = stack.enter_context(ControlPlane(scratch / "control-plane"))
        install(self.plane)
        for namespace in (GATEWAYS, TEAM):
            self.plane.create_namespace(namespace)
        self.operator = Operator(self.plane, scratch / "operator")
        stack.callback(self.operator.stop)
        self.operator.start()
        self.pool = Pool(self.plane, self.operator, scratch / "hosts", policy="hsm-baseline")
        stack.callback(self.pool.stop)
        self.pool.add([HOST])
        self.sidecar: Child | None = None
        stack.callback(self._stop_pod)

    @property
    def keys(self) -> Path:
        """The socket of the pod's sidecar."""
        return self.scratch / "keys.sock"

    def wait(self) -> None:
        """Until the host has shown who it is."""
        wait_condition(partial(self.pool.hsm, HOST), "Enrolled", "False", reason="AwaitingApproval")

    def write_environment(self) -> Path:
        """For the reader's terminal."""
        path = self.folder / "env.sh"
        path.write_text(
            ENVIRONMENT.format(
                kubeconfig=self.plane.kubeconfig, programs=Path(sys.executable).parent, root=ROOT,
                kubectl=build.require("kubectl").parent, python=sys.executable, folder=self.folder, keys=self.keys,
                namespace=NAMESPACE, state=self.operator.state, operator=self.operator.kubeconfig,
            )
        )  # fmt: skip
        return path

    def serve(self, listener: socket.socket) -> None:
        """Do what the reader's terminal asks for, one order after the other."""
        orders: dict[str, Callable[[], str]] = {"pod": self.pod, "tamper": self.tamper, "reboot": self.reboot}
        while True:
            connection, _ = listener.accept()
            with connection:
                order = connection.recv(ANSWER_BYTES).decode()
                connection.sendall(orders[order]().encode())

    def tamper(self) -> str:
        """Extend PCR 4, in which the firmware measures boot loaders."""
        self.pool.hosts[HOST].tamper()
        return f"{HOST}: something was measured into PCR 4"

    def reboot(self) -> str:
        """A clean boot; the processes of the host go and come with it."""
        self.pool.hosts[HOST].restart()
        return f"{HOST} has booted cleanly"

    def pod(self) -> str:
        """What a kubelet would do with a pod of the application."""
        self._stop_pod()
        pod = create_pod(self.plane, TEAM, f"{APPLICATION}-1", APPLICATION, {"app": APPLICATION})
        token = self.plane.service_account_token(TEAM, APPLICATION, audiences=("chatelaine.dev",), pod=pod)
        home = self.scratch / "pod"
        binding = home / "binding"
        binding.mkdir(parents=True, mode=0o700)
        for name, value in self.plane.admin.read("v1", "Secret", f"{APPLICATION}-hsm", TEAM)["data"].items():
            (binding / name).write_bytes(base64.b64decode(value))
        # There is no DNS of a cluster here: the Service's name is what a lookup of it would give.
        (binding / "host").write_text(self.pool.address)
        (home / "token").write_text(token)
        ready = home / "ready"
        command = [
            sys.executable, "-m", "chatelaine.cli.main", "proxy", "--binding", str(binding),
            "--token-file", str(home / "token"), "--listen", f"unix:{self.keys}", "--ready-file", str(ready),
        ]  # fmt: skip
        self.sidecar = Child("sidecar", command, home / "log", environment=dict(os.environ))
        self.sidecar.wait_ready(ready.exists, seconds=60)
        return f"pod {TEAM}/{APPLICATION}-1 runs; its sidecar listens"

    def _stop_pod(self) -> None:
        if self.sidecar is not None:
            self.sidecar.stop()
            self.sidecar = None


def start(folder: Path) -> None:
    """Run it until somebody ends this process."""
    exit_on_signals()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = folder / "orders.sock"
    place.unlink(missing_ok=True)
    with ExitStack() as stack:
        scratch = throw_away_folder("chatelaine-tutorial-")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        print("starting a control plane, Chatelaine and one HSM host; this takes half a minute", flush=True)
        laboratory = Laboratory(folder, scratch, stack)
        laboratory.wait()
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(place))
        listener.listen()
        stack.callback(place.unlink, missing_ok=True)
        print(f"ready; Ctrl-C ends it. In another terminal: source {laboratory.write_environment()}", flush=True)
        laboratory.serve(listener)


def order(folder: Path, what: str) -> str:
    """Ask the running laboratory for something; what it says.

    Raises:
        OSError: none is running there.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "orders.sock"))
        connection.sendall(what.encode())
        return connection.recv(ANSWER_BYTES).decode()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.laboratory", description="What the tutorial runs on.")
    parser.add_argument("--folder", type=Path, default=TUTORIAL, help="where the other terminal finds it")
    parser.add_argument("order", nargs="?", choices=("pod", "tamper", "reboot"), help="for one that runs already")
    asked = parser.parse_args()
    if asked.order is None:
        start(asked.folder)
        return 0
    try:
        said = order(asked.folder, asked.order)
    except OSError as error:
        print(f"no laboratory is running in {asked.folder} ({error}); start one: make tutorial", file=sys.stderr)
        return 1
    print(said or "that went wrong; the terminal of the laboratory says why")
    return 0 if said else 1


if __name__ == "__main__":
    sys.exit(main())
