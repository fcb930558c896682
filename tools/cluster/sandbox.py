"""A sandbox on this machine: own processes, mounts, network, host name and cgroups, joined to it by one pair of veths.

All of it hangs on one process: the kernel ends every process of a PID namespace with its first one, and takes mounts
and interfaces away with the last process that uses their namespace. That first process dies with `unshare`, which dies
with the thread that started the sandbox if that is the main thread. What can stay behind when the owner is killed are
the cgroup and, while connections are being closed, the link; `remove_leftovers` finds both by the owner in their names.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.cluster import cgroups, init
from tools.cluster.cgroups import Cgroup
from tools.control_plane.processes import Child, StartError

NAMESPACES = ("mount", "net", "uts", "ipc", "pid", "cgroup")
LINKS = ipaddress.ip_network("10.251.0.0/16")
"""Addresses of the links between this machine and its sandboxes: each gets four of them, two of which can be used."""

HIDDEN = ("/run", "/sys", "/proc", "/var/log", "/var/lib")
"""What stands there is not seen in a sandbox."""

_LINK = "chatelaine"
_START_SECONDS = 20.0
_ENTER = 'for folder in $1; do echo 0 > "$folder/cgroup.procs" || exit 1; done; shift; exec "$@"'
_numbers = itertools.count(1)


class Sandbox:
    """Made by `start`, gone after `stop`.

    Args:
        name: host name in it.
        folder: absolute; gets the log, and `lib` and `log` for what is written to /var/lib and /var/log.

    Raises:
        ValueError: the folder would not be seen in the sandbox.
    """

    def __init__(self, name: str, folder: Path) -> None:
        if any(folder.is_relative_to(hidden) for hidden in HIDDEN):
            raise ValueError(f"{folder} would not be seen in a sandbox; choose one that is not below {HIDDEN}")
        self.name = name
        self.folder = folder
        self.cgroup = Cgroup(next(_numbers))
        self.address = ""
        """IPv4 address of the sandbox on the link."""
        self.outside = ""
        """IPv4 address of this machine on the link."""
        self.interface = ""
        """This machine's end of the link."""
        self._unshare: Child | None = None
        self._first = 0

    @property
    def first_process(self) -> int:
        """Process id, on this machine, of the sandbox' first process."""
        return self._first

    def start(self) -> None:
        """Makes it.

        Raises:
            StartError: a step failed; the message holds what was said.
            OSError: cgroups may not be made here.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self.cgroup.create()
            self._start_first_process()
            self.cgroup.hand_down()
            self._link()
        except (OSError, StartError):
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process in it; nothing of it is left but files. May be called again."""
        # The cgroup first: ended from within, processes of the sandbox cannot start others.
        self.cgroup.remove()
        if self._unshare is not None:
            self._unshare.stop(hard=True)
            self._unshare = None
        # It would go by itself, but only when the kernel has given up the last connection.
        _remove_links(lambda alias: alias == self.cgroup.name)
        self._first = 0

    def command(self, *command: str | Path) -> list[str | Path]:
        """The command line that runs `command` in the sandbox; it ends when who started it ends it."""
        return [
            *self._joining(),
            "nsenter",
            f"--target={self._first}",
            *(f"--{name}" for name in NAMESPACES),
            f"--wd={self.folder}",
            "--",
            # `nsenter` forks to get into the PID namespace, and hands no signal on.
            "setpriv",
            "--pdeathsig=KILL",
            "--",
            *command,
        ]

    def run(self, *command: str | Path, stdin: str | None = None, seconds: float = 120) -> str:
        """Standard output of a command in the sandbox.

        Raises:
            StartError: it failed; the message holds what it said.
        """
        return _run(*self.command(*command), stdin=stdin, seconds=seconds)

    def _joining(self) -> list[str | Path]:
        return ["sh", "-c", _ENTER, "sh", " ".join(str(folder) for folder in self.cgroup.joined)]

    def _start_first_process(self) -> None:
        log = self.folder / "sandbox.log"
        log.unlink(missing_ok=True)
        options = [one.options for one in self.cgroup.hierarchies]
        command: list[str | Path] = [
            *self._joining(),
            "unshare",
            *(f"--{name}" for name in NAMESPACES),
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=private",
            *[sys.executable, "-I", "-S", init.__file__, self.name, str(self.folder), *options],
        ]
        self._unshare = Child("sandbox", command, log)
        self._unshare.wait_ready(lambda: init.READY in log.read_text().splitlines(), seconds=_START_SECONDS)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self._first = int(children[0])

    def _link(self) -> None:
        """Joins the sandbox to this machine: no route out of it, and no name service."""
        for subnet in LINKS.subnets(new_prefix=30):
            outside, inside = subnet.hosts()
            self.interface = f"{_LINK}{int(outside) & 0xFFFF:x}"
            if _is_free(self.interface) and self._make_link(f"{outside}/{subnet.prefixlen}"):
                break
        else:
            raise StartError(f"no addresses left in {LINKS} for the link to a sandbox")
        self.address, self.outside = str(inside), str(outside)
        self.run("ip", "address", "add", f"{inside}/{subnet.prefixlen}", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def _make_link(self, address: str) -> bool:
        """Was it made? Two that start at once can choose the same name; then the second takes another."""
        try:
            _run("ip", "link", "add", self.interface, "type", "veth", "peer", "eth0", "netns", str(self._first))
        except StartError:
            if not _is_free(self.interface):
                return False
            raise
        _run("ip", "link", "set", self.interface, "alias", self.cgroup.name)
        _run("ip", "address", "add", address, "dev", self.interface)
        _run("ip", "link", "set", self.interface, "up")
        return True


def remove_leftovers() -> None:
    """Removes what is left of sandboxes whose owner is gone, with every process that is still in one."""
    cgroups.remove_leftovers()
    _remove_links(lambda alias: alias.startswith(cgroups.PREFIX) and not cgroups.is_owned(alias))


def links() -> dict[str, str]:
    """This machine's ends of links to sandboxes, and the name of the cgroup that each belongs to."""
    found = json.loads(_run("ip", "-json", "link", "show"))
    return {link["ifname"]: link.get("ifalias", "") for link in found if link["ifname"].startswith(_LINK)}


def _remove_links(chosen: Callable[[str], bool]) -> None:
    for interface, alias in links().items():
        if chosen(alias):
            with contextlib.suppress(StartError):
                # Gone in the meantime is as good.
                _run("ip", "link", "delete", interface)


def _is_free(interface: str) -> bool:
    return interface not in links()


def _run(*command: str | Path, stdin: str | None = None, seconds: float = 60) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode != 0:
        raise StartError(f"{' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
