"""How mutants are sorted, and that what is kept about them still speaks of this code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools.mutants import explained, page, stage
from tools.mutants.explained import Explanation, Kind
from tools.mutants.figures import table
from tools.mutants.outcomes import Change, Outcome, read
from tools.mutants.rooms import ROOMS

ORIGINAL = """
    if size > 4:
        raise Refused("it is too long", found=size)
    return Finding("size", "Holds", f"{size} bytes are there", expected="4")
"""


def outcome_of(tmp_path: Path, changed: str, code: int | None = 0, kept: dict[Change, Explanation] | None = None):
    folder = tmp_path / "mutants" / "src" / "chatelaine" / "room"
    folder.mkdir(parents=True)
    (folder / "part.py").write_text(
        f"def x_check__mutmut_orig(size):{ORIGINAL}\ndef x_check__mutmut_1(size):{changed}\n"
        "def xǁRuleǁjudge__mutmut_orig(self):\n    return 1\n"
    )
    codes = {"chatelaine.room.part.x_check__mutmut_1": code}
    (folder / "part.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    (mutant,) = read(tmp_path, ("room/part.py",), kept or {})["room/part.py"]
    return mutant


@pytest.mark.parametrize(("code", "outcome"), [(1, "killed"), (3, "killed"), (36, "killed"), (None, "pending")])
def test_what_tests_saw_is_killed(tmp_path, code, outcome):
    assert outcome_of(tmp_path, ORIGINAL.replace("> 4", ">= 4"), code).outcome == outcome


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("size > 4", "size >= 4", Outcome.SURVIVOR),
        ('"it is too long"', "None", Outcome.WORDING),
        ('"it is too long"', '"XXit is too longXX"', Outcome.WORDING),
        ('f"{size} bytes are there"', "None", Outcome.WORDING),
        (', f"{size} bytes are there"', "", Outcome.WORDING),
        (', expected="4"', "", Outcome.SURVIVOR),
        ('expected="4"', 'expected="XX4XX"', Outcome.SURVIVOR),
        ('"Holds"', '"HOLDS"', Outcome.SURVIVOR),
        ("found=size", "found=None", Outcome.SURVIVOR),
        ('Refused("it is too long", found=size)', 'Refused("it is too long")', Outcome.SURVIVOR),
    ],
)
def test_only_a_changed_sentence_is_wording(tmp_path, old, new, outcome):
    assert old in ORIGINAL
    assert outcome_of(tmp_path, ORIGINAL.replace(old, new)).outcome is outcome


def test_a_mutant_is_named_by_its_change_and_not_by_its_number(tmp_path):
    mutant = outcome_of(tmp_path, ORIGINAL.replace("> 4", ">= 4"), 33)
    assert mutant.change == Change("room/part.py", "check", "if size > 4:", "if size >= 4:")
    assert not mutant.tested


def test_an_explained_mutant_is_no_survivor(tmp_path):
    change = Change("room/part.py", "check", "if size > 4:", "if size >= 4:")
    kept = {change: Explanation(change, Kind.EQUIVALENT, "it is")}
    assert outcome_of(tmp_path, ORIGINAL.replace("> 4", ">= 4"), 0, kept).outcome is Outcome.EXPLAINED


def test_changed_tests_ask_again_only_what_nothing_noticed(tmp_path):
    meta = tmp_path / "mutants" / "part.py.meta"
    meta.parent.mkdir()
    meta.write_text(json.dumps({"exit_code_by_key": {"a": 0, "b": 1, "c": 33, "d": 36, "e": None}, "kept": 1}))
    stage._ask_again(tmp_path)
    codes = {"a": None, "b": 1, "c": None, "d": 36, "e": None}
    assert json.loads(meta.read_text()) == {"exit_code_by_key": codes, "kept": 1}


def test_the_copy_follows_the_tree(tmp_path, monkeypatch):
    files = {"operator/chatelaine/a.py": "a", "tests/unit/b.py": "b", "Makefile": "m"}
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    monkeypatch.setattr(stage, "_tracked", lambda root: [Path(name) for name in files if (root / name).exists()])
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    assert set(stage._copy(tree, copy)) == {Path("src/chatelaine/a.py"), Path("tests/unit/b.py"), Path("Makefile")}
    assert (copy / "src/chatelaine/a.py").read_text() == "a"
    assert list(stage._copy(tree, copy)) == []
    (tree / "tests/unit/b.py").unlink()
    assert list(stage._copy(tree, copy)) == [Path("tests/unit/b.py")]
    assert not (copy / "tests/unit/b.py").exists()


def test_a_room_has_the_modules_that_are_there():
    assert "tokens/decide.py" in ROOMS["tokens"].modules()
    assert ROOMS["tokens"].modules(["decide", "cache"]) == ("tokens/cache.py", "tokens/decide.py")
    with pytest.raises(ValueError, match="no module nothing"):
        ROOMS["tokens"].modules(["nothing"])


def test_the_table_sums_up():
    row = {"killed": 3, "wording": 2, "explained": 1, "survivor": 0, "pending": 0}
    lines = table({"a.py": row, "b.py": row, "none.py": dict.fromkeys(row, 0)}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["a.py", "3", "2", "1", "0", "0"],
        ["b.py", "3", "2", "1", "0", "0"],
        ["together", "6", "4", "2", "0", "0"],
    ]


def test_every_explanation_speaks_of_a_line_that_is_there():
    assert list(explained.stale(explained.load())) == []


def test_the_page_is_the_one_that_is_written_from_what_is_kept():
    assert page.PATH.read_text() == page.text()
