"""Text of strangers, for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.printable import printable


@pytest.mark.parametrize("steers", ["\x1b[2J", "\r", "\n", "\x00", "\x9b31m", "\u202e", "\u200b", "\ud800"])
def test_what_steers_a_terminal_is_replaced_character_by_character(steers: str) -> None:
    shown = printable(f"a{steers}b")
    assert shown.isprintable()
    assert (shown[0], shown[-1], len(shown)) == ("a", "b", 2 + len(steers))


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("abc", "abc"), ("abcd", "abc…"), ("ab\ncd", "ab?…")])
def test_what_is_too_long_is_cut_and_says_so(text: str, shown: str) -> None:
    assert printable(text, 3) == shown


@given(st.text())
def test_what_is_shown_stays_as_it_is_when_shown_again(text: str) -> None:
    assert printable(printable(text)) == printable(text)
