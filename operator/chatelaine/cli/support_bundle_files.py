"""Writes a support bundle: a tar.gz that only its owner can read, no file of which looks like a secret."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chatelaine.diagnosis.discretion import suspicions

FOLDER: Final = "chatelaine-support"
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
README: Final = """\
What chatelaine support-bundle has collected, with the rights of whoever ran it.

doctor.txt, doctor.json   what doctor found
objects/                  our kinds, and what is ours of other kinds; of Secrets names alone
events/                   Events about our kinds
logs/                     the last lines of our pods

The data of Secrets was never read. What looked like a key, a token or a PIN is replaced by [left out].
Names of namespaces, claims, hosts and addresses stand in here as they are: look through it before you hand it on.
"""


@dataclass(slots=True)
class Bundle:
    """Files by name, and what could not be read, as sentences."""

    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        """A JSON value as a file; it must be discreet already."""
        self.files[name] = json.dumps(value, indent=1) + "\n"


def written(place: Path, bundle: Bundle) -> dict[str, str]:
    """Write it, whole or not at all; names of the files that were refused, and what they look like.

    Raises:
        OSError: the file is there already, or cannot be written.
    """
    good, refused = fit(bundle.files)
    told = README + "".join(f"\nNot read: {text}." for text in bundle.missing)
    told += "".join(f"\nRefused: {name}, which looks like {why}." for name, why in refused.items())
    if not suspicions(told):
        good["README.txt"] = told + "\n"
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in sorted(good.items()):
                _add(archive, name, text)
    except BaseException:
        with suppress(OSError):
            place.unlink()
        raise
    return refused


def fit(files: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Files that may be written, and why others may not. The last fence: nothing behind it changes a byte."""
    good, refused = {}, {}
    for name, text in files.items():
        found = suspicions(text) or suspicions(name)
        if found:
            refused[name] = ", ".join(found)
        elif len(text) > MAX_FILE_BYTES:
            refused[name] = f"more than {MAX_FILE_BYTES} characters"
        else:
            good[name] = text
    return good, refused


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    entry = tarfile.TarInfo(f"{FOLDER}/{name}")
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))
