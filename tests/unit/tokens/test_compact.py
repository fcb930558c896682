from __future__ import annotations

import pytest

from chatelaine.tokens.compact import encode, parse
from chatelaine.tokens.errors import TokenMalformed

OBJECT = encode(b'{"a":1}')


def _token(header: bytes, payload: bytes) -> bytes:
    return encode(header) + b"." + encode(payload) + b"." + encode(b"signature")


def test_three_canonical_parts_are_read():
    jose = parse(_token(b'{"a":1}', b'{"b":[{"c":null}]}'), max_bytes=100)
    assert (jose.header, jose.payload, jose.signature) == ({"a": 1}, {"b": [{"c": None}]}, b"signature")


@pytest.mark.parametrize("number", [b"1.0", b"1e3", b"NaN", b"Infinity", b"-Infinity", b"1.5"])
def test_number_that_two_parsers_may_read_differently_is_refused(number):
    for value in (b'{"a":%s}', b'{"a":[{"b":%s}]}'):
        with pytest.raises(TokenMalformed):
            parse(_token(b"{}", value % number), max_bytes=200)


@pytest.mark.parametrize(
    "value", [b"[]", b"1", b'"x"', b"null", b"", b"{", b'{"a":1}x', b'\xef\xbb\xbf{"a":1}', b"\xff"]
)
def test_part_that_is_no_json_object_is_refused(value):
    with pytest.raises(TokenMalformed):
        parse(encode(value or b"\x00") + b"." + OBJECT + b"." + OBJECT, max_bytes=200)
