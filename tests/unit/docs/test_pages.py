"""The checks of the pages notice what they are for, and our pages pass them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.docs import check
from tools.docs.pages import Page, navigation, slug
from tools.docs.site import fetched


def site(folder: Path, **files: str) -> Path:
    """A folder of pages: `how_to__x` is `how-to/x.md`."""
    docs = folder / "docs"
    for name, text in {"index": "# Start\n", **files}.items():
        path = docs / f"{name.replace('__', '/').replace('_', '-')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return docs


def test_our_pages_have_nothing_wrong() -> None:
    assert check.problems() == []


def test_every_page_of_ours_is_in_the_navigation() -> None:
    listed = [name for entry in navigation() for pages in entry.values() for page in pages for name in page.values()]
    docs = check.DOCS
    assert sorted(listed) == sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))


def test_a_generated_page_has_its_own_title_in_the_navigation(tmp_path: Path) -> None:
    docs = site(tmp_path, reference__gitops_health="<!-- Generated. -->\n\n# Health in `tools`\n")
    assert navigation(docs)[1:] == [{"Reference": [{"Health in tools": "reference/gitops-health.md"}]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", "nowhere.md is not there"),
        ("[a](../index.md#nowhere)", "names no heading; there are: start"),
        ("[a](#nowhere)", "names no heading; there are: more, page"),
        ("[a](../../../outside.md)", "is not there"),
        ("[a](/index.md)", "is absolute"),
        ("[a](../how-to/)", "is a folder"),
        ("[a](http://plain.example.net)", "begins with https://"),
        ("[a](https:///no-host)", "names a host"),
        ("[a](https://[bad)", "is no address"),
        ("[a\nb](nowhere.md)", "nowhere.md is not there"),
        ("![a](nowhere.png)", "nowhere.png is not there"),
        ("[a]: nowhere.md", "nowhere.md is not there"),
        ("<http://plain.example.net>", "begins with https://"),
        ("# Another title", "has 2"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    docs = site(tmp_path, how_to__x=f"# Page\n\n## More\n\n{text}\n")
    (problem,) = check.problems(docs)
    assert problem.startswith("docs/how-to/x.md:")
    assert said in problem


@pytest.mark.parametrize(
    "text",
    [
        "[a](../index.md#start)",
        "[a](#more)",
        "[a](../../README.md)",
        "[a](https://example.net/x?y=z#w)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n# no heading\n```",
        "~~~~\n[a](nowhere.md)\n```\n# no heading\n~~~~",
    ],
)
def test_what_is_right_is_let_through(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").touch()
    assert check.problems(site(tmp_path, how_to__x=f"# Page\n\n## More\n\n{text}\n")) == []


def test_an_orphan_is_told(tmp_path: Path) -> None:
    docs = site(tmp_path, lost__x="# Lost\n", how_to__deeper__x="# Too deep\n")
    assert [problem.partition(";")[0] for problem in check.problems(docs)] == [
        "docs/how-to/deeper/x.md: no navigation leads here",
        "docs/lost/x.md: no navigation leads here",
    ]


def test_a_site_without_a_landing_page_is_told(tmp_path: Path) -> None:
    docs = site(tmp_path)
    (docs / "index.md").unlink()
    assert check.problems(docs) == [f"{docs}/index.md: there is no landing page"]


@pytest.mark.parametrize(
    ("heading", "fragment"),
    [
        ("In a pipeline", "in-a-pipeline"),
        ("1. See that the hosts are those", "1-see-that-the-hosts-are-those"),
        ("`chatelaine verify` and *more*", "chatelaine-verify-and-more"),
        ("A -- B", "a-b"),
        ("[Linked](x.md) text", "linked-text"),
        ("snake_case", "snake_case"),
    ],
)
def test_fragments_are_those_that_the_site_has(heading: str, fragment: str) -> None:
    assert slug(heading) == fragment


def test_the_second_heading_of_a_name_has_a_fragment_of_its_own() -> None:
    assert Page(Path("x.md"), "# A\n\n## B\n\n## B\n").anchors == {"a", "b", "b_1"}


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example.net/x.js"></script>',
        "<script src=//cdn.example.net/x.js></script>",
        '<img alt="x" src="http://example.net/x.png">',
        '<link rel="stylesheet" href="https://fonts.example.net/css">',
        "<link href=https://example.net rel=preconnect>",
        "<style>@import 'https://example.net/x.css';</style>",
        "<style>a { background: url(//example.net/x.png) }</style>",
    ],
)
def test_a_page_that_would_fetch_something_from_elsewhere_is_found(tmp_path: Path, html: str) -> None:
    (tmp_path / "index.html").write_text(f"<html><body>{html}</body></html>")
    assert [where for where, _ in fetched(tmp_path)] == ["index.html"]


def test_links_and_local_files_are_no_fetching(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="assets/x.css"><link rel="canonical" href="https://example.net/">'
        '<script src="assets/x.js"></script><a href="https://example.net">x</a>'
    )
    assert list(fetched(tmp_path)) == []
