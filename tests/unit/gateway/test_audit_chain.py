from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.gateway.audit_chain import FIRST, Link, open_line, seal, verify
from chatelaine.gateway.errors import ChainBroken

KEY = b"k" * 32


def _chain(count: int, key: bytes = KEY) -> list[bytes]:
    lines, last = [], FIRST
    for number in range(count):
        line, last = seal(key, last, json.dumps({"n": number, "mac": "decoy"}).encode())
        lines.append(line.rstrip(b"\n"))
    return lines


def test_an_untouched_chain_holds_and_each_line_is_json():
    lines = _chain(5)
    assert verify(KEY, lines).seq == 5
    assert [json.loads(line)["n"] for line in lines] == list(range(5))
    assert verify(KEY, []) == FIRST


def test_it_can_be_checked_from_any_known_link():
    lines = _chain(5)
    _, third = open_line(KEY, lines[2])
    assert verify(KEY, lines[3:], third).seq == 5


@pytest.mark.parametrize("seq", [0, 1])
def test_dropped_line_is_seen(seq):
    lines = _chain(4)
    del lines[seq]
    with pytest.raises(ChainBroken):
        verify(KEY, lines)


def test_cut_off_end_is_seen_by_who_holds_a_later_link():
    lines = _chain(4)
    _, last = open_line(KEY, lines[-1])
    assert verify(KEY, lines[:-1]) != last


def test_swapped_and_repeated_lines_are_seen():
    lines = _chain(3)
    for other in ([lines[1], lines[0], lines[2]], [lines[0], lines[0], lines[1]]):
        with pytest.raises(ChainBroken):
            verify(KEY, other)


def test_line_sealed_by_somebody_without_the_key_is_seen():
    lines = _chain(2)
    _, last = open_line(KEY, lines[-1])
    forged, _ = seal(b"x" * 32, last, b'{"n":2}')
    with pytest.raises(ChainBroken):
        verify(KEY, [*lines, forged.rstrip(b"\n")])


def test_line_of_another_chain_of_the_same_key_is_seen():
    lines = _chain(2)
    strange, _ = seal(KEY, Link(2, "0" * 64), b'{"n":9}')
    with pytest.raises(ChainBroken):
        verify(KEY, [*lines, strange.rstrip(b"\n")])


@given(st.data())
def test_any_changed_byte_is_seen(data):
    lines = _chain(3)
    which = data.draw(st.integers(0, 2))
    line = bytearray(lines[which])
    position = data.draw(st.integers(0, len(line) - 1))
    old = line[position]
    line[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte != old))
    lines[which] = bytes(line)
    with pytest.raises(ChainBroken):
        verify(KEY, lines)


@given(st.binary(max_size=200))
def test_garbage_is_no_line(data):
    with pytest.raises(ChainBroken):
        open_line(KEY, data)
