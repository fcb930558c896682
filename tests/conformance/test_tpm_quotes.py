"""Quotes of a real machine (GCE), and every mutation of them. Each is refused for its own reason."""

from __future__ import annotations

import base64
import collections
import json
import subprocess
from dataclasses import replace

import pytest
from tpm2_pytss.types import TPM2B_PUBLIC, TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, verify_evidence
from chatelaine.evidence.certificates import load_certificates
from chatelaine.evidence.tpm_public import endorsement_signers, parse_public
from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, verify_quote
from chatelaine.evidence.tpm_types import Selection, parse_quote, parse_signature
from chatelaine.model.tpm_policy import Bank
from support.vectors import VECTORS, QuoteVector, gce, needs_vectors

pytestmark = needs_vectors

BANKS = [alg.SHA256, alg.SHA384]
MALFORMED = {"Malformed", "Truncated", "TrailingBytes", "WrongMagic", "WrongAttestType"}


def judged(vector: QuoteVector, **changed) -> VerifiedQuote:
    vector = replace(vector, **changed)
    assert vector.selection is not None
    return verify_quote(
        vector.attest,
        vector.signature,
        ak=AttestationKey.parse(vector.ak),
        expected_extra_data=vector.extra_data,
        selection=vector.selection,
        pcrs=vector.pcrs,
    )


def reason(vector: QuoteVector, **changed) -> str:
    with pytest.raises(errors.EvidenceError) as refusal:
        judged(vector, **changed)
    return refusal.value.reason


@pytest.mark.parametrize("bank", BANKS)
def test_genuine_quote_is_verified(bank):
    vector = gce(bank)
    quote = judged(vector)
    assert quote.algorithm == "RsaSsa-Sha256"
    assert (quote.reset_count, quote.restart_count, quote.safe) == (10, 0, True)
    assert quote.pcrs == vector.pcrs


def test_real_attestation_key_lives_in_the_endorsement_hierarchy():
    public = parse_public(gce(alg.SHA256).ak)
    assert judged(gce(alg.SHA256)).qualified_signer in endorsement_signers(public, public)


def test_attestation_certificate_names_the_key():
    vector = gce(alg.SHA256)
    certificate = load_certificates(vector.ak_certificate)[0]
    public = parse_public(vector.ak).key
    assert certificate.public_key().public_numbers() == public.public_numbers()


@pytest.mark.parametrize("bank", BANKS)
def test_bit_flip_at_every_byte_of_the_quote_is_refused(bank):
    vector = gce(bank)
    reasons = collections.Counter()
    for position in range(len(vector.attest)):
        for bit in (0x01, 0x80):
            changed = bytearray(vector.attest)
            changed[position] ^= bit
            reasons[reason(vector, attest=bytes(changed))] += 1
    assert set(reasons) <= MALFORMED | {"ExtraDataMismatch", "SignatureInvalid"}
    assert reasons["WrongMagic"] == 8
    assert reasons["WrongAttestType"] == 4


@pytest.mark.parametrize("bank", BANKS)
def test_bit_flip_at_every_byte_of_the_signature_is_refused(bank):
    vector = gce(bank)
    reasons = collections.Counter()
    for position in range(len(vector.signature)):
        for bit in (0x01, 0x80):
            changed = bytearray(vector.signature)
            changed[position] ^= bit
            reasons[reason(vector, signature=bytes(changed))] += 1
    assert set(reasons) == {"AlgorithmRefused", "Truncated", "TrailingBytes", "SignatureInvalid"}
    assert reasons["SignatureInvalid"] == 2 * 256


@pytest.mark.parametrize("bank", BANKS)
def test_every_truncation_is_refused(bank):
    vector = gce(bank)
    found = {reason(vector, attest=vector.attest[:length]) for length in range(len(vector.attest))}
    found |= {reason(vector, signature=vector.signature[:length]) for length in range(len(vector.signature))}
    assert found == {"Truncated"}


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def reason_for_the_enrolled_host(vector: QuoteVector, shown: bytes, enrolled: bytes) -> str:
    """Why a quote is refused that comes with the public area `shown`, where `enrolled` stands in the status, under
    the name that enrolment wrote beside it. The HSM's part is left out; it comes later.
    """
    evidence = QuoteEvidence(vector.attest, vector.signature, "Sha256", vector.pcrs, shown, b"", b"", b"")
    identity = EnrolledIdentity(enrolled, parse_public(vector.ak).name, b"")
    with pytest.raises(errors.EvidenceError) as refusal:
        verify_evidence(
            evidence, nonce=bytes(32), subject_uid="uid", identity=identity, agent_spki=b"agent",
            gateway_spki=b"gateway", selection=vector.selection,
        )  # fmt: skip
    return refusal.value.reason


def test_bit_flip_at_every_byte_of_the_key_that_is_shown_is_refused_under_the_enrolled_name():
    vector = gce(alg.SHA256)
    for position in range(len(vector.ak)):
        found = reason_for_the_enrolled_host(vector, flipped(vector.ak, position), vector.ak)
        assert found == "AttestationKeyMismatch", position
    # The key itself gets past this check: the quote then answers another question than this test's.
    assert reason_for_the_enrolled_host(vector, vector.ak, vector.ak) == "ExtraDataMismatch"


def test_bit_flip_at_every_byte_of_the_enrolled_key_is_refused_under_its_name():
    vector = gce(alg.SHA256)
    found = collections.Counter(
        reason_for_the_enrolled_host(vector, flipped(vector.ak, position), flipped(vector.ak, position))
        for position in range(len(vector.ak))
    )
    assert set(found) <= MALFORMED | {"Oversized", "AlgorithmRefused", "WeakKey", "AttributesRefused", "KeyRefused"}
    # Whatever still parses, every bit of the modulus and the attributes that nobody asks for among it.
    assert found["KeyRefused"] == 255 + 3


def test_attributes_that_nobody_asks_for_are_held_by_the_name_alone():
    """Bits of the attributes that the quote's own checks let through: without the name, another key would do."""
    vector = gce(alg.SHA256)
    through = set()
    for position in range(len(vector.ak)):
        try:
            judged(vector, ak=flipped(vector.ak, position))
        except errors.EvidenceError:
            continue
        through.add(position)
        assert AttestationKey.parse(flipped(vector.ak, position)).name != AttestationKey.parse(vector.ak).name
    assert through == {4, 6, 7}


@pytest.mark.parametrize("extra", ["900a", "90", "900900", "00" * 32])
def test_wrong_nonce_is_refused(extra):
    assert reason(gce(alg.SHA256), extra_data=bytes.fromhex(extra)) == "ExtraDataMismatch"


def test_every_relabelled_pcr_is_refused():
    vector = gce(alg.SHA256)
    for index in range(23):
        pcrs = dict(vector.pcrs)
        pcrs[index], pcrs[index + 1] = pcrs[index + 1], pcrs[index]
        if pcrs != vector.pcrs:
            assert reason(vector, pcrs=pcrs) == "PcrDigestMismatch"


def test_every_missing_pcr_is_refused():
    vector = gce(alg.SHA256)
    for index in range(24):
        assert reason(vector, pcrs={i: v for i, v in vector.pcrs.items() if i != index}) == "PcrMissing"


def test_every_selection_that_leaves_one_out_is_refused():
    vector = gce(alg.SHA256)
    for index in range(24):
        fewer = tuple(i for i in range(24) if i != index)
        pcrs = {i: vector.pcrs[i] for i in fewer}
        assert reason(vector, selection=Selection(Bank.SHA256, fewer), pcrs=pcrs) == "PcrSelectionMismatch"


def test_bit_flip_in_every_pcr_value_is_refused():
    vector = gce(alg.SHA256)
    for index, value in vector.pcrs.items():
        changed = bytes([value[0] ^ 1]) + value[1:]
        assert reason(vector, pcrs={**vector.pcrs, index: changed}) == "PcrDigestMismatch"


def test_quote_of_one_bank_does_not_serve_for_another():
    other = gce(alg.SHA384)
    assert (
        reason(gce(alg.SHA256), attest=other.attest, signature=other.signature)
        == reason(other, selection=Selection(Bank.SHA256, tuple(range(24))))
        == "PcrSelectionMismatch"
    )


def test_sha1_bank_is_refused_though_its_signature_is_sha256():
    sha1 = gce(alg.SHA1)
    assert parse_signature(sha1.signature).hash.name == "Sha256"
    assert reason(sha1, selection=Selection(Bank.SHA256, tuple(range(24)))) == "PcrSelectionMismatch"
    with pytest.raises(errors.AlgorithmRefused):
        alg.bank_of("sha1")


def test_signature_relabelled_as_sha1_is_refused():
    vector = gce(alg.SHA256)
    changed = vector.signature[:2] + b"\x00\x04" + vector.signature[4:]
    assert reason(vector, signature=changed) == "AlgorithmRefused"


def test_key_of_another_machine_is_refused():
    vector = gce(alg.SHA256)
    for name in ("uca_tpm_rsa_sign_cert.pem", "pca_tpm_rsa_sign_cert.pem"):
        certificate = load_certificates((VECTORS / "tpm" / "certs" / name).read_bytes())[0]
        modulus = certificate.public_key().public_numbers().n.to_bytes(256, "big")
        assert reason(vector, ak=vector.ak[:-256] + modulus) == "SignatureInvalid"


# --- cross-checks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bank", BANKS)
def test_parser_agrees_with_the_tss(bank):
    vector = gce(bank)
    body = parse_quote(vector.attest)
    attest, rest = TPMS_ATTEST.unmarshal(vector.attest)
    assert rest == len(vector.attest)
    assert bytes(attest.qualifiedSigner) == body.qualified_signer
    assert bytes(attest.extraData) == body.extra_data
    assert attest.clockInfo.clock == body.clock_milliseconds
    assert (attest.clockInfo.resetCount, attest.clockInfo.restartCount) == (body.reset_count, body.restart_count)
    assert attest.firmwareVersion == body.firmware_version
    assert attest.attested.quote.pcrSelect.marshal() == body.selection
    assert bytes(attest.attested.quote.pcrDigest) == body.pcr_digest
    signature, _ = TPMT_SIGNATURE.unmarshal(vector.signature)
    parsed = parse_signature(vector.signature)
    assert (int(signature.sigAlg), int(signature.signature.rsassa.hash)) == (parsed.scheme, parsed.hash.tpm_id)
    assert bytes(signature.signature.rsassa.sig) == parsed.first


def test_names_agree_with_the_tss():
    vector = gce(alg.SHA256)
    public, _ = TPMT_PUBLIC.unmarshal(vector.ak)
    assert bytes(TPM2B_PUBLIC(publicArea=public).get_name()) == parse_public(vector.ak).name


def test_tpm2_checkquote_agrees(tmp_path):
    vector = gce(alg.SHA256)
    (tmp_path / "attest").write_bytes(vector.attest)
    (tmp_path / "ak").write_bytes(len(vector.ak).to_bytes(2, "big") + vector.ak)
    changed = bytearray(vector.signature)
    changed[-1] ^= 1
    for signature, accepted in ((vector.signature, True), (bytes(changed), False)):
        (tmp_path / "signature").write_bytes(signature)
        done = subprocess.run(
            ["tpm2_checkquote", "-u", "ak", "-m", "attest", "-s", "signature", "-g", "sha256", "-q", "9009"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert (done.returncode == 0) is accepted, done.stderr


def test_the_bundle_is_whole():
    value = json.loads((VECTORS / "tpm" / "gce-cos-85-nonce9009.json").read_text())
    assert base64.b64decode(value["event_log_base64"])
    assert [quote["bank_tpm_alg_id"] for quote in value["quotes"]] == [alg.SHA1, alg.SHA256, alg.SHA384]
