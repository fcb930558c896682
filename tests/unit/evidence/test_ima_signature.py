"""File signatures as IMA lists them: which count, and which are refused with their kind."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from chatelaine.evidence import errors, ima_signature
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.ima_signature import MAX_FILE_SIGNATURE_BYTES, signing_key, verify_file_signature
from support.paper_ima import file_signature, pem, sha256
from support.paper_tpm import ecc_key, rsa_key

CONTENT = b"bash 5.2"
DIGEST = sha256(CONTENT)
RSA, P256, P384 = rsa_key(2048, 200), ecc_key(alg.NIST_P256, 200), ecc_key(alg.NIST_P384, 200)
OTHER = rsa_key(2048, 201)
KEYS = tuple(signing_key(pem(key)) for key in (RSA, P256, P384))

# Public keys, and what `evmctl ima_sign -a sha256` (ima-evm-utils 1.4) made of a file with this content.
MADE_BY_EVMCTL = {
    "rsa": (
        (
            "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2h9/j65x0cTlFjKl1u6YxFw6ALmPbVTUk/Kd6UGecGSWhWVPjrSy"
            "zs4laWLFQUcZsUP+KiQl2Yxe2I4ueppNCvwcDov7B8ZhCGcCBvKL41KfTEYUAVMdEJbGno0Z26XUBFS63ZpWr3r7swHC+8Bo"
            "FjAEdaNsbyEyNfS5T3mDmGP/LGV9SCqc7tZyp0A8dyZbApivHvPp1hLNn9Z7aHdcnPbnNHz53NesCgLOTO361pq+Z9+iMFGK"
            "XgoQComW/D8o0qhaFcgRVY/Zhu6sRF8fyVF2p+J27y6DTxrtNjDI4Quf3z5bsKFVzrWKe1F0EcMMPPXDHqoWy3UVCssV74Cw"
            "OwIDAQAB"
        ),
        (
            "AwIEmy4E3QEAuDc02/SQg+B3Q+XJ5Mk63ZZXYmkZvfrudEB0dJ2FooS1H0PgXhyZtn+cgSTQ09nRxDdNEUlSdmMbli4QesA2"
            "+ma+jGg1CNskTci0oIGA9mtQ8mwD3rZZTyKkgSogUBwqDw/sjxsFrPbwkMAo0sLSZ+eYkaotNHPVSzQ6YlMMEbzTzibSOOsg"
            "qxOWD/2N6tWZqVwpi4+iHpP1sikGFJdZLtL8YhcAR8mb5TjshQMmrSsprc51Yvqyfh8gIFYuo5NVwQBUUAqKOE9T0W5SF3HW"
            "BH2RKC1RQWhzuWetLW/mHFKNlP3SXL3dBUI+ckcDAz6exDWOmLgLQsJC+372/Pr9Kw=="
        ),
    ),
    "ec": (
        (
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiKIWUgc9ymi001588uXRSUS5r2ARcQpywdGEzrUig/SD16z/1lTtn+pRP7EI"
            "tmV1brY4PdTBZEOSw6HznEx4wQ=="
        ),
        (
            "AwIEw6CABABHMEUCIQC36gcYYEUQZSKVGSRDuXQWX5e65Lt1SaQmWb7IeE0pPQIgDOlMnB1p/cs9HQS42Hsogzo28mDcHcmF"
            "6H40qCTte/g="
        ),
    ),
}


@pytest.mark.parametrize("kind", MADE_BY_EVMCTL)
def test_signature_of_the_usual_tool_is_verified_and_its_key_id_is_the_key_s(kind):
    public, signature = MADE_BY_EVMCTL[kind]
    key = signing_key(f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----")
    made = base64.b64decode(signature)
    assert verify_file_signature(made, DIGEST, (*KEYS, key)) is key
    assert made[3:7] == key.key_id


@pytest.mark.parametrize(("key", "place"), [(RSA, 0), (P256, 1), (P384, 2)], ids=["rsa", "p256", "p384"])
def test_signature_of_each_kind_of_key_is_verified(key, place):
    assert verify_file_signature(file_signature(key, CONTENT), DIGEST, KEYS) is KEYS[place]


def test_key_that_is_named_otherwise_is_found_all_the_same():
    assert verify_file_signature(file_signature(P256, CONTENT, key_id=b"\0\0\0\0"), DIGEST, KEYS) is KEYS[1]


def test_named_key_is_tried_first(monkeypatch):
    tried = []
    real = ima_signature._verify
    monkeypatch.setattr(ima_signature, "_verify", lambda key, *rest: tried.append(key) or real(key, *rest))
    verify_file_signature(file_signature(P384, CONTENT), DIGEST, KEYS)
    assert tried == [KEYS[2].key]


def test_signature_that_names_a_good_key_and_is_another_s_is_refused():
    forged = file_signature(OTHER, CONTENT, key_id=KEYS[0].key_id)
    with pytest.raises(errors.FileSignatureInvalid):
        verify_file_signature(forged, DIGEST, KEYS)


def test_signature_of_another_file_is_refused():
    with pytest.raises(errors.FileSignatureInvalid):
        verify_file_signature(file_signature(RSA, b"another file"), DIGEST, KEYS)


def test_without_keys_nothing_is_signed_well():
    with pytest.raises(errors.FileSignatureInvalid):
        verify_file_signature(file_signature(RSA, CONTENT), DIGEST, ())


def test_every_changed_byte_of_a_signature_is_refused_but_for_the_hint():
    signature = file_signature(P256, CONTENT)
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        if at in range(3, 7):
            assert verify_file_signature(changed, DIGEST, KEYS) is KEYS[1]
        else:
            with pytest.raises(errors.FileSignatureError):
                verify_file_signature(changed, DIGEST, KEYS)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kind": 5}, "EVM portable"),
        ({"kind": 6}, "fs-verity"),
        ({"kind": 1}, "type 1"),
        ({"version": 1}, "1"),
        ({"version": 3}, "3"),
        ({"hash_id": 2}, "hash 2"),
        ({"hash_id": 1}, "hash 1"),
        ({"hash_id": 5}, "sha384"),
        ({"length": 2000}, "2000"),
        ({"length": 0xFFFF}, "65535"),
    ],
)
def test_signature_of_a_kind_that_is_not_judged_is_refused_with_its_kind(changed, named):
    with pytest.raises(errors.FileSignatureRefused) as refusal:
        verify_file_signature(file_signature(RSA, CONTENT, **changed), DIGEST, KEYS)
    assert named in str(refusal.value)


@pytest.mark.parametrize("size", [0, 1, 8, 9, MAX_FILE_SIGNATURE_BYTES + 1])
def test_signature_without_a_body_or_without_end_is_refused(size):
    with pytest.raises(errors.FileSignatureRefused):
        verify_file_signature((b"\x03\x02\x04" + bytes(MAX_FILE_SIGNATURE_BYTES))[:size], DIGEST, KEYS)


@pytest.mark.parametrize("digest", [f"verity:{DIGEST}", f"sha1:{'00' * 20}", f"sha384:{'00' * 48}", ""])
def test_signature_over_another_hash_than_was_measured_is_refused(digest):
    with pytest.raises(errors.FileSignatureRefused, match="another hash"):
        verify_file_signature(file_signature(RSA, CONTENT), digest, KEYS)


def test_signature_over_the_file_itself_is_none_over_its_digest():
    head = file_signature(RSA, CONTENT)[:9]
    plain = RSA.sign(hashlib.sha256(CONTENT).digest(), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(errors.FileSignatureInvalid):
        verify_file_signature(head + plain, DIGEST, KEYS)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (rsa.generate_private_key(65537, 1024), errors.WeakKey),
        (ec.generate_private_key(ec.SECP521R1()), errors.WeakKey),
        (ed25519.Ed25519PrivateKey.generate(), errors.AlgorithmRefused),
    ],
    ids=["rsa-1024", "p521", "ed25519"],
)
def test_weak_or_unknown_signing_key_is_refused(key, error):
    with pytest.raises(error):
        signing_key(pem(key))


def test_signing_key_that_is_none_is_refused():
    with pytest.raises(errors.Malformed):
        signing_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
