"""What a policy leans on, out of files that a person gives instead of a cluster."""

from __future__ import annotations

from pathlib import Path

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from chatelaine.cli import policy_inputs, verify_inputs
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_files import CompactAllowList
from chatelaine.evidence.reference_values import Predicate, check_series, verify_bundle
from chatelaine.model.identifiers import digest_of
from chatelaine.model.material import PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.tpm_policy import ReferenceValuesSource


def given_material(spec: AttestationPolicySpec, bundle: str | None, roots: Path | None) -> PolicyMaterial:
    """Reference values of `bundle` and certificates of `roots`; what `spec` names and is not given is missing.

    A bundle with signatures must be signed as the policy says; one without any is taken as if it were.
    """
    missing: list[str] = []
    certificates: tuple[bytes, ...] = ()
    endorsement = spec.tpm.endorsement
    if endorsement is not None and endorsement.roots:
        if roots is None:
            missing.append("tpm.endorsement.roots: give the vendors' certificates with --roots")
        else:
            certificates = tuple(one.public_bytes(Encoding.DER) for one in verify_inputs.certificates(roots))
    reference = None
    if spec.reference_values is not None and bundle is None:
        missing.append("referenceValues: give the bundle with --bundle")
    elif spec.reference_values is not None and bundle is not None:
        reference = _reference(spec.reference_values, bundle)
    elif bundle is not None:
        raise typer.BadParameter("the policy names no reference values", param_hint="--bundle")
    return PolicyMaterial(certificates, reference, tuple(missing))


def _reference(source: ReferenceValuesSource, name: str) -> ReferenceValues:
    try:
        envelope = policy_inputs.envelope(name)
        if not envelope.signatures:
            predicate = policy_inputs.predicate_of(envelope)
            check_series(predicate, source)
            return unsigned(predicate)
        return verify_bundle(envelope.encode(), source, not_below=0)
    except ReferenceValuesError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--bundle") from error


def unsigned(bundle: Predicate) -> ReferenceValues:
    """Reference values as they will be once somebody has signed them."""
    return ReferenceValues(
        name=bundle.name,
        version=bundle.version,
        digest=digest_of(bundle.encode()),
        signed_by=(),
        pcrs=bundle.pcrs,
        dbx_at_least=frozenset(map(bytes.fromhex, bundle.dbx_at_least)),
        files=CompactAllowList(bundle.files),
    )
