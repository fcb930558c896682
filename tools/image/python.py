"""Layers of Python code: the locked dependencies, and the product itself, compiled for the image's Python.

Compiled files tell their source by its digest and are never checked against it: the image does not change, and a
container may not be able to write new ones. They are the same wherever they were made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TARGET = "usr/local/lib/python3.11/dist-packages"
"""Where the image's Python looks for packages that are not Debian's."""

_NOT_REPRODUCIBLE = ("direct_url.json", "INSTALLER", "REQUESTED")
"""Files of an installed package that tell from where and how it was installed."""


class PythonError(RuntimeError):
    """pip failed; the message says how."""


def install_locked(requirements: str, root: Path) -> None:
    """Installs requirements with hashes into the folder of packages below `root`.

    Raises:
        PythonError: pip failed.
    """
    root.mkdir(parents=True, exist_ok=True)
    file = root.parent / "requirements.lock"
    file.write_text(requirements)
    _pip(root, "--require-hashes", "--requirement", str(file))


def install_product(tree: Path, root: Path) -> None:
    """Installs the package that stands in `tree` into the folder of packages below `root`.

    Raises:
        PythonError: pip failed.
    """
    _pip(root, str(tree))


def compile_below(folder: Path, seen_as: str) -> None:
    """Compiles every module in `folder`, which the image has at `/seen_as`."""
    command = [sys.executable, "-I", "-m", "compileall", "-q", "-f", "-j", "1"]
    # Alternatives for versions of Python that are not this one stand in some packages.
    command += ["--invalidation-mode=unchecked-hash", "-s", str(folder), "-p", f"/{seen_as}", "-x", "lib2to3/tests"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run([*command, str(folder)], check=False, env=environment, capture_output=True, timeout=600)


def _pip(root: Path, *arguments: str) -> None:
    target = root / TARGET
    command = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-compile", "--no-warn-script-location", "--target", str(target), *arguments]
    # What is compiled here tells neither the hour nor the folder of its compilation.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "CFLAGS": "-O2 -g0", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800, env=environment)
    if done.returncode != 0:
        raise PythonError(f"pip failed:\n{done.stderr.strip()[-3000:]}")
    shutil.rmtree(target / "bin", ignore_errors=True)
    for info in target.glob("*.dist-info"):
        for name in _NOT_REPRODUCIBLE:
            (info / name).unlink(missing_ok=True)
        # It lists the files above, and scripts that are not in the image.
        record = info / "RECORD"
        kept = [line for line in sorted(record.read_text().splitlines()) if not _is_left_out(line.split(",", 1)[0])]
        record.write_text("".join(f"{line}\n" for line in kept))


def _is_left_out(path: str) -> bool:
    return path.startswith(("bin/", "../")) or path.rsplit("/", 1)[-1] in _NOT_REPRODUCIBLE
