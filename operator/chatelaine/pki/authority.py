"""The internal CA: a P-256 root that issues short-lived leaves, and its rotation.

Order of a rotation, each step a whole leaf lifetime after the one before, so that every live process has renewed in
between and thereby received the bundle of that step:

1. `publish`: a new root joins the bundle; the old one still signs.
2. `switch`: the new root signs; the old one stays in the bundle.
3. `retire`: the old root leaves the bundle; no leaf of it is valid any more.

Nothing here reads a clock or draws randomness: times, serials and new keys are arguments. (ECDSA draws its own
per-signature value inside the library.)
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chatelaine.pki.chain import checked_server_name, pem_of, spki_digest, spki_of_key
from chatelaine.pki.errors import AuthorityMalformed, RotationOutOfOrder
from chatelaine.pki.requests import proven_key
from chatelaine.pki.roots import BACKDATE_SECONDS, CA_LIFETIME_SECONDS, CaPair, key_usage, serial_number, time_of

LEAF_LIFETIME_SECONDS: Final = 24 * 3600

_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_NEXT_CERTIFICATE, _NEXT_KEY = "next.crt", "next.key"
_FORMER_CERTIFICATE = "former.crt"
_CHANGED_AT = "changed-at"


def renewal_due(not_after: int, now: int, lifetime_seconds: int = LEAF_LIFETIME_SECONDS) -> bool:
    """Whether two thirds of a leaf's life are over. Times: seconds since the epoch."""
    return now >= not_after - lifetime_seconds // 3


class RotationStep(enum.StrEnum):
    """What a CA needs next."""

    NOTHING = "Nothing"
    PUBLISH = "Publish"
    SWITCH = "Switch"
    RETIRE = "Retire"


@dataclass(frozen=True, slots=True)
class IssuedLeaf:
    """A fresh leaf. `chain_pem` holds the leaf and the root that signed it."""

    chain_pem: str
    spki: bytes
    not_after: int


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA as it stands: who signs, who is trusted.

    Attributes:
        signing: the root that signs leaves now.
        upcoming: a root that is trusted already and signs nothing yet.
        former: a root that signs no more and is still trusted.
        changed_at: when the last step of a rotation (or the beginning) was taken; seconds since the epoch.
    """

    signing: CaPair
    changed_at: int
    upcoming: CaPair | None = None
    former: x509.Certificate | None = None

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """Every root to trust, the signing one first."""
        upcoming = self.upcoming.certificate if self.upcoming else None
        return tuple(one for one in (self.signing.certificate, upcoming, self.former) if one is not None)

    @property
    def bundle_pem(self) -> str:
        """`bundle` as PEM."""
        return pem_of(self.bundle)

    @property
    def digest(self) -> str:
        """`sha256:` over the SubjectPublicKeyInfo of the signing root: what invitations pin."""
        return spki_digest(self.signing.certificate)

    def issue_leaf(
        self,
        csr_der: bytes,
        server_name: str,
        now: int,
        *,
        serial: bytes,
        lifetime_seconds: int = LEAF_LIFETIME_SECONDS,
    ) -> IssuedLeaf:
        """A leaf for `server_name` over the key of `csr_der`; nothing else of the request is believed.

        Args:
            csr_der: PKCS#10, DER; its signature is the proof of possession.
            server_name: the one DNS name, chosen by us.
            now: seconds since the epoch.
            serial: 16 random bytes.
            lifetime_seconds: cut where the root ends.

        Raises:
            CsrRefused: the request is malformed, its key is not EC P-256 or P-384, or its signature fails.
            NameRefused: `server_name` is not under our domain.
        """
        name = checked_server_name(server_name)
        public_key = proven_key(csr_der)
        not_after = min(now + lifetime_seconds, self.signing.not_after)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Chatelaine")]))
            .issuer_name(self.signing.certificate.subject)
            .public_key(public_key)
            .serial_number(serial_number(serial))
            .not_valid_before(time_of(now - BACKDATE_SECONDS))
            .not_valid_after(time_of(not_after))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.signing.key.public_key()), critical=False
            )
            .sign(self.signing.key, hashes.SHA256())
        )
        return IssuedLeaf(pem_of((certificate, self.signing.certificate)), spki_of_key(public_key), not_after)

    def step_due(self, now: int, *, lead_seconds: int = CA_LIFETIME_SECONDS // 3) -> RotationStep:
        """Which step of a rotation is due. A new one begins `lead_seconds` before the root ends."""
        settled = now >= self.changed_at + LEAF_LIFETIME_SECONDS + BACKDATE_SECONDS
        if self.upcoming is not None:
            return RotationStep.SWITCH if settled else RotationStep.NOTHING
        if self.former is not None:
            return RotationStep.RETIRE if settled else RotationStep.NOTHING
        return RotationStep.PUBLISH if now >= self.signing.not_after - lead_seconds else RotationStep.NOTHING

    def publish(self, pair: CaPair, now: int) -> Authority:
        """Step 1: trust `pair` too.

        Raises:
            RotationOutOfOrder: a rotation is under way.
        """
        if self.upcoming is not None or self.former is not None:
            raise RotationOutOfOrder("a rotation is under way")
        return replace(self, upcoming=pair, changed_at=now)

    def switch(self, now: int) -> Authority:
        """Step 2: sign with the published root.

        Raises:
            RotationOutOfOrder: nothing is published, or not long enough.
        """
        if self.upcoming is None or self.step_due(now) is not RotationStep.SWITCH:
            raise RotationOutOfOrder("a new root must have been in the bundle for one leaf lifetime")
        return Authority(self.upcoming, now, former=self.signing.certificate)

    def retire(self, now: int) -> Authority:
        """Step 3: trust the old root no more.

        Raises:
            RotationOutOfOrder: leaves of the old root may still be valid.
        """
        if self.former is None or self.step_due(now) is not RotationStep.RETIRE:
            raise RotationOutOfOrder("leaves of the former root may still be valid")
        return Authority(self.signing, now)

    def to_secret(self) -> dict[str, bytes]:
        """The data of the Secret that keeps this CA."""
        data = {
            _CERTIFICATE: self.signing.certificate_pem(),
            _KEY: self.signing.key_pem(),
            _CHANGED_AT: str(self.changed_at).encode(),
        }
        if self.upcoming is not None:
            data |= {_NEXT_CERTIFICATE: self.upcoming.certificate_pem(), _NEXT_KEY: self.upcoming.key_pem()}
        if self.former is not None:
            data[_FORMER_CERTIFICATE] = self.former.public_bytes(serialization.Encoding.PEM)
        return data

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Self:
        """The CA out of a Secret's data.

        Raises:
            AuthorityMalformed: a part is missing or does not fit.
        """
        try:
            signing = CaPair.load(data[_CERTIFICATE], data[_KEY])
            changed_at = int(data[_CHANGED_AT])
            upcoming = CaPair.load(data[_NEXT_CERTIFICATE], data[_NEXT_KEY]) if _NEXT_CERTIFICATE in data else None
            former = x509.load_pem_x509_certificate(data[_FORMER_CERTIFICATE]) if _FORMER_CERTIFICATE in data else None
        except KeyError as error:
            raise AuthorityMalformed(f"stored CA: {error} is missing") from error
        except ValueError as error:
            raise AuthorityMalformed("stored CA: a part is no certificate or no time") from error
        return cls(signing, changed_at, upcoming, former)
