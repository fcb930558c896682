"""Writes OCI images (image-spec 1.1) as archives that engines, `ctr` and `skopeo` read.

Layers are not compressed: what a compressor writes depends on its version, and then so would the digest. Tools that
push to a registry compress on the way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.image.layer import Layer, deterministic

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
PATH = "/usr/local/bin:/usr/bin:/bin"
CREATED = "1970-01-01T00:00:00Z"
"""The hour of the build is no input of it."""


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image is: its layers from the lowest up, and how its process starts."""

    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    user: str = "0:0"
    environment: tuple[tuple[str, str], ...] = (("PATH", PATH),)
    labels: tuple[tuple[str, str], ...] = ()
    architecture: str = "amd64"


def write_archive(image: Image, name: str, target: Path) -> str:
    """Writes an archive with one image called `name` (with its tag); the digest of its manifest."""
    config = _encoded(_config(image))
    layers = [{"mediaType": TAR, "digest": layer.digest, "size": layer.size_bytes} for layer in image.layers]
    manifest = _encoded(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(CONFIG, config), "layers": layers}
    )
    described = _descriptor(MANIFEST, manifest)
    described["platform"] = {"os": "linux", "architecture": image.architecture}
    # containerd reads the first, everybody else the second, where only the tag is asked for.
    described["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1],
    }
    index = _encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]})
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", _encoded({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", index)
        for content in (manifest, config):
            _add(archive, _blob(_digest(content)), content)
        for digest, path in {layer.digest: layer.path for layer in image.layers}.items():
            member = archive.gettarinfo(path, _blob(digest))
            with path.open("rb") as file:
                archive.addfile(deterministic(member), file)
    unfinished.rename(target)
    return str(described["digest"])


def _config(image: Image) -> dict[str, Any]:
    return {
        "created": CREATED,
        "architecture": image.architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": [f"{name}={value}" for name, value in image.environment],
            "Entrypoint": list(image.entrypoint),
            "Cmd": list(image.arguments),
            "WorkingDir": "/",
            "Labels": dict(image.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in image.layers]},
        "history": [{"created": CREATED, "created_by": layer.made_by} for layer in image.layers],
    }


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(deterministic(member), io.BytesIO(content))
