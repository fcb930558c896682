"""Checks of the pages that need nothing installed: `python -m tools.docs --check`.

* every page lies in a folder of the navigation and has one title, so that none is an orphan
* every link inside leads to a file, and to a heading of it; none is absolute
* every link outside is well formed and goes by https
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tools.docs.pages import DOCS, SECTIONS, Link, Page, pages


def problems(docs: Path = DOCS) -> list[str]:
    """What is wrong, each with its place and what to do."""
    found = pages(docs)
    by_path = {page.path.resolve(): page for page in found}
    out = [] if (docs / "index.md") in {page.path for page in found} else [f"{docs}/index.md: there is no landing page"]
    for page in found:
        name = page.path.relative_to(docs)
        out += [f"docs/{name}: {problem}" for problem in _place(name, page)]
        for link in page.links:
            out += [f"docs/{name}:{link.line}: {problem}" for problem in _link(page, link, by_path, docs)]
    return out


def _place(name: Path, page: Page) -> Iterator[str]:
    if name != Path("index.md") and (len(name.parts) != 2 or name.parts[0] not in SECTIONS):
        yield f"no navigation leads here; move it into one of {', '.join(f'docs/{folder}/' for folder in SECTIONS)}"
    if len(page.titles) != 1:
        yield f"a page has one heading of the first level, this one has {len(page.titles)}"


def _link(page: Page, link: Link, by_path: dict[Path, Page], docs: Path) -> Iterator[str]:
    try:
        target = urlsplit(link.target)
    except ValueError:
        yield f"{link.target} is no address"
        return
    if target.scheme or target.netloc:
        if target.scheme != "https" or "." not in (target.hostname or ""):
            yield f"{link.target} should be an address that begins with https:// and names a host"
        return
    if target.path.startswith("/"):
        yield f"{link.target} is absolute; name the file as seen from this page"
        return
    leads_to = (page.path.parent / target.path).resolve() if target.path else page.path.resolve()
    if not leads_to.is_relative_to(docs.parent.resolve()) or not leads_to.exists():
        yield f"{link.target} is not there; mend the link, or the name of the file"
    elif leads_to.is_dir() and leads_to.is_relative_to(docs.resolve()):
        yield f"{link.target} is a folder; name a page"
    elif target.fragment and (leads_to not in by_path or target.fragment not in by_path[leads_to].anchors):
        known = ", ".join(sorted(by_path[leads_to].anchors)) if leads_to in by_path else "none"
        yield f"{link.target} names no heading; there are: {known}"
