"""The embedded control plane itself: what tests and the demo lean on."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError
from tools.control_plane.embedded import ISSUER, ControlPlane
from tools.control_plane.processes import Child, StartError, free_port, wait_until

from support.control_plane import ROOT, shared_control_plane

NAMESPACES = "/api/v1/namespaces"


def service_account(name: str, namespace: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def claims_of(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def gone(pid: int) -> Callable[[], bool]:
    """Has the process ended? One that nobody has waited for yet counts as ended."""

    def check() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return check


def test_service_accounts_have_their_own_roles_only(control_plane: ClusterAccess, namespace: str) -> None:
    control_plane.admin.create(service_account("plain", namespace))
    plain = control_plane.as_service_account(namespace, "plain")
    with pytest.raises(ApiError, match="cannot list resource") as refusal:
        plain.get(f"{NAMESPACES}/{namespace}/secrets")
    assert refusal.value.status == 403


def test_tokens_carry_audience_and_pod_and_verify_by_the_published_keys(
    control_plane: ClusterAccess, namespace: str
) -> None:
    containers = [{"name": "main", "image": "none"}]
    pod = control_plane.admin.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": namespace},
            "spec": {"containers": containers, "serviceAccountName": "default"},
        }
    )
    token = control_plane.service_account_token(namespace, "default", audiences=("chatelaine.dev",), pod=pod)
    claims = claims_of(token)
    assert (claims["aud"], claims["iss"]) == (["chatelaine.dev"], ISSUER)
    assert claims["kubernetes.io"]["pod"] == {"name": "client", "uid": pod["metadata"]["uid"]}
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    keys = control_plane.admin.get("/openid/v1/jwks")["keys"]
    assert header["kid"] in {key["kid"] for key in keys}


def test_a_kubeconfig_of_a_service_account_stands_alone(
    control_plane: ClusterAccess, namespace: str, tmp_path: Path
) -> None:
    file = control_plane.service_account_kubeconfig(namespace, "default", tmp_path / "kubeconfig")
    assert file.stat().st_mode & 0o777 == 0o600
    assert control_plane.kubectl("--kubeconfig", str(file), "auth", "whoami", "-o=json").count(namespace) >= 1


def test_owned_objects_are_garbage_collected(control_plane: ClusterAccess, namespace: str) -> None:
    owner = control_plane.admin.create(service_account("owner", namespace))
    reference = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "namespace": namespace, "ownerReferences": [reference]},
    }
    control_plane.admin.create(owned)
    control_plane.admin.delete(owner)

    def collected() -> bool:
        try:
            control_plane.admin.get(control_plane.admin.path_of(owned))
        except ApiError as error:
            return error.status == 404
        return False

    wait_until(collected, "garbage collection", seconds=180)


def test_the_api_server_goes_away_and_comes_back_with_its_data(own_control_plane: ControlPlane) -> None:
    plane = own_control_plane
    plane.create_namespace("kept")
    server, before = plane.server, plane.pids()
    plane.stop_api()
    assert "kube-apiserver" not in plane.pids()
    with pytest.raises(ConnectionRefusedError):
        plane.admin.get(NAMESPACES)
    plane.start_api()
    assert plane.server == server
    assert plane.admin.get(f"{NAMESPACES}/kept")["metadata"]["name"] == "kept"
    # The others lived through the outage, and work again.
    assert {name: pid for name, pid in plane.pids().items() if name != "kube-apiserver"} == {
        name: pid for name, pid in before.items() if name != "kube-apiserver"
    }
    plane.create_namespace("after")


def start(directory: Path, *arguments: str) -> tuple[subprocess.Popen[str], ClusterAccess]:
    command = [sys.executable, "-m", "tools.control_plane.start", "--directory", str(directory), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(directory / "admin.kubeconfig")
    process.stdout.close()
    return process, ClusterAccess(directory)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_is_left_however_the_command_ends(tmp_path: Path, how: signal.Signals) -> None:
    process, access = start(tmp_path / "plane")
    running = children(process.pid)
    assert len(running) == 3
    assert access.admin.raw("GET", "/readyz")[0] == 200
    os.kill(process.pid, how)
    process.wait(timeout=180)
    for pid in running:
        wait_until(gone(pid), f"the end of process {pid}", seconds=30)


def test_users_share_one_control_plane_and_the_last_one_out_stops_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from support.control_plane import shared_control_plane\n"
        "with shared_control_plane(Path(sys.argv[1])) as access:\n"
        "    print(access.server, flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}"}
    users = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    servers = {user.stdout.readline() for user in users if user.stdout}
    assert len(servers) == 1
    # The one that started it waits for its end; that one dies.
    starter, other = sorted(users, key=lambda user: not children(user.pid))
    with shared_control_plane(tmp_path) as access:
        assert f"{access.server}\n" in servers
        starter.kill()
        for user in (other, starter):
            user.communicate(timeout=180)
        assert access.admin.raw("GET", "/readyz")[0] == 200
        admin = access.admin

    def stopped() -> bool:
        try:
            admin.raw("GET", "/readyz")
        except OSError:
            return True
        return False

    wait_until(stopped, "the shared control plane to stop", seconds=180)


def test_a_process_that_ends_early_shows_its_last_words(tmp_path: Path) -> None:
    child = Child("broken", ["sh", "-c", "echo it is broken; exit 3"], tmp_path / "log")
    with pytest.raises(StartError, match=r"broken ended with status 3(.|\n)*it is broken"):
        child.wait_ready(lambda: False, seconds=30)


def test_a_process_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    child = Child("idle", ["sleep", "600"], tmp_path / "log")
    with pytest.raises(StartError, match="idle ready: not within 0 s"):
        child.wait_ready(lambda: False, seconds=0)
    child.stop()


def test_free_ports_are_below_those_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free_port() < first
