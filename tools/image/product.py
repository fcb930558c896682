"""The product's image, and the one for evaluation, which has tokens and TPMs in software on top.

Layers, from the lowest: Debian packages, locked Python packages, the product; then tools for evaluation. Each stands in
the cache under a name made of all its inputs (the digests of packages, the lock file, the code that makes it), so that
nothing is made twice, and nothing old is taken for new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import inspect
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from tools.control_plane.build import cache_directory
from tools.image import debian, layer, oci, python
from tools.image.layer import Entry, Layer, content_digests, entries_of, folder_entry, layer_at, write_layer
from tools.image.locked import runtime_requirements

ROOT = Path(__file__).resolve().parents[2]
NAME = "chatelaine"
REPOSITORY = f"localhost/{NAME}"
"""Where engines look for images that were made on the machine itself."""

USER = 65532
"""Nobody in particular: no file of the image belongs to this user, and none may be written."""

ENTRYPOINT = ("/usr/local/bin/chatelaine",)
_STANDARD_LIBRARY = "usr/lib/python3.11"
_COMMAND = b"""#!/usr/bin/python3
import sys

from chatelaine.cli.main import app

sys.exit(app())
"""
_FILES = {
    "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\nchatelaine:x:{USER}:{USER}::/tmp:/usr/sbin/nologin\n",
    "group": f"root:x:0:\nchatelaine:x:{USER}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}
"""Text files below /etc."""

ENVIRONMENT = (
    ("PATH", oci.PATH),
    ("HOME", "/tmp"),  # what a container with a read-only root can be given to write to
    ("LANG", "C.UTF-8"),
    ("PYTHONUNBUFFERED", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
)


@dataclasses.dataclass(frozen=True)
class Built:
    """An archive that was written."""

    name: str
    """With its tag."""
    archive: Path
    digest: str
    """Of the image's manifest."""


def build(target: Path, tag: str, *, evaluation: bool = False) -> Built:
    """Writes the archive of the product's image, or of the one for evaluation, at `target`.

    Raises:
        DebianError, PythonError: a part could not be had.
    """
    name = f"{REPOSITORY}{'-evaluation' if evaluation else ''}:{tag}"
    labels = (("org.opencontainers.image.title", NAME), ("org.opencontainers.image.version", tag))
    with _layers(evaluation=evaluation) as layers:
        image = oci.Image(layers, ENTRYPOINT, user=f"{USER}:{USER}", environment=ENVIRONMENT, labels=labels)
        return Built(name, target, oci.write_archive(image, name, target))


def unpack(root: Path, *, evaluation: bool = False) -> None:
    """Writes all files of the image into a new folder; what a Dockerfile builds an image from.

    Raises:
        DebianError, PythonError: a part could not be had.
    """
    root.mkdir(parents=True)
    with _layers(evaluation=evaluation) as layers:
        for one in layers:
            subprocess.run(["tar", "--extract", "--preserve-permissions", "-C", root, "-f", one.path], check=True)


@contextlib.contextmanager
def _layers(*, evaluation: bool) -> Iterator[tuple[Layer, ...]]:
    """The layers; nobody else changes the cache meanwhile."""
    folder = cache_directory() / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runtime = debian.packages(debian.RUNTIME)
        base = _base(runtime)
        layers = (base, _dependencies(base), _product())
        yield (*layers, _evaluation(runtime, base)) if evaluation else layers


def _base(packages: tuple[debian.Package, ...]) -> Layer:
    def content(scratch: Path) -> Iterator[Entry]:
        root = scratch / "root"
        debian.unpack(packages, root)
        python.compile_below(root / _STANDARD_LIBRARY, _STANDARD_LIBRARY)
        yield from debian.entries(root)
        for path, text in _FILES.items():
            yield Entry(f"etc/{path}", content=text.encode())
        yield Entry("etc/ssl/certs/ca-certificates.crt", content=debian.authorities(root))
        yield _listed("base", packages)
        yield folder_entry("tmp", 0o1777)

    digests = (package.digest for package in packages)
    return _cached("base", content, (debian, python), *digests, str(_FILES), sys.version)


def _dependencies(base: Layer) -> Layer:
    requirements = runtime_requirements(ROOT / "pyproject.toml", ROOT / "requirements.lock")

    def content(scratch: Path) -> Iterator[Entry]:
        root = scratch / "root"
        python.install_locked(requirements, root)
        python.compile_below(root / python.TARGET, python.TARGET)
        yield from entries_of(root)

    # What is compiled links to libraries of the base.
    return _cached("dependencies", content, (python,), requirements, base.digest, sys.version)


def _product() -> Layer:
    def content(scratch: Path) -> Iterator[Entry]:
        root = scratch / "root"
        python.install_product(ROOT, root)
        python.compile_below(root / python.TARGET, python.TARGET)
        yield from entries_of(root)
        yield Entry(ENTRYPOINT[0].lstrip("/"), mode=0o755, content=_COMMAND)

    sources = (path.read_bytes() for path in sorted((ROOT / "operator").rglob("*")) if path.is_file())
    digests = (hashlib.sha256(source).hexdigest() for source in sources)
    project = (ROOT / "pyproject.toml").read_text()
    return _cached("product", content, (python,), *digests, project, _COMMAND.decode(), sys.version)


def _evaluation(runtime: tuple[debian.Package, ...], base: Layer) -> Layer:
    packages = debian.packages((*debian.RUNTIME, *debian.EVALUATION))
    added = tuple(package for package in packages if package not in runtime)

    def content(scratch: Path) -> Iterator[Entry]:
        root = scratch / "root"
        debian.unpack(added, root)
        below = content_digests(base.path)
        yield from (entry for entry in debian.entries(root) if entry.path not in below)
        yield _listed("evaluation", added)

    return _cached("evaluation", content, (debian,), *(package.digest for package in added), base.digest)


def _cached(
    name: str, content: Callable[[Path], Iterable[Entry]], makers: tuple[ModuleType, ...], *inputs: str
) -> Layer:
    """The layer called `name` made of `inputs`: from the cache, else made of what `content` finds in a new folder."""
    code = (inspect.getsource(module) for module in (*makers, layer))
    key = hashlib.sha256("\0".join((*code, *inputs)).encode()).hexdigest()[:24]
    folder = cache_directory() / "layers"
    target = folder / f"{name}-{key}.tar"
    if target.exists():
        return layer_at(target, name)
    print(f"image: making the layer {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as scratch:
        made = write_layer(content(Path(scratch)), target, name)
    for other in folder.glob(f"{name}-*.tar"):
        if other != target:
            other.unlink()
    return made


def _listed(name: str, packages: Iterable[debian.Package]) -> Entry:
    """What the layer is made of, for people and for scanners."""
    lines = "".join(f"{package.label}\n" for package in packages)
    return Entry(f"usr/share/chatelaine/packages-{name}.txt", content=lines.encode())
