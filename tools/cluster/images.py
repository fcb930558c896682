"""Images that the node itself needs, of one static binary each, and where they are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tools.control_plane import build
from tools.image.layer import Entry, write_layer
from tools.image.oci import Image, write_archive

PAUSE = "chatelaine.test/pause:1"
DNS = "chatelaine.test/coredns:1"

_BINARIES = {PAUSE: "pause", DNS: "coredns"}


def archives() -> list[Path]:
    """Archives of the node's images; those that are missing, or hold another binary, are written first.

    Raises:
        BuildError: a binary is missing.
    """
    return [_archive(name, build.require(binary)) for name, binary in _BINARIES.items()]


def _archive(name: str, binary: Path) -> Path:
    content = binary.read_bytes()
    folder = build.cache_directory() / "images"
    target = folder / f"{binary.name}-{hashlib.sha256(content).hexdigest()[:16]}.tar"
    if not target.exists():
        layer = write_layer(
            [Entry(binary.name, mode=0o755, content=content)], target.with_suffix(".layer"), binary.name
        )
        write_archive(Image((layer,), (f"/{binary.name}",), user="65534:65534"), name, target)
        layer.path.unlink()
    return target
