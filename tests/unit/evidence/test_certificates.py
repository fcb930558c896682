"""Certificate chains made for the attack: each check of the chain is seen to refuse."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.certificate_chain import AK_USAGE, EK_USAGE
from chatelaine.evidence.certificates import (
    MAX_CERTIFICATES,
    TPM_MANUFACTURER,
    TPM_MODEL,
    TPM_VERSION,
    CertificateKind,
    VerifiedCertificate,
    load_certificates,
    split_roots,
    verify_certificate,
)
from support.paper_tpm import ecc_key, rsa_key

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT = int(datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC).timestamp())
EK, AK = CertificateKind.EK, CertificateKind.AK


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ecc_key(alg.NIST_P256, 200 + number)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def usage(*, encrypt=False, agree=False, sign=False, issue=False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=encrypt,
        data_encipherment=False,
        key_agreement=agree,
        key_cert_sign=issue,
        crl_sign=issue,
        encipher_only=False,
        decipher_only=False,
    )


def tpm_name(*oids: ObjectIdentifier) -> x509.SubjectAlternativeName:
    attributes = [x509.NameAttribute(oid, "id:0001") for oid in oids]
    return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(attributes))])


TPM_NAME = tpm_name(TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION)


@dataclass
class Authority:
    """Issues certificates; `issuer` None: self-signed."""

    subject: str
    number: int
    issuer: Authority | None = None
    path_length: int | None = None
    ca: bool = True
    may_issue: bool = True
    days: int = 3650
    extended: tuple[ObjectIdentifier, ...] = ()
    critical: tuple[x509.ExtensionType, ...] = ()
    others: tuple[x509.ExtensionType, ...] = ()
    hash_: hashes.HashAlgorithm | None = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        issuer = self.issuer or self
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(self.ca, self.path_length if self.ca else None), True),
            (usage(issue=self.may_issue, sign=not self.may_issue), True),
        ]
        if self.extended:
            extensions.append((x509.ExtendedKeyUsage(self.extended), False))
        extensions.extend((extension, True) for extension in self.critical)
        extensions.extend((extension, False) for extension in self.others)
        public = key(self.number).public_key()
        self.certificate = build(self.subject, public, issuer, extensions, days=self.days, hash_=self.hash_)


def build(subject, public, issuer: Authority, extensions, *, days=3650, hash_=None) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer.subject))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key(issuer.number), hash_ or hashes.SHA256())


@functools.cache
def root() -> Authority:
    return Authority("root", 1)


@functools.cache
def middle() -> Authority:
    return Authority("middle", 2, root(), path_length=0)


def leaf(issuer=None, *, subject="leaf", key_usage=None, extra=(), san=TPM_NAME, ca=False, public=None, **fields):
    extensions = [(x509.BasicConstraints(ca, None), True), (key_usage or usage(encrypt=True), True)]
    if san is not None:
        extensions.append((san, True))
    extensions.extend(extra)
    return build(subject, public or rsa_key(2048).public_key(), issuer or middle(), extensions, **fields)


def judged(certificate, kind=EK, *, roots=None, others=None, at=AT) -> VerifiedCertificate:
    return verify_certificate(
        certificate,
        kind=kind,
        roots=[root().certificate] if roots is None else roots,
        intermediates=[middle().certificate] if others is None else others,
        at=at,
    )


def test_honest_chain_is_verified():
    verified = judged(leaf())
    assert verified.chain == ("CN=leaf", "CN=middle", "CN=root")
    assert verified.tpm is not None
    assert verified.tpm.manufacturer == "id:0001"
    assert verified.spki_digest.startswith("sha256:")


def test_root_may_issue_directly():
    assert len(judged(leaf(root())).chain) == 2


@pytest.mark.parametrize(
    ("key_usage", "kind"),
    [(usage(encrypt=True), EK), (usage(agree=True), EK), (usage(sign=True), AK)],
)
def test_kind_is_read_from_key_usage_though_both_carry_the_endorsement_usage(key_usage, kind):
    certificate = leaf(key_usage=key_usage, extra=[(x509.ExtendedKeyUsage([EK_USAGE]), False)])
    assert judged(certificate, kind).kind is kind
    with pytest.raises(errors.CertificateKindMismatch):
        judged(certificate, AK if kind is EK else EK)


@pytest.mark.parametrize("key_usage", [usage(sign=True, encrypt=True), usage(sign=True, agree=True), usage()])
@pytest.mark.parametrize("kind", list(CertificateKind))
def test_certificate_that_is_both_or_neither_is_refused(key_usage, kind):
    with pytest.raises(errors.CertificateKindMismatch):
        judged(leaf(key_usage=key_usage), kind)


def test_certificate_without_key_usage_is_refused():
    certificate = build("leaf", rsa_key(2048).public_key(), middle(), [(TPM_NAME, True)])
    with pytest.raises(errors.CertificateKindMismatch):
        judged(certificate)


def test_web_server_certificate_is_refused():
    extended = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    with pytest.raises(errors.CertificateKindMismatch):
        judged(leaf(extra=[(extended, False)]))


@pytest.mark.parametrize("oid", [EK_USAGE, AK_USAGE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_extended_usages_of_tpm_keys_are_accepted(oid):
    assert judged(leaf(extra=[(x509.ExtendedKeyUsage([oid]), False)]))


def test_ca_certificate_offered_as_a_leaf_is_refused():
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(ca=True))


def test_leaf_that_may_sign_certificates_is_refused():
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(key_usage=usage(encrypt=True, issue=True)))


def test_unknown_critical_extension_is_refused():
    extension = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    with pytest.raises(errors.CriticalExtensionUnknown):
        judged(leaf(extra=[(extension, True)]))
    assert judged(leaf(extra=[(extension, False)]))


def test_name_constraints_that_are_not_judged_are_refused_in_a_ca():
    constraints = x509.NameConstraints([x509.DNSName("example.com")], None)
    authority = Authority("strict", 5, root(), critical=(constraints,))
    with pytest.raises(errors.CriticalExtensionUnknown):
        judged(leaf(authority), others=[authority.certificate])


def test_name_constraints_bind_though_they_are_not_marked_critical():
    constraints = x509.NameConstraints([x509.DirectoryName(name("another maker"))], None)
    authority = Authority("strict", 5, root(), others=(constraints,))
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(authority), others=[authority.certificate])
    anchor = Authority("root", 1, others=(constraints,))
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(anchor), roots=[anchor.certificate], others=[])


@pytest.mark.parametrize("missing", [TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION])
def test_directory_name_that_does_not_tell_the_maker_is_refused(missing):
    oids = [oid for oid in (TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION) if oid != missing]
    with pytest.raises(errors.TpmAttributesMissing):
        judged(leaf(san=tpm_name(*oids)))


def test_maker_told_twice_is_refused():
    with pytest.raises(errors.TpmAttributesMissing):
        judged(leaf(san=tpm_name(TPM_MANUFACTURER, TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION)))


def test_alternative_name_that_is_no_directory_name_is_refused():
    with pytest.raises(errors.TpmAttributesMissing):
        judged(leaf(san=x509.SubjectAlternativeName([x509.DNSName("tpm.example.com")])))


def test_neither_subject_nor_alternative_name_is_refused():
    with pytest.raises(errors.TpmAttributesMissing):
        judged(leaf(subject="", san=None))


def test_subject_without_alternative_name_is_accepted_and_says_nothing_of_the_maker():
    assert judged(leaf(san=None)).tpm is None


def test_no_root_means_that_nothing_can_be_told():
    with pytest.raises(errors.NoTrustAnchor):
        judged(leaf(), roots=[])


def test_strangers_root_of_the_same_name_is_refused():
    stranger = Authority("root", 9)
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf(Authority("root", 9)))
    assert judged(leaf(stranger), roots=[stranger.certificate])


def test_strangers_intermediate_of_the_same_name_is_refused():
    stranger = Authority("middle", 8, root())
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf(stranger), others=[middle().certificate])


def test_self_signed_leaf_is_refused():
    own = Authority("leaf", 7)
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf(own))


def test_issuer_that_is_no_ca_is_refused():
    authority = Authority("middle", 2, root(), ca=False)
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(authority), others=[authority.certificate])


def test_issuer_that_may_not_sign_certificates_is_refused():
    authority = Authority("middle", 2, root(), may_issue=False)
    with pytest.raises(errors.CertificateAuthorityUse):
        judged(leaf(authority), others=[authority.certificate])


def test_issuer_for_other_usages_is_refused():
    authority = Authority("middle", 2, root(), extended=(ExtendedKeyUsageOID.SERVER_AUTH,))
    with pytest.raises(errors.CertificateKindMismatch):
        judged(leaf(authority), others=[authority.certificate])


def test_chain_longer_than_a_ca_allows_is_refused():
    lower = Authority("lower", 3, middle())
    with pytest.raises(errors.CertificateAuthorityUse, match="longer"):
        judged(leaf(lower), others=[middle().certificate, lower.certificate])


def test_root_with_a_path_length_is_held_to_it():
    strict = Authority("strict root", 4, path_length=0)
    below = Authority("below", 5, strict)
    with pytest.raises(errors.CertificateAuthorityUse, match="longer"):
        judged(leaf(below), roots=[strict.certificate], others=[below.certificate])


def test_expired_intermediate_is_refused():
    authority = Authority("middle", 2, root(), days=10)
    with pytest.raises(errors.CertificateExpired):
        judged(leaf(authority), others=[authority.certificate])


def test_expired_root_is_refused():
    authority = Authority("old root", 6, days=10)
    with pytest.raises(errors.CertificateExpired):
        judged(leaf(authority), roots=[authority.certificate])


def test_another_way_is_found_past_an_expired_intermediate():
    expired = Authority("middle", 2, root(), days=10)
    assert len(judged(leaf(), others=[expired.certificate, middle().certificate]).chain) == 3


@pytest.mark.parametrize(("at", "valid"), [(-1, False), (0, True), (86400, True), (86401, False)])
def test_validity_is_judged_to_the_second(at, valid):
    moment = int(START.timestamp()) + at
    if valid:
        assert judged(leaf(days=1), at=moment)
    else:
        with pytest.raises(errors.CertificateExpired):
            judged(leaf(days=1), at=moment)


def test_short_rsa_key_is_refused():
    with pytest.raises(errors.WeakKey):
        judged(leaf(public=rsa_key(1024).public_key()))


def test_key_of_another_kind_is_refused():
    with pytest.raises(errors.WeakKey):
        judged(leaf(public=ed25519.Ed25519PrivateKey.generate().public_key()))


def test_old_signature_hash_is_refused():
    with pytest.raises(errors.AlgorithmRefused):
        judged(leaf(hash_=hashes.SHA224()))


def test_old_signature_hash_of_an_intermediate_is_refused():
    authority = Authority("middle", 2, root(), hash_=hashes.SHA224())
    with pytest.raises(errors.AlgorithmRefused):
        judged(leaf(authority), others=[authority.certificate])


def test_a_root_is_trusted_by_itself_and_not_by_its_signature():
    authority = Authority("old root", 6, hash_=hashes.SHA224())
    assert len(judged(leaf(authority), roots=[authority.certificate]).chain) == 2


def test_second_encoding_of_the_same_signature_is_refused():
    certificate = leaf()
    while certificate.signature[-1] & 1:  # only where the last bit is 0 may a reader take it for an unused one
        certificate = leaf()
    changed = bytearray(certificate.public_bytes(serialization.Encoding.DER))
    changed[-len(certificate.signature) - 1] = 1
    (same,) = load_certificates(bytes(changed))
    assert same.signature == certificate.signature
    with pytest.raises(errors.CertificateMalformed):
        judged(same)


def test_circle_of_issuers_ends():
    first = Authority("a", 11)
    second = Authority("b", 12, first)
    back = Authority("a", 11, second)
    with pytest.raises(errors.ChainIncomplete):
        judged(leaf(back), others=[back.certificate, second.certificate])


def test_flood_of_possible_issuers_is_bounded():
    crowd = [Authority("middle", 2, Authority("nobody", 13)).certificate for _ in range(70)]
    with pytest.raises(errors.ChainIncomplete, match="too many"):
        judged(leaf(), others=crowd)


def test_intermediates_are_told_from_roots():
    roots, others = split_roots([middle().certificate, root().certificate])
    assert (roots, others) == ((root().certificate,), (middle().certificate,))


def test_pem_and_der_are_read_and_trailing_bytes_refused():
    certificate = root().certificate
    der, pem = (certificate.public_bytes(form) for form in (serialization.Encoding.DER, serialization.Encoding.PEM))
    assert load_certificates(der) == load_certificates(pem) == (certificate,)
    assert len(load_certificates(pem * 3)) == 3
    for data in (der + b"\x00", b"", b"-----BEGIN CERTIFICATE-----", pem * (MAX_CERTIFICATES + 1)):
        with pytest.raises(errors.CertificateMalformed):
            load_certificates(data)


def test_endless_file_is_refused():
    with pytest.raises(errors.Oversized):
        load_certificates(b"\x30" * (256 * 1024 + 1))
