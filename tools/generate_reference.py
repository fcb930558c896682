"""Writes the reference pages that come from code, to `docs/reference/`.

python tools/generate_reference.py            writes
python tools/generate_reference.py --check    writes nothing; ends 1 if a page is not what it would write
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.reference import commands, conditions, gitops, metrics, names, ports  # noqa: E402 -- root must be importable

PAGES = {
    "annotations.md": names.text,
    "commands.md": commands.text,
    "conditions.md": conditions.text,
    "gitops-health.md": gitops.text,
    "metrics.md": metrics.text,
    "ports.md": ports.text,
}


def rendered() -> dict[Path, str]:
    """Content of every generated page, by path."""
    return {ROOT / "docs" / "reference" / name: text() for name, text in PAGES.items()}


def stale() -> list[Path]:
    """Pages that are missing or differ."""
    return [path for path, text in rendered().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Generate the reference pages.")
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    if parser.parse_args().check:
        differing = stale()
        for path in differing:
            print(f"not up to date: {path.relative_to(ROOT)}; run: python tools/generate_reference.py")
        return 1 if differing else 0
    for path, text in rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
