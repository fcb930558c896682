"""What a key pair of ours looks like on the token, attribute by attribute.

Nothing is left to a module's defaults: several modules make keys extractable, or good for everything, unless told.
The rules that no template may break are Clulow's (CHES 2003): a key that wraps must not decrypt, a key that unwraps
must not encrypt; ours do neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pkcs11 import Attribute, ObjectClass
from pkcs11 import KeyType as CkKeyType
from pkcs11 import Mechanism as CkMechanism

from chatelaine.model.identifiers import key_id
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.port import RSA_BITS

RSA_PUBLIC_EXPONENT: Final = b"\x01\x00\x01"
P256_PARAMS: Final = bytes.fromhex("06082a8648ce3d030107")
"""DER of the object identifier 1.2.840.10045.3.1.7 (RFC 5480 section 2.1.1.1)."""

USAGES: Final = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.SIGN_RECOVER,
    Attribute.VERIFY,
    Attribute.VERIFY_RECOVER,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)
NEVER_TOGETHER: Final = (
    frozenset({Attribute.WRAP, Attribute.DECRYPT}),
    frozenset({Attribute.UNWRAP, Attribute.ENCRYPT}),
    frozenset({Attribute.SIGN, Attribute.UNWRAP}),
    frozenset({Attribute.SIGN, Attribute.DECRYPT}),
)

_PRIVATE: Final[Mapping[Attribute, object]] = {
    Attribute.CLASS: ObjectClass.PRIVATE_KEY,
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
    Attribute.COPYABLE: False,
    Attribute.SIGN: True,
    Attribute.SIGN_RECOVER: False,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_PUBLIC: Final[Mapping[Attribute, object]] = {
    Attribute.CLASS: ObjectClass.PUBLIC_KEY,
    Attribute.TOKEN: True,
    Attribute.PRIVATE: False,
    Attribute.MODIFIABLE: False,
    Attribute.COPYABLE: False,
    Attribute.VERIFY: True,
    Attribute.VERIFY_RECOVER: False,
    Attribute.ENCRYPT: False,
    Attribute.WRAP: False,
    Attribute.DERIVE: False,
}
_MADE_INSIDE: Final[Mapping[Attribute, object]] = {
    Attribute.LOCAL: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
}
"""What the token itself notes of a key that it generated under the private template."""

REQUIRED_PRIVATE: Final[Mapping[Attribute, object]] = {
    name: value
    for name, value in {**_PRIVATE, **_MADE_INSIDE}.items()
    if name not in {Attribute.CLASS, Attribute.MODIFIABLE, Attribute.COPYABLE}
}
"""What an existing private half must show. MODIFIABLE and COPYABLE are asked for at generation; not every token keeps
them, and they cannot undo the others (PKCS#11 v3.1 section 4.8: EXTRACTABLE never turns true)."""
REQUIRED_PUBLIC: Final[Mapping[Attribute, object]] = {
    name: value
    for name, value in _PUBLIC.items()
    if name not in {Attribute.CLASS, Attribute.MODIFIABLE, Attribute.COPYABLE}
}


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Arguments of `C_GenerateKeyPair` for one key type: mechanism, both templates, what proves that it can be used."""

    key_type: KeyType
    ck_key_type: CkKeyType
    generation: CkMechanism
    signing: tuple[CkMechanism, ...]
    size_bits: int
    public: Mapping[Attribute, Any]
    private: Mapping[Attribute, Any]


_SPECIFIC: Final = {
    KeyType.EC_P256: PairTemplate(
        KeyType.EC_P256,
        CkKeyType.EC,
        CkMechanism.EC_KEY_PAIR_GEN,
        (CkMechanism.ECDSA,),
        256,
        {Attribute.EC_PARAMS: P256_PARAMS},
        {},
    ),
    KeyType.RSA_3072: PairTemplate(
        KeyType.RSA_3072,
        CkKeyType.RSA,
        CkMechanism.RSA_PKCS_KEY_PAIR_GEN,
        (CkMechanism.RSA_PKCS, CkMechanism.RSA_PKCS_PSS),
        RSA_BITS,
        {Attribute.MODULUS_BITS: RSA_BITS, Attribute.PUBLIC_EXPONENT: RSA_PUBLIC_EXPONENT},
        {},
    ),
}
KEY_TYPES: Final = tuple(_SPECIFIC)
"""The types that we have a template for."""


def pair_template(label: str, key_type: KeyType) -> PairTemplate:
    """The template of the pair called `label`.

    Raises:
        KeyError: there is no template for this type.
    """
    specific = _SPECIFIC[key_type]
    named = {Attribute.ID: key_id(label), Attribute.LABEL: label}
    return PairTemplate(
        specific.key_type,
        specific.ck_key_type,
        specific.generation,
        specific.signing,
        specific.size_bits,
        {**_PUBLIC, **named, **specific.public},
        {**_PRIVATE, **named, **specific.private},
    )


def session_pair(template: PairTemplate) -> PairTemplate:
    """The same pair as session objects, gone with the session: for the self-test."""
    gone = {Attribute.TOKEN: False}
    return PairTemplate(
        template.key_type,
        template.ck_key_type,
        template.generation,
        template.signing,
        template.size_bits,
        {**template.public, **gone},
        {**template.private, **gone},
    )


def usages_of(attributes: Mapping[Attribute, Any]) -> tuple[str, ...]:
    """Sorted `CKA_…` names of the usages that are on."""
    return tuple(sorted(f"CKA_{name.name}" for name in USAGES if attributes.get(name)))


def deviations(required: Mapping[Attribute, object], found: Mapping[Attribute, Any]) -> tuple[str, ...]:
    """`CKA_X=value` for each attribute that is not as required; an attribute that the token does not tell is `absent`.

    A usage that the token does not tell counts as off: not every token lists usages that a class cannot have.
    """
    wrong = []
    for name, want in required.items():
        have = found.get(name, False if name in USAGES else None)
        if have != want:
            wrong.append(f"CKA_{name.name}={'absent' if have is None else have}")
    return tuple(sorted(wrong))
