"""The tutorial holds: its commands run in order, as a person would type them, in a laboratory that it starts itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.docs.laboratory import order
from tools.lab.folder import throw_away_folder

from support.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "tutorial" / "first-key.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
START_SECONDS = 400.0


@pytest.fixture
def desk() -> Iterator[Path]:
    """A folder in which `make tutorial` was typed; other tests' laboratories have their own."""
    folder = throw_away_folder("chat-desk-")
    place = folder / "build" / "tutorial"
    with (folder / "log").open("wb") as log:
        laboratory = subprocess.Popen(
            [sys.executable, "-m", "tools.docs.laboratory", "--folder", str(place)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:

        def ready() -> bool:
            assert laboratory.poll() is None, (folder / "log").read_text()
            return "ready;" in (folder / "log").read_text()

        eventually(ready, "the laboratory runs", seconds=START_SECONDS)
        yield folder
        laboratory.send_signal(signal.SIGINT)
        assert laboratory.wait(60) == 128 + signal.SIGINT, (folder / "log").read_text()
        assert not (place / "orders.sock").exists()
    finally:
        if laboratory.poll() is None:
            laboratory.terminate()
            laboratory.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_first_key(desk: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) > 10
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=desk, env={**os.environ, "TMPDIR": str(desk)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0, f"{said}\n{(desk / 'log').read_text()}"
    before, _, after = said.partition("something was measured into PCR 4")
    assert "Verified OK" in before
    cut, _, repaired = after.partition("hsm-a has booted cleanly")
    assert '"code":"ERROR_' in cut.replace(" ", "")
    assert '"signature"' not in cut
    assert "No resources found" in cut, "the NetworkPolicies of the claim are gone"
    assert "PCR 4 is" in cut
    assert '"signature"' in repaired.rpartition("hsmclaim.chatelaine.dev/checkout condition met")[2]


def test_an_order_to_a_laboratory_that_does_not_run_is_told_so(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "tools.docs.laboratory", "--folder", str(tmp_path), "tamper"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "start one: make tutorial" in done.stderr
    with pytest.raises(OSError, match="No such file"):
        order(tmp_path, "tamper")
