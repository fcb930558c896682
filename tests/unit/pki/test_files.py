"""What a process says when it listens is its own user's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from chatelaine.pki.files import tell_ready


def test_ready_file_is_private_and_names_the_process(tmp_path: Path) -> None:
    tell_ready(tmp_path / "ready", port=8443)
    assert json.loads((tmp_path / "ready").read_text()) == {"port": 8443, "pid": os.getpid()}
    assert (tmp_path / "ready").stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_where_nobody_asked(tmp_path: Path) -> None:
    tell_ready(None, port=8443)
    assert list(tmp_path.iterdir()) == []
