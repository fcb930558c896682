"""Judging single pieces of evidence by hand: a quote, a certificate. What `chatelaine verify` prints.

An error of form or authenticity refutes *this piece of evidence*. (In the operator such an error is dropped and
counted instead, and says nothing about any subject.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chatelaine.appraisal.appraise import pcr_rules
from chatelaine.evidence.certificates import (
    CertificateKind,
    VerifiedCertificate,
    load_certificates,
    split_roots,
    verify_certificate,
    verify_kind,
)
from chatelaine.evidence.errors import EvidenceError, NoTrustAnchor, PcrMissing
from chatelaine.evidence.tpm_algorithms import bank_of
from chatelaine.evidence.tpm_quote import AttestationKey, VerifiedQuote, verify_quote
from chatelaine.evidence.tpm_types import Selection, parse_quote
from chatelaine.model.identifiers import canonical_json, digest_of
from chatelaine.model.material import ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, Verdict, all_of, verdict_of

DEFAULT_BANK: Final = "sha256"
NO_EPOCH: Final = Epoch(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """A verdict over one piece of evidence.

    Attributes:
        findings: what was found.
        facts: what the evidence says, plain JSON.
        subject: of a quote that verifies, the key that signed it; empty where nothing was shown.
        epoch: of a quote that verifies, its clock's counters; nobody was admitted, so its generation is 0.
    """

    findings: Finding
    facts: Mapping[str, object]
    subject: str = ""
    epoch: Epoch = NO_EPOCH

    @property
    def verdict(self) -> Verdict:
        """What the whole tree says."""
        return verdict_of(self.findings.outcome)

    def as_dict(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {"verdict": self.verdict.value, "findings": self.findings.as_dict(), "facts": dict(self.facts)}


def refusal(check: str, error: EvidenceError) -> Finding:
    """A finding for evidence that was refused. Only where nothing could be compared is the answer open."""
    outcome = Outcome.CANNOT_TELL if isinstance(error, NoTrustAnchor) else Outcome.REFUTED
    return Finding(check, outcome, error.reason, error.detail, expected=error.expected, found=error.found)


def unless_fetched(found: Finding, policy: AttestationPolicySpec, reference: ReferenceValues | None) -> Finding:
    """A PCR without a good value, where the policy's reference values may name it and are not at hand: open."""
    if found.reason != "PcrMismatch" or policy.reference_values is None or reference is not None:
        return found
    detail = f"{found.detail}; the policy's reference values, which may name it, are not at hand"
    return replace(found, outcome=Outcome.CANNOT_TELL, detail=detail)


# --- quotes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuoteCase:
    """A quote and what to judge it by.

    Attributes:
        attest: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        ak: TPMT_PUBLIC, TPM2B_PUBLIC or PEM.
        pcrs: reported values by bank (`sha256`) and index (0..23).
        bank: which bank was asked for; None: the policy's, else the only one reported, else SHA-256.
        extra_data: what the quote must carry; None: freshness cannot be told.
        policy: rules for the PCRs; None: only genuineness is judged.
        reference: the reference values that the policy leans on; None: none, or they are not at hand.
        ak_certificate: certificate that is said to be the AK's (PEM or DER).
    """

    attest: bytes
    signature: bytes
    ak: bytes
    pcrs: Mapping[str, Mapping[int, bytes]]
    bank: str | None = None
    extra_data: bytes | None = None
    policy: AttestationPolicySpec | None = None
    reference: ReferenceValues | None = None
    ak_certificate: bytes | None = field(default=None, repr=False)

    def evidence_digest(self) -> str:
        """`sha256:` over the parts of the quote, as canonical JSON with values in hexadecimal."""
        pcrs = {
            bank: {str(index): value.hex() for index, value in values.items()} for bank, values in self.pcrs.items()
        }
        parts = {"attest": self.attest.hex(), "signature": self.signature.hex(), "ak": self.ak.hex(), "pcrs": pcrs}
        return digest_of(canonical_json(parts))


def judge_quote(case: QuoteCase) -> Report:
    """Is it a genuine quote under this key, fresh, and as the policy wants it?"""
    try:
        quote, key = _verified(case)
    except EvidenceError as error:
        return Report(all_of("tpm-quote", [refusal("quote", error)]), {})
    findings = [
        Finding("quote", Outcome.HOLDS, "QuoteGenuine", f"signed under the given key, {quote.algorithm}"),
        _freshness(case, quote),
        _clock(quote),
        *_key_findings(case, key),
    ]
    if case.policy is not None:
        compared = [rule.judge_quote(quote) for rule in pcr_rules(case.policy, case.reference)]
        found = [unless_fetched(finding, case.policy, case.reference) for finding in compared]
        findings.append(all_of("policy", found))
        if case.policy.hsm is not None:
            detail = "the policy's rules for the HSM are not about a quote; they were not judged"
            findings.append(Finding("hsm rules", Outcome.HOLDS, "OutsideOfQuote", detail))
    epoch = Epoch(quote.reset_count, quote.restart_count, 0)
    return Report(all_of("tpm-quote", findings), _quote_facts(quote, key), _subject(key), epoch)


def quote_appraisal(case: QuoteCase, report: Report, *, issued_at: int) -> Appraisal:
    """The verdict of `judge_quote` in the form of all our verdicts, for its attestation result.

    It is one of the moment: only a policy says for how long one may be relied upon. A policy read from a file has a
    digest, and no name.

    Args:
        case: what was judged.
        report: what was found.
        issued_at: seconds since the epoch.
    """
    policy = case.policy
    stamps = (PolicyStamp("", "", 0, policy.digest()),) if policy is not None else ()
    return Appraisal(
        subject=report.subject,
        verdict=report.verdict,
        findings=report.findings,
        policies=stamps,
        evidence_digest=case.evidence_digest(),
        epoch=report.epoch,
        issued_at=issued_at,
        valid_until=issued_at + (policy.freshness.max_age_seconds if policy is not None else 0),
        compared=_compared(policy),
    )


def _compared(policy: AttestationPolicySpec | None) -> tuple[str, ...]:
    if policy is None:
        return ()
    indices = ",".join(str(rule.index) for rule in pcr_rules(policy))
    return (f"pcr {policy.tpm.pcrs.bank.value}:{indices}",)


def _subject(key: AttestationKey) -> str:
    if key.public is not None:
        return f"tpm-ak:{key.name.hex()}"
    return digest_of(key.key.public_bytes(*_SPKI))


def _verified(case: QuoteCase) -> tuple[VerifiedQuote, AttestationKey]:
    bank = bank_of(_bank_name(case))
    key = AttestationKey.parse(case.ak)
    body = parse_quote(case.attest)
    pcrs = next((values for name, values in case.pcrs.items() if name.lower() == bank.value.lower()), {})
    if not pcrs:
        raise PcrMissing("no PCR values were reported for this bank", expected=bank.value)
    quote = verify_quote(
        case.attest,
        case.signature,
        ak=key,
        # Without an expectation the quote's own data goes in; `_freshness` then says that nothing is known.
        expected_extra_data=case.extra_data if case.extra_data is not None else body.extra_data or b"\x00",
        selection=Selection(bank, tuple(pcrs)),
        pcrs=pcrs,
    )
    return quote, key


def _bank_name(case: QuoteCase) -> str:
    if case.bank is not None:
        return case.bank
    if case.policy is not None:
        return case.policy.tpm.pcrs.bank.value
    return next(iter(case.pcrs)) if len(case.pcrs) == 1 else DEFAULT_BANK


def _freshness(case: QuoteCase, quote: VerifiedQuote) -> Finding:
    found = quote.extra_data.hex()
    if case.extra_data is None:
        detail = "no expected extra data was given; the quote may be old, or somebody else's answer"
        return Finding("freshness", Outcome.CANNOT_TELL, "FreshnessUnknown", detail, found=found)
    return Finding("freshness", Outcome.HOLDS, "ExtraDataMatches", found=found)


def _clock(quote: VerifiedQuote) -> Finding:
    if quote.safe:
        return Finding("clock", Outcome.HOLDS, "ClockSafe")
    detail = "the TPM was not shut down in an orderly way; its clock may have run backwards"
    return Finding("clock", Outcome.HOLDS, "ClockUnsafe", detail)


def _key_findings(case: QuoteCase, key: AttestationKey) -> list[Finding]:
    findings = []
    if key.public is None:
        detail = "a bare public key: whether it signs only what its TPM made cannot be seen"
        findings.append(Finding("ak attributes", Outcome.HOLDS, "AkAttributesUnknown", detail))
    else:
        detail = "restricted signing key that cannot leave its TPM"
        findings.append(Finding("ak attributes", Outcome.HOLDS, "AkRestricted", detail))
    if case.ak_certificate is not None:
        findings.append(_certificate_of(case.ak_certificate, key))
    detail = "nothing here says whose TPM this key is in; enrolment (credential activation) does"
    findings.append(Finding("ak anchor", Outcome.HOLDS, "AkNotAnchored", detail))
    return findings


def _certificate_of(data: bytes, key: AttestationKey) -> Finding:
    """The certificate that came along is an AK's and names this very key. Its chain is not judged here."""
    try:
        certified = verify_kind(load_certificates(data)[0], CertificateKind.AK)
    except EvidenceError as error:
        return refusal("ak certificate", error)
    if certified != key.key.public_bytes(*_SPKI):
        detail = "the certificate is for another key than the one that signed"
        return Finding("ak certificate", Outcome.REFUTED, "CertificateKeyMismatch", detail)
    return Finding("ak certificate", Outcome.HOLDS, "CertificateNamesKey", "its chain was not judged")


_SPKI: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _quote_facts(quote: VerifiedQuote, key: AttestationKey) -> dict[str, object]:
    bank = quote.selection.bank.value.lower()
    facts: dict[str, object] = {
        "algorithm": quote.algorithm,
        "selection": {"bank": bank, "indices": list(quote.selection.indices)},
        "clock": {"milliseconds": quote.clock_milliseconds, "safe": quote.safe},
        "epoch": {"resetCount": quote.reset_count, "restartCount": quote.restart_count},
        "pcrs": {bank: {str(index): quote.pcrs[index].hex() for index in quote.selection.indices}},
        "pcrDigest": quote.pcr_digest.hex(),
        "extraData": quote.extra_data.hex(),
        "firmwareVersion": f"{quote.firmware_version:016x}",
    }
    if key.public is not None:
        facts["akName"] = key.name.hex()
    return facts


# --- certificates ---------------------------------------------------------------------------------------------


def judge_certificate(data: bytes, *, kind: CertificateKind, given: Sequence[x509.Certificate], at: int) -> Report:
    """Does the first certificate of `data` chain to one of the self-signed ones in `given`, as of `at`?

    Further certificates of `data`, and those of `given` that are not self-signed, may help as intermediates.
    """
    roots, intermediates = split_roots(given)
    try:
        leaf, *more = load_certificates(data)
        verified = verify_certificate(leaf, kind=kind, roots=roots, intermediates=(*intermediates, *more), at=at)
    except EvidenceError as error:
        return Report(all_of("certificate", [refusal("chain", error)]), {"at": at})
    findings = [
        Finding("kind", Outcome.HOLDS, "CertificateKindMatches", f"a certificate of an {kind.value} key"),
        Finding("chain", Outcome.HOLDS, "ChainHolds", " <- ".join(verified.chain)),
        Finding("revocation", Outcome.HOLDS, "RevocationNotChecked", "this check works offline; no list was asked"),
    ]
    return Report(all_of("certificate", findings), _certificate_facts(verified, at))


def _certificate_facts(verified: VerifiedCertificate, at: int) -> dict[str, object]:
    tpm = verified.tpm
    return {
        "kind": verified.kind.value,
        "subject": verified.subject,
        "chain": list(verified.chain),
        "fingerprint": verified.fingerprint,
        "spkiDigest": verified.spki_digest,
        "tpm": None if tpm is None else {"manufacturer": tpm.manufacturer, "model": tpm.model, "version": tpm.version},
        "validUntil": verified.valid_until,
        "at": at,
    }
