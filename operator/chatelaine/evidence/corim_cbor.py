"""The outer shell of a CoRIM: CBOR as CoRIMs use it, COSE_Sign1 (RFC 9052 section 4.2), validity.

Tags are kept as they are: none of the decoder's own meanings (dates, regular expressions, shared values) is run.
Below a tag the decoder gives maps of another class than `dict`, hence `Mapping`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import cbor2
from cbor2 import CBORTag
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from chatelaine.evidence.cbor import BUILT_IN_TAGS, check_count
from chatelaine.evidence.dsse import VerifyingKey
from chatelaine.evidence.errors import CorimRefused, Oversized

MAX_CORIM_BYTES: Final = 1024 * 1024
MAX_ITEMS: Final = 65536
MAX_DEPTH: Final = 24

CORIM_TAG: Final = 501
SIGN1_TAG: Final = 18
EPOCH_TAG: Final = 1

CONTENT_TYPE: Final = "application/rim+cbor"
_ALG, _CRIT, _TYPE, _META, _CWT = 1, 2, 3, 8, 15
_PAYLOAD_HASH_ALG: Final = 258
_SIGNATURE_VALIDITY: Final = 1
_CWT_EXP, _CWT_NBF = 4, 5
_ES256, _ED_DSA = -7, -8
_COORDINATE_BYTES: Final = 32


def decode(data: bytes, what: str) -> object:
    """The one value that `data` encodes, tags kept.

    Raises:
        CorimRefused: too long, too many values, or not CBOR of the allowed kind.
    """
    if len(data) > MAX_CORIM_BYTES:
        raise CorimRefused(f"{what} is too long", expected=f"at most {MAX_CORIM_BYTES} bytes", found=f"{len(data)}")
    try:
        check_count(data, MAX_ITEMS, what)
        # `loads` would not say that something follows.
        file = io.BytesIO(data)
        value = cbor2.load(
            file, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False, semantic_decoders=_KEPT
        )
    except Oversized as error:
        raise CorimRefused(error.detail, expected=error.expected) from error
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise CorimRefused(f"{what} is not CBOR of the allowed kind") from error
    if file.tell() != len(data):
        raise CorimRefused(f"{what} is not CBOR of the allowed kind: something follows it")
    return value


def opened(data: bytes, *, at: int, signer: VerifyingKey | None) -> Mapping[Any, Any]:
    """The corim-map, its signature verified where `signer` is given.

    Raises:
        CorimRefused: not a CoRIM; signed though no key was given, or the other way round; not signed by `signer`, or
            the signature is not valid at `at`.
    """
    outer = decode(data, "the CoRIM")
    if isinstance(outer, CBORTag) and outer.tag == SIGN1_TAG:
        if signer is None:
            raise CorimRefused("it is signed: give the key that it must be signed by")
        outer = decode(_verified(outer.value, signer, at), "the signed CoRIM")
    elif signer is not None:
        raise CorimRefused("it is not signed, and a key was given", expected="COSE_Sign1 (tag 18)")
    if not isinstance(outer, CBORTag) or outer.tag != CORIM_TAG or not isinstance(outer.value, Mapping):
        raise CorimRefused("not a CoRIM", expected=f"tag {CORIM_TAG} over a map")
    return outer.value


def validity(value: object, at: int, what: str) -> None:
    """A validity-map, if there is one, must hold `at`.

    Raises:
        CorimRefused: it does not, or cannot be read.
    """
    if value is None:
        return
    if not isinstance(value, Mapping) or not value.keys() <= {0, 1} or 1 not in value:
        raise CorimRefused(f"the validity of {what} cannot be read")
    _check_span(_moment(value.get(0), what), _moment(value[1], what), at, what)


# --- signed ----------------------------------------------------------------------------------------------------


def _verified(sign1: object, signer: VerifyingKey, at: int) -> bytes:
    """The payload of a COSE_Sign1 by `signer`. Only what its protected header says is looked at."""
    if not isinstance(sign1, list | tuple) or len(sign1) != 4:
        raise CorimRefused("not a COSE_Sign1", expected="four parts")
    protected, unprotected, payload, signature = sign1
    if not isinstance(protected, bytes) or not isinstance(unprotected, Mapping) or not isinstance(signature, bytes):
        raise CorimRefused("not a COSE_Sign1", expected="bytes, map, bytes, bytes")
    header = decode(protected, "the protected header")
    if not isinstance(header, Mapping):
        raise CorimRefused("the protected header is not a map")
    if _PAYLOAD_HASH_ALG in header or not isinstance(payload, bytes):
        raise CorimRefused("the manifest is not in it: only its digest, or nothing, is signed")
    if _CRIT in header:
        raise CorimRefused("a header parameter is critical; none is understood", found=header[_CRIT])
    if header.get(_TYPE) != CONTENT_TYPE:
        raise CorimRefused("it is signed as something else", expected=CONTENT_TYPE, found=header.get(_TYPE))
    message = cbor2.dumps(["Signature1", protected, b"", payload])
    try:
        _verify(signer, header.get(_ALG), signature, message)
    except InvalidSignature as error:
        raise CorimRefused(f"it is not signed by {signer.name}") from error
    _check_meta(header, at)
    return payload


def _verify(signer: VerifyingKey, algorithm: object, signature: bytes, message: bytes) -> None:
    wanted = _ED_DSA if isinstance(signer.key, ed25519.Ed25519PublicKey) else _ES256
    if algorithm != wanted or type(algorithm) is not int:
        raise CorimRefused("another signature algorithm than that of the key", expected=wanted, found=algorithm)
    if len(signature) != 2 * _COORDINATE_BYTES:
        raise CorimRefused("the signature has another length", expected=2 * _COORDINATE_BYTES, found=len(signature))
    if isinstance(signer.key, ed25519.Ed25519PublicKey):
        signer.key.verify(signature, message)
        return
    r, s = (int.from_bytes(half) for half in (signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]))
    digest = hashlib.sha256(message).digest()
    signer.key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))


def _check_meta(header: Mapping[Any, Any], at: int) -> None:
    """corim-meta (8) and CWT claims (15): how long the signature is valid."""
    meta = header.get(_META)
    if meta is not None:
        found = decode(meta, "corim-meta") if isinstance(meta, bytes) else None
        if not isinstance(found, Mapping):
            raise CorimRefused("corim-meta cannot be read")
        validity(found.get(_SIGNATURE_VALIDITY), at, "the signature")
    claims = header.get(_CWT)
    if claims is not None:
        if not isinstance(claims, Mapping):
            raise CorimRefused("the CWT claims cannot be read")
        begin, end = (_seconds(claims.get(name), "the signature") for name in (_CWT_NBF, _CWT_EXP))
        _check_span(begin, end, at, "the signature")


def _check_span(begin: int | None, end: int | None, at: int, what: str) -> None:
    if begin is not None and at < begin:
        raise CorimRefused(f"{what} is not valid yet", expected=f"at {begin} or later", found=at)
    if end is not None and at > end:
        raise CorimRefused(f"{what} is not valid any more", expected=f"at {end} or before", found=at)


def _moment(value: object, what: str) -> int | None:
    """Seconds of an epoch-based time (tag 1)."""
    if value is None:
        return None
    if not isinstance(value, CBORTag) or value.tag != EPOCH_TAG:
        raise CorimRefused(f"the validity of {what} cannot be read")
    return _seconds(value.value, what)


def _seconds(value: object, what: str) -> int | None:
    if value is not None and type(value) is not int:
        raise CorimRefused(f"the validity of {what} cannot be read")
    return value


def _kept(number: int, value: object, *_: object) -> CBORTag:
    return CBORTag(number, value)


_KEPT: Final = {number: partial(_kept, number) for number in BUILT_IN_TAGS}
