"""The internal CA: a P-256 root that issues short-lived leaves, and its rotation.

Order of a rotation:

1. `publish`: a new root joins the bundle; the old one still signs.
2. `switch`: the new root signs; the old one stays in the bundle.
3. `retire`: the old root leaves the bundle; no leaf of it is in use any more.

The next step is due a whole leaf lifetime after the one before: by then every live process has renewed and thereby
received the bundle of that step. It is due earlier where everybody is known to have received it (`everybody_told`) and
`Pace.grace_seconds` have gone by since, for those who are never asked: clients that read the bundle out of a Secret.

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
SETTLED_SECONDS: Final = LEAF_LIFETIME_SECONDS + BACKDATE_SECONDS
"""After this, whoever has a leaf that is in time has got the bundle of the step before with it."""
MAX_REQUEST_CHARACTERS: Final = 128

_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_NEXT_CERTIFICATE, _NEXT_KEY = "next.crt", "next.key"
_FORMER_CERTIFICATE = "former.crt"
_CHANGED_AT = "changed-at"
_REQUEST, _GRACE, _TOLD_AT, _STEPS = "rotation-request", "rotation-grace-seconds", "told-at", "rotation-steps"


def renewal_due(not_after: int, now: int, lifetime_seconds: int = LEAF_LIFETIME_SECONDS) -> bool:
    """Whether two thirds of a leaf's life are over. Times: seconds since the epoch."""
    return now >= not_after - lifetime_seconds // 3


class RotationStep(enum.StrEnum):
    """What a CA needs next."""

    NOTHING = "Nothing"
    PUBLISH = "Publish"
    SWITCH = "Switch"
    RETIRE = "Retire"


class Phase(enum.StrEnum):
    """How far a rotation is."""

    SETTLED = "Settled"
    """None is under way."""
    PUBLISHED = "Published"
    """Old and new root are trusted, the old one signs."""
    SWITCHED = "Switched"
    """Old and new root are trusted, the new one signs."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a rotation goes, and at whose request.

    Attributes:
        request: the last request that was begun; the same one begins no second rotation. Empty: none ever.
        grace_seconds: how long after `told_at` the next step waits, at most `SETTLED_SECONDS`.
        told_at: since when everybody is known to have received the bundle of this step; seconds since the epoch.
        steps: how many steps were ever taken.
    """

    request: str = ""
    grace_seconds: int = SETTLED_SECONDS
    told_at: int | None = None
    steps: int = 0


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
        pace: how fast the rotation goes.
    """

    signing: CaPair
    changed_at: int
    upcoming: CaPair | None = None
    former: x509.Certificate | None = None
    pace: Pace = Pace()

    @property
    def phase(self) -> Phase:
        """How far a rotation is."""
        if self.upcoming is not None:
            return Phase.PUBLISHED
        return Phase.SWITCHED if self.former is not None else Phase.SETTLED

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

    def next_at(self) -> int | None:
        """When the next step is due; None while that depends on who has still to be told, or none is."""
        if self.phase is Phase.SETTLED or self.pace.told_at is None:
            return None
        return min(self.pace.told_at + self.pace.grace_seconds, self.changed_at + SETTLED_SECONDS)

    def step_due(self, now: int, *, request: str = "", lead_seconds: int = CA_LIFETIME_SECONDS // 3) -> RotationStep:
        """Which step of a rotation is due. A new one begins at a new `request`, or `lead_seconds` before the root ends.

        Args:
            now: seconds since the epoch.
            request: what people ask for now; empty: nothing.
            lead_seconds: how early a rotation begins by itself.
        """
        if self.phase is Phase.SETTLED:
            asked = request not in ("", self.pace.request)
            begins = asked or now >= self.signing.not_after - lead_seconds
            return RotationStep.PUBLISH if begins else RotationStep.NOTHING
        next_at = self.next_at()
        if now < self.changed_at + SETTLED_SECONDS and (next_at is None or now < next_at):
            return RotationStep.NOTHING
        return RotationStep.SWITCH if self.phase is Phase.PUBLISHED else RotationStep.RETIRE

    def publish(self, pair: CaPair, now: int, *, request: str = "", grace_seconds: int = SETTLED_SECONDS) -> Authority:
        """Step 1: trust `pair` too.

        Raises:
            RotationOutOfOrder: a rotation is under way.
        """
        if self.phase is not Phase.SETTLED:
            raise RotationOutOfOrder("a rotation is under way")
        pace = Pace(request or self.pace.request, min(grace_seconds, SETTLED_SECONDS), None, self.pace.steps + 1)
        return replace(self, upcoming=pair, changed_at=now, pace=pace)

    def everybody_told(self, now: int) -> Authority:
        """Between two steps: all processes and all Secrets are known to carry the bundle of this step.

        Raises:
            RotationOutOfOrder: no rotation is under way.
        """
        if self.phase is Phase.SETTLED:
            raise RotationOutOfOrder("no rotation is under way")
        return replace(self, pace=replace(self.pace, told_at=now))

    def switch(self, now: int) -> Authority:
        """Step 2: sign with the published root.

        Raises:
            RotationOutOfOrder: nothing is published, or the step is not due.
        """
        if self.upcoming is None or self.step_due(now) is not RotationStep.SWITCH:
            raise RotationOutOfOrder("somebody may not trust the new root yet")
        return Authority(self.upcoming, now, former=self.signing.certificate, pace=self._after_step())

    def retire(self, now: int) -> Authority:
        """Step 3: trust the old root no more.

        Raises:
            RotationOutOfOrder: leaves of the old root may still be in use.
        """
        if self.former is None or self.step_due(now) is not RotationStep.RETIRE:
            raise RotationOutOfOrder("leaves of the former root may still be in use")
        return Authority(self.signing, now, pace=self._after_step())

    def _after_step(self) -> Pace:
        return replace(self.pace, told_at=None, steps=self.pace.steps + 1)

    def to_secret(self) -> dict[str, bytes]:
        """The data of the Secret that keeps this CA."""
        data = {
            _CERTIFICATE: self.signing.certificate_pem(),
            _KEY: self.signing.key_pem(),
            _CHANGED_AT: str(self.changed_at).encode(),
            _GRACE: str(self.pace.grace_seconds).encode(),
            _STEPS: str(self.pace.steps).encode(),
        }
        if self.pace.request:
            data[_REQUEST] = self.pace.request.encode()
        if self.pace.told_at is not None:
            data[_TOLD_AT] = str(self.pace.told_at).encode()
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
            pace = _stored_pace(data)
        except KeyError as error:
            raise AuthorityMalformed(f"stored CA: {error} is missing") from error
        except ValueError as error:
            raise AuthorityMalformed("stored CA: a part is no certificate or no time") from error
        return cls(signing, changed_at, upcoming, former, pace)


def _stored_pace(data: Mapping[str, bytes]) -> Pace:
    """A Secret of an earlier version says nothing of it. Raises ValueError where a part is none."""
    told_at = int(data[_TOLD_AT]) if _TOLD_AT in data else None
    grace = min(max(int(data.get(_GRACE, SETTLED_SECONDS)), 0), SETTLED_SECONDS)
    return Pace(data.get(_REQUEST, b"").decode()[:MAX_REQUEST_CHARACTERS], grace, told_at, int(data.get(_STEPS, 0)))
