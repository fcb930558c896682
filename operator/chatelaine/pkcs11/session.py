"""One logged-in session with one token, found by what is written on it. Single-threaded: python-pkcs11 demands it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, MechanismFlag, ObjectClass, TokenFlag
from pkcs11.attributes import ATTRIBUTE_TYPES, AttributeMapper
from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PKCS11Error, UserAlreadyLoggedIn

from chatelaine.model.identifiers import digest_of
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.errors import (
    DeviceFailure,
    ModuleUnusable,
    PinBudgetSpent,
    PinLocked,
    TokenAmbiguous,
    TokenNotFound,
)
from chatelaine.pkcs11.mapping import mapped
from chatelaine.pkcs11.pin import PinAttempts
from chatelaine.pkcs11.port import TokenInfo
from chatelaine.pkcs11.templates import KEY_TYPES, PairTemplate, pair_template
from chatelaine.pkcs11.uri import Pkcs11Uri

KEY_CLASSES: Final = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY)
_ULONG_BYTES: Final = 8
MAX_TOKENS_LISTED: Final = 8


class Session:
    """A read-write user session. Handles are good until the next login."""

    def __init__(self, module: str, uri: Pkcs11Uri, serial: str, attempts: PinAttempts) -> None:
        """Load the module. `serial` is pinned at enrolment, or empty.

        Raises:
            ModuleUnusable: the library cannot be loaded or initialised.
        """
        if not Path(module).is_file():
            raise ModuleUnusable("a PKCS#11 library", f"no file {module}")
        try:
            self._library = pkcs11.lib(module)
        except (PKCS11Error, RuntimeError, OSError) as error:
            found = f"{type(error).__name__} from {module}"
            raise ModuleUnusable("a PKCS#11 library that initialises", found) from error
        self._uri = uri
        self._serial = serial
        self._attempts = attempts
        self._slot: Any = None
        self._handle: Any = None

    def login(self, pin: str) -> TokenInfo:
        """Find the token and log in. From now on the token is pinned by its serial.

        Raises:
            TokenNotFound, TokenAmbiguous: none, or several, fit.
            PinLocked, PinBudgetSpent, PinRejected: the PIN was not tried, or was refused.
            DeviceFailure: the module failed.
        """
        self._handle = None
        token = self._find()
        self._slot = token.slot
        self._serial = _serial(token)
        self._check_pin_budget(token.flags, pin)
        self._attempts.begin(self._serial, pin)
        try:
            self._handle = token.open(rw=True, user_pin=pin, attribute_mapper=_mapper())
        except (PinIncorrect, PinInvalid, PinLenRange) as error:
            self._attempts.refused(self._serial, pin)
            raise mapped(error, "log in") from None
        except UserAlreadyLoggedIn:
            # Another session of this process is in. It proves nothing about this PIN, so nothing is struck out.
            self._handle = token.open(rw=True, attribute_mapper=_mapper())
        except PKCS11Error as error:
            raise mapped(error, "log in") from None
        else:
            self._attempts.accepted(self._serial, pin)
        return self.describe()

    def _check_pin_budget(self, flags: int, pin: str) -> None:
        """Nothing is tried on a token near its lock (PKCS#11 v3.1 section 3.2, `CKF_USER_PIN_…`).

        COUNT_LOW that we caused ourselves is cleared by a changed PIN file; FINAL_TRY and LOCKED by nothing of ours.
        """
        if flags & TokenFlag.USER_PIN_LOCKED:
            raise PinLocked("an unlocked token", "CKF_USER_PIN_LOCKED; the PIN was not tried")
        self._attempts.check(self._serial, pin)
        if flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise PinBudgetSpent(
                "a token that nobody gave a wrong PIN", "CKF_USER_PIN_FINAL_TRY; the PIN was not tried"
            )
        if flags & TokenFlag.USER_PIN_COUNT_LOW and not self._attempts.explain_low_count(self._serial):
            raise PinBudgetSpent(
                "a token that nobody gave a wrong PIN", "CKF_USER_PIN_COUNT_LOW; the PIN was not tried"
            )
        if not flags & TokenFlag.USER_PIN_INITIALIZED:
            raise DeviceFailure("a token with a user PIN", "no CKF_USER_PIN_INITIALIZED", "set the token's user PIN")

    def _find(self) -> Any:
        try:
            # Modules notice new and removed tokens only when the slot list is asked for (PKCS#11 v3.1, section 5.5.1).
            tokens = [slot.get_token() for slot in self._library.get_slots(token_present=True)]
        except PKCS11Error as error:
            raise mapped(error, "list its tokens") from error
        ready = [token for token in tokens if token.flags & TokenFlag.TOKEN_INITIALIZED]
        fitting = [token for token in ready if self._uri.matches(_Labels(token))]
        if self._serial:
            fitting = [token for token in fitting if _serial(token) == self._serial]
        wanted = f"{self._uri}" + (f" with serial {self._serial}" if self._serial else "")
        if not fitting:
            raise TokenNotFound(f"a token that fits {wanted}", _listed(ready) or "no initialised token")
        if len(fitting) > 1:
            raise TokenAmbiguous(f"one token that fits {wanted}", _listed(fitting))
        return fitting[0]

    def describe(self) -> TokenInfo:
        """The token's description, read anew.

        Raises:
            TokenNotFound: another token is in the slot now.
        """
        try:
            token = self._slot.get_token()
            mechanisms = tuple(sorted(int(mechanism) for mechanism in self._slot.get_mechanisms()))
            key_types = tuple(kind for kind in KEY_TYPES if self._can_make(pair_template("", kind), mechanisms))
        except PKCS11Error as error:
            raise mapped(error, "describe itself") from error
        if _serial(token) != self._serial:
            raise TokenNotFound(f"the token with serial {self._serial}", f"serial {_serial(token)} in its slot")
        packed = b"".join(mechanism.to_bytes(_ULONG_BYTES) for mechanism in mechanisms)
        return TokenInfo(
            serial=self._serial,
            label=token.label,
            manufacturer=token.manufacturer_id,
            model=token.model,
            firmware="{}.{}".format(*token.firmware_version),
            hardware_version="{}.{}".format(*token.hardware_version),
            flags=int(token.flags),
            mechanisms=mechanisms,
            mechanisms_digest=digest_of(packed),
            key_types=key_types,
        )

    def _can_make(self, template: PairTemplate, mechanisms: tuple[int, ...]) -> bool:
        needed = (template.generation, *template.signing)
        if any(int(mechanism) not in mechanisms for mechanism in needed):
            return False
        info = self._slot.get_mechanism_info(template.generation)
        return bool(info.min_key_length <= template.size_bits <= info.max_key_length)

    def objects(self, template: Mapping[Attribute, object]) -> list[Any]:
        """Every key object that fits `template`, in the order of `KEY_CLASSES`.

        In one search where the template names an object: SoftHSM opens every file of its store for each search. In one
        a class where that fails or nothing is named, because one broken object (a store cut off in mid-write) makes a
        search for everything fail. As a list, because python-pkcs11 keeps the session busy while its generator is
        alive.
        """
        if Attribute.CLASS not in template and (Attribute.ID in template or Attribute.LABEL in template):
            with contextlib.suppress(PKCS11Error):
                named = [(item.object_class, item) for item in list(self._handle.get_objects(dict(template)))]
                return [item for wanted in KEY_CLASSES for found, item in named if found == wanted]
        found: list[Any] = []
        for object_class in KEY_CLASSES:
            if template.get(Attribute.CLASS, object_class) == object_class:
                found.extend(self._handle.get_objects({**template, Attribute.CLASS: object_class}))
        return found

    def generate(self, template: PairTemplate) -> tuple[Any, Any]:
        """`C_GenerateKeyPair`: public and private half. python-pkcs11's errors pass through."""
        none = MechanismFlag(0)
        if template.key_type is KeyType.RSA_3072:
            public, private = self._handle.generate_keypair(
                template.ck_key_type,
                template.size_bits,
                store=True,
                capabilities=none,
                public_template=template.public,
                private_template=template.private,
            )
            return public, private
        parameters = self._handle.create_domain_parameters(
            template.ck_key_type, {Attribute.EC_PARAMS: template.public[Attribute.EC_PARAMS]}, local=True
        )
        public, private = parameters.generate_keypair(
            store=True, capabilities=none, public_template=template.public, private_template=template.private
        )
        return public, private

    def random(self, length_bytes: int) -> bytes:
        """Bytes from the token's generator. python-pkcs11's errors pass through."""
        return bytes(self._handle.generate_random(length_bytes * 8))

    def close(self) -> None:
        """Log out, as far as the token still listens."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(PKCS11Error):
                handle.close()


class _Labels:
    """A token's fields under the names that a URI uses."""

    def __init__(self, token: Any) -> None:
        self.label: str = token.label
        self.serial: str = _serial(token)
        self.manufacturer: str = token.manufacturer_id
        self.model: str = token.model


def _mapper() -> AttributeMapper:
    """Vendor-defined classes and key types are numbers, not a crash; a label in another encoding is shown escaped."""
    mapper = AttributeMapper()
    for name in (Attribute.CLASS, Attribute.KEY_TYPE):
        pack, unpack = ATTRIBUTE_TYPES[name]
        mapper.register_handler(name, pack, functools.partial(_or_number, unpack))
    mapper.register_handler(Attribute.LABEL, str.encode, lambda data: data.decode(errors="backslashreplace"))
    return mapper


def _or_number(unpack: Any, data: bytes) -> Any:
    try:
        return unpack(data)
    except ValueError:
        return int.from_bytes(data, "little")


def _serial(token: Any) -> str:
    return str(token.serial.decode("ascii", errors="backslashreplace")).strip()


def _listed(tokens: Iterable[Any]) -> str:
    shown = [f"{token.label} (serial {_serial(token)})" for token in tokens]
    more = f" and {len(shown) - MAX_TOKENS_LISTED} more" if len(shown) > MAX_TOKENS_LISTED else ""
    return ", ".join(shown[:MAX_TOKENS_LISTED]) + more
