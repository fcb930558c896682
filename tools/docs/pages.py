"""Pages of `docs/`: their titles, the anchors of their headings, their links, and their place in the navigation.

Standard library only: the environment that builds the site has nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
SECTIONS: Final = {
    "tutorial": "Tutorial",
    "how-to": "How-to guides",
    "runbooks": "Runbooks",
    "reference": "Reference",
    "explanation": "Explanation",
    "adr": "Decisions",
}
"""Folders of `docs/` in the order of the navigation (Diátaxis; runbooks are how-tos for an alert, decisions come
last). Each page lies in one of them."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^(#{1,6}) +(.+?)(?: +#+)?$")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
_AUTOLINK = re.compile(r"<(https?://[^>]*)>")
_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")


class Link(NamedTuple):
    """Where a page points to, and on which line."""

    line: int
    target: str


@dataclass(frozen=True)
class Page:
    """One file of Markdown."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        """From its file."""
        return cls(path, path.read_text())

    @property
    def titles(self) -> list[str]:
        """Headings of the first level; a page has one."""
        return [text for level, text in self._headings() if level == 1]

    @property
    def anchors(self) -> frozenset[str]:
        """Fragments that lead to a heading of this page."""
        taken: dict[str, int] = {}
        found = []
        for _, text in self._headings():
            name = slug(text)
            number = taken.get(name, 0)
            taken[name] = number + 1
            found.append(f"{name}_{number}" if number else name)
        return frozenset(found)

    @property
    def links(self) -> list[Link]:
        """Every link outside of code."""
        found = []
        for number, line in self.prose():
            shown = _CODE.sub("", line)
            for pattern in (_LINK, _REFERENCE, _AUTOLINK):
                found += [Link(number, match.group(1)) for match in pattern.finditer(shown)]
        return found

    def prose(self) -> Iterator[tuple[int, str]]:
        """Lines outside of fenced code, with their numbers. A link over two lines stands on the first."""
        fence = ""
        for number, line in enumerate(self._joined(), start=1):
            mark = _FENCE.match(line)
            if fence:
                closes = mark is not None and mark.group(1).startswith(fence) and not line.strip(" `~")
                fence = "" if closes else fence
            elif mark is not None:
                fence = mark.group(1)
            else:
                yield number, line

    def _joined(self) -> list[str]:
        """Lines; the text of a link that goes on in the next line is moved up, and an empty line takes its place."""
        lines = self.text.splitlines()
        for at in range(len(lines) - 1):
            opened = lines[at].rfind("[")
            broken = opened >= 0 and "]" not in lines[at][opened:] and re.match(r"[^\[\]]*\]\(", lines[at + 1])
            if broken and not lines[at].startswith("    "):
                lines[at], lines[at + 1] = f"{lines[at]} {lines[at + 1]}", ""
        return lines

    def _headings(self) -> Iterator[tuple[int, str]]:
        for _, line in self.prose():
            if match := _HEADING.match(line):
                yield len(match.group(1)), match.group(2)


def slug(heading: str) -> str:
    """The fragment of a heading, as Python-Markdown makes it."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    ascii_only = shown.encode("ascii", "ignore").decode()
    kept = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
    return re.sub(r"[-\s]+", "-", kept)


def pages(docs: Path = DOCS) -> list[Page]:
    """All of them, by path."""
    return [Page.read(path) for path in sorted(docs.rglob("*.md"))]


def navigation(docs: Path = DOCS) -> list[dict[str, list[dict[str, str]]]]:
    """Navigation for MkDocs: the landing page, then each section with its pages by title, decisions by number.

    Titles are told, because MkDocs finds none in a page that begins with a comment, as generated pages do.
    """
    found = [{"Chatelaine": [{"Chatelaine": "index.md"}]}]
    for folder, title in SECTIONS.items():
        inside = [Page.read(path) for path in sorted((docs / folder).glob("*.md"))]
        if folder != "adr":
            inside.sort(key=lambda page: (page.path.name != "README.md", page.titles[0].strip("`").lower()))
        if inside:
            found.append({title: [{page.titles[0].replace("`", ""): _name(page, docs)} for page in inside]})
    return found


def _name(page: Page, docs: Path) -> str:
    return page.path.relative_to(docs).as_posix()
