"""The CA believes nothing of a request but a proven key, and rotates without leaving anybody behind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from chatelaine.model.identifiers import digest_of
from chatelaine.pki.authority import LEAF_LIFETIME_SECONDS, Authority, Phase, RotationStep
from chatelaine.pki.chain import check_leaf, check_leaf_der, load_bundle, spki_of
from chatelaine.pki.errors import (
    AuthorityMalformed,
    CertificateRefused,
    CsrRefused,
    Flaw,
    NameRefused,
    RotationOutOfOrder,
)
from chatelaine.pki.roots import BACKDATE_SECONDS, CA_LIFETIME_SECONDS, CaPair
from support.pki import new_authority, new_pair

NOW = 1_800_000_000
NAME = "agent.hsm-a.chatelaine.internal"
SERIAL = bytes(range(16))
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SETTLED = LEAF_LIFETIME_SECONDS + BACKDATE_SECONDS


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: str, ca: bool = False) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority(NOW)


def leaf_of(chain_pem: str) -> x509.Certificate:
    return load_bundle(chain_pem)[0]


def test_a_leaf_carries_our_name_the_proven_key_and_a_day(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    issued = authority.issue_leaf(request(key), NAME, NOW, serial=SERIAL)
    checked = check_leaf(leaf_of(issued.chain_pem), authority.bundle, name=NAME, now=NOW)
    assert checked.spki == issued.spki
    assert checked.not_after == issued.not_after == NOW + LEAF_LIFETIME_SECONDS
    assert checked.not_before == NOW - BACKDATE_SECONDS
    assert load_bundle(issued.chain_pem)[1] == authority.signing.certificate


def test_a_leaf_serves_and_dials_and_signs_no_certificates(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    extensions = leaf_of(authority.issue_leaf(request(key), NAME, NOW, serial=SERIAL).chain_pem).extensions
    usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_request_that_asks_for_the_operators_name_and_ca_rights_gets_neither(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    greedy = request(key, "operator.chatelaine.internal", ca=True)
    certificate = leaf_of(authority.issue_leaf(greedy, NAME, NOW, serial=SERIAL).chain_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_over_a_key_of_somebody_else_is_refused(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    victim = ec.generate_private_key(ec.SECP256R1())
    ours, theirs = (
        one.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for one in (key, victim)
    )
    forged = request(key).replace(ours, theirs)
    assert forged != request(key)
    with pytest.raises(CsrRefused, match="possession"):
        authority.issue_leaf(forged, NAME, NOW, serial=SERIAL)


def test_a_request_over_a_weak_or_unexpected_key_is_refused(authority: Authority) -> None:
    with pytest.raises(CsrRefused, match="P-256"):
        authority.issue_leaf(
            request(rsa.generate_private_key(public_exponent=65537, key_size=2048)), NAME, NOW, serial=SERIAL
        )
    with pytest.raises(CsrRefused, match="P-256"):
        authority.issue_leaf(request(ec.generate_private_key(ec.SECP256K1())), NAME, NOW, serial=SERIAL)


@pytest.mark.parametrize("bad", [b"", b"\x30\x00", b"x" * 100, b"\x30\x82\xff\xff" + b"\x00" * 4092])
def test_a_malformed_or_oversized_request_is_refused(authority: Authority, bad: bytes) -> None:
    with pytest.raises(CsrRefused):
        authority.issue_leaf(bad, NAME, NOW, serial=SERIAL)
    with pytest.raises(CsrRefused, match="over"):
        authority.issue_leaf(bad + b"\x00" * 5000, NAME, NOW, serial=SERIAL)


@pytest.mark.parametrize(
    "name",
    ["", "agent.example.org", "chatelaine.internal", "agent.*.chatelaine.internal", "a..chatelaine.internal",
     "Agent.chatelaine.internal", "x" * 64 + ".chatelaine.internal", "agent.a\n.chatelaine.internal"],
)  # fmt: skip
def test_a_name_outside_our_domain_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey, name: str) -> None:
    with pytest.raises(NameRefused):
        authority.issue_leaf(request(key), name, NOW, serial=SERIAL)


def test_a_leaf_never_outlives_its_root(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    near_end = authority.signing.not_after - 10
    assert authority.issue_leaf(request(key), NAME, near_end, serial=SERIAL).not_after == authority.signing.not_after


def test_a_leaf_of_another_ca_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    stranger = new_authority(NOW).issue_leaf(request(key), NAME, NOW, serial=SERIAL)
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(leaf_of(stranger.chain_pem), authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.UNKNOWN_ISSUER


def test_a_leaf_of_another_process_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    other = authority.issue_leaf(request(key), "gateway.hsm-a.chatelaine.internal", NOW, serial=SERIAL)
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(leaf_of(other.chain_pem), authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.OTHER_NAME


@pytest.mark.parametrize("moment", [NOW - BACKDATE_SECONDS - 1, NOW + LEAF_LIFETIME_SECONDS + 1])
def test_a_leaf_out_of_its_time_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey, moment: int) -> None:
    issued = authority.issue_leaf(request(key), NAME, NOW, serial=SERIAL)
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(leaf_of(issued.chain_pem), authority.bundle, name=NAME, now=moment)
    assert refused.value.flaw is Flaw.NOT_IN_TIME


def test_the_root_itself_is_no_leaf(authority: Authority) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(authority.signing.certificate, authority.bundle, name=None, now=NOW)
    assert refused.value.flaw is Flaw.NO_LEAF


def certificate(
    authority: Authority, *names: str, ca: bool = False, usages: tuple[x509.ObjectIdentifier, ...] = BOTH
) -> x509.Certificate:
    """A certificate of our CA that `issue_leaf` would never make."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.signing.certificate.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(NOW, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + 60, UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    return builder.sign(authority.signing.key, hashes.SHA256())


def test_a_certificate_that_may_issue_others_is_no_leaf(authority: Authority) -> None:
    check_leaf(certificate(authority, NAME), authority.bundle, name=NAME, now=NOW)
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(certificate(authority, NAME, ca=True), authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.NO_LEAF


@pytest.mark.parametrize("usages", [BOTH[:1], BOTH[1:]])
def test_a_certificate_for_one_direction_only_is_no_leaf(
    authority: Authority, usages: tuple[x509.ObjectIdentifier, ...]
) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(certificate(authority, NAME, usages=usages), authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.NO_LEAF


def test_a_certificate_with_a_second_name_is_refused(authority: Authority) -> None:
    two = certificate(authority, NAME, "operator.chatelaine.internal")
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(two, authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.NO_LEAF


@pytest.mark.parametrize("bad", [b"", b"\x30", b"\x30\x82\x40\x01" + b"\x00" * 16385])
def test_a_malformed_certificate_is_refused(authority: Authority, bad: bytes) -> None:
    with pytest.raises(CertificateRefused) as refused:
        check_leaf_der(bad, authority.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.MALFORMED


def test_an_oversized_or_crowded_bundle_is_refused(authority: Authority) -> None:
    one = authority.bundle_pem
    for text in ("", one * 9, "#" * 70_000):
        with pytest.raises(CertificateRefused):
            load_bundle(text)


def test_the_digest_is_over_the_roots_public_key(authority: Authority) -> None:
    assert authority.digest == digest_of(spki_of(authority.signing.certificate))


def test_a_ca_survives_its_secret(authority: Authority) -> None:
    for one in (authority, authority.publish(new_pair(NOW), NOW), rotated(authority)):
        back = Authority.from_secret(one.to_secret())
        assert back.bundle == one.bundle
        assert back.changed_at == one.changed_at
        assert back.to_secret() == one.to_secret()


def test_a_stored_ca_whose_key_is_anothers_is_refused(authority: Authority) -> None:
    data = authority.to_secret() | {"tls.key": new_pair(NOW).key_pem()}
    with pytest.raises(AuthorityMalformed):
        Authority.from_secret(data)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "changed-at"])
def test_a_stored_ca_with_a_part_missing_is_refused(authority: Authority, missing: str) -> None:
    data = {key: value for key, value in authority.to_secret().items() if key != missing}
    with pytest.raises(AuthorityMalformed, match=missing):
        Authority.from_secret(data)


def test_a_stored_leaf_is_no_ca(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    chain = authority.issue_leaf(request(key), NAME, NOW, serial=SERIAL).chain_pem
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(AuthorityMalformed, match="no CA"):
        CaPair.load(chain.encode(), pem)


def test_neither_key_nor_secret_shows_in_a_repr(authority: Authority) -> None:
    assert "PRIVATE" not in repr(authority)
    assert "key=" not in repr(authority.signing)


def rotated(authority: Authority) -> Authority:
    return authority.publish(new_pair(NOW), NOW).switch(NOW + SETTLED)


def test_a_rotation_trusts_both_roots_before_the_new_one_signs(
    authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    published = authority.publish(new_pair(NOW), NOW)
    assert published.signing == authority.signing
    assert len(published.bundle) == 2
    switched = published.switch(NOW + SETTLED)
    assert switched.signing == published.upcoming
    assert set(switched.bundle) == set(published.bundle)
    leaf = leaf_of(switched.issue_leaf(request(key), NAME, NOW + SETTLED, serial=SERIAL).chain_pem)
    # Whoever renewed since `publish` trusts the new leaf already.
    check_leaf(leaf, published.bundle, name=NAME, now=NOW + SETTLED)
    retired = switched.retire(NOW + 2 * SETTLED)
    assert retired.bundle == (switched.signing.certificate,)


def test_a_leaf_of_a_retired_root_is_refused(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    old = leaf_of(authority.issue_leaf(request(key), NAME, NOW, serial=SERIAL).chain_pem)
    retired = rotated(authority).retire(NOW + 2 * SETTLED)
    with pytest.raises(CertificateRefused) as refused:
        check_leaf(old, retired.bundle, name=NAME, now=NOW)
    assert refused.value.flaw is Flaw.UNKNOWN_ISSUER


def test_no_step_of_a_rotation_comes_early_or_twice(authority: Authority) -> None:
    published = authority.publish(new_pair(NOW), NOW)
    with pytest.raises(RotationOutOfOrder):
        published.publish(new_pair(NOW), NOW)
    with pytest.raises(RotationOutOfOrder):
        published.switch(NOW + SETTLED - 1)
    with pytest.raises(RotationOutOfOrder):
        authority.switch(NOW + SETTLED)
    switched = published.switch(NOW + SETTLED)
    with pytest.raises(RotationOutOfOrder):
        switched.retire(NOW + 2 * SETTLED - 1)
    with pytest.raises(RotationOutOfOrder):
        switched.publish(new_pair(NOW), NOW + 2 * SETTLED)
    with pytest.raises(RotationOutOfOrder):
        authority.retire(NOW + SETTLED)


def test_the_steps_of_a_rotation_fall_due_in_order(authority: Authority) -> None:
    late = authority.signing.not_after - CA_LIFETIME_SECONDS // 3
    assert authority.step_due(late - 1) is RotationStep.NOTHING
    assert authority.step_due(late) is RotationStep.PUBLISH
    published = authority.publish(new_pair(late), late)
    assert published.step_due(late + SETTLED - 1) is RotationStep.NOTHING
    assert published.step_due(late + SETTLED) is RotationStep.SWITCH
    switched = published.switch(late + SETTLED)
    assert switched.step_due(late + 2 * SETTLED) is RotationStep.RETIRE
    assert switched.retire(late + 2 * SETTLED).step_due(late + 2 * SETTLED) is RotationStep.NOTHING


def test_a_rotation_that_was_asked_for_goes_on_once_everybody_is_told_and_clients_had_their_grace(
    authority: Authority,
) -> None:
    assert authority.step_due(NOW) is RotationStep.NOTHING
    assert authority.step_due(NOW, request="one") is RotationStep.PUBLISH
    published = authority.publish(new_pair(NOW), NOW, request="one", grace_seconds=60)
    assert (published.phase, published.next_at()) == (Phase.PUBLISHED, None)
    assert published.step_due(NOW + SETTLED - 1) is RotationStep.NOTHING, "somebody has not been told"
    told = published.everybody_told(NOW + 100)
    assert told.next_at() == NOW + 160
    assert told.step_due(NOW + 159) is RotationStep.NOTHING
    with pytest.raises(RotationOutOfOrder):
        told.switch(NOW + 159)
    switched = told.switch(NOW + 160)
    assert (switched.phase, switched.next_at()) == (Phase.SWITCHED, None), "and all have to be told anew"
    with pytest.raises(RotationOutOfOrder):
        switched.retire(NOW + 10_000)
    over = switched.everybody_told(NOW + 200).retire(NOW + 260)
    assert over.phase is Phase.SETTLED
    assert published.upcoming is not None
    assert over.bundle == (published.upcoming.certificate,)
    assert over.step_due(NOW + 260, request="one") is RotationStep.NOTHING, "the same request begins nothing again"
    assert over.step_due(NOW + 260, request="two") is RotationStep.PUBLISH
    with pytest.raises(RotationOutOfOrder):
        over.everybody_told(NOW + 260)


def test_a_host_that_is_never_reached_holds_a_rotation_up_no_longer_than_its_leaf_lives(authority: Authority) -> None:
    published = authority.publish(new_pair(NOW), NOW, request="one", grace_seconds=0)
    assert published.step_due(NOW + SETTLED - 1) is RotationStep.NOTHING
    assert published.step_due(NOW + SETTLED) is RotationStep.SWITCH


def test_no_grace_is_longer_than_a_leaf_lives(authority: Authority) -> None:
    told = authority.publish(new_pair(NOW), NOW, grace_seconds=10 * SETTLED).everybody_told(NOW + 5)
    assert told.pace.grace_seconds == SETTLED
    assert told.next_at() == NOW + SETTLED


def test_how_far_a_rotation_is_outlives_the_process_and_an_older_secret_is_read(authority: Authority) -> None:
    published = authority.publish(new_pair(NOW), NOW, request="one", grace_seconds=7)
    for stage in (authority, published, published.everybody_told(NOW + 1)):
        read = Authority.from_secret(stage.to_secret())
        assert (read.to_secret(), read.pace, read.phase) == (stage.to_secret(), stage.pace, stage.phase)
    older = {key: value for key, value in published.to_secret().items() if not key.startswith(("rotation-", "told-"))}
    read = Authority.from_secret(older)
    assert (read.phase, read.pace.request, read.pace.grace_seconds) == (Phase.PUBLISHED, "", SETTLED)
    with pytest.raises(AuthorityMalformed):
        Authority.from_secret(published.to_secret() | {"told-at": b"soon"})
