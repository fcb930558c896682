"""A cluster ends without a trace: no process, no mount, no link, no cgroup; however its owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tools.cluster import cgroups, sandbox
from tools.cluster.cluster import Cluster
from tools.cluster.sandbox import Sandbox
from tools.control_plane.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, signal
from pathlib import Path
from tools.cluster.sandbox import Sandbox
one = Sandbox("node", Path(sys.argv[1]))
one.start()
print(one.cgroup.name, flush=True)
signal.pause()
"""
SECONDS = 60.0


def traces(name: str, folder: Path) -> list[str]:
    """All that is left of the sandbox with the cgroup `name`."""
    left = [str(path) for path in cgroups.sandboxes() if path.name == name]
    left += [link for link, alias in sandbox.links().items() if alias == name]
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    return left + [line for line in processes() if str(folder) in line]


def living(pids: set[int]) -> set[int]:
    """Those of `pids` that exist; one that has ended exists until its parent, the machine's first process, reaps it."""
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def processes() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if path.parent.name != str(os.getpid()):
            lines.append(words)
    return lines


def test_a_cluster_that_is_stopped_leaves_no_trace(folder: Path) -> None:
    with Cluster(folder) as cluster:
        name = cluster.kubectl("get", "pods", "--namespace=kube-system", "--output=name")
        assert "coredns" in name
        group = cluster.sandbox.cgroup.name
        assert traces(group, folder)
        inside = {pid for path in cgroups.sandboxes() if path.name == group for pid in cgroups.processes_in(path)}
        assert len(inside) > 10
    assert traces(group, folder) == []
    wait_until(lambda: not living(inside), "every process has ended", seconds=SECONDS)
    assert not (folder / "lib").exists()


def test_when_its_owner_is_killed_every_process_ends_and_the_next_start_clears_the_rest(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        inside = {pid for path in cgroups.sandboxes() if path.name == name for pid in cgroups.processes_in(path)}
        assert inside
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not living(inside), "every process has ended", seconds=SECONDS)
    sandbox.remove_leftovers()
    assert traces(name, folder) == []


def test_leftovers_of_owners_who_live_are_left_alone(folder: Path) -> None:
    one = Sandbox("node", folder)
    one.start()
    try:
        sandbox.remove_leftovers()
        assert one.run("hostname").strip() == "node"
    finally:
        one.stop()
    assert traces(one.cgroup.name, folder) == []


def test_two_sandboxes_see_neither_each_other_nor_the_machine(tmp_path: Path) -> None:
    first, second = Sandbox("first", tmp_path / "first"), Sandbox("second", tmp_path / "second")
    try:
        first.start()
        second.start()
        assert first.address != second.address
        assert first.run("cat", "/proc/1/cmdline").count("second") == 0
        # This very command and process 1: the machine's processes are not seen.
        assert len(first.run("sh", "-c", "ls -d /proc/[0-9]*").split()) < 5
        assert first.run("ls", "/run").split() == []
    finally:
        second.stop()
        first.stop()
