"""Runs an embedded control plane until it is told to stop, or until nobody uses it any more.

    python -m tools.control_plane.start --directory build/control-plane --definitions crds

prints the administrator's kubeconfig when all is ready. With `--users FILE` it stops when nobody holds a shared lock on
FILE: each user takes one, and the kernel gives it back however the user ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tools.control_plane.build import BuildError
from tools.control_plane.embedded import ControlPlane, exit_on_signals
from tools.control_plane.processes import StartError


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run an embedded Kubernetes control plane.")
    parser.add_argument("--directory", type=Path, required=True, help="keys, data, logs and kubeconfigs go here")
    parser.add_argument("--definitions", type=Path, help="CustomResourceDefinitions to install (file or folder)")
    parser.add_argument("--users", type=Path, help="stop when nobody holds a shared lock on this file")
    parser.add_argument("--audit", action="store_true", help="log every write request to audit.jsonl")
    arguments = parser.parse_args()
    exit_on_signals()
    try:
        # Entered last, left first: who waits for the lock on the file may start again on a clean slate.
        with _opened(arguments.users) as users, ControlPlane(arguments.directory, audit=arguments.audit) as plane:
            if arguments.definitions is not None:
                plane.install_definitions(arguments.definitions)
            print(plane.kubeconfig, flush=True)
            _wait(users)
    except (BuildError, StartError) as error:
        print(f"control plane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[IO[str] | None]:
    if path is None:
        yield None
        return
    with path.open("a") as file:
        yield file


def _wait(users: IO[str] | None) -> None:
    if users is None:
        signal.pause()
    else:
        fcntl.flock(users, fcntl.LOCK_EX)


if __name__ == "__main__":
    sys.exit(main())
