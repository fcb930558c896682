"""The first process of a sandbox: makes its mounts, says so, and then only reaps. When it ends, all of it ends.

Started by path with `python -I -S` as process 1 of new namespaces, so the standard library only. Arguments are the
node's name, the folder whose `log` and `lib` stand for /var/log and /var/lib, and the options of every cgroup hierarchy
to mount (an empty one: version 2).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

READY = "ready"
CGROUPS = Path("/sys/fs/cgroup")


def main() -> None:
    """Command line."""
    name, folder, *cgroups = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _run("hostname", name)
    # What the kubelet mounts shall be seen by containers that ask for it.
    _run("mount", "--make-rshared", "/")
    _mount_cgroups(cgroups)
    for own, place in (("log", "/var/log"), ("lib", "/var/lib")):
        (Path(folder) / own).mkdir(exist_ok=True)
        _run("mount", "--bind", f"{folder}/{own}", place)
    # Sockets, locks and network namespaces of other sandboxes, and of the machine, are none of ours.
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    print(READY, flush=True)
    while True:
        signal.sigwait({signal.SIGCHLD})
        _reap()


def _mount_cgroups(options: list[str]) -> None:
    _run("umount", "--recursive", "/sys")
    _run("mount", "-t", "sysfs", "sysfs", "/sys")
    if options == [""]:
        _run("mount", "-t", "cgroup2", "cgroup2", str(CGROUPS))
        return
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(CGROUPS))
    for one in options:
        point = CGROUPS / one.removeprefix("none,name=")
        point.mkdir()
        _run("mount", "-t", "cgroup", "-o", one, "cgroup", str(point))


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
