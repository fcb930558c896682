"""The copy of the tree in which faults are made, and the tool that makes them.

mutmut wants the code in `./src`, writes beside it, and forks its children from a process that has run the tests. So
the tree is copied to `build/mutants/stage/`; files that have not changed since the last run stay as they are, which
lets a run go on where the last one was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tools.control_plane.build import cache_directory
from tools.mutants.rooms import ROOT, Room

BUILD: Final = ROOT / "build" / "mutants"
LOCK: Final = ROOT / "requirements-mutants.lock"
COPIED: Final = ("operator", "tests", "tools", "crds", "charts", "examples", "docs", "bench", "Makefile", "README.md")
UNSEEN: Final = (0, 5, 33)
"""Exit codes of mutants that nothing noticed: the tests passed, or there were none."""


def environment() -> Path:
    """The folder with mutmut and what it needs, by the lock; made when it is not there, outside of the tree."""
    folder = cache_directory() / "mutants" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        print(f"[mutants] installing mutmut from {LOCK.name}", flush=True)
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        subprocess.run([*pip, "--target", str(fresh), "-r", str(LOCK)], check=True)
        fresh.rename(folder)
    return folder


def prepare(room: Room, modules: Sequence[str], *, fresh: bool) -> Path:
    """Bring the copy for these modules of the room up to date; what is asked again is said by `_ask_again`."""
    stage = BUILD / "stage" / (room.name + "-" + hashlib.sha256("".join(modules).encode()).hexdigest()[:8])
    if fresh and stage.exists():
        shutil.rmtree(stage)
    changed = {_placed(path) for path in _copy(ROOT, stage)}
    (stage / "pyproject.toml").write_text(_configuration(room, modules))
    vectors = ROOT.parent / "shared"
    if vectors.is_dir() and not (stage / "shared").exists():
        (stage / "shared").symlink_to(vectors)
    if any(path.parts[0] == "tests" for path in changed):
        _ask_again(stage)
    return stage


def stages(room: Room) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The copies that there are for modules of this room, oldest run first."""
    found = (BUILD / "stage").glob(f"{room.name}-*/mutants/mutmut-stats.json")
    for stats in sorted(found, key=lambda path: path.stat().st_mtime):
        stage = stats.parent.parent
        mutated = tomllib.loads((stage / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
        yield tuple(path.removeprefix("src/chatelaine/") for path in mutated), stage


def run(stage: Path, *, children: int) -> int:
    """Make and judge the mutants that are not judged yet; mutmut's exit status."""
    search = os.pathsep.join(filter(None, [str(environment()), os.environ.get("PYTHONPATH", "")]))
    arguments = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
    return subprocess.run(arguments, cwd=stage, env={**os.environ, "PYTHONPATH": search}, check=False).returncode


def _tracked(root: Path) -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *COPIED],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            yield Path(name)


def _placed(path: Path) -> Path:
    """Where a file of the tree lies in the copy."""
    return Path("src", *path.parts[1:]) if path.parts[0] == "operator" else path


def _copy(root: Path, stage: Path) -> Iterable[Path]:
    """Copy what differs, take away what is gone; yields what was touched."""
    wanted = {_placed(path): path for path in _tracked(root)}
    touched = []
    for target, source in wanted.items():
        content = (root / source).read_bytes()
        there = stage / target
        if there.exists() and there.read_bytes() == content:
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        touched.append(target)
    for base in ("src", "tests"):
        for there in (stage / base).rglob("*.py"):
            if there.relative_to(stage) not in wanted:
                there.unlink()
                (stage / "mutants" / there.relative_to(stage)).unlink(missing_ok=True)
                touched.append(there.relative_to(stage))
    return touched


def _ask_again(stage: Path) -> None:
    """Tests have changed: what they did not see is asked again. What they saw is taken to be seen still."""
    mutants = stage / "mutants"
    (mutants / "mutmut-stats.json").unlink(missing_ok=True)
    for meta in mutants.rglob("*.py.meta"):
        said = json.loads(meta.read_text())
        codes = said["exit_code_by_key"]
        said["exit_code_by_key"] = {key: None if code in UNSEEN else code for key, code in codes.items()}
        meta.write_text(json.dumps(said))


def _configuration(room: Room, modules: Sequence[str]) -> str:
    """The tree's pytest configuration, and mutmut's."""
    pytest = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    mutmut = {
        "source_paths": ["src"],
        "only_mutate": [f"src/chatelaine/{module}" for module in modules],
        "pytest_add_cli_args": ["-p", "tools.mutants.fresh"],
        "pytest_add_cli_args_test_selection": list(room.tests),
        "also_copy": [name for name in COPIED if name != "operator"] + ["pyproject.toml"],
        "use_git_change_detection": False,
    }
    tables = {"tool.pytest.ini_options": pytest, "tool.mutmut": mutmut}
    # JSON's strings, lists and booleans are TOML's too.
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
