"""Builds the site into `build/site/`, by MkDocs in an environment of its own, and looks through what was built.

The site is read from a disk or a host of one's own: no page fetches anything from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.control_plane.build import cache_directory
from tools.docs.pages import ROOT

LOCK: Final = ROOT / "requirements-docs.lock"
CONFIGURATION: Final = ROOT / "mkdocs.yml"
SITE: Final = ROOT / "build" / "site"
_FETCHED = re.compile(r"<(?:script|img|iframe|source|video|audio|object|embed)\b[^>]*?(?:src|data)=[\"']?([^\"'\s>]+)")
_LINKED = re.compile(r"<link\b[^>]*>")
_IN_STYLE = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')\s]+)")
_FETCHING_RELATIONS = re.compile(r"rel=[\"']?[^\"'>]*(?:stylesheet|icon|preload|prefetch|preconnect|manifest)")


def environment() -> Path:
    """Python of the environment with MkDocs, by the lock; made when it is not there, outside of the tree."""
    folder = cache_directory() / "docs" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    if not (folder / ".complete").exists():
        print(f"[docs] installing MkDocs from {LOCK.name}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        subprocess.run([*pip, "-r", str(LOCK)], check=True)
        (folder / ".complete").touch()
    return folder / "bin" / "python"


def build() -> int:
    """Exit status: 0 if the site was built without a warning and fetches nothing."""
    command = [str(environment()), "-m", "mkdocs", "build", "--strict", "--clean"]
    # Somebody's PYTHONPATH is not for this environment.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command += ["--config-file", str(CONFIGURATION), "--site-dir", str(SITE)]
    built = subprocess.run(command, cwd=ROOT, env=clean | {"NO_MKDOCS_2_WARNING": "1"}, check=False).returncode
    if built:
        return built
    found = list(fetched(SITE))
    for where, what in found:
        print(f"{where}: would fetch {what} when it is read", file=sys.stderr)
    pages = len(list(SITE.rglob("*.html")))
    print(f"[docs] {pages} pages in {SITE.relative_to(ROOT)}; open {SITE.relative_to(ROOT)}/index.html")
    return 1 if found else 0


def fetched(site: Path) -> Iterator[tuple[str, str]]:
    """Pages and style sheets that would ask another host for something, and for what."""
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text, name = path.read_text(), str(path.relative_to(site))
        wanted = _IN_STYLE.findall(text)
        if path.suffix == ".html":
            wanted += _FETCHED.findall(text)
            for tag in _LINKED.findall(text):
                if _FETCHING_RELATIONS.search(tag):
                    wanted += re.findall(r"href=[\"']?([^\"'\s>]+)", tag)
        for what in wanted:
            if re.match(r"(?:https?:)?//", what):
                yield name, what
