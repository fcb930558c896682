"""EK certificates against vendors' certificates: who is let through, and that kept answers are the same answers."""

from __future__ import annotations

import datetime
import functools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from chatelaine.evidence import endorsement, errors
from chatelaine.evidence.endorsement import MAX_EK_CERTIFICATE_BYTES, certified_key, roots_among, verify_endorsement
from chatelaine.model.identifiers import digest_of
from support.paper_tpm import rsa_key
from support.vendors import Vendor

SINCE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
START = int(SINCE.timestamp())
AT = START + 86400
DAYS = 100
END = START + DAYS * 86400
"""Last second of the certificate's life."""


@functools.cache
def vendor(name: str = "one") -> Vendor:
    return Vendor(name, SINCE)


def key(number: int = 0) -> rsa.RSAPublicKey:
    return rsa_key(2048 + number).public_key()


def ek_digest() -> str:
    return digest_of(key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@functools.cache
def certificate() -> bytes:
    return vendor().certify(key(), days=DAYS)


def judged(data: bytes | None = None, vendors: tuple[bytes, ...] | None = None, *, at: int = AT, ek: str | None = None):
    return verify_endorsement(
        certificate() if data is None else data,
        vendor().der if vendors is None else vendors,
        ek_digest=ek or ek_digest(),
        at=at,
    )


def test_certificate_of_the_vendor_over_this_key_is_verified() -> None:
    found = judged()
    assert found.spki_digest == ek_digest()
    assert found.chain[-1] == "CN=one root"


def test_certificate_of_another_vendor_is_refused() -> None:
    with pytest.raises(errors.ChainIncomplete):
        judged(Vendor("two", SINCE).certify(key()))


def test_certificate_of_another_vendor_of_the_same_name_is_refused() -> None:
    with pytest.raises(errors.ChainIncomplete):
        judged(Vendor("one", SINCE).certify(key()))


def test_certificate_of_another_tpm_is_refused() -> None:
    with pytest.raises(errors.EndorsementKeyMismatch) as refused:
        judged(ek="sha256:" + "0" * 64)
    assert (refused.value.expected, refused.value.found) == ("sha256:" + "0" * 64, ek_digest())


def test_attestation_key_certificate_offered_as_endorsement_is_refused() -> None:
    for ask in (judged, certified_key):
        with pytest.raises(errors.CertificateKindMismatch):
            ask(vendor().certify(key(), signs=True))


def test_intermediate_alone_is_no_root() -> None:
    root, middle = vendor().der
    assert (roots_among((root, middle)), roots_among((middle,))) == (1, 0)
    with pytest.raises(errors.NoTrustAnchor):
        judged(vendors=(middle,))
    with pytest.raises(errors.ChainIncomplete):
        judged(vendors=(root,))


def test_without_any_vendor_nothing_can_be_told() -> None:
    with pytest.raises(errors.NoTrustAnchor):
        judged(vendors=())


@pytest.mark.parametrize(("at", "holds"), [(START - 1, False), (START, True), (END, True), (END + 1, False)])
def test_certificate_outside_its_validity_is_refused(at: int, holds: bool) -> None:
    """Asked in both orders: what is kept of one moment must not answer for another."""
    fresh = vendor().certify(key(), days=DAYS)
    for moment, good in ((at, holds), (AT, True), (at, holds)):
        if good:
            assert judged(fresh, at=moment)
        else:
            with pytest.raises(errors.CertificateExpired):
                judged(fresh, at=moment)


@pytest.mark.parametrize(
    ("at", "told"), [(0, START - 1), (START - 1, START - 1), (END + 1, END + 1), (END + 9, END + 1)]
)
def test_refusal_tells_the_first_second_of_its_span(at: int, told: int) -> None:
    with pytest.raises(errors.CertificateExpired) as refused:
        judged(at=at)
    assert refused.value.found == datetime.datetime.fromtimestamp(told, datetime.UTC).isoformat()


def test_certificate_in_pem_is_refused() -> None:
    """Of several in one text, which one was meant?"""
    pem = x509.load_der_x509_certificate(certificate()).public_bytes(Encoding.PEM)
    for ask in (judged, certified_key):
        with pytest.raises(errors.CertificateMalformed, match="one DER structure"):
            ask(pem)


def test_expired_vendor_is_refused() -> None:
    old = Vendor("old", SINCE - datetime.timedelta(days=20 * 365))
    young = Vendor("old", SINCE, root_key=old.root_key, key=old.key)
    made = young.certify(key())
    assert judged(made, young.der, at=AT)
    with pytest.raises(errors.CertificateExpired):
        judged(made, old.der, at=AT)


def test_dropped_vendor_is_not_remembered() -> None:
    assert judged()
    with pytest.raises(errors.ChainIncomplete):
        judged(vendors=Vendor("two", SINCE).der)
    assert judged()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", errors.CertificateMalformed),
        (b"\x30\x82\x01\x00garbage", errors.CertificateMalformed),
        (bytes(MAX_EK_CERTIFICATE_BYTES + 1), errors.Oversized),
        (certificate() + b"\x00", errors.CertificateMalformed),
        (b"-----BEGIN CERTIFICATE-----", errors.CertificateMalformed),
    ],
)
def test_bytes_that_are_no_certificate_are_refused(data: bytes, error: type[Exception]) -> None:
    for ask in (judged, certified_key):
        with pytest.raises(error):
            ask(data)


def test_key_of_a_certificate_is_told_whoever_issued_it() -> None:
    assert certified_key(Vendor("two", SINCE).certify(key())) == ek_digest()
    assert certified_key(vendor().certify(key(1024))) != ek_digest()


def test_certificate_of_its_bound_is_read() -> None:
    """What follows the certificate is refused as that, and not for its length."""
    longest = certificate() + bytes(MAX_EK_CERTIFICATE_BYTES - len(certificate()))
    for ask in (judged, certified_key):
        with pytest.raises(errors.CertificateMalformed):
            ask(longest)


def test_same_question_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged()
    monkeypatch.setattr(endorsement, "verify_certificate", None)
    assert judged(at=AT + 5)
    with pytest.raises(TypeError):
        judged(vendor().certify(key()))


def test_refusal_says_the_same_whenever_it_is_asked_for() -> None:
    said = []
    for at in (END + 1, END + 5, END + 86400):
        with pytest.raises(errors.CertificateExpired) as refused:
            judged(at=at)
        said.append(str(refused.value))
    assert len(set(said)) == 1


def test_key_of_the_certificate_is_what_the_digest_is_over() -> None:
    found = load_der_public_key(key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert isinstance(found, rsa.RSAPublicKey)
    assert judged(vendor().certify(found)).spki_digest == ek_digest()
