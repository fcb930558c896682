"""Frames between supervisor and worker keep values and errors, and refuse the rest."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from chatelaine.model.keys import KeyType
from chatelaine.pkcs11 import errors, frames
from chatelaine.pkcs11.errors import BY_CODE, HsmError, ProtocolBroken
from chatelaine.pkcs11.port import SignMechanism


def test_every_error_that_a_caller_can_meet_crosses_the_socket() -> None:
    classes = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, HsmError) and cls is not HsmError
    }
    abstract = {errors.LoginRefused}
    assert set(BY_CODE.values()) == classes - abstract
    for cls in BY_CODE.values():
        error = frames.as_error(frames.failure(1, cls("this", "that")))
        assert type(error) is cls
        assert (error.expected, error.found, error.remedy) == ("this", "that", cls.default_remedy)


def test_unknown_error_code_is_an_error_all_the_same() -> None:
    assert isinstance(frames.as_error(frames.Failure(1, "Nonsense", "", "", "")), ProtocolBroken)


def test_calls_of_every_kind_are_read_as_written() -> None:
    calls: list[frames.Call] = [
        frames.Describe(1),
        frames.Ensure(2, "l", KeyType.EC_P256, True),
        frames.Destroy(3, "l"),
        frames.Inventory(4),
        frames.Sign(5, "l", SignMechanism.ECDSA_SHA256, b"d"),
        frames.Verify(6, "l", SignMechanism.RSA_PSS_SHA256, b"d", b"s"),
        frames.Public(7, "l"),
        frames.Random(8, 16),
    ]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(calls), type=list[frames.Call]) == calls


def test_frame_longer_than_the_bound_is_refused_before_it_is_read() -> None:
    assert frames.payload_length(frames.frame(b"abc")[: frames.HEADER_BYTES]) == 3
    with pytest.raises(ProtocolBroken):
        frames.payload_length((frames.MAX_FRAME_BYTES + 1).to_bytes(frames.HEADER_BYTES))
