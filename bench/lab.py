"""What the benchmarks of the running system need besides it: watched claims, CPU, memory, counted writes."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tools.control_plane.embedded import ControlPlane
from tools.lab.objects import GROUP, condition_of
from tools.lab.system import TEAM


@dataclass(slots=True)
class ClaimWatch:
    """Times (monotonic seconds) at which claims became Bound and Ready, from one watch."""

    control_plane: ControlPlane
    bound: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _connection: http.client.HTTPSConnection | None = None
    _stopped: bool = False

    def start(self) -> None:
        """Starts watching in a thread."""
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        address = urlsplit(self.control_plane.server)
        client = self.control_plane.admin
        path = client.collection(GROUP, "HsmClaim", TEAM)
        # The API server ends a watch whose reader is too slow for a moment: list and watch again.
        while not self._stopped:
            try:
                listed = client.get(path)
                for item in listed["items"]:
                    self._seen(item)
                self._connection = http.client.HTTPSConnection(
                    address.hostname or "", address.port, context=client.context, timeout=600
                )
                since = listed["metadata"]["resourceVersion"]
                self._connection.request("GET", f"{path}?watch=1&resourceVersion={since}")
                response = self._connection.getresponse()
                while line := response.readline():
                    self._seen(json.loads(line)["object"])
            except (OSError, ValueError, http.client.HTTPException):
                continue

    def _seen(self, found: dict[str, Any]) -> None:
        now, name = time.monotonic(), found["metadata"].get("name", "")
        with self._changed:
            for type_, times in (("Bound", self.bound), ("Ready", self.ready)):
                if condition_of(found, type_).get("status") == "True":
                    times.setdefault(name, now)
            self._changed.notify_all()

    def wait(self, times: dict[str, float], names: set[str], seconds: float) -> None:
        """Returns when all names have a time.

        Raises:
            TimeoutError: some have none; the message counts them.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: names <= times.keys(), timeout=seconds):
                missing = sorted(names - times.keys())
                raise TimeoutError(
                    f"{len(missing)} of {len(names)} claims not there within {seconds:.0f} s: {missing[:5]}"
                )

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped = True
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def writes(audit_log: Path, user: str, *, since_line: int = 0) -> list[dict[str, Any]]:
    """Write requests of one user in the audit log, from a line on."""
    lines = audit_log.read_text().splitlines()[since_line:]
    return [entry for entry in map(json.loads, lines) if entry["user"]["username"].endswith(f":{user}")]
