"""What supervisor and worker say to each other: length-prefixed msgpack over an inherited socket pair.

One frame is a 4-byte big-endian length and a msgpack array. Supervisor to worker: first one `Start`, then arrays of
calls. Worker to supervisor: first one `Started` or `StartFailed`, then arrays of `Reply` and `Failure`.
Both ends come from one release and are each other's child and parent, so there is no version to negotiate.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.errors import BY_CODE, HsmError, ProtocolBroken
from chatelaine.pkcs11.port import SignMechanism, TokenInfo

MAX_CALLS_PER_FRAME: Final = 128
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
HEADER_BYTES: Final = 4

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 3
"""The worker could not log in; it has said why."""
EXIT_AGAIN: Final = 4
"""The library's view of the token can no longer be believed; the supervisor starts a new process at once."""


class Start(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Which module and token, where the PIN lies. `serial` is the one pinned at enrolment, or empty."""

    module: str
    token_uri: str
    serial: str
    pin_file: str
    state_directory: str


class Started(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Logged in and self-tested."""

    token: TokenInfo


class StartFailed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Not logged in; the worker ends."""

    code: str
    expected: str
    found: str
    remedy: str


class Describe(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.token_info`."""

    call: int


class Ensure(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.ensure_key_pair`."""

    call: int
    label: str
    key_type: KeyType
    may_generate: bool


class Destroy(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.destroy_key`."""

    call: int
    label: str


class Inventory(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.inventory`."""

    call: int


class Sign(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.sign`."""

    call: int
    label: str
    mechanism: SignMechanism
    digest: bytes


class Verify(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.verify`."""

    call: int
    label: str
    mechanism: SignMechanism
    digest: bytes
    signature: bytes


class Public(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.public_key`."""

    call: int
    label: str


class Random(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`HsmPort.random`."""

    call: int
    length_bytes: int


Call = Describe | Ensure | Destroy | Inventory | Sign | Verify | Public | Random


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The value of one call: bytes as they are, enumerations as their text, everything else as msgpack."""

    call: int
    value: bytes


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The error of one call."""

    call: int
    code: str
    expected: str
    found: str
    remedy: str


def frame(payload: bytes) -> bytes:
    """`payload` with its length in front."""
    return len(payload).to_bytes(HEADER_BYTES) + payload


def payload_length(header: bytes) -> int:
    """The length that a header announces.

    Raises:
        ProtocolBroken: longer than the bound.
    """
    length = int.from_bytes(header)
    if length > MAX_FRAME_BYTES:
        raise ProtocolBroken(f"a frame of at most {MAX_FRAME_BYTES} bytes", f"{length}")
    return length


def failure(call: int, error: HsmError) -> Failure:
    """`error` as it crosses the socket."""
    return Failure(call, error.code, error.expected, error.found, error.remedy)


def start_failed(error: HsmError) -> StartFailed:
    """`error` as the worker's last word at start."""
    return StartFailed(error.code, error.expected, error.found, error.remedy)


def as_error(message: Failure | StartFailed) -> HsmError:
    """The error that the worker met, as the class it had there."""
    error = BY_CODE.get(message.code)
    if error is None:
        return ProtocolBroken("an error code of this release", message.code[:64])
    return error(message.expected, message.found, message.remedy)
