"""A maker of TPMs on paper: a root, an intermediate under it, and endorsement certificates over any key."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chatelaine.evidence.certificates import TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION

DAY = datetime.timedelta(days=1)
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass
class Vendor:
    """Certificates are valid from `since` on, those of CAs for twenty years."""

    name: str = "Paper TPMs"
    since: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC) - 30 * DAY)
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        """The two CAs."""
        self._serial = 0
        root = f"{self.name} root"
        self.root = self._ca(root, self.root_key.public_key(), root)
        self.middle = self._ca(self.name, self.key.public_key(), root)

    @property
    def pem(self) -> str:
        """Both CAs, as a ConfigMap holds them."""
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in (self.root, self.middle))

    @property
    def der(self) -> tuple[bytes, ...]:
        """Both CAs."""
        return tuple(one.public_bytes(Encoding.DER) for one in (self.root, self.middle))

    def certify(self, key: PublicKey, *, signs: bool = False, days: int = 3650, says_maker: bool = True) -> bytes:
        """DER of an endorsement certificate over `key`; `signs`: an attestation key's instead."""
        attributes = [x509.NameAttribute(oid, "id:0001") for oid in (TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION)]
        names = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(attributes))])
        builder = self._builder(f"TPM of {self.name}", key, self.name, days * DAY)
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        builder = builder.add_extension(_usage(encrypts=not signs, signs=signs), True)
        if says_maker:
            builder = builder.add_extension(names, True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _ca(self, name: str, key: PublicKey, issuer: str) -> x509.Certificate:
        builder = self._builder(name, key, issuer, 20 * 365 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        return builder.add_extension(_usage(issues=True), True).sign(self.root_key, hashes.SHA256())

    def _builder(self, name: str, key: PublicKey, issuer: str, life: datetime.timedelta) -> x509.CertificateBuilder:
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key)
            .serial_number(self._serial)
            .not_valid_before(self.since)
            .not_valid_after(self.since + life)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, encrypts: bool = False, signs: bool = False, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=encrypts,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )
