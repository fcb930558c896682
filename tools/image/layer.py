"""Layers of an image: tar files that depend on what is in them only, not on when, where or by whom they were made."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tar file and what a manifest says about it."""

    path: Path
    digest: str
    """`sha256:` and hexadecimal digits, of the tar file as it is."""
    size_bytes: int
    made_by: str
    """One line for the image's history."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file, folder or link of a layer; `path` has no leading slash."""

    path: str
    mode: int = 0o644
    content: bytes | Path = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    owner: tuple[int, int] = (0, 0)
    """Numbers of user and group."""


def folder_entry(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A folder."""
    return Entry(path, mode=mode, kind=tarfile.DIRTYPE, owner=owner)


def entries_of(folder: Path, prefix: str = "", *, keep_owners: bool = False) -> Iterator[Entry]:
    """All that is in `folder`, to stand below `prefix`. Devices, sockets and pipes are left out."""
    for path in folder.rglob("*"):
        status = path.lstat()
        name = f"{prefix}{path.relative_to(folder)}"
        owner = (status.st_uid, status.st_gid) if keep_owners else (0, 0)
        mode = status.st_mode & 0o7777
        if path.is_symlink():
            yield Entry(name, mode=0o777, kind=tarfile.SYMTYPE, link=str(path.readlink()), owner=owner)
        elif path.is_dir():
            yield folder_entry(name, mode, owner)
        elif path.is_file():
            yield Entry(name, mode=mode, content=path, owner=owner)


def write_layer(entries: Iterable[Entry], target: Path, made_by: str) -> Layer:
    """Writes a layer; of two entries with one path, the later one counts. Folders above an entry are made."""
    chosen = {entry.path: entry for entry in entries}
    for path in list(chosen):
        for parent in Path(path).parents[:-1]:
            chosen.setdefault(str(parent), folder_entry(str(parent)))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(chosen):
            _add(archive, chosen[path])
    unfinished.rename(target)
    return layer_at(target, made_by)


def layer_at(path: Path, made_by: str) -> Layer:
    """The layer that was written there."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        for chunk in _chunks(file):
            digest.update(chunk)
            size_bytes += len(chunk)
    return Layer(path, f"sha256:{digest.hexdigest()}", size_bytes, made_by)


def content_digests(path: Path) -> dict[str, bytes]:
    """What stands at each path of a layer, told by a digest of kind, mode, owner, link and content."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            facts = (member.type, member.mode, member.uid, member.gid, member.linkname)
            digest = hashlib.sha256(repr(facts).encode())
            if (file := archive.extractfile(member) if member.isfile() else None) is not None:
                for chunk in _chunks(file):
                    digest.update(chunk)
            found[member.name] = digest.digest()
    return found


def deterministic(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same member without what differs between machines and hours."""
    member.uname = member.gname = ""
    member.mtime = 0
    member.pax_headers = {}
    return member


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.type, member.mode, member.linkname = entry.kind, entry.mode, entry.link
    member.uid, member.gid = entry.owner
    if entry.kind != tarfile.REGTYPE:
        archive.addfile(deterministic(member))
    elif isinstance(entry.content, Path):
        member.size = entry.content.stat().st_size
        with entry.content.open("rb") as file:
            archive.addfile(deterministic(member), file)
    else:
        member.size = len(entry.content)
        archive.addfile(deterministic(member), io.BytesIO(entry.content))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
