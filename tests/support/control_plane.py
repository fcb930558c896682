"""One embedded control plane shared by all tests of a run, also across xdist workers.

The first worker that needs it starts it as a process of its own; every worker holds a shared lock on a file while it
lives, and the process stops when it gets that lock exclusively: when the last worker has gone, however it went.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.control_plane.access import ClusterAccess
from tools.control_plane.processes import StartError

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = ROOT / "crds"
STARTED = "started"


@contextlib.contextmanager
def shared_control_plane(directory: Path) -> Iterator[ClusterAccess]:
    """Access to the control plane whose files stand in `directory`; starts it if nobody has yet.

    Raises:
        StartError: it did not start; the message holds what it said.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "users").open("a") as users, contextlib.ExitStack() as started:
        with (directory / "starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            # Nobody can stop it between this lock and the check: stopping needs this lock exclusively.
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _is_running(directory):
                started.callback(_start(directory, users.name).wait)
        try:
            yield ClusterAccess(directory / "cluster")
        finally:
            # Before waiting for the process: it ends when nobody holds this lock.
            fcntl.flock(users, fcntl.LOCK_UN)


def _is_running(directory: Path) -> bool:
    marker = directory / STARTED
    if not marker.exists():
        return False
    try:
        status, _ = ClusterAccess(directory / "cluster").admin.raw("GET", "/readyz")
    except OSError:
        return False
    return status == 200


def _start(directory: Path, users: str) -> subprocess.Popen[bytes]:
    cluster, errors = directory / "cluster", directory / "errors.log"
    shutil.rmtree(cluster, ignore_errors=True)
    command = [sys.executable, "-m", "tools.control_plane.start", "--directory", str(cluster), "--users", users]
    command += ["--definitions", str(DEFINITIONS), "--audit"]
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert process.stdout is not None
    # The command prints one line when all is ready, and closes its output if it ends before that.
    if not process.stdout.readline():
        process.wait()
        raise StartError(f"the shared control plane did not start:\n{errors.read_text()}")
    process.stdout.close()
    (directory / STARTED).touch()
    return process
