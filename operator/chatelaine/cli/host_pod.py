"""What the pods of a host do before its processes start: the image has no shell, and needs none for this."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chatelaine.pkcs11.pin import MAX_PIN_BYTES
from chatelaine.pki.files import PRIVATE_FOLDER_MODE, write_whole

PARTS: Final = ("agent", "gateway", "run")
"""Folders of the agent, of the gateway, and of the socket between them."""
CHAIN: Final = Path("tls") / "chain.pem"
POLL_SECONDS: Final = 0.5
PIN_MODE: Final = 0o400


def make_folders(state_dir: Path, owner: int) -> None:
    """Make the folders of a host in `state_dir`, for user and group `owner` alone. Root needs CHOWN and FOWNER.

    Raises:
        OSError: one cannot be made, or something else stands in its place.
    """
    for name in PARTS:
        folder = state_dir / name
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise NotADirectoryError(f"{folder} is no folder")
        # By name, and the mode first: with CHOWN and FOWNER alone, root opens no folder of another user.
        folder.chmod(PRIVATE_FOLDER_MODE)
        os.chown(folder, owner, owner, follow_symlinks=False)


def copy_pin(source: Path, target: Path) -> None:
    """Copy a PIN from a Secret's volume, where files are links and root's, to a file of our own that nobody else reads.

    Raises:
        OSError: one of them cannot be used.
        ValueError: the Secret holds something longer than a PIN, or nothing.
    """
    with source.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("the PIN must be a file")
        data = file.read(MAX_PIN_BYTES + 3)
    if not 0 < len(data) <= MAX_PIN_BYTES + 2:
        raise ValueError(f"the Secret must hold a PIN of 1 to {MAX_PIN_BYTES} bytes")
    write_whole(target, data, PIN_MODE)


def await_join(state_dir: Path, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return once the process whose folder this is has a certificate; somebody else lets the host join."""
    while not _joined(state_dir):
        sleep(POLL_SECONDS)


def _joined(state_dir: Path) -> bool:
    try:
        return (state_dir / CHAIN).stat().st_size > 0
    except OSError:
        # Not there yet, or not ours yet: the folder is made by another pod.
        return False
