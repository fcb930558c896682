"""Manifests with comments: what is read back is what was written, and nothing hostile is more than text."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.cli.policy_yaml import manifest_yaml

KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
TEXTS = st.text(max_size=40) | st.sampled_from(["on", "null", "1e3", "~", "- x", "a: b", "12" * 32, "0x1F", "# no", ""])
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
MANIFESTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)
LINES = st.lists(st.text(max_size=300), max_size=3).map(tuple)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in parts for place in places(item, (*path, key)))]


@given(MANIFESTS, st.data())
def test_comments_change_nothing_of_what_is_read_back(manifest, data):
    comments = data.draw(st.dictionaries(st.sampled_from(places(manifest)), LINES, max_size=5))
    text = manifest_yaml(manifest, comments, data.draw(LINES))
    assert yaml.safe_load(text) == manifest


@given(MANIFESTS, LINES)
def test_no_control_character_is_written(manifest, head):
    text = manifest_yaml(manifest, {}, head)
    assert all(c == "\n" or c.isprintable() for c in text)
    assert all(line.startswith("#") or line.isascii() for line in text.splitlines())


def test_hostile_path_cannot_leave_its_scalar_or_its_comment():
    evil = "/tmp/\x1b[2J\u202e\nspec: {enforcement: Audit}"
    manifest = {"spec": {"allow": [{"path": evil, "digests": ["x" * 90]}]}}
    text = manifest_yaml(manifest, {("spec", "allow", 0): (evil,)}, (evil,))
    assert yaml.safe_load(text) == manifest
    assert "\x1b" not in text
    assert not any(line.startswith("spec: {") for line in text.splitlines())


def test_comments_stand_above_their_place():
    manifest = {"spec": {"values": [{"index": 0, "anyOf": ["ab" * 32]}, {"index": 7, "anyOf": ["cd" * 32]}]}}
    lines = manifest_yaml(manifest, {("spec", "values", 1): ("Secure Boot",)}).splitlines()
    at = lines.index("    # Secure Boot")
    assert lines[at + 1] == "    - index: 7"


def test_digest_that_reads_as_a_number_elsewhere_is_quoted():
    digest = "1" * 30 + "e" + "2" * 33
    assert f'"{digest}"' in manifest_yaml({"anyOf": [digest]}, {})
