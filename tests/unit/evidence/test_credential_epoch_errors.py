"""Credentials for keys that are none, epochs, and the promises that all errors keep."""

from __future__ import annotations

import inspect
import re
import struct

import pytest

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.epoch import EpochChange, compare
from chatelaine.evidence.tpm_public import AK_REQUIRED, EK_REQUIRED, parse_public
from chatelaine.model.identifiers import digest_of
from chatelaine.model.verdict import Epoch
from support import paper_tpm
from support.paper_tpm import AES128_CFB, ek_public, rsa_key

EK = parse_public(ek_public())
AK_NAME = parse_public(paper_tpm.PaperTpm().public).name
ENTROPY = bytes(range(64))
ECC_EK = parse_public(
    paper_tpm.ecc_public(
        paper_tpm.ecc_key(alg.NIST_P256, 7), attributes=EK_REQUIRED, scheme=alg.NULL, symmetric=AES128_CFB
    )
)


def test_credential_has_the_sizes_that_the_tpm_expects():
    blob, encrypted = make_credential(EK, AK_NAME, bytes(32), entropy=ENTROPY)
    assert struct.unpack_from(">H", blob)[0] == len(blob) - 2 == 2 + 32 + 2 + 32
    assert struct.unpack_from(">H", encrypted)[0] == len(encrypted) - 2 == 256


def test_same_entropy_gives_the_same_credential_for_an_ecc_key():
    first, second = (make_credential(ECC_EK, AK_NAME, bytes(32), entropy=ENTROPY) for _ in range(2))
    other = make_credential(ECC_EK, AK_NAME, bytes(32), entropy=bytes(63) + b"\x01")
    assert first == second
    assert first[1] != other[1]


def test_secret_does_not_stand_in_the_credential():
    secret = b"\xa5" * 32
    for ek in (EK, ECC_EK):
        assert secret not in b"".join(make_credential(ek, AK_NAME, secret, entropy=ENTROPY))


def test_attestation_key_offered_as_endorsement_key_gets_no_credential():
    with pytest.raises(errors.AttributesRefused):
        make_credential(parse_public(paper_tpm.PaperTpm().public), AK_NAME, bytes(32), entropy=ENTROPY)


@pytest.mark.parametrize(
    "symmetric",
    [
        struct.pack(">H", alg.NULL),
        struct.pack(">HHH", alg.AES, 192, alg.CFB),
        struct.pack(">HHH", alg.AES, 128, 0x0042),
    ],
)
def test_endorsement_key_with_another_protection_gets_no_credential(symmetric):
    public = paper_tpm.rsa_public(rsa_key(2048, 100), attributes=EK_REQUIRED, scheme=alg.NULL, symmetric=symmetric)
    with pytest.raises(errors.CredentialRefused):
        make_credential(parse_public(public), AK_NAME, bytes(32), entropy=ENTROPY)


@pytest.mark.parametrize("length", [0, 15, 33])
def test_secret_of_another_length_is_refused(length):
    with pytest.raises(errors.CredentialRefused):
        make_credential(EK, AK_NAME, bytes(length), entropy=ENTROPY)


@pytest.mark.parametrize("length", [0, 32, ENTROPY_BYTES - 1, ENTROPY_BYTES + 1])
def test_too_little_entropy_is_refused(length):
    with pytest.raises(errors.CredentialRefused):
        make_credential(EK, AK_NAME, bytes(32), entropy=bytes(length))


def test_endorsement_key_is_named_by_the_digest_of_its_spki():
    assert EK.spki_digest == digest_of(EK.spki)


# --- public areas ---------------------------------------------------------------------------------------------


def test_point_that_is_not_on_its_curve_is_refused():
    public = paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256))
    with pytest.raises(errors.Malformed):
        parse_public(public[:-1] + bytes([public[-1] ^ 1]))


@pytest.mark.parametrize("curve", [0x0001, 0x0005, 0x0010, 0x0020])
def test_other_curves_are_refused(curve):
    public = paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256)).replace(
        struct.pack(">HH", alg.NIST_P256, alg.NULL) + b"\x00\x20", struct.pack(">HH", curve, alg.NULL) + b"\x00\x20"
    )
    with pytest.raises(errors.WeakKey):
        parse_public(public)


@pytest.mark.parametrize("kind", [0x0008, 0x0025, 0x0000, 0xFFFF])
def test_other_key_types_are_refused(kind):
    with pytest.raises(errors.AlgorithmRefused):
        parse_public(struct.pack(">H", kind) + ek_public()[2:])


def test_modulus_shorter_than_it_says_is_refused():
    public = ek_public()
    with pytest.raises(errors.Malformed):
        parse_public(public[:-258] + struct.pack(">H", 255) + public[-255:])


def test_trailing_bytes_after_a_public_area_are_refused():
    with pytest.raises(errors.TrailingBytes):
        parse_public(ek_public() + b"\x00")


def test_endless_public_area_is_refused():
    with pytest.raises(errors.Oversized):
        parse_public(bytes(2049))


# --- epochs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "quoted", "change"),
    [
        ((5, 2), (5, 2), EpochChange.SAME),
        ((5, 2), (5, 3), EpochChange.RESTARTED),
        ((5, 2), (6, 0), EpochChange.REBOOTED),
        ((5, 2), (6, 9), EpochChange.REBOOTED),
        ((5, 2), (5, 1), EpochChange.WENT_BACK),
        ((5, 2), (4, 9), EpochChange.WENT_BACK),
        ((5, 2), (1, 0), EpochChange.WENT_BACK),
    ],
)
def test_epochs_are_told_apart(last, quoted, change):
    assert compare(Epoch(*last, generation=7), Epoch(*quoted)) is change


# --- errors ---------------------------------------------------------------------------------------------------

ALL = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.EvidenceError) and found is not errors.EvidenceError
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_has_its_own_reason_and_stands_in_the_drawn_tree(error):
    assert error.reason == error.__name__
    assert re.fullmatch(r"([A-Z][a-z0-9]+)+", error.reason)
    assert re.search(rf"─ {error.__name__}\b", errors.__doc__ or "")
    assert error.__doc__


def test_only_facts_about_the_enrolled_identity_may_count_against_it():
    assert {error.reason for error in ALL if error.authenticated} == {
        "EventLogMismatch",
        "PcrSelectionMismatch",
        "StatementSerialMismatch",
    }


def test_hostile_input_neither_floods_nor_forges_a_message():
    error = errors.Malformed("detail", expected=b"\xff" * 1000, found="x\n\x1b[0m" + "y" * 1000)
    assert len(str(error)) < 400
    assert str(error).isprintable()


def test_attribute_names_are_told():
    public = paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256), attributes=AK_REQUIRED)
    assert parse_public(public).attributes == AK_REQUIRED
