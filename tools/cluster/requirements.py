"""What a node needs of the machine: root, cgroups, a few Debian packages. Installed when a cluster is first wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
"""Command (or file) and the Debian package that brings it."""

_INSTALL_SECONDS = 600


class MissingError(RuntimeError):
    """This machine cannot run it; the message says what is missing and what to do."""


def require_root(what: str) -> None:
    """Returns if this process may make namespaces, mounts and cgroups.

    Raises:
        MissingError: it may not.
    """
    if os.geteuid() != 0:
        raise MissingError(f"{what} needs root: it makes namespaces, mounts and cgroups")


def ensure_commands(commands: dict[str, str]) -> None:
    """Installs the packages of those `commands` that are not here.

    Raises:
        MissingError: they are missing and cannot be installed.
    """
    packages = missing_packages(commands)
    if not packages:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"missing: {', '.join(packages)}. Install them (on Debian: {line}) and try again")
    print(f"cluster: installing Debian packages: {' '.join(packages)}", file=sys.stderr, flush=True)
    _apt("update", "-qq")
    _apt("install", "-y", "-qq", "--no-install-recommends", *packages)
    if left := missing_packages(commands):
        raise MissingError(f"installed, and still missing: {', '.join(left)}")


def missing_packages(commands: dict[str, str]) -> list[str]:
    """Packages of which a command is not here, each once."""
    return sorted({package for command, package in commands.items() if not _is_here(command)})


def _is_here(command: str) -> bool:
    # The administrator's folders are not on everybody's PATH.
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
    )
    if done.returncode != 0:
        raise MissingError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
