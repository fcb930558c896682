"""Messages from anybody's hand: the version is read first, and nothing but our two errors comes out."""

from __future__ import annotations

import contextlib
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.wire import messages
from chatelaine.wire.errors import MessageError, MessageMalformed, VersionNotSupported
from chatelaine.wire.messages import (
    Activated,
    Change,
    EvidenceRequest,
    EvidenceResponse,
    Message,
    Problem,
    ViewUpdate,
    decode,
    encode,
)

KINDS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)]
REQUESTS = [getattr(messages, name) for name in re.findall(r"(?:POST|PUT)\s+\S+\s+(\w+)\s+->", messages.__doc__ or "")]
DEEP = b'{"unknown":' + b"[" * 100_000


def test_what_is_encoded_is_decoded() -> None:
    asked = EvidenceRequest(nonce=bytes(32), subject_uid="u", bank="Sha256", indices=(0, 7))
    assert decode(encode(asked), EvidenceRequest) == asked


def test_every_request_carries_its_version() -> None:
    assert len(REQUESTS) >= 8
    assert {kind.__name__ for kind in REQUESTS if "v" not in kind.__struct_fields__} == set()


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("body", [b'{"v":2}', b'{"v":0,"nonce":{"another":"shape"}}', b'{"indices":"all","v":-1}'])
def test_a_newer_message_of_another_shape_is_a_matter_of_its_version(kind: type[Message], body: bytes) -> None:
    with pytest.raises(VersionNotSupported, match="understood: 1"):
        decode(body, kind)


@pytest.mark.parametrize("body", [b'{"v":"1"}', b'{"v":null}', b'{"v":true}', b'{"v":1.5}', b'{"v":1e400}'])
def test_a_version_that_is_no_whole_number_is_malformed(body: bytes) -> None:
    with pytest.raises(MessageMalformed, match="no ViewUpdate"):
        decode(body, ViewUpdate)


def test_fields_that_are_not_known_are_ignored() -> None:
    assert decode(b'{"secret":"AAAA","news":[{}]}', Activated) == Activated(secret=bytes(3))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("body", [DEEP, b"[" * 100_000], ids=["unknown field", "whole"])
def test_nesting_without_end_is_malformed(kind: type[Message], body: bytes) -> None:
    with pytest.raises(MessageMalformed):
        decode(body, kind)


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_text_that_is_no_utf8_is_malformed(text: bytes) -> None:
    with pytest.raises(MessageMalformed):
        decode(b'{"code":"' + text + b'"}', Problem)


def test_a_number_of_thousands_of_digits_is_malformed() -> None:
    with pytest.raises(MessageMalformed):
        decode(b'{"kind":"Alive","counter":' + b"9" * 5000 + b"}", Change)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_bytes_give_a_message_or_one_of_our_errors(body: bytes) -> None:
    for kind in (EvidenceResponse, EvidenceRequest, Change, Problem):
        with contextlib.suppress(MessageError):
            assert isinstance(decode(body, kind), kind)
