"""What MkDocs asks of us while it builds: the navigation, and links to files of the repository that are no pages."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.docs.pages import navigation  # noqa: E402 -- the root must be importable first

_OUTSIDE = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s]*)\)")


def on_config(config: Any) -> Any:
    """Put the pages of each folder into the navigation."""
    landing, *sections = navigation(Path(config["docs_dir"]))
    config["nav"] = [*landing["Chatelaine"], *sections]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A link that leaves `docs/` becomes the name of the file: the site does not hold it, and names no host."""
    docs = Path(config["docs_dir"])
    folder = (docs / page.file.src_path).parent

    def named(match: re.Match[str]) -> str:
        target = (folder / match.group(2).partition("#")[0]).resolve()
        if target.is_relative_to(docs.resolve()):
            return match.group(0)
        return f"{match.group(1)} (`{target.relative_to(docs.resolve().parent)}`)"

    return _OUTSIDE.sub(named, markdown)
