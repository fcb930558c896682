"""Key pairs on a token: find, judge, make, destroy, list, use."""

from __future__ import annotations

import enum
import hashlib
import os
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import MGF, Attribute, ObjectClass
from pkcs11 import KeyType as CkKeyType
from pkcs11 import Mechanism as CkMechanism
from pkcs11.exceptions import FunctionFailed, GeneralError, KeyHandleInvalid, KeyTypeInconsistent, PKCS11Error

from chatelaine.evidence.inventory import InventoryKey
from chatelaine.model.identifiers import key_id
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11 import spki
from chatelaine.pkcs11.errors import DeviceFailure
from chatelaine.pkcs11.mapping import mapped
from chatelaine.pkcs11.port import RSA_BITS, PublicKey, SignMechanism
from chatelaine.pkcs11.session import Session
from chatelaine.pkcs11.templates import (
    REQUIRED_PRIVATE,
    REQUIRED_PUBLIC,
    USAGES,
    deviations,
    usages_of,
)

_PROOF_DOMAIN: Final = b"chatelaine/pkcs11/self-test/v1\0"
_MATERIAL: Final = (Attribute.EC_PARAMS, Attribute.EC_POINT, Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
_PSS: Final = (CkMechanism.SHA256, MGF.SHA256, spki.PSS_SALT_BYTES)
_CLASS_NAME: Final = {
    ObjectClass.PRIVATE_KEY: "private",
    ObjectClass.PUBLIC_KEY: "public",
    ObjectClass.SECRET_KEY: "secret",
}
_LISTED: Final = (
    Attribute.TOKEN,
    Attribute.ID,
    Attribute.LABEL,
    Attribute.CLASS,
    Attribute.KEY_TYPE,
    Attribute.SENSITIVE,
    Attribute.EXTRACTABLE,
    Attribute.LOCAL,
    Attribute.NEVER_EXTRACTABLE,
    *USAGES,
)


class PairState(enum.Enum):
    """What stands under an identifier."""

    ABSENT = "absent"
    INCOMPLETE = "incomplete"
    """Half a pair, or material missing: what a crash in the middle of generation leaves."""
    MISMATCHED = "mismatched"
    """It works, but it is not a pair as we make them."""
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Pair:
    """A whole pair: handles, and the public key in software."""

    label: str
    key_type: KeyType
    private: Any
    public: Any
    software: ec.EllipticCurvePublicKey | rsa.RSAPublicKey

    def describe(self, *, created: bool = False) -> PublicKey:
        """The public half as the port hands it out."""
        return spki.describe(self.label, self.key_type, self.software, created=created)


@dataclass(frozen=True, slots=True)
class Judged:
    """The state under an identifier, why, and the pair if it is whole."""

    state: PairState
    detail: str = ""
    pair: Pair | None = None


def judge(session: Session, label: str) -> Judged:
    """Look at everything under the label's identifier.

    Raises:
        DeviceFailure: it cannot be told: the module fails on a pair that looks whole.
    """
    objects = _under(session, label)
    if not objects:
        return Judged(PairState.ABSENT)
    privates = [item for item in objects if item[Attribute.CLASS] == ObjectClass.PRIVATE_KEY]
    publics = [item for item in objects if item[Attribute.CLASS] == ObjectClass.PUBLIC_KEY]
    if len(objects) > len(privates) + len(publics) or len(privates) > 1 or len(publics) > 1:
        return Judged(PairState.MISMATCHED, f"{len(objects)} objects share its CKA_ID")
    if not privates or not publics:
        return Judged(PairState.INCOMPLETE, "the public half only" if publics else "the private half only")
    return _judge_halves(label, privates[0], publics[0])


def _under(session: Session, label: str) -> list[Any]:
    """Objects with the label's identifier, and torn ones that got its label but no identifier any more."""
    torn = [item for item in session.objects({Attribute.LABEL: label}) if not _id_of(item)]
    return session.objects({Attribute.ID: key_id(label)}) + torn


def _id_of(item: Any) -> bytes:
    return bytes(item.get_attributes((Attribute.ID,)).get(Attribute.ID, b""))


def _judge_halves(label: str, private: Any, public: Any) -> Judged:
    private_facts = private.get_attributes((*REQUIRED_PRIVATE, *_MATERIAL, Attribute.LABEL, Attribute.KEY_TYPE))
    public_facts = public.get_attributes((*REQUIRED_PUBLIC, *_MATERIAL, Attribute.LABEL, Attribute.KEY_TYPE))
    kind = private_facts.get(Attribute.KEY_TYPE)
    mirrored = Attribute.EC_PARAMS if kind == CkKeyType.EC else Attribute.MODULUS
    if not private_facts.get(mirrored) or not public_facts.get(mirrored):
        return Judged(PairState.INCOMPLETE, "a half without key material")
    try:
        software = _software_key(public_facts)
    except ValueError:
        return Judged(PairState.INCOMPLETE, "a public half that is no key")
    key_type = _key_type(software)
    if key_type is None:
        return Judged(PairState.MISMATCHED, "a key of a type that we never make")
    wrong = deviations(REQUIRED_PRIVATE, private_facts) + deviations(REQUIRED_PUBLIC, public_facts)
    if private_facts.get(Attribute.LABEL) != label or public_facts.get(Attribute.LABEL) != label:
        wrong += ("CKA_LABEL of another key",)
    pair = Pair(label, key_type, private, public, software)
    return _judge_by_use(pair, wrong)


def _judge_by_use(pair: Pair, wrong: tuple[str, ...]) -> Judged:
    """A proof of possession decides between a torn write and a key that somebody made differently."""
    if f"CKA_{Attribute.SIGN.name}=False" in wrong:
        return Judged(PairState.MISMATCHED, ", ".join(wrong))
    try:
        outcome = _prove(pair)
    except PKCS11Error as error:
        if wrong and isinstance(error, _TORN):
            return Judged(PairState.INCOMPLETE, f"a private half that cannot sign ({', '.join(wrong)})")
        raise mapped(error, "sign with an existing key") from error
    if outcome is not Outcome.HOLDS:
        return Judged(PairState.MISMATCHED, "two halves that do not belong together")
    if wrong:
        return Judged(PairState.MISMATCHED, ", ".join(wrong))
    return Judged(PairState.WHOLE, pair=pair)


_TORN: Final = (GeneralError, FunctionFailed, KeyHandleInvalid, KeyTypeInconsistent)


def _software_key(facts: dict[Attribute, Any]) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    if facts.get(Attribute.KEY_TYPE) == CkKeyType.EC:
        return spki.from_point(facts.get(Attribute.EC_POINT, b""))
    return spki.from_modulus(facts.get(Attribute.MODULUS, b""), facts.get(Attribute.PUBLIC_EXPONENT, b""))


def _key_type(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> KeyType | None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return KeyType.EC_P256
    return KeyType.RSA_3072 if key.key_size == RSA_BITS else None


def _prove(pair: Pair) -> Outcome:
    """Sign a fresh digest under a domain of its own and verify it in software."""
    digest = hashlib.sha256(_PROOF_DOMAIN + os.urandom(32)).digest()
    ecdsa = pair.key_type is KeyType.EC_P256
    mechanism = SignMechanism.ECDSA_SHA256 if ecdsa else SignMechanism.RSA_PSS_SHA256
    return spki.check_signature(pair.software, mechanism, digest, sign(pair, mechanism, digest))


def prove_generated(private: Any, public: Any) -> Outcome:
    """Does a pair that was just generated work? Used by the self-test on session objects."""
    facts = public.get_attributes((*_MATERIAL, Attribute.KEY_TYPE))
    software = _software_key(facts)
    key_type = _key_type(software)
    if key_type is None:
        return Outcome.REFUTED
    return _prove(Pair("", key_type, private, public, software))


def sign(pair: Pair, mechanism: SignMechanism, digest: bytes) -> bytes:
    """Sign; python-pkcs11's errors pass through. The mechanism fits the key's type: the caller has checked."""
    if mechanism is SignMechanism.ECDSA_SHA256:
        return bytes(pair.private.sign(digest, mechanism=CkMechanism.ECDSA))
    if mechanism is SignMechanism.RSA_PSS_SHA256:
        return bytes(pair.private.sign(digest, mechanism=CkMechanism.RSA_PKCS_PSS, mechanism_param=_PSS))
    return bytes(pair.private.sign(spki.SHA256_DIGEST_INFO + digest, mechanism=CkMechanism.RSA_PKCS))


def verify(pair: Pair, mechanism: SignMechanism, digest: bytes, signature: bytes) -> Outcome:
    """Let the token verify; python-pkcs11's errors pass through."""
    if mechanism is SignMechanism.ECDSA_SHA256:
        holds = pair.public.verify(digest, signature, mechanism=CkMechanism.ECDSA)
    elif mechanism is SignMechanism.RSA_PSS_SHA256:
        holds = pair.public.verify(digest, signature, mechanism=CkMechanism.RSA_PKCS_PSS, mechanism_param=_PSS)
    else:
        holds = pair.public.verify(spki.SHA256_DIGEST_INFO + digest, signature, mechanism=CkMechanism.RSA_PKCS)
    return Outcome.HOLDS if holds else Outcome.REFUTED


def remove(session: Session, label: str) -> int:
    """Destroy every object under the label's identifier, private halves first; how many there were.

    Raises:
        StoreUnwritable: the token would not. Its own view may be wrong from then on: SoftHSM shows an object that it
            failed to delete as gone. The worker starts anew.
    """
    objects = _under(session, label)
    for item in objects:
        try:
            item.destroy()
        except PKCS11Error as error:
            raise mapped(error, "delete a key", writing=True) from error
    if objects and _under(session, label):
        raise DeviceFailure("no object left after deletion", "objects that were deleted without an error")
    return len(objects)


def sweep(session: Session) -> int:
    """Delete objects without a name and without key material; how many there were.

    A worker killed inside `C_GenerateKeyPair` can leave one: SoftHSM stores an empty object first and gives it its
    template in a second write. Nobody can use or find it, but it would stand in the inventory as nobody's key.

    Looked at one by one: a search for an empty CKA_ID finds them on some days only.

    Raises:
        StoreUnwritable: the token would not delete it.
    """
    torn = [item for item in session.objects({}) if _is_torn(item)]
    for item in torn:
        try:
            item.destroy()
        except PKCS11Error as error:
            raise mapped(error, "delete the remains of a key", writing=True) from error
    return len(torn)


def _is_torn(item: Any) -> bool:
    # CKA_TOKEN says nothing here: what SoftHSM stores first still has the default, false, although it is in its store.
    facts = item.get_attributes((*_MATERIAL, Attribute.CLASS, Attribute.ID, Attribute.LABEL, Attribute.LOCAL))
    asymmetric = facts.get(Attribute.CLASS) in {ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY}
    said = any(facts.get(name) for name in (*_MATERIAL, Attribute.ID, Attribute.LABEL, Attribute.LOCAL))
    return asymmetric and not said


def inventory(session: Session, limit: int) -> tuple[InventoryKey, ...]:
    """All keys on the token, sorted by identifier, class and label.

    Raises:
        DeviceFailure: more than `limit` keys, so the inventory cannot be accounted for.
    """
    keys = []
    for item in session.objects({Attribute.TOKEN: True}):
        facts = item.get_attributes(_LISTED)
        keys.append(_listed(facts))
        if len(keys) > limit:
            raise DeviceFailure(f"at most {limit} keys on the token", "more", "remove keys that are not ours")
    return tuple(sorted(keys, key=lambda key: (key.id, key.object_class, key.label, key.key_type)))


def _listed(facts: dict[Attribute, Any]) -> InventoryKey:
    """What the token does not tell is shown as the worse case: extractable, not sensitive, not made inside."""
    kind = facts.get(Attribute.KEY_TYPE)
    return InventoryKey(
        id=facts.get(Attribute.ID, b""),
        label=facts.get(Attribute.LABEL, ""),
        object_class=_CLASS_NAME[facts[Attribute.CLASS]],
        key_type=str(kind.name) if isinstance(kind, CkKeyType) else f"{kind or 0:#010x}",
        usages=usages_of(facts),
        sensitive=bool(facts.get(Attribute.SENSITIVE, False)),
        extractable=bool(facts.get(Attribute.EXTRACTABLE, True)),
        local=bool(facts.get(Attribute.LOCAL, False)),
        never_extractable=bool(facts.get(Attribute.NEVER_EXTRACTABLE, False)),
    )
