"""What the worker does for each call: bounds, handle cache, retries after a lost session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from pkcs11.exceptions import PKCS11Error

from chatelaine.evidence.inventory import MAX_KEYS
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11 import frames, keys
from chatelaine.pkcs11.errors import (
    HsmError,
    KeyAbsent,
    KeyDamaged,
    KeyMismatched,
    MechanismMissing,
    ModuleUnusable,
    StoreUnwritable,
)
from chatelaine.pkcs11.keys import Pair, PairState
from chatelaine.pkcs11.mapping import STALE_HANDLE, STALE_SESSION, mapped
from chatelaine.pkcs11.port import (
    DestroyOutcome,
    PublicKey,
    SignMechanism,
    TokenInfo,
    check_digest,
    check_label,
    check_mechanism,
    check_random_length,
    check_signature_length,
)
from chatelaine.pkcs11.session import Session
from chatelaine.pkcs11.templates import pair_template, session_pair

MAX_CACHED_PAIRS: Final = 4096
_RANDOM_TEST_BYTES: Final = 32
_Answer = TypeVar("_Answer")


class Service:
    """One token's calls, one after the other. After `must_restart` turns true nothing more may be asked."""

    def __init__(self, session: Session, pin: Callable[[], str], token: TokenInfo) -> None:
        self._session = session
        self._pin = pin
        self._pairs: dict[str, Pair] = {}
        self.token = token
        self.must_restart = False

    @classmethod
    def start(cls, session: Session, pin: Callable[[], str]) -> Service:
        """Log in and test the module. `pin` reads the PIN anew each time: it is not kept.

        Raises:
            LoginRefused, TokenNotFound, DeviceFailure: see `Session.login`.
            ModuleUnusable: the self-test failed.
        """
        service = cls(session, pin, session.login(pin()))
        service.self_test()
        with contextlib.suppress(StoreUnwritable):  # what remains is seen in the inventory; signing goes on
            service.sweep()
        return service

    def sweep(self) -> None:
        """Clear what a predecessor that was killed may have left.

        Raises:
            StoreUnwritable: the token would not delete it.
            DeviceFailure: the token cannot be searched.
        """
        try:
            keys.sweep(self._session)
        except PKCS11Error as error:
            raise mapped(error, "be searched for remains of keys") from error

    def self_test(self) -> None:
        """Random bytes that differ, and a signature by a passing key that verifies in software.

        Raises:
            ModuleUnusable: a wrong answer, or none.
        """
        try:
            first, second = self._session.random(_RANDOM_TEST_BYTES), self._session.random(_RANDOM_TEST_BYTES)
            if first == second or len(first) != _RANDOM_TEST_BYTES:
                raise ModuleUnusable("random bytes", "the same bytes twice")
            if KeyType.EC_P256 not in self.token.key_types:
                return
            template = session_pair(pair_template("chat/self-test", KeyType.EC_P256))
            public, private = self._session.generate(template)
            outcome = keys.prove_generated(private, public)
            private.destroy()
            public.destroy()
        except PKCS11Error as error:
            raise ModuleUnusable("a self-test that passes", type(error).__name__) from error
        if outcome is not Outcome.HOLDS:
            raise ModuleUnusable("a signature that verifies", "one that does not")

    def execute(self, call: frames.Call) -> bytes:
        """The value of one call.

        Raises:
            HsmError: one of `pkcs11.errors`.
        """
        match call:
            case frames.Sign(_, label, mechanism, digest):
                return self._with_pair(label, mechanism, digest, lambda pair: keys.sign(pair, mechanism, digest))
            case frames.Verify(_, label, mechanism, digest, signature):
                return self._verify(label, mechanism, digest, signature)
            case frames.Public(_, label):
                return msgspec.msgpack.encode(self._again(lambda: self._pair(label)).describe())
            case frames.Random(_, length_bytes):
                return self._random(length_bytes)
            case frames.Ensure(_, label, key_type, may_generate):
                return msgspec.msgpack.encode(self._again(lambda: self._ensure(label, key_type, may_generate)))
            case frames.Destroy(_, label):
                return self._again(lambda: self._destroy(label)).value.encode()
            case frames.Inventory():
                listed = self._again(lambda: keys.inventory(self._session, MAX_KEYS))
                return msgspec.msgpack.encode(listed)
            case frames.Describe():
                return msgspec.msgpack.encode(self._session.describe())

    def close(self) -> None:
        """Log out."""
        self._session.close()

    def _verify(self, label: str, mechanism: SignMechanism, digest: bytes, signature: bytes) -> bytes:
        check_signature_length(signature)
        outcome = self._with_pair(
            label, mechanism, digest, lambda pair: keys.verify(pair, mechanism, digest, signature)
        )
        return outcome.value.encode()

    def _random(self, length_bytes: int) -> bytes:
        check_random_length(length_bytes)
        return self._again(lambda: self._session.random(length_bytes))

    def _with_pair(
        self, label: str, mechanism: SignMechanism, digest: bytes, use: Callable[[Pair], _Answer]
    ) -> _Answer:
        check_digest(digest)

        def once() -> _Answer:
            pair = self._pairs.get(label) or self._pair(label)
            check_mechanism(mechanism, pair.key_type)
            return use(pair)

        return self._again(once)

    def _again(self, work: Callable[[], _Answer]) -> _Answer:
        """Do `work`; once more if a cached handle or the session turns out to be gone."""
        try:
            return work()
        except STALE_SESSION:
            self._login_again()
        except STALE_HANDLE:
            self._pairs.clear()
        except PKCS11Error as error:
            raise mapped(error, "do what it was asked") from error
        try:
            return work()
        except PKCS11Error as error:
            raise mapped(error, "do what it was asked") from error

    def _login_again(self) -> None:
        """A new login is a new epoch of the session: no handle of the old one is used again."""
        self._pairs.clear()
        try:
            self.token = self._session.login(self._pin())
        except HsmError:
            self.must_restart = True
            raise

    def _pair(self, label: str) -> Pair:
        """The cached pair, or the one on the token, proven.

        Raises:
            KeyAbsent, KeyDamaged, KeyMismatched: as the port says.
        """
        cached = self._pairs.get(label)
        if cached is not None:
            return cached
        check_label(label)
        judged = keys.judge(self._session, label)
        if judged.state is PairState.ABSENT:
            raise KeyAbsent(f"a key pair {label}", "none")
        if judged.state is PairState.INCOMPLETE:
            raise KeyDamaged(f"both halves of {label}", judged.detail)
        if judged.pair is None:
            raise KeyMismatched(f"{label} as we make it", judged.detail)
        if len(self._pairs) >= MAX_CACHED_PAIRS:
            self._pairs.pop(next(iter(self._pairs)))
        self._pairs[label] = judged.pair
        return judged.pair

    def _ensure(self, label: str, key_type: KeyType, may_generate: bool) -> PublicKey:
        check_label(label)
        self._pairs.pop(label, None)  # the handles are looked up anew: this is the call that must tell the truth
        try:
            pair = self._pair(label)
        except (KeyAbsent, KeyDamaged) as error:
            if not may_generate:
                raise
            if isinstance(error, KeyDamaged):
                self._removed(label)
            return self._generate(label, key_type)
        if pair.key_type is not key_type:
            raise KeyMismatched(f"{label} of type {key_type.value}", f"type {pair.key_type.value}")
        return pair.describe()

    def _generate(self, label: str, key_type: KeyType) -> PublicKey:
        if key_type not in self.token.key_types:
            raise MechanismMissing(f"a token that makes {key_type.value}", f"one that makes {_names(self.token)}")
        try:
            self._session.generate(pair_template(label, key_type))
        except STALE_SESSION:
            raise
        except PKCS11Error as error:
            raise mapped(error, f"store a key pair of type {key_type.value}", writing=True) from error
        return self._pair(label).describe(created=True)

    def _destroy(self, label: str) -> DestroyOutcome:
        check_label(label)
        return DestroyOutcome.DESTROYED if self._removed(label) else DestroyOutcome.ALREADY_ABSENT

    def _removed(self, label: str) -> int:
        self._pairs.pop(label, None)
        try:
            return keys.remove(self._session, label)
        except StoreUnwritable:
            self.must_restart = True
            raise


def _names(token: TokenInfo) -> str:
    return ", ".join(kind.value for kind in token.key_types) or "none of ours"
