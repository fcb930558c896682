"""What a verified certificate says, what a refused one is told, and each bound of the search from both sides."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from chatelaine.evidence import certificate_chain, errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.certificate_chain import EK_USAGE, MAX_DEPTH, MAX_SIGNATURE_CHECKS, shown
from chatelaine.evidence.certificates import (
    MAX_CERTIFICATES,
    MAX_FILE_BYTES,
    TPM_MANUFACTURER,
    TPM_MODEL,
    TPM_VERSION,
    CertificateKind,
    TpmAttributes,
    VerifiedCertificate,
    kind_of,
    load_certificates,
    verify_certificate,
    verify_kind,
)
from support.paper_host import spki
from support.paper_tpm import ecc_key, rsa_key

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT = int(datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC).timestamp())
EK, AK = CertificateKind.EK, CertificateKind.AK
DAY = datetime.timedelta(days=1)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def usage(*said: str) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{one: one in said for one in names})


def maker(*values: tuple[ObjectIdentifier, str]) -> x509.SubjectAlternativeName:
    attributes = [x509.NameAttribute(oid, value) for oid, value in values]
    return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(attributes))])


MAKER = ((TPM_MANUFACTURER, "id:4E544300"), (TPM_MODEL, "NPCT75x"), (TPM_VERSION, "id:00070002"))


@dataclass
class Ca:
    """A CA, self-signed without `above`. `extensions` in place of those of a CA."""

    subject: str
    number: int
    above: Ca | None = None
    days: int = 3650
    path_length: int | None = None
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] | None = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        extensions = self.extensions
        if extensions is None:
            extensions = ((x509.BasicConstraints(True, self.path_length), True), (usage("key_cert_sign"), True))
        self.certificate = issued(self.subject, self.key.public_key(), self.above or self, extensions, self.days)

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        return ecc_key(alg.NIST_P256, 400 + self.number)


def issued(subject: str, key: Any, issuer: Ca, extensions: Any, days: int = 3650, serial: int = 0xABC):
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer.subject)).public_key(key)
    builder = builder.serial_number(serial).not_valid_before(START).not_valid_after(START + days * DAY)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.key, hashes.SHA256())


def leaf(issuer: Ca, subject: str = "leaf", *, key: Any = None, use: tuple[str, ...] = ("key_encipherment",),
         names: Any = None, extra: Any = (), days: int = 3650) -> x509.Certificate:  # fmt: skip
    extensions = [(usage(*use), True), (names or maker(*MAKER), True), *extra]
    return issued(subject, key or rsa_key(2048).public_key(), issuer, extensions, days)


def judged(certificate: x509.Certificate, *authorities: Ca, kind: CertificateKind = EK) -> VerifiedCertificate:
    """The first authority is the root."""
    root, *others = [one.certificate for one in authorities]
    return verify_certificate(certificate, kind=kind, roots=[root], intermediates=others, at=AT)


def refused(error: type[errors.EvidenceError], certificate: x509.Certificate, *authorities: Ca, **more: Any):
    with pytest.raises(error) as refusal:
        judged(certificate, *authorities, **more)
    return refusal.value.expected, refusal.value.found


def chain(length: int) -> list[Ca]:
    """A root, and CAs below one another; the last may issue."""
    out = [Ca("ca 0", 0)]
    for number in range(1, length):
        out.append(Ca(f"ca {number}", number, out[-1]))
    return out


# --- what is said -----------------------------------------------------------------------------------------------


def test_a_verified_certificate_says_all_that_it_certifies() -> None:
    root = Ca("root", 0, days=400)
    middle = Ca("middle", 1, root, days=300)
    certificate = leaf(middle, days=350)
    assert judged(certificate, root, middle) == VerifiedCertificate(
        kind=EK,
        subject="CN=leaf",
        chain=("CN=leaf", "CN=middle", "CN=root"),
        fingerprint=f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
        spki_digest=f"sha256:{hashlib.sha256(spki(rsa_key(2048))).hexdigest()}",
        tpm=TpmAttributes("id:4E544300", "NPCT75x", "id:00070002"),
        valid_until=int((START + 300 * DAY).timestamp()),
    )
    assert verify_kind(certificate, EK) == spki(rsa_key(2048))


def test_a_certificate_without_a_subject_is_called_by_its_serial_number() -> None:
    root = Ca("root", 0)
    verified = judged(leaf(root, ""), root)
    assert (verified.subject, verified.chain) == ("", ("serial abc", "CN=root"))
    assert shown(root.certificate) == "CN=root"


def test_kinds_are_told_by_each_usage_alone() -> None:
    root = Ca("root", 0)
    for use, kind in ((("key_encipherment",), EK), (("key_agreement",), EK), (("digital_signature",), AK)):
        assert kind_of(leaf(root, use=use)) is kind
    for use, found in ((("key_encipherment", "digital_signature"), "both"), (("crl_sign",), "neither")):
        with pytest.raises(errors.CertificateKindMismatch) as refusal:
            kind_of(leaf(root, use=use))
        assert refusal.value.found == found
        assert refusal.value.expected == "either key encipherment or agreement, or digital signature"


def test_refusals_tell_what_was_expected_and_found() -> None:
    root = Ca("root", 0)
    assert refused(errors.CertificateKindMismatch, leaf(root), root, kind=AK) == ("Ak", "Ek")
    issuing = leaf(root, use=("key_encipherment", "key_cert_sign"))
    assert refused(errors.CertificateAuthorityUse, issuing, root) == (None, "CN=leaf")
    web = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    assert refused(errors.CertificateKindMismatch, leaf(root, extra=[(web, False)]), root) == (
        "2.23.133.8.1",
        "1.3.6.1.5.5.7.3.1, 1.3.6.1.5.5.7.3.2",
    )
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert refused(errors.CriticalExtensionUnknown, leaf(root, extra=[(unknown, True)]), root) == (None, "1.2.3.4")
    for missing in range(3):
        names = maker(*(one for place, one in enumerate(MAKER) if place != missing))
        expected = MAKER[missing][0].dotted_string
        assert refused(errors.TpmAttributesMissing, leaf(root, names=names), root) == (expected, None)
    assert refused(errors.ChainIncomplete, leaf(Ca("elsewhere", 9)), root) == (None, "CN=elsewhere")
    assert refused(errors.WeakKey, leaf(root, key=rsa_key(1024).public_key()), root) == ("2048", "1024")
    old = Ca("root", 0, days=10)
    assert refused(errors.CertificateExpired, leaf(old), old) == (
        "2026-01-01T00:00:00+00:00 to 2026-01-11T00:00:00+00:00",
        "2026-06-01T00:00:00+00:00",
    )


def test_an_old_hash_is_told() -> None:
    root = Ca("root", 0)
    builder = x509.CertificateBuilder().subject_name(name("leaf")).issuer_name(name("root")).serial_number(1)
    builder = builder.public_key(rsa_key(2048).public_key()).not_valid_before(START).not_valid_after(START + 3650 * DAY)
    certificate = builder.add_extension(usage("key_encipherment"), True).sign(root.key, hashes.SHA224())
    assert refused(errors.AlgorithmRefused, certificate, root) == ("SHA-2", "sha224")


def test_a_signature_without_a_hash_is_told() -> None:
    root = Ca("root", 0)
    builder = x509.CertificateBuilder().subject_name(name("leaf")).issuer_name(name("root")).serial_number(1)
    builder = builder.public_key(rsa_key(2048).public_key()).not_valid_before(START).not_valid_after(START + 3650 * DAY)
    certificate = builder.add_extension(usage("key_encipherment"), True).sign(
        ed25519.Ed25519PrivateKey.generate(), None
    )
    assert refused(errors.AlgorithmRefused, certificate, root) == ("SHA-2", "none")


def test_names_other_than_the_makers_are_passed_over() -> None:
    root = Ca("root", 0)
    both = x509.SubjectAlternativeName([x509.DNSName("tpm.example"), *maker(*MAKER)])
    verified = judged(leaf(root, names=both), root)
    assert verified.tpm is not None
    assert verified.tpm.model == "NPCT75x"


# --- issuers ----------------------------------------------------------------------------------------------------


def test_an_issuer_is_a_ca_by_its_constraints_and_need_not_say_a_usage() -> None:
    root = Ca("root", 0)
    silent = Ca("middle", 1, root, extensions=((x509.BasicConstraints(True, None), True),))
    assert len(judged(leaf(silent), root, silent).chain) == 3
    for extensions in ((), ((usage("key_cert_sign"), True),), ((x509.BasicConstraints(False, None), True),)):
        no_ca = Ca("middle", 1, root, extensions=extensions)
        assert refused(errors.CertificateAuthorityUse, leaf(no_ca), root, no_ca) == (None, "CN=middle")


def test_an_issuer_may_say_the_usage_of_tpm_keys() -> None:
    root = Ca("root", 0)
    extensions = ((x509.BasicConstraints(True, None), True), (x509.ExtendedKeyUsage([EK_USAGE]), False))
    middle = Ca("middle", 1, root, extensions=extensions)
    assert len(judged(leaf(middle), root, middle).chain) == 3


@pytest.mark.parametrize(("path_length", "below", "holds"), [(0, 0, True), (0, 1, False), (1, 1, True), (1, 2, False)])
def test_the_length_of_a_path_is_held_to_the_last_ca(path_length: int, below: int, holds: bool) -> None:
    authorities = [Ca("root", 0, path_length=path_length)]
    for number in range(below):
        authorities.append(Ca(f"ca {number}", number + 1, authorities[-1]))
    if holds:
        assert len(judged(leaf(authorities[-1]), *authorities).chain) == below + 2
    else:
        found = refused(errors.CertificateAuthorityUse, leaf(authorities[-1]), *authorities)
        assert found == (str(path_length), str(below))


def test_the_longest_chain_is_found_and_a_longer_one_is_not() -> None:
    authorities = chain(MAX_DEPTH + 1)
    assert len(judged(leaf(authorities[MAX_DEPTH - 1]), *authorities[:MAX_DEPTH]).chain) == MAX_DEPTH + 1
    assert refused(errors.ChainIncomplete, leaf(authorities[MAX_DEPTH]), *authorities) == (None, f"CN=ca {MAX_DEPTH}")


@pytest.mark.parametrize("strangers", [MAX_SIGNATURE_CHECKS - 2, MAX_SIGNATURE_CHECKS - 1])
def test_so_many_signatures_are_checked_and_no_more(strangers: int) -> None:
    """The true issuer and the root take a check each; every stranger of the same name before them takes one."""
    root, other = Ca("root", 0), Ca("other", 5)
    middle = Ca("middle", 1, root)
    crowd = [Ca("middle", 6, other, days=2000 + number) for number in range(strangers)]
    if strangers == MAX_SIGNATURE_CHECKS - 2:
        assert len(judged(leaf(middle), root, *crowd, middle).chain) == 3
    else:
        expected, _ = refused(errors.ChainIncomplete, leaf(middle), root, *crowd, middle)
        assert expected == f"at most {MAX_SIGNATURE_CHECKS} checks"


def test_an_issuer_given_twice_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_chain, "MAX_SIGNATURE_CHECKS", 2)
    root = Ca("root", 0)
    middle = Ca("middle", 1, root)
    assert len(judged(leaf(middle), root, middle, middle, root).chain) == 3


def test_the_first_reason_is_told_when_no_way_leads_to_a_root() -> None:
    root = Ca("root", 0)
    expired, no_ca = Ca("middle", 1, root, days=10), Ca("middle", 1, root, extensions=())
    certificate = leaf(expired)
    assert refused(errors.CertificateExpired, certificate, root, expired, no_ca)
    assert refused(errors.CertificateAuthorityUse, certificate, root, no_ca, expired)


# --- files ------------------------------------------------------------------------------------------------------


def test_a_file_of_its_bound_is_read() -> None:
    certificate = Ca("root", 0).certificate
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    assert len(load_certificates(pem * MAX_CERTIFICATES)) == MAX_CERTIFICATES
    assert load_certificates(pem.ljust(MAX_FILE_BYTES, b"\n")) == (certificate,)
    with pytest.raises(errors.Oversized):
        load_certificates(pem.ljust(MAX_FILE_BYTES + 1, b"\n"))
    with pytest.raises(errors.CertificateMalformed) as refusal:
        load_certificates(pem * (MAX_CERTIFICATES + 1))
    assert (refusal.value.expected, refusal.value.found) == ("64", "65")


@pytest.mark.parametrize(("bits", "fits"), [(2048, True), (2047, False)])
def test_the_shortest_rsa_key_that_is_certified(bits: int, fits: bool) -> None:
    root = Ca("root", 0)
    public = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()
    if fits:
        assert judged(leaf(root, key=public), root)
    else:
        assert refused(errors.WeakKey, leaf(root, key=public), root) == ("2048", "2047")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_nist_curves_are_certified(curve: ec.EllipticCurve) -> None:
    root = Ca("root", 0)
    assert judged(leaf(root, key=ec.generate_private_key(curve).public_key()), root)
    other = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert refused(errors.WeakKey, leaf(root, key=other), root) == ("RSA or NIST curve", "ECPublicKey")
