"""What can go wrong between us and a token.

    HsmError
    ├── HsmUnavailable          nothing was decided; ask again later
    │   ├── WorkerDown          the worker process died or is being restarted
    │   ├── QueueFull           more calls wait than the bound allows
    │   ├── DeadlineExceeded    the call's own deadline passed
    │   └── DeviceFailure       the module answered with an error of the device or of itself
    ├── LoginRefused            nobody tries again until a person acts
    │   ├── PinRejected         this very PIN was refused by this token before
    │   ├── PinLocked           the token says its PIN is locked
    │   ├── PinBudgetSpent      the token says that one more wrong PIN may lock it
    │   └── PinFileRefused      the PIN file is absent, or others may read it
    ├── UriRefused              not an RFC 7512 URI that names a token by what is written on it
    ├── TokenNotFound           no present token fits the URI (and the pinned serial)
    │   └── TokenAmbiguous      more than one does
    ├── ModuleUnusable          the library cannot be loaded or failed its self-test
    ├── KeyAbsent               no key pair of that label
    ├── KeyDamaged              half a pair, or a pair whose material is missing
    ├── KeyMismatched           a working pair that is not as we make them
    ├── MechanismMissing        the token or the key cannot do this
    ├── StoreUnwritable         the token would not store or delete an object
    ├── BadRequest              the caller's arguments break a bound
    └── ProtocolBroken          a frame between us and the worker was not understood

Each error says what was expected, what was found and what to do. None carries a PIN or key material.
"""

from __future__ import annotations

from typing import ClassVar, Final


class HsmError(Exception):
    """Base of everything that this room raises.

    `expected`, `found` and `remedy` are sentences for a person; `code` is the class name, an UpperCamelCase reason.
    """

    default_remedy: ClassVar[str] = "look at the gateway's log"

    def __init__(self, expected: str, found: str, remedy: str = "") -> None:
        self.expected = expected
        self.found = found
        self.remedy = remedy or self.default_remedy
        super().__init__(f"expected {expected}; found {found}; {self.remedy}")

    @property
    def code(self) -> str:
        """The reason as conditions, metrics and frames name it."""
        return type(self).__name__


class HsmUnavailable(HsmError):
    """No answer could be had; the operation may or may not have happened. Ask again later."""

    default_remedy = "try again; the operation is idempotent"


class WorkerDown(HsmUnavailable):
    """The worker process died, or is being restarted."""

    default_remedy = "try again; the supervisor restarts the worker by itself"


class QueueFull(HsmUnavailable):
    """More calls wait than the bound allows."""

    default_remedy = "send fewer calls at once"


class DeadlineExceeded(HsmUnavailable):
    """The call's own deadline passed before the token answered."""


class DeviceFailure(HsmUnavailable):
    """The module answered with an error of the device or of itself."""

    default_remedy = "check the HSM and its client library"


class LoginRefused(HsmError):
    """Login stopped. Nobody tries again until a person acts."""


class PinRejected(LoginRefused):
    """This very PIN was refused by this token before; it is not tried again."""

    default_remedy = "put the right PIN into the PIN file; the gateway notices the change"


class PinLocked(LoginRefused):
    """The token says that its user PIN is locked."""

    default_remedy = "unlock the token with its security officer's tool, then put the PIN into the PIN file anew"


class PinBudgetSpent(LoginRefused):
    """The token says that a wrong PIN was given lately, so one more may lock it."""

    default_remedy = "log in once with the vendor's tool and the right PIN, which resets the token's counter"


class PinFileRefused(LoginRefused):
    """The PIN file is absent, not ours, or readable by others."""

    default_remedy = "make it a regular file of the gateway's user with mode 0600 or 0400"


class UriRefused(HsmError):
    """Not an RFC 7512 URI that we follow: malformed, too long, or naming a slot, a PIN or a library."""

    default_remedy = "name the token by serial, token, manufacturer or model only, e.g. pkcs11:token=hsm-a"


class TokenNotFound(HsmError):
    """No present token fits the URI (and the pinned serial)."""

    default_remedy = "compare the Hsm's spec.token with what `pkcs11-tool --list-token-slots` shows"


class TokenAmbiguous(TokenNotFound):
    """More than one present token fits the URI."""

    default_remedy = "add the serial to the URI"


class ModuleUnusable(HsmError):
    """The PKCS#11 library cannot be loaded or failed its self-test."""

    default_remedy = "check the module's path and its configuration"


class KeyAbsent(HsmError):
    """No key pair of that label is on the token."""

    default_remedy = "generate it, or restore the token"


class KeyDamaged(HsmError):
    """Half a pair, or a pair whose key material is missing."""

    default_remedy = "retire this version and make a new one"


class KeyMismatched(HsmError):
    """A working pair under our identifier that is not as we make them: somebody else put or changed it."""

    default_remedy = "find out who changed the token; destroy the key to have it made anew"


class MechanismMissing(HsmError):
    """The token or the key cannot do this."""

    default_remedy = "ask for a key type and mechanism that the token offers"


class StoreUnwritable(HsmError):
    """The token would not store or delete an object."""

    default_remedy = "free space on the token or mend its storage, then try again"


class BadRequest(HsmError):
    """The caller's arguments break a bound."""

    default_remedy = "mend the call"


class ProtocolBroken(HsmError):
    """A frame between supervisor and worker was not understood."""

    default_remedy = "both ends must come from the same release"


_ALL: Final = (
    HsmUnavailable,
    WorkerDown,
    QueueFull,
    DeadlineExceeded,
    DeviceFailure,
    PinRejected,
    PinLocked,
    PinBudgetSpent,
    PinFileRefused,
    UriRefused,
    TokenNotFound,
    TokenAmbiguous,
    ModuleUnusable,
    KeyAbsent,
    KeyDamaged,
    KeyMismatched,
    MechanismMissing,
    StoreUnwritable,
    BadRequest,
    ProtocolBroken,
)
BY_CODE: Final[dict[str, type[HsmError]]] = {error.__name__: error for error in _ALL}
"""The classes that cross the worker's frames, by their code."""
