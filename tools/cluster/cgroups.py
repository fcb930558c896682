"""The cgroup of a sandbox: all its processes are in it, so it can be emptied whoever started them.

The folder's name holds the process that owns the sandbox (its id and when it started), which tells a sandbox in use
from one whose owner was killed. Both layouts are known: one hierarchy for all controllers (version 2), or a hierarchy
for each (version 1; there the few controllers that a version 2 hierarchy beside them may have are not used).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tools.control_plane.processes import wait_until

PREFIX = "chatelaine-sandbox"
_NAME = re.compile(rf"{PREFIX}-(?P<pid>\d+)-(?P<started>\d+)-\d+")
_CONTROLLERS = frozenset(
    (
        *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"),
        *("memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"),
    )
)
"""Of version 1; other words among a mount's options are not controllers."""

_LEAF = "node"
_EMPTY_SECONDS = 20.0
_DEPTH = 6
"""How far below a hierarchy's root sandboxes of others are looked for."""


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    point: Path
    """Where it is mounted."""
    own: Path
    """The folder of this process in it."""
    controllers: str
    """As `mount` and /proc/self/cgroup name them, such as `cpu,cpuacct`; empty for version 2."""

    @property
    def options(self) -> str:
        """Mount options that give the same hierarchy again."""
        return f"none,{self.controllers}" if self.controllers.startswith("name=") else self.controllers


def hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies to use, as this process sees them: version 1 where there is any, else version 2."""
    return parsed(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())


def parsed(own: str, mounts: str) -> tuple[Hierarchy, ...]:
    """The hierarchies to use, from the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    mounted = dict(_mounted(mounts))
    found = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if (point := mounted.get(controllers)) is not None:
            found.append(Hierarchy(point, point / path.strip("/"), controllers))
    return tuple(one for one in found if one.controllers) or tuple(found)


class Cgroup:
    """A cgroup of the same name in every hierarchy.

    In version 1 it is made below that of this process, whose limits go on to hold. In version 2 only folders without
    processes may hand controllers down, so it is made at the root.
    """

    def __init__(self, number: int) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{_start_of(os.getpid())}-{number}"
        self.hierarchies = hierarchies()
        self.folders = tuple((one.own if one.controllers else one.point) / self.name for one in self.hierarchies)

    def create(self) -> None:
        """Makes the folders.

        Raises:
            OSError: cgroups may not be made here.
        """
        for hierarchy, folder in zip(self.hierarchies, self.folders, strict=True):
            folder.mkdir()
            if "cpuset" in hierarchy.controllers.split(","):
                # A new set is empty, and nothing can run in an empty one.
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (folder / file).write_text((folder.parent / file).read_text())

    @property
    def joined(self) -> tuple[Path, ...]:
        """Folders that a process of the sandbox joins."""
        leaves = tuple(folder / _LEAF for folder in self.folders)
        return leaves if all(leaf.exists() for leaf in leaves) else self.folders

    def hand_down(self) -> None:
        """Lets folders be made below, once the sandbox' first process runs in a cgroup namespace.

        Version 2 wants a folder with folders below to have no process of its own: those that run move into a leaf.
        """
        for hierarchy, folder in zip(self.hierarchies, self.folders, strict=True):
            if hierarchy.controllers:
                continue
            (folder / _LEAF).mkdir()
            for pid in (folder / "cgroup.procs").read_text().split():
                (folder / _LEAF / "cgroup.procs").write_text(pid)
            for controller in (folder / "cgroup.controllers").read_text().split():
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")

    def remove(self) -> None:
        """Kills what is in it and takes the folders away. May be called again."""
        for folder in self.folders:
            _remove(folder)


def remove_leftovers() -> list[str]:
    """Removes cgroups of sandboxes whose owner is gone, and kills what is in them; their names."""
    removed = set()
    for hierarchy in hierarchies():
        for folder in _folders(hierarchy.point):
            if not is_owned(folder.name):
                _remove(folder)
                removed.add(folder.name)
    return sorted(removed)


def is_owned(name: str) -> bool:
    """Is the process that made the cgroup of this name still there? A name that tells no process has an owner."""
    found = _NAME.fullmatch(name)
    return found is None or _start_of(int(found["pid"])) == found["started"]


def sandboxes() -> list[Path]:
    """Folders of every sandbox there is, in use or not."""
    return [folder for one in hierarchies() for folder in _folders(one.point)]


def processes_in(folder: Path) -> Iterator[int]:
    """Process ids in a cgroup and all below it."""
    for file in folder.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            # A process of another PID namespace that this one cannot see is written as 0.
            yield from (pid for line in file.read_text().split() if (pid := int(line)))


def _folders(root: Path) -> Iterator[Path]:
    pattern = f"{PREFIX}-*"
    for depth in range(_DEPTH):
        yield from root.glob("*/" * depth + pattern)


def _remove(folder: Path) -> None:
    def emptied() -> bool:
        pids = list(processes_in(folder))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not folder.exists():
        return
    wait_until(emptied, f"no process in {folder}", seconds=_EMPTY_SECONDS)
    wait_until(lambda: _without(folder), f"{folder} removed", seconds=_EMPTY_SECONDS)


def _without(folder: Path) -> bool:
    """Is the tree gone? A folder whose last process has just ended can be busy for a moment."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def _mounted(mounts: str) -> Iterator[tuple[str, Path]]:
    """Controllers and mount point of each hierarchy."""
    for line in mounts.splitlines():
        before, after = line.split(" - ", 1)
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" and root == "/":
            yield "", Path(point)
        elif kind == "cgroup" and root == "/":
            words = [word for word in options.split(",") if _is_controller(word)]
            yield ",".join(words), Path(point)


def _is_controller(word: str) -> bool:
    return word.startswith("name=") or word in _CONTROLLERS


def _start_of(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        return ""
