"""The steps of a quote's verification, each seen to refuse the attack that it is there for."""

from __future__ import annotations

import contextlib
import struct

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.tpm_public import AK_REQUIRED, Attribute, parse_public
from chatelaine.evidence.tpm_quote import (
    AttestationKey,
    VerifiedQuote,
    attestation_key,
    check_endorsement_hierarchy,
    verify_quote,
)
from chatelaine.evidence.tpm_types import MAX_ATTEST_BYTES, MAX_SIGNATURE_BYTES, Selection, parse_quote
from chatelaine.model.tpm_policy import Bank
from support import paper_tpm
from support.paper_tpm import PCRS, SELECTION, PaperTpm, pcr_list, sized

EXTRA = b"\x5a" * 32
TPM = PaperTpm()


def verify(attest, signature, *, tpm=TPM, extra=EXTRA, selection=SELECTION, pcrs=PCRS) -> VerifiedQuote:
    return verify_quote(
        attest,
        signature,
        ak=AttestationKey.parse(tpm.public),
        expected_extra_data=extra,
        selection=selection,
        pcrs=pcrs,
    )


@pytest.mark.parametrize(
    ("tpm", "algorithm"),
    [
        (PaperTpm(), "Ecdsa-Sha256"),
        (PaperTpm(hash=alg.SHA384, curve=alg.NIST_P384), "Ecdsa-Sha384"),
        (PaperTpm(alg.RSASSA), "RsaSsa-Sha256"),
        (PaperTpm(alg.RSASSA, alg.SHA384), "RsaSsa-Sha384"),
        (PaperTpm(alg.RSAPSS), "RsaPss-Sha256"),
        (PaperTpm(alg.RSAPSS, alg.SHA384, bits=3072), "RsaPss-Sha384"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_genuine_quote_of_each_allowed_algorithm_is_verified(tpm, algorithm):
    quote = verify(*tpm.quote(EXTRA), tpm=tpm)
    assert quote.algorithm == algorithm
    assert quote.pcrs == PCRS
    assert (quote.reset_count, quote.restart_count, quote.safe) == (5, 1, True)
    assert quote.clock_milliseconds == 123456
    assert quote.firmware_version == 0x20240101


def test_unsafe_clock_is_handed_on_not_refused():
    assert verify(*TPM.quote(EXTRA, safe=0)).safe is False


# --- step 1 and 2: form ---------------------------------------------------------------------------------------


def test_attest_beyond_the_bound_is_refused_before_parsing():
    with pytest.raises(errors.Oversized):
        verify(b"\xff" * (MAX_ATTEST_BYTES + 1), TPM.quote(EXTRA)[1])


def test_signature_beyond_the_bound_is_refused_before_parsing():
    with pytest.raises(errors.Oversized):
        verify(TPM.quote(EXTRA)[0], b"\x00" * (MAX_SIGNATURE_BYTES + 1))


def test_data_signed_outside_the_tpm_is_refused():
    with pytest.raises(errors.WrongMagic):
        verify(*TPM.quote(EXTRA, magic=0xFF544348))


@pytest.mark.parametrize("kind", [0x8014, 0x8017, 0x8019, 0x801A])
def test_another_attestation_offered_as_a_quote_is_refused(kind):
    with pytest.raises(errors.WrongAttestType):
        verify(*TPM.quote(EXTRA, kind=kind))


def test_trailing_bytes_after_the_attest_are_refused_even_if_signed():
    attest = TPM.attest(EXTRA) + b"\x00"
    with pytest.raises(errors.TrailingBytes):
        verify(attest, TPM.sign(attest))


def test_trailing_bytes_after_the_signature_are_refused():
    attest, signature = TPM.quote(EXTRA)
    with pytest.raises(errors.TrailingBytes):
        verify(attest, signature + b"\x00")


def test_undefined_boolean_is_refused():
    with pytest.raises(errors.Malformed):
        verify(*TPM.quote(EXTRA, safe=2))


def test_endless_selection_is_refused():
    selection = struct.pack(">I", 2**32 - 1) + pcr_list((alg.SHA256, (0,)))[4:]
    with pytest.raises(errors.Malformed):
        verify(*TPM.quote(EXTRA, selection=selection))


# --- step 3: what it is bound to --------------------------------------------------------------------------------


def test_replayed_quote_is_refused():
    with pytest.raises(errors.ExtraDataMismatch):
        verify(*TPM.quote(b"\x00" * 32))


@pytest.mark.parametrize("extra", [EXTRA[:-1], EXTRA + b"\x00", EXTRA[:4], b""])
def test_extra_data_is_neither_padded_nor_cut(extra):
    with pytest.raises(errors.ExtraDataMismatch):
        verify(*TPM.quote(extra))


def test_quote_without_an_expectation_is_never_verified():
    with pytest.raises(errors.NonceRefused):
        verify(*TPM.quote(b""), extra=b"")


# --- step 5: who signed -----------------------------------------------------------------------------------------


def test_quote_of_another_host_is_refused():
    other = PaperTpm(number=1)
    with pytest.raises(errors.SignatureInvalid):
        verify(*other.quote(EXTRA))


def test_rsa_quote_of_another_host_is_refused():
    with pytest.raises(errors.SignatureInvalid):
        verify(*PaperTpm(alg.RSASSA, number=1).quote(EXTRA), tpm=PaperTpm(alg.RSASSA))


def test_rsa_key_is_not_fooled_by_an_ecdsa_signature():
    with pytest.raises(errors.AlgorithmRefused):
        verify(*TPM.quote(EXTRA), tpm=PaperTpm(alg.RSASSA))


def test_scheme_other_than_the_keys_own_is_refused():
    attest = TPM.attest(EXTRA)
    signer = PaperTpm(alg.RSAPSS)
    with pytest.raises(errors.AlgorithmRefused):
        verify(attest, signer.sign(attest), tpm=PaperTpm(alg.RSASSA))


def test_sha1_signature_is_refused():
    tpm = PaperTpm(alg.RSASSA)
    attest = tpm.attest(EXTRA)
    signature = struct.pack(">HH", alg.RSASSA, alg.SHA1) + tpm.sign(attest)[4:]
    with pytest.raises(errors.AlgorithmRefused, match="hash"):
        verify(attest, signature, tpm=tpm)


def test_key_with_a_sha1_scheme_is_refused():
    public = paper_tpm.rsa_public(paper_tpm.rsa_key(2048), scheme_hash=alg.SHA1)
    with pytest.raises(errors.AlgorithmRefused, match="Sha1"):
        AttestationKey.parse(public)


def test_key_with_a_sha1_name_is_refused():
    public = paper_tpm.rsa_public(paper_tpm.rsa_key(2048), name_hash=alg.SHA1)
    with pytest.raises(errors.AlgorithmRefused, match="Sha1"):
        AttestationKey.parse(public)


@pytest.mark.parametrize("scheme", [0x0005, 0x0010, 0x001A, 0x001B, 0x001C, 0xFFFF])
def test_unknown_signature_scheme_is_refused_not_skipped(scheme):
    attest, signature = TPM.quote(EXTRA)
    with pytest.raises(errors.AlgorithmRefused):
        verify(attest, struct.pack(">H", scheme) + signature[2:])


def test_short_rsa_key_is_refused():
    with pytest.raises(errors.WeakKey):
        AttestationKey.parse(paper_tpm.rsa_public(paper_tpm.rsa_key(1024)))


def test_rsa_key_with_exponent_three_is_refused():
    with pytest.raises(errors.WeakKey):
        AttestationKey.parse(paper_tpm.rsa_public(paper_tpm.rsa_key(2048), exponent=3))


def test_empty_ecdsa_signature_is_refused():
    attest = TPM.attest(EXTRA)
    with pytest.raises(errors.SignatureInvalid):
        verify(attest, struct.pack(">HH", alg.ECDSA, alg.SHA256) + sized(b"") + sized(b""))


def test_endorsement_key_offered_as_attestation_key_is_refused():
    with pytest.raises(errors.AttributesRefused, match="attestation key"):
        AttestationKey.parse(paper_tpm.ek_public())


@pytest.mark.parametrize("missing", list(AK_REQUIRED))
def test_attestation_key_that_lacks_an_attribute_is_refused(missing):
    public = paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256), attributes=AK_REQUIRED & ~missing)
    with pytest.raises(errors.AttributesRefused):
        AttestationKey.parse(public)


def test_attestation_key_that_also_decrypts_is_refused():
    public = paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256), attributes=AK_REQUIRED | Attribute.DECRYPT)
    with pytest.raises(errors.AttributesRefused):
        AttestationKey.parse(public)


# --- step 6: which PCRs -----------------------------------------------------------------------------------------


def test_selection_of_fewer_pcrs_than_asked_is_refused():
    with pytest.raises(errors.PcrSelectionMismatch) as refusal:
        verify(*TPM.quote(EXTRA, {0: PCRS[0]}))
    assert refusal.value.authenticated
    assert refusal.value.found == "Sha256:0"


def test_selection_of_another_bank_is_refused():
    selection = pcr_list((alg.SHA384, (0, 7)))
    with pytest.raises(errors.PcrSelectionMismatch):
        verify(*TPM.quote(EXTRA, selection=selection))


def test_sha1_bank_is_refused_even_under_a_sha256_signature():
    selection = pcr_list((alg.SHA1, (0, 7)))
    with pytest.raises(errors.PcrSelectionMismatch, match="Sha1"):
        verify(*TPM.quote(EXTRA, selection=selection))


@pytest.mark.parametrize(
    "selection",
    [
        pcr_list((alg.SHA256, (0, 7)), (alg.SHA384, ())),
        pcr_list((alg.SHA256, (0,)), (alg.SHA256, (7,))),
        pcr_list((alg.SHA256, (0, 7)), (alg.SHA256, (0, 7))),
        pcr_list(),
    ],
)
def test_selection_told_in_several_banks_is_refused(selection):
    with pytest.raises(errors.PcrSelectionMismatch):
        verify(*TPM.quote(EXTRA, selection=selection))


def test_same_selection_in_a_wider_bit_map_is_accepted():
    assert verify(*TPM.quote(EXTRA, selection=pcr_list((alg.SHA256, (0, 7)), width=4))).pcrs == PCRS


def test_relabelled_pcr_is_refused():
    with pytest.raises(errors.PcrMissing):
        verify(*TPM.quote(EXTRA), pcrs={0: PCRS[0], 8: PCRS[7]})


def test_swapped_pcr_values_are_refused():
    with pytest.raises(errors.PcrDigestMismatch):
        verify(*TPM.quote(EXTRA), pcrs={0: PCRS[7], 7: PCRS[0]})


def test_missing_pcr_value_is_refused():
    with pytest.raises(errors.PcrMissing):
        verify(*TPM.quote(EXTRA), pcrs={0: PCRS[0]})


def test_value_of_an_unsigned_index_is_refused():
    with pytest.raises(errors.PcrUnexpected):
        verify(*TPM.quote(EXTRA), pcrs={**PCRS, 14: b"\x14" * 32})


def test_boundary_between_pcr_values_cannot_be_moved():
    joined = PCRS[0] + PCRS[7]
    with pytest.raises(errors.Malformed):
        verify(*TPM.quote(EXTRA), pcrs={0: joined[:31], 7: joined[31:]})


def test_changed_pcr_value_is_refused_but_never_counts_against_the_host():
    with pytest.raises(errors.PcrDigestMismatch) as refusal:
        verify(*TPM.quote(EXTRA), pcrs={0: PCRS[0], 7: b"\x00" * 32})
    assert not refusal.value.authenticated


# --- step 7: the hierarchy --------------------------------------------------------------------------------------


def test_attestation_key_outside_the_endorsement_hierarchy_is_refused():
    ak, ek = parse_public(TPM.public), parse_public(paper_tpm.ek_public())
    quote = verify(*TPM.quote(EXTRA))
    with pytest.raises(errors.HierarchyRefused):
        check_endorsement_hierarchy(quote, ak, ek)


def test_attestation_key_under_the_endorsement_key_is_accepted_and_under_another_refused():
    ak, ek, other = (parse_public(p) for p in (TPM.public, paper_tpm.ek_public(), paper_tpm.ek_public(1)))
    hierarchy = struct.pack(">I", 0x4000000B)
    parent = b"\x00\x0b" + alg.HASHES[alg.SHA256].new(hierarchy + ek.name).digest()
    signer = b"\x00\x0b" + alg.HASHES[alg.SHA256].new(parent + ak.name).digest()
    quote = verify(*TPM.quote(EXTRA, signer=signer))
    check_endorsement_hierarchy(quote, ak, ek)
    with pytest.raises(errors.HierarchyRefused):
        check_endorsement_hierarchy(quote, ak, other)


# --- keys -------------------------------------------------------------------------------------------------------


def test_tpm2b_and_tpmt_give_the_same_key_and_name():
    assert AttestationKey.parse(sized(TPM.public)).name == AttestationKey.parse(TPM.public).name == TPM.name


def test_pem_key_verifies_but_has_no_name():
    pem = TPM.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = AttestationKey.parse(pem)
    attest, signature = TPM.quote(EXTRA)
    verify_quote(attest, signature, ak=key, expected_extra_data=EXTRA, selection=SELECTION, pcrs=PCRS)
    with pytest.raises(errors.KeyRefused):
        _ = key.name


@pytest.mark.parametrize(
    "text", [b"-----BEGIN NONSENSE-----", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
)
def test_broken_pem_is_refused(text):
    with pytest.raises(errors.Malformed):
        AttestationKey.parse(text)


def test_parsed_keys_are_remembered():
    assert attestation_key(TPM.public) is attestation_key(TPM.public)


def test_verified_quote_cannot_be_changed():
    with pytest.raises(AttributeError):
        verify(*TPM.quote(EXTRA)).safe = True


@pytest.mark.parametrize("indices", [(), (0, 0), (24,), (-1,)])
def test_selection_that_names_nothing_twice_or_out_of_range_is_refused(indices):
    with pytest.raises(ValueError, match="PCR"):
        Selection(Bank.SHA256, indices)


@given(st.sets(st.integers(0, 23), min_size=1), st.sampled_from(list(Bank)))
def test_selection_is_encoded_as_the_tpm_signs_it(indices, bank):
    selection = Selection(bank, tuple(indices))
    assert selection.encoded == pcr_list((alg.BANKS[bank].tpm_id, tuple(sorted(indices))))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_fail_otherwise(data):
    with contextlib.suppress(errors.Malformed):
        parse_quote(data)


@given(
    st.binary(max_size=64),
    st.sets(st.integers(0, 23), min_size=1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_what_is_laid_out_is_read_back(extra, indices, resets, restarts, safe):
    pcrs = {index: bytes([index]) * 32 for index in sorted(indices)}
    body = parse_quote(TPM.attest(extra, pcrs, resets=resets, restarts=restarts, safe=int(safe)))
    assert (body.extra_data, body.reset_count, body.restart_count, body.safe) == (extra, resets, restarts, safe)
    assert body.selection == pcr_list((alg.SHA256, tuple(pcrs)))
