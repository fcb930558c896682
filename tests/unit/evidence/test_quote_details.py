"""What verified evidence says, what its refusals tell, and the encodings that are signed or stored, byte for byte."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.hsm_statement import statement_to_sign
from chatelaine.evidence.inventory import decode_inventory, encode_inventory, inventory_digest
from chatelaine.evidence.tpm_public import MAX_POLICY_BYTES, MAX_PUBLIC_BYTES, TPM_RH_ENDORSEMENT, parse_public
from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, check_endorsement_hierarchy, verify_quote
from chatelaine.evidence.tpm_types import Selection, parse_quote, parse_signature
from chatelaine.model.tpm_policy import Bank
from support import paper_tpm
from support.paper_host import PaperHost, raw_sign, spki, token_key
from support.paper_tpm import NONCE, PCRS, SELECTION, PaperTpm, ek_public, pcr_list, sized

EXTRA = b"\x5a" * 32


def verify(attest: bytes, signature: bytes, *, ak: AttestationKey | None = None, **changed: Any) -> VerifiedQuote:
    arguments = {"expected_extra_data": EXTRA, "selection": SELECTION, "pcrs": PCRS} | changed
    return verify_quote(attest, signature, ak=ak or AttestationKey.parse(PaperTpm().public), **arguments)


def told(error: type[errors.EvidenceError], attest: bytes, signature: bytes, **changed: Any):
    with pytest.raises(error) as refusal:
        verify(attest, signature, **changed)
    return refusal.value.expected, refusal.value.found


# --- quotes -----------------------------------------------------------------------------------------------------


def test_a_verified_quote_says_all_that_was_signed() -> None:
    attest, signature = PaperTpm().quote(EXTRA, signer=b"signer", resets=7, restarts=3)
    assert verify(attest, signature) == VerifiedQuote(
        algorithm="Ecdsa-Sha256",
        selection=SELECTION,
        pcrs=PCRS,
        pcr_digest=hashlib.sha256(PCRS[0] + PCRS[7]).digest(),
        extra_data=EXTRA,
        qualified_signer=b"signer",
        clock_milliseconds=123456,
        reset_count=7,
        restart_count=3,
        safe=True,
        firmware_version=0x20240101,
    )


def test_values_handed_in_later_change_nothing() -> None:
    pcrs = dict(PCRS)
    quote = verify(*PaperTpm().quote(EXTRA), pcrs=pcrs)
    pcrs[0] = bytes(32)
    assert quote.pcrs == PCRS


def test_refusals_of_a_quote_tell_what_was_expected_and_found() -> None:
    tpm = PaperTpm()
    attest, signature = tpm.quote(EXTRA)
    assert told(errors.WrongMagic, *tpm.quote(EXTRA, magic=1)) == ("ff544347", "00000001")
    assert told(errors.WrongAttestType, *tpm.quote(EXTRA, kind=0x8014)) == ("8018", "8014")
    assert told(errors.Malformed, *tpm.quote(EXTRA, safe=2)) == ("0 or 1", "2")
    assert told(errors.Oversized, bytes(4097), signature) == ("at most 4096", "4097")
    assert told(errors.Oversized, attest, bytes(1025)) == ("at most 1024", "1025")
    assert told(errors.ExtraDataMismatch, *tpm.quote(b"\x01")) == (EXTRA.hex(), "01")
    assert told(errors.PcrMissing, attest, signature, pcrs={0: PCRS[0]}) == ("Sha256:0,7", None)
    more = {**PCRS, 9: bytes(32), 3: bytes(32)}
    assert told(errors.PcrUnexpected, attest, signature, pcrs=more) == ("Sha256:0,7", "[3, 9]")
    short = {0: PCRS[0] + b"\x77", 7: PCRS[7][1:]}
    assert told(errors.Malformed, attest, signature, pcrs=short) == ("{32}", None)
    digest = hashlib.sha256(PCRS[0] + PCRS[7]).hexdigest()
    assert told(errors.PcrDigestMismatch, attest, signature, pcrs={0: bytes(32), 7: PCRS[7]}) == (digest, None)
    both = pcr_list((alg.SHA256, (0,)), (0x1234, (7, 9)))
    assert told(errors.PcrSelectionMismatch, *tpm.quote(EXTRA, selection=both)) == (
        "Sha256:0,7",
        "Sha256:0; 0x1234:7,9",
    )
    assert told(errors.PcrSelectionMismatch, *tpm.quote(EXTRA, selection=pcr_list()))[1] == "none"


@pytest.mark.parametrize("missing", [0, 7])
def test_a_missing_pcr_is_named(missing: int) -> None:
    values = {index: value for index, value in PCRS.items() if index != missing}
    with pytest.raises(errors.PcrMissing, match=f"PCR {missing} "):
        verify(*PaperTpm().quote(EXTRA), pcrs=values)


def test_one_pcr_alone_is_verified_and_missed() -> None:
    one = {7: PCRS[7]}
    attest, signature = PaperTpm().quote(EXTRA, one)
    selection = Selection(Bank.SHA256, (7,))
    assert verify(attest, signature, selection=selection, pcrs=one).pcrs == one
    assert told(errors.PcrMissing, attest, signature, selection=selection, pcrs={0: PCRS[0]}) == ("Sha256:7", None)


def test_values_of_another_bank_are_hashed_by_the_signatures_hash() -> None:
    """The bank says how long a value is; the signing scheme says by what they are hashed (Part 3 §18.4)."""
    values = {index: bytes([index]) * 48 for index in (0, 7)}
    attest, signature = PaperTpm().quote(EXTRA, values, selection=pcr_list((alg.SHA384, (0, 7))))
    assert verify(attest, signature, selection=Selection(Bank.SHA384, (0, 7)), pcrs=values).pcrs == values


def test_refused_algorithms_are_told() -> None:
    attest, signature = PaperTpm().quote(EXTRA)
    for head, told_as in (
        (struct.pack(">HH", alg.ECDAA, alg.SHA256), ("RsaSsa, RsaPss or Ecdsa", "Ecdaa")),
        (struct.pack(">HH", alg.ECDSA, alg.SHA512), ("Sha256 or Sha384", "Sha512")),
        (struct.pack(">HH", alg.ECDSA, alg.SHA384), ("Ecdsa-Sha256", "Ecdsa-Sha384")),
        (struct.pack(">HH", alg.RSAPSS, alg.SHA256), ("Ecdsa-Sha256", "RsaPss-Sha256")),
    ):
        rest = signature[4:] if head[:2] == struct.pack(">H", alg.ECDSA) else sized(bytes(32))
        assert told(errors.AlgorithmRefused, attest, head + rest) == told_as
    bare = AttestationKey.parse(PaperTpm().key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))  # fmt: skip
    rsa_signed = struct.pack(">HH", alg.RSASSA, alg.SHA256) + sized(bytes(256))
    assert told(errors.AlgorithmRefused, attest, rsa_signed, ak=bare) == (
        "Ecdsa-Sha256 or Ecdsa-Sha384",
        "RsaSsa-Sha256",
    )
    assert parse_signature(signature).algorithm == "Ecdsa-Sha256"


def test_keys_of_other_schemes_are_told() -> None:
    for public, found in (
        (paper_tpm.ecc_public(paper_tpm.ecc_key(alg.NIST_P256), scheme_hash=alg.SHA512), "Ecdsa-Sha512"),
        (paper_tpm.rsa_public(paper_tpm.rsa_key(2048), scheme=alg.ECDSA), "Ecdsa-Sha256"),
        (paper_tpm.rsa_public(paper_tpm.rsa_key(2048), scheme=alg.NULL), "Null-Null"),
    ):
        with pytest.raises(errors.AlgorithmRefused) as refusal:
            AttestationKey.parse(public)
        assert (refusal.value.expected, refusal.value.found) == (
            "RsaSsa, RsaPss or Ecdsa with Sha256 or Sha384",
            found,
        )


def test_a_key_of_the_hierarchy_itself_is_accepted_and_one_elsewhere_is_told() -> None:
    ak, ek = parse_public(PaperTpm().public), parse_public(ek_public())
    owner = hashlib.sha256(struct.pack(">I", TPM_RH_ENDORSEMENT) + ak.name).digest()
    check_endorsement_hierarchy(verify(*PaperTpm().quote(EXTRA, signer=b"\x00\x0b" + owner)), ak, ek)
    with pytest.raises(errors.HierarchyRefused) as refusal:
        check_endorsement_hierarchy(verify(*PaperTpm().quote(EXTRA, signer=b"\x00\x0b" + bytes(32))), ak, ek)
    assert refusal.value.found == "000b" + "00" * 32


# --- public areas -----------------------------------------------------------------------------------------------


def test_refusals_of_a_public_area_tell_what_was_expected_and_found() -> None:
    ek = ek_public()
    null, aes = struct.pack(">HH", alg.NULL, alg.NULL), struct.pack(">HHH", alg.AES, 128, alg.CFB)
    point = sized(bytes(32)) + sized(bytes(32))
    ecc = struct.pack(">HHI", alg.ECC, alg.SHA256, 0) + sized(b"") + null
    cases: list[tuple[type[errors.EvidenceError], bytes, tuple[str | None, str | None]]] = [
        (errors.AlgorithmRefused, struct.pack(">H", alg.KEYEDHASH) + ek[2:], ("Rsa or Ecc", "KeyedHash")),
        (errors.AlgorithmRefused, ek.replace(aes, struct.pack(">HHH", 0x0026, 128, alg.CFB)), ("Aes", "0x0026")),
        (errors.AlgorithmRefused, ecc[:-2] + struct.pack(">H", alg.ECDAA), (None, "Ecdaa")),
        (errors.WeakKey, ecc + struct.pack(">HH", 5, alg.NULL) + point, ("NIST P-256 or P-384", "0x0005")),
        (errors.AlgorithmRefused, ecc + struct.pack(">HH", 3, alg.SHA256) + point, ("Null", None)),
        (
            errors.WeakKey,
            paper_tpm.rsa_public(paper_tpm.rsa_key(2048), exponent=3),
            ("2048 to 4096 bits, exponent 65537", "2048 bits, exponent 3"),
        ),
    ]
    for error, data, expected in cases:
        with pytest.raises(error) as refusal:
            parse_public(data)
        assert (refusal.value.expected, refusal.value.found) == expected


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (bytes(MAX_PUBLIC_BYTES + 1), "TPMT_PUBLIC is too long"),
        (ek_public()[:2] + b"\0\x04" + ek_public()[4:], "nameAlg: this hash is not accepted"),
        (ek_public()[:8] + sized(bytes(MAX_POLICY_BYTES + 1)), "TPMT_PUBLIC: authPolicy is too long"),
    ],
)
def test_refusals_of_a_public_area_name_the_field(data: bytes, named: str) -> None:
    with pytest.raises(errors.EvidenceError) as refusal:
        parse_public(data)
    assert refusal.value.detail == named


@pytest.mark.parametrize(("parse", "data"), [(parse_quote, bytes(5)), (parse_signature, bytes(5))])
def test_structures_that_end_within_their_heads_tell_how_long_they_are(parse: Any, data: bytes) -> None:
    with pytest.raises(errors.Truncated) as refusal:
        parse(data)
    assert refusal.value.found == "5 bytes"


# --- encodings --------------------------------------------------------------------------------------------------


def test_the_binding_is_encoded_by_these_names() -> None:
    digests = {name: bytes([number]) * 32 for number, name in enumerate(("agent_spki", "gateway_spki", "hpke_key",
               "component_digest", "statement_digest", "chain_transcript"))}  # fmt: skip
    assert cbor2.loads(Binding("HsmHost", "uid", **digests).encode()) == {
        "purpose": "HsmHost",
        "subjectUid": "uid",
        "agentSpki": digests["agent_spki"],
        "gatewaySpki": digests["gateway_spki"],
        "hpkeKey": digests["hpke_key"],
        "componentDigest": digests["component_digest"],
        "statementDigest": digests["statement_digest"],
        "chainTranscript": digests["chain_transcript"],
    }
    made = Binding.of_hsm_host(subject_uid="uid", agent_spki=b"a", gateway_spki=b"g", statement=b"s")
    assert made == Binding(
        "HsmHost",
        "uid",
        agent_spki=hashlib.sha256(b"a").digest(),
        gateway_spki=hashlib.sha256(b"g").digest(),
        statement_digest=hashlib.sha256(b"s").digest(),
    )
    with pytest.raises(errors.NonceRefused) as refusal:
        quote_extra_data(bytes(31), made)
    assert (refusal.value.expected, refusal.value.found) == ("32 bytes", "31 bytes")


def test_the_inventory_is_encoded_by_these_names() -> None:
    key = token_key("label", usages=("CKA_SIGN", "CKA_DERIVE", "CKA_SIGN"))
    data = encode_inventory([key])
    assert cbor2.loads(data) == [
        {
            "id": key.id,
            "label": "label",
            "class": "private",
            "type": "EC",
            "usages": ["CKA_DERIVE", "CKA_SIGN"],
            "sensitive": True,
            "extractable": False,
            "local": True,
            "neverExtractable": True,
        }
    ]
    assert inventory_digest([key]) == hashlib.sha256(data).digest()
    assert decode_inventory(data) == (replace(key, usages=("CKA_DERIVE", "CKA_SIGN")),)


def test_evidence_is_stored_by_these_names() -> None:
    evidence = replace(PaperHost().answer(event_log=b"log"), ima_list=b"list", ima_offset=9)
    assert cbor2.loads(evidence.encode()) == {
        "attest": evidence.attest,
        "signature": evidence.signature,
        "ak_public": evidence.ak_public,
        "statement": evidence.statement,
        "statement_signature": evidence.statement_signature,
        "inventory": evidence.inventory,
        "bank": "Sha256",
        "pcrs": [[0, PCRS[0]], [7, PCRS[7]]],
        "event_log": hashlib.sha256(b"log").digest(),
        "ima": [9, hashlib.sha256(b"list").digest()],
    }


# --- the token's statement and whole evidence -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "error", "expected", "found"),
    [
        ({"pcr_digest": bytes(32)}, errors.StatementPcrMismatch, hashlib.sha256(PCRS[0] + PCRS[7]).hexdigest(),
         "00" * 32),
        ({"serial": "another"}, errors.StatementSerialMismatch, "a1b2c3d4", "another"),
        ({"level": "Mine"}, errors.Malformed, "['HostAsserted', 'VendorAttested']", "Mine"),
        ({"nonce": b"short"}, errors.Malformed, "(32,) bytes", None),
        ({"pcr_digest": b"short"}, errors.Malformed, "(32, 48) bytes", None),
    ],
)  # fmt: skip
def test_refusals_of_a_statement_tell_what_was_expected_and_found(
    statement: dict[str, Any], error: type[errors.EvidenceError], expected: str | None, found: str | None
) -> None:
    host = PaperHost()
    with pytest.raises(error) as refusal:
        host.judged(host.answer(statement=statement))
    assert (refusal.value.expected, refusal.value.found) == (expected, found)


def test_refusals_of_evidence_tell_what_was_expected_and_found() -> None:
    host, other = PaperHost(), PaperHost(tpm=PaperTpm(number=1))
    name = host.tpm.name.hex()
    with pytest.raises(errors.AttestationKeyMismatch) as key:
        host.judged(replace(host.answer(), ak_public=other.tpm.public))
    assert key.value.expected == name
    with pytest.raises(errors.KeyRefused) as enrolled:
        host.judged(identity=replace(host.identity, ak_name=other.tpm.name))
    assert (enrolled.value.expected, enrolled.value.found) == (other.tpm.name.hex(), name)
    with pytest.raises(errors.Malformed) as bank:
        host.judged(replace(host.answer(), bank="Sha384"))
    assert (bank.value.expected, bank.value.found) == ("Sha256", "Sha384")
    with pytest.raises(errors.Malformed) as signature:
        host.judged(replace(host.answer(), statement_signature=bytes(63)))
    assert (signature.value.expected, signature.value.found) == ("64", "63")
    rsa_key = paper_tpm.rsa_key(2048)
    with pytest.raises(errors.AlgorithmRefused) as algorithm:
        host.judged(identity=replace(host.identity, attestation_key_spki=spki(rsa_key)))
    assert algorithm.value.found == "RSAPublicKey"
    statement = host.statement(NONCE, PCRS)
    assert len(raw_sign(host.hsm_key, statement_to_sign(statement))) == 64
