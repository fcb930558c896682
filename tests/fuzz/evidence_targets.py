"""What is fuzzed of `evidence`: each parser gets bytes and may refuse them with an EvidenceError, with nothing else.

Run one by hand:  python tests/fuzz/evidence_targets.py NAME [libFuzzer options] [corpus folder]
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["chatelaine.evidence"]):
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
    from chatelaine.evidence.errors import EvidenceError
    from chatelaine.evidence.hsm_statement import attestation_public_key, decode_statement
    from chatelaine.evidence.inventory import decode_inventory, encode_inventory
    from chatelaine.evidence.tpm_public import parse_public
    from chatelaine.evidence.tpm_quote import AttestationKey
    from chatelaine.evidence.tpm_types import parse_pcr_selection, parse_quote, parse_signature

from support import paper_host, paper_tpm

AT = 1_780_000_000


def read_back(decode: Callable[[bytes], object], encode: Callable[..., bytes]) -> Callable[[bytes], object]:
    """A parser of something that has one encoding only: what it takes must encode to the same bytes."""

    def target(data: bytes) -> None:
        if encode(decode(data)) != data:
            raise AssertionError("taken, but not the only encoding")

    return target


def certificate(data: bytes) -> None:
    """The first certificate as a leaf, all of them as roots."""
    found = load_certificates(data)
    for kind in CertificateKind:
        with contextlib.suppress(EvidenceError):
            verify_certificate(found[0], kind=kind, roots=found, at=AT)


TARGETS: dict[str, Callable[[bytes], object]] = {
    "quote": lambda data: parse_pcr_selection(parse_quote(data).selection),
    "signature": parse_signature,
    "public": lambda data: parse_public(data).name,
    "attestation-key": lambda data: AttestationKey.parse(data).public,
    "pcr-selection": parse_pcr_selection,
    "cbor": read_back(lambda data: cbor.decode(data, limit_bytes=4096, what="value"), cbor.encode),
    "statement": read_back(decode_statement, lambda statement: statement.encode()),
    "inventory": read_back(decode_inventory, encode_inventory),
    "evidence": read_back(decode_evidence, lambda evidence: evidence.encode()),
    "statement-key": attestation_public_key,
    "certificate": certificate,
}


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


def seeds(name: str) -> list[bytes]:
    """Honest inputs to start from."""
    host = paper_host.PaperHost()
    evidence = host.answer()
    return {
        "quote": [evidence.attest],
        "signature": [evidence.signature, paper_tpm.PaperTpm(paper_tpm.alg.RSASSA).sign(b"")],
        "public": [evidence.ak_public, paper_tpm.ek_public(), paper_tpm.sized(evidence.ak_public)],
        "attestation-key": [evidence.ak_public],
        "pcr-selection": [paper_tpm.SELECTION.encoded],
        "cbor": [evidence.statement],
        "statement": [evidence.statement],
        "inventory": [evidence.inventory],
        "evidence": [evidence.encode()],
        "certificate": [self_signed()],
        "statement-key": [paper_host.spki(host.hsm_key)],
    }[name]


def main() -> None:
    """Fuzz the target named first; the rest of the arguments are libFuzzer's. `--list` names the targets."""
    name, *options = sys.argv[1:]
    if name == "--list":
        print("\n".join(TARGETS))
        return
    target = TARGETS[name]
    # Libraries warn about odd names and numbers; what matters here is what they raise.
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        with contextlib.suppress(EvidenceError):
            target(data)

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
