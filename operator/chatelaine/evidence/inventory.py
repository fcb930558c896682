"""Which keys a token holds, and the digest that its statement carries (trust rules, §4).

Order and encoding are fixed, so the same keys give the same digest wherever they are listed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from chatelaine.evidence import cbor
from chatelaine.evidence.errors import Malformed, NotCanonical, Oversized

MAX_KEYS: Final = 8192
MAX_INVENTORY_BYTES: Final = 4 * 1024 * 1024
MAX_ID_BYTES: Final = 256
MAX_TEXT_CHARACTERS: Final = 1024
MAX_USAGES: Final = 16

ObjectClass = Literal["private", "public", "secret"]
OBJECT_CLASSES: Final = frozenset(get_args(ObjectClass))

_FIELDS: Final = (
    "id", "label", "class", "type", "usages", "sensitive", "extractable", "local", "neverExtractable",
)  # fmt: skip
_FLAGS: Final = _FIELDS[5:]
_MAX_ITEMS: Final = 1 + MAX_KEYS * (1 + 2 * len(_FIELDS) + MAX_USAGES)


@dataclass(frozen=True, slots=True, order=True)
class InventoryKey:
    """One key object of the token, as PKCS#11 describes it.

    Attributes:
        id: CKA_ID.
        label: CKA_LABEL.
        object_class: `private`, `public` or `secret`.
        key_type: CKA_KEY_TYPE, as text (`EC`, `RSA`, `AES`).
        usages: names of the usage attributes that are true, sorted (`CKA_SIGN`).
        sensitive: CKA_SENSITIVE.
        extractable: CKA_EXTRACTABLE.
        local: CKA_LOCAL, the token made it.
        never_extractable: CKA_NEVER_EXTRACTABLE.
    """

    id: bytes
    label: str
    object_class: str
    key_type: str
    usages: tuple[str, ...]
    sensitive: bool
    extractable: bool
    local: bool
    never_extractable: bool


def encode_inventory(keys: Iterable[InventoryKey]) -> bytes:
    """Deterministic CBOR of the sorted keys.

    Raises:
        Oversized: more than 8192 keys, or a key with a longer id or text than is ever accepted.
    """
    ordered = sorted(keys)
    if len(ordered) > MAX_KEYS:
        raise Oversized("the token holds too many keys", expected=f"at most {MAX_KEYS}", found=len(ordered))
    return cbor.encode([_as_map(key) for key in ordered])


def inventory_digest(keys: Iterable[InventoryKey]) -> bytes:
    """SHA-256 over `encode_inventory`: what the statement carries."""
    return hashlib.sha256(encode_inventory(keys)).digest()


def decode_inventory(data: bytes) -> tuple[InventoryKey, ...]:
    """The keys, in their fixed order.

    Raises:
        Oversized: more than 4 MiB, or more than 8192 keys.
        NotCanonical: keys out of order, or not deterministic CBOR.
        Malformed: any other defect of form.
    """
    value = cbor.decode(data, limit_bytes=MAX_INVENTORY_BYTES, what="the inventory", max_items=_MAX_ITEMS)
    if not isinstance(value, list):
        raise Malformed("the inventory is not a list", found=type(value).__name__)
    if len(value) > MAX_KEYS:
        raise Oversized("the inventory is too long", expected=f"at most {MAX_KEYS}", found=len(value))
    keys = tuple(_from_map(item) for item in value)
    if any(after < before for before, after in itertools.pairwise(keys)):
        raise NotCanonical("the inventory is not sorted")
    return keys


def _as_map(key: InventoryKey) -> dict[str, object]:
    texts = (key.label, key.object_class, key.key_type, *key.usages)
    if len(key.id) > MAX_ID_BYTES or len(key.usages) > MAX_USAGES or max(map(len, texts)) > MAX_TEXT_CHARACTERS:
        raise Oversized("a key of the token has too long an id or text", found=key.label)
    values = (
        key.id, key.label, key.object_class, key.key_type, sorted(set(key.usages)),
        key.sensitive, key.extractable, key.local, key.never_extractable,
    )  # fmt: skip
    return dict(zip(_FIELDS, values, strict=True))


def _from_map(value: object) -> InventoryKey:
    item = cbor.fields(value, _FIELDS, "a key of the inventory")
    usages = item["usages"]
    texts = [item["label"], item["class"], item["type"]]
    if not isinstance(usages, list) or len(usages) > MAX_USAGES:
        raise Malformed("usages of a key are no short list")
    if any(type(text) is not str or len(text) > MAX_TEXT_CHARACTERS for text in [*texts, *usages]):
        raise Malformed("a text of the inventory is none, or too long", expected=f"{MAX_TEXT_CHARACTERS} characters")
    if type(item["id"]) is not bytes or len(item["id"]) > MAX_ID_BYTES:
        raise Malformed("a key's id is not a short byte string", expected=f"at most {MAX_ID_BYTES} bytes")
    if item["class"] not in OBJECT_CLASSES:
        raise Malformed("unknown object class", expected=sorted(OBJECT_CLASSES), found=item["class"])
    if any(type(item[flag]) is not bool for flag in _FLAGS):
        raise Malformed("a flag of the inventory is not a boolean")
    if usages != sorted(set(usages)):
        raise NotCanonical("usages of a key are not sorted")
    return InventoryKey(
        id=item["id"],
        label=item["label"],
        object_class=item["class"],
        key_type=item["type"],
        usages=tuple(usages),
        sensitive=item["sensitive"],
        extractable=item["extractable"],
        local=item["local"],
        never_extractable=item["neverExtractable"],
    )
