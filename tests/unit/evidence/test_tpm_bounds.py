"""Each bound of TPM structures from both sides: the last value that is taken, and the first that is not."""

from __future__ import annotations

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.tpm_public import (
    MAX_COORDINATE_BYTES,
    MAX_POLICY_BYTES,
    MAX_PUBLIC_BYTES,
    Attribute,
    check_ek_attributes,
    parse_public,
)
from chatelaine.evidence.tpm_quote import AttestationKey
from chatelaine.evidence.tpm_types import (
    MAX_ATTEST_BYTES,
    MAX_BANKS,
    MAX_PCRS,
    MAX_SIGNATURE_BYTES,
    Selection,
    parse_pcr_selection,
    parse_quote,
    parse_signature,
)
from chatelaine.model.tpm_policy import Bank
from support import paper_tpm
from support.paper_host import spki
from support.paper_tpm import PCRS, ecc_key, ek_public, pcr_list, rsa_key, sized

# --- TPM structures ---------------------------------------------------------------------------------------------


def test_an_attest_of_its_bound_is_read() -> None:
    short = len(paper_tpm.PaperTpm().attest(b""))
    attest = paper_tpm.PaperTpm().attest(bytes(MAX_ATTEST_BYTES - short))
    assert len(attest) == MAX_ATTEST_BYTES
    assert len(parse_quote(attest).extra_data) == MAX_ATTEST_BYTES - short
    with pytest.raises(errors.Oversized):
        parse_quote(paper_tpm.PaperTpm().attest(bytes(MAX_ATTEST_BYTES - short + 1)))


def test_every_field_of_an_attest_is_read_from_its_place() -> None:
    body = parse_quote(paper_tpm.PaperTpm().attest(b"extra", signer=b"signer", resets=7, restarts=9, safe=0))
    assert (body.qualified_signer, body.extra_data, body.reset_count, body.restart_count) == (b"signer", b"extra", 7, 9)
    assert (body.clock_milliseconds, body.firmware_version, body.safe) == (123456, 0x20240101, False)
    assert body.selection == pcr_list((alg.SHA256, (0, 7)))
    assert body.pcr_digest == hashlib.sha256(PCRS[0] + PCRS[7]).digest()


def test_an_attest_cut_anywhere_is_truncated_and_says_how_long_it_is() -> None:
    attest = paper_tpm.PaperTpm().attest(b"extra")
    for length in range(len(attest)):
        with pytest.raises(errors.Truncated):
            parse_quote(attest[:length])
    for changed, error in ((attest[:-1], errors.Truncated), (attest + b"\x00", errors.TrailingBytes)):
        with pytest.raises(error) as refusal:
            parse_quote(changed)
        assert (refusal.value.expected, refusal.value.found) == (f"{len(attest)} bytes", f"{len(changed)} bytes")


def test_a_signature_of_its_bound_is_read_and_one_byte_more_is_refused() -> None:
    head = struct.pack(">HH", alg.RSASSA, alg.SHA256)
    assert len(parse_signature(head + sized(bytes(MAX_SIGNATURE_BYTES - 6))).first) == MAX_SIGNATURE_BYTES - 6
    with pytest.raises(errors.Oversized):
        parse_signature(head + sized(bytes(MAX_SIGNATURE_BYTES - 5)))


@pytest.mark.parametrize("scheme", [alg.RSASSA, alg.ECDSA])
def test_a_signature_cut_anywhere_is_truncated_and_says_how_long_it_is(scheme: int) -> None:
    signature = struct.pack(">HH", scheme, alg.SHA256) + sized(b"r" * 32)
    if scheme == alg.ECDSA:
        signature += sized(b"s" * 31)
    parsed = parse_signature(signature)
    assert (parsed.first, parsed.second) == (b"r" * 32, b"s" * 31 if scheme == alg.ECDSA else b"")
    for length in range(len(signature)):
        with pytest.raises(errors.Truncated):
            parse_signature(signature[:length])
    for changed, error in ((signature[:-1], errors.Truncated), (signature + b"\x00", errors.TrailingBytes)):
        with pytest.raises(error) as refusal:
            parse_signature(changed)
        assert (refusal.value.expected, refusal.value.found) == (f"{len(signature)} bytes", f"{len(changed)} bytes")


def test_selections_of_all_banks_are_read_and_one_bank_more_is_refused() -> None:
    banks = [(alg.SHA256, (number,)) for number in range(MAX_BANKS)]
    assert parse_pcr_selection(pcr_list(*banks)) == tuple(banks)
    with pytest.raises(errors.Malformed, match="too long"):
        parse_pcr_selection(pcr_list(*banks, (alg.SHA256, (0,))))
    with pytest.raises(errors.TrailingBytes):
        parse_pcr_selection(pcr_list((alg.SHA256, (0,))) + b"\x00")


def test_the_first_and_the_last_pcr_may_be_selected() -> None:
    selection = Selection(Bank.SHA256, (MAX_PCRS - 1, 0))
    assert selection.indices == (0, MAX_PCRS - 1)
    assert str(selection) == "Sha256:0,23"
    assert selection.pick({0: b"a", 23: b"b"}) == (b"a", b"b")
    assert selection.sizes_bytes == {32}
    assert Selection(Bank.SHA384, (5,)).pick({5: b"x", 6: b"y"}) == (b"x",)
    assert Selection(Bank.SHA384, (5,)).sizes_bytes == {48}


# --- public areas -----------------------------------------------------------------------------------------------


def ek_with(policy: bytes = b"") -> bytes:
    public = ek_public()
    return public[:8] + sized(policy) + public[10:]


def test_a_policy_of_its_bound_is_read_and_one_byte_more_is_refused() -> None:
    assert parse_public(ek_with(bytes(MAX_POLICY_BYTES))).key_type == alg.RSA
    with pytest.raises(errors.Oversized, match="authPolicy"):
        parse_public(ek_with(bytes(MAX_POLICY_BYTES + 1)))


def test_what_a_public_area_says_is_read_from_its_place() -> None:
    ek = parse_public(ek_public())
    assert (ek.symmetric.algorithm, ek.symmetric.bits, ek.symmetric.mode) == (alg.AES, 128, alg.CFB)
    assert (ek.scheme, ek.scheme_hash) == (alg.NULL, alg.NULL)
    ak = parse_public(paper_tpm.PaperTpm(hash=alg.SHA384).public)
    assert (ak.symmetric.algorithm, ak.symmetric.bits, ak.symmetric.mode) == (alg.NULL, 0, alg.NULL)
    assert (ak.scheme, ak.scheme_hash) == (alg.ECDSA, alg.SHA384)
    assert ak.spki == spki(paper_tpm.PaperTpm(hash=alg.SHA384).key)
    assert ak.spki_digest == f"sha256:{hashlib.sha256(ak.spki).hexdigest()}"


def test_bits_of_a_modulus_are_bounded_on_both_sides() -> None:
    for bits in (2048, 4096):
        assert parse_public(unowned_rsa(bits)).key.key_size == bits
    for bits in (2040, 4104):
        with pytest.raises(errors.EvidenceError):
            parse_public(unowned_rsa(bits))
    for even in (0, 2):
        data = bytearray(unowned_rsa(2048))
        data[-1] = even
        with pytest.raises(errors.Malformed, match="modulus"):
            parse_public(bytes(data))


def unowned_rsa(bits: int, *, said: int | None = None) -> bytes:
    modulus = ((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8, "big")
    parameters = struct.pack(">HHHI", alg.NULL, alg.NULL, said if said is not None else bits, 0)
    return struct.pack(">HHI", alg.RSA, alg.SHA256, 0) + sized(b"") + parameters + sized(modulus)


def test_a_modulus_of_another_length_than_said_is_refused() -> None:
    with pytest.raises(errors.Malformed) as refusal:
        parse_public(unowned_rsa(2048, said=2049))
    assert (refusal.value.expected, refusal.value.found) == ("2049", "2048")


@pytest.mark.parametrize("scheme", [alg.RSASSA, alg.RSAPSS, alg.OAEP, alg.ECDSA, alg.ECDH])
def test_schemes_with_a_hash_and_those_without_are_read(scheme: int) -> None:
    public = paper_tpm.rsa_public(rsa_key(2048), scheme=scheme, scheme_hash=alg.SHA384)
    assert (parse_public(public).scheme, parse_public(public).scheme_hash) == (scheme, alg.SHA384)
    bare = public.replace(struct.pack(">HH", scheme, alg.SHA384), struct.pack(">H", alg.RSAES), 1)
    assert (parse_public(bare).scheme, parse_public(bare).scheme_hash) == (alg.RSAES, alg.NULL)


def test_coordinates_are_bounded_and_a_scheme_inside_an_ecc_key_is_refused() -> None:
    key = ecc_key(alg.NIST_P256)
    public = paper_tpm.ecc_public(key)
    point = key.public_key().public_numbers()
    tail = sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))
    head = public.removesuffix(tail)
    for size, fits in ((MAX_COORDINATE_BYTES, True), (MAX_COORDINATE_BYTES + 1, False)):
        for x, y in ((size, 32), (32, size)):
            data = head + sized(point.x.to_bytes(x, "big")) + sized(point.y.to_bytes(y, "big"))
            if fits:
                assert parse_public(data).key.public_numbers() == point
            else:
                with pytest.raises(errors.Oversized):
                    parse_public(data)
    with pytest.raises(errors.AlgorithmRefused, match="key derivation"):
        parse_public(head[:-2] + struct.pack(">H", alg.SHA256) + tail)


def test_a_public_area_is_bounded_before_it_is_read_in_either_form() -> None:
    with pytest.raises(errors.AlgorithmRefused):
        parse_public(bytes(MAX_PUBLIC_BYTES))
    with pytest.raises(errors.Oversized):
        parse_public(bytes(MAX_PUBLIC_BYTES + 1))
    for data in (b"", b"\x00", b"\x00\x00"):
        with pytest.raises(errors.Truncated):
            parse_public(data)


@pytest.mark.parametrize("missing", [Attribute.FIXED_TPM, Attribute.DECRYPT, Attribute.RESTRICTED])
def test_an_endorsement_key_is_told_with_what_it_lacks(missing: Attribute) -> None:
    attributes = paper_tpm.EK_REQUIRED
    check_ek_attributes(parse_public(ek_public()))
    lacking = paper_tpm.rsa_public(rsa_key(2048), attributes=attributes & ~missing, scheme=alg.NULL)
    with pytest.raises(errors.AttributesRefused) as refusal:
        check_ek_attributes(parse_public(lacking))
    names = ["FIXED_TPM", "FIXED_PARENT", "SENSITIVE_DATA_ORIGIN", "RESTRICTED", "DECRYPT"]
    assert refusal.value.expected == f"{', '.join(names)} and not SIGN"
    assert refusal.value.found == ", ".join(name for name in names if name != missing.name)
    signing = paper_tpm.rsa_public(rsa_key(2048), attributes=attributes | Attribute.SIGN, scheme=alg.NULL)
    with pytest.raises(errors.AttributesRefused):
        check_ek_attributes(parse_public(signing))
    bare = paper_tpm.rsa_public(rsa_key(2048), attributes=Attribute(0), scheme=alg.NULL)
    with pytest.raises(errors.AttributesRefused) as none:
        check_ek_attributes(parse_public(bare))
    assert none.value.found == "none"


# --- bare attestation keys --------------------------------------------------------------------------------------


def pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_bare_keys_are_taken_by_type_curve_and_size() -> None:
    for bits in (2048, 4096):
        numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1)
        key = AttestationKey.parse(b"\n " + pem(numbers.public_key()))
        assert (key.key.key_size, key.public) == (bits, None)
    for curve in (ec.SECP256R1(), ec.SECP384R1()):
        assert AttestationKey.parse(pem(ec.generate_private_key(curve).public_key())).key.key_size == curve.key_size
    for bits in (2047, 4097):
        numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1)
        with pytest.raises(errors.WeakKey):
            AttestationKey.parse(pem(numbers.public_key()))
    with pytest.raises(errors.WeakKey, match="curve"):
        AttestationKey.parse(pem(ec.generate_private_key(ec.SECP521R1()).public_key()))
    with pytest.raises(errors.AlgorithmRefused, match="key type"):
        AttestationKey.parse(pem(ed25519.Ed25519PrivateKey.generate().public_key()))


@pytest.mark.parametrize(("text", "bank"), [("sha256", Bank.SHA256), ("SHA384", Bank.SHA384), ("Sha256", Bank.SHA256)])
def test_banks_are_named_in_any_case(text: str, bank: Bank) -> None:
    assert alg.bank_of(text) is bank


@pytest.mark.parametrize("text", ["sha1", "sha512", "", "sha25"])
def test_another_bank_is_refused_and_told(text: str) -> None:
    with pytest.raises(errors.AlgorithmRefused) as refusal:
        alg.bank_of(text)
    assert (refusal.value.expected, refusal.value.found) == ("['Sha256', 'Sha384']", text)


def test_hashes_of_names_are_told() -> None:
    assert [alg.object_hash(tpm_id, "nameAlg").size_bytes for tpm_id in (alg.SHA256, alg.SHA384, alg.SHA512)] == [
        32,
        48,
        64,
    ]
    with pytest.raises(errors.AlgorithmRefused) as refusal:
        alg.object_hash(0x1234, "nameAlg")
    assert (refusal.value.detail, refusal.value.expected, refusal.value.found) == (
        "nameAlg: this hash is not accepted",
        "Sha256, Sha384 or Sha512",
        "0x1234",
    )
    assert alg.name_of(0x7) == "0x0007"


def test_refusals_of_a_bare_key_tell_what_was_expected_and_found() -> None:
    short = rsa.RSAPublicNumbers(65537, (1 << 2046) | 1).public_key()
    cases: list[tuple[type[errors.EvidenceError], bytes, tuple[str, str | None]]] = [
        (errors.Malformed, b"-----BEGIN NOTHING-----", ("-----BEGIN PUBLIC KEY-----", None)),
        (errors.WeakKey, pem(short), ("2048 bits", "2047")),
        (
            errors.WeakKey,
            pem(ec.generate_private_key(ec.SECP521R1()).public_key()),
            ("NIST P-256 or P-384", "secp521r1"),
        ),
        (
            errors.AlgorithmRefused,
            pem(ed25519.Ed25519PrivateKey.generate().public_key()),
            ("RSA or ECC", "Ed25519PublicKey"),
        ),
    ]
    for error, data, expected in cases:
        with pytest.raises(error) as refusal:
            AttestationKey.parse(data)
        assert (refusal.value.expected, refusal.value.found) == expected


def test_refusals_of_a_selection_tell_what_was_expected_and_found() -> None:
    with pytest.raises(errors.Malformed) as long:
        parse_pcr_selection(pcr_list(*((alg.SHA256, (0,)),) * (MAX_BANKS + 1)))
    assert (long.value.expected, long.value.found) == ("at most 16", "17")
    with pytest.raises(errors.Truncated, match=r"^Truncated: TPML_PCR_SELECTION ends early at byte 4"):
        parse_pcr_selection(struct.pack(">I", 1))


def test_fields_of_a_public_area_that_are_too_long_are_named() -> None:
    head = alg.SHA256, 0
    rsa_head = struct.pack(">HHI", alg.RSA, *head) + sized(b"") + struct.pack(">HHHI", alg.NULL, alg.NULL, 2048, 0)
    ecc_head = struct.pack(">HHI", alg.ECC, *head) + sized(b"") + struct.pack(">HHHH", alg.NULL, alg.NULL, 3, alg.NULL)
    for data, field in (
        (rsa_head + sized(bytes(513)), "modulus"),
        (ecc_head + sized(bytes(67)) + sized(bytes(32)), "x"),
        (ecc_head + sized(bytes(32)) + sized(bytes(67)), "y"),
    ):
        with pytest.raises(errors.Oversized) as refusal:
            parse_public(data)
        assert refusal.value.detail == f"TPMT_PUBLIC: {field} is too long"
