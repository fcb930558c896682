"""JSON with one meaning, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import strict_json
from chatelaine.model.identifiers import canonical_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-strict_json.MAX_INTEGER, strict_json.MAX_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text("ab\u00e9", max_size=3), children),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_back(value):
    assert strict_json.loads(canonical_json(value)) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'[{"a": {"b": 1, "b": 2}}]', "twice"),
        (b'{"a": 1, "\\u0061": 2}', "twice"),
        (b"1.0", "not an integer"),
        (b"1e3", "not an integer"),
        (b"-0.0", "not an integer"),
        (b"NaN", "not an integer"),
        (b"[Infinity]", "not an integer"),
        (b"-Infinity", "not an integer"),
        (b"9007199254740992", "too large"),
        (b"-9007199254740992", "too large"),
        (b"9" * 5000, "too large"),
        (b"[" * 100_000, "deep"),
        (b"", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"'a'", "not JSON"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
    ],
)
def test_second_meaning_is_refused(data, why):
    with pytest.raises(strict_json.NotStrict, match=why):
        strict_json.loads(data)


@pytest.mark.parametrize("digits", [b"9007199254740991", b"-9007199254740991", b"0"])
def test_largest_integers_are_read(digits):
    assert strict_json.loads(digits) == int(digits)


@pytest.mark.parametrize(
    ("value", "text"), [("", True), ("aé€😀", True), ("\ud800", False), ("a\udfff", False), (b"a", False)]
)
def test_halves_of_characters_are_no_text(value, text):
    assert strict_json.is_text(value) == text
