"""What signed reference values hold, and no rule of the policy asks for.

A bundle adds to rules and makes none: whoever signs an entry for dbx, or a value of a PCR that the policy does not
name, may believe that it is judged. It is not, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from chatelaine.model.material import ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec


def unasked(spec: AttestationPolicySpec, reference: ReferenceValues | None) -> tuple[str, ...]:
    """A sentence for each part of `reference` by which `spec` judges nothing."""
    return tuple(_unasked(spec, reference)) if reference is not None else ()


def _unasked(spec: AttestationPolicySpec, reference: ReferenceValues) -> Iterator[str]:
    pcrs = spec.tpm.pcrs
    yield from (
        f"values of bank {bank.value}: tpm.pcrs.bank is {pcrs.bank.value}"
        for bank in sorted(reference.pcrs)
        if bank is not pcrs.bank
    )
    named = {value.index for value in pcrs.values}
    indices = sorted(set(reference.pcrs.get(pcrs.bank, ())) - named)
    if indices:
        yield f"values of PCR {', '.join(map(str, indices))}: tpm.pcrs.values does not name them"
    if reference.dbx_at_least and spec.tpm.event_log is None:
        yield f"{len(reference.dbx_at_least)} entries that dbx must hold: the policy has no tpm.eventLog"
    if len(reference.files) and spec.tpm.ima is None:
        yield f"{len(reference.files)} contents of files: the policy has no tpm.ima"
