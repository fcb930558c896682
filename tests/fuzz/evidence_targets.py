"""What is fuzzed of `evidence`: what a host answers, and certificates of TPM makers."""

from __future__ import annotations

import contextlib
import datetime
import inspect
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from chatelaine.evidence import cbor
from chatelaine.evidence.bundle import decode_evidence
from chatelaine.evidence.certificate_chain import EK_USAGE
from chatelaine.evidence.certificates import (
    TPM_MANUFACTURER,
    TPM_MODEL,
    TPM_VERSION,
    CertificateKind,
    load_certificates,
    verify_certificate,
)
from chatelaine.evidence.endorsement import verify_endorsement
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.hsm_statement import attestation_public_key, decode_statement
from chatelaine.evidence.inventory import decode_inventory, encode_inventory
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_quote import AttestationKey
from chatelaine.evidence.tpm_types import parse_pcr_selection, parse_quote, parse_signature
from fuzz.target import Target, read_back
from support import paper_host, paper_tpm

AT = 1_780_000_000
HOST = paper_host.PaperHost()
ANSWER = HOST.answer()


def certificate(data: bytes) -> None:
    """The first certificate as a leaf, all of them as roots; and as what a TPM shows under a vendor of its own."""
    found = load_certificates(data)
    with contextlib.suppress(EvidenceError):
        verify_endorsement(data, (data,), ek_digest="sha256:" + "0" * 64, at=AT)
    for kind in CertificateKind:
        with contextlib.suppress(EvidenceError):
            verify_certificate(found[0], kind=kind, roots=found, at=AT)


def self_signed() -> bytes:
    """A certificate with everything that TPM makers put into one (DER)."""
    key = paper_tpm.ecc_key(paper_tpm.alg.NIST_P256)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "seed")])
    maker = [x509.NameAttribute(oid, "id:0001") for oid in (TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION)]
    usage = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False) | {"key_agreement": True}
    start = datetime.datetime.fromtimestamp(AT - 3600, tz=datetime.UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(maker))]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([EK_USAGE]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _target(parse: Callable[[bytes], object], *seeds: bytes) -> Target:
    return Target(parse, (EvidenceError,), lambda: list(seeds))


TARGETS = {
    "quote": _target(lambda data: parse_pcr_selection(parse_quote(data).selection), ANSWER.attest),
    "signature": _target(
        parse_signature, ANSWER.signature, paper_tpm.PaperTpm(paper_tpm.alg.RSASSA).sign(b"")
    ),
    "public": _target(
        lambda data: parse_public(data).name,
        ANSWER.ak_public, paper_tpm.ek_public(), paper_tpm.sized(ANSWER.ak_public),
    ),
    "attestation-key": _target(lambda data: AttestationKey.parse(data).public, ANSWER.ak_public),
    "pcr-selection": _target(parse_pcr_selection, paper_tpm.SELECTION.encoded),
    "cbor": _target(
        read_back(lambda data: cbor.decode(data, limit_bytes=4096, what="value"), cbor.encode), ANSWER.statement
    ),
    "statement": _target(read_back(decode_statement, lambda statement: statement.encode()), ANSWER.statement),
    "inventory": _target(read_back(decode_inventory, encode_inventory), ANSWER.inventory),
    "evidence": _target(read_back(decode_evidence, lambda evidence: evidence.encode()), ANSWER.encode()),
    "statement-key": _target(attestation_public_key, paper_host.spki(HOST.hsm_key)),
    "certificate": _target(certificate, self_signed()),
}  # fmt: skip
