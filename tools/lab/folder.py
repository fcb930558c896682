"""Where throw-away data of a laboratory lives: in memory if possible, so that no disk is measured or worn."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
LEAST_FREE_BYTES = 1 << 30


def throw_away_folder(prefix: str) -> Path:
    """A new folder, readable by its owner alone; whoever asks for it removes it."""
    parent = str(MEMORY) if _fits(MEMORY) else None
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def _fits(folder: Path) -> bool:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize >= LEAST_FREE_BYTES
