"""The one seam where python-pkcs11's exceptions become ours."""

from __future__ import annotations

from typing import Final

import pkcs11.exceptions as ck

from chatelaine.pkcs11.errors import (
    BadRequest,
    DeviceFailure,
    HsmError,
    KeyAbsent,
    MechanismMissing,
    PinLocked,
    PinRejected,
    StoreUnwritable,
    TokenNotFound,
)

STALE_HANDLE: Final = (ck.KeyHandleInvalid, ck.ObjectHandleInvalid)
"""The object behind a cached handle is gone: look it up again."""
STALE_SESSION: Final = (
    ck.SessionHandleInvalid,
    ck.SessionClosed,
    ck.UserNotLoggedIn,
    ck.DeviceRemoved,
    ck.TokenNotPresent,
)
"""The session is gone: log in again, and forget every handle."""
_MECHANISM: Final = (
    ck.MechanismInvalid,
    ck.MechanismParamInvalid,
    ck.FunctionNotSupported,
    ck.KeySizeRange,
    ck.KeyTypeInconsistent,
    ck.DomainParamsInvalid,
    ck.AttributeTypeInvalid,
    ck.AttributeValueInvalid,
    ck.TemplateInconsistent,
    ck.TemplateIncomplete,
)
_STORE: Final = (
    ck.DeviceMemory,
    ck.DeviceError,
    ck.FunctionFailed,
    ck.GeneralError,
    ck.TokenWriteProtected,
    ck.SessionReadOnly,
)
"""What modules answer when an object cannot be stored or deleted; SoftHSM says the two vaguest."""


def mapped(error: ck.PKCS11Error, doing: str, *, writing: bool = False) -> HsmError:
    """Our error for `error`. `doing` is what was asked, for a person; `writing`: objects are stored or deleted."""
    name = type(error).__name__
    if isinstance(error, ck.PinLocked):
        return PinLocked("an unlocked token", name)
    if isinstance(error, ck.PinIncorrect | ck.PinInvalid | ck.PinLenRange | ck.PinExpired):
        return PinRejected("a PIN that the token accepts", name)
    if isinstance(error, ck.NoSuchToken | ck.TokenNotPresent | ck.DeviceRemoved | ck.TokenNotRecognised):
        return TokenNotFound("the token in its place", name)
    if isinstance(error, STALE_HANDLE):
        return KeyAbsent(f"{doing} with a key on the token", name)
    if isinstance(error, _MECHANISM):
        return MechanismMissing(f"a token that can {doing}", name)
    if isinstance(error, ck.DataLenRange | ck.DataInvalid | ck.ArgumentsBad):
        return BadRequest(f"arguments with which the token can {doing}", name)
    if writing and isinstance(error, _STORE):
        return StoreUnwritable(f"a token that can {doing}", name)
    return DeviceFailure(f"a token that can {doing}", name)
