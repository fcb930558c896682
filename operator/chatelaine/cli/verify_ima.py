"""`chatelaine verify ima`: a list of measurements against a value of PCR 10, and against what may run."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from chatelaine.appraisal.ima_rules import ListedFiles
from chatelaine.appraisal.offline_ima import ImaCase, judge_ima_list
from chatelaine.cli import policy_files
from chatelaine.cli import verify_inputs as inputs
from chatelaine.cli.policy_file_lists import read_checksums
from chatelaine.cli.report import finish
from chatelaine.evidence.ima import MAX_IMA_BYTES
from chatelaine.evidence.reference_files import CompactAllowList
from chatelaine.evidence.reference_values import Predicate
from chatelaine.model.material import FileAllowList
from chatelaine.model.tpm_policy import ImaRules


def ima(
    file: Annotated[str, typer.Argument(metavar="F", help="binary_runtime_measurements, or the ASCII list.")],
    pcr10: Annotated[str, typer.Option(metavar="HEX", help="PCR 10, from a quote that was verified.")],
    allow: Annotated[str | None, typer.Option(metavar="F", help="Good files: sha256sum's list, or a bundle.")] = None,
    policy: Annotated[str | None, typer.Option(metavar="F", help="AttestationPolicy; its tpm.ima judges.")] = None,
    bank: Annotated[str, typer.Option(help="Bank of the value: sha256 or sha384.")] = "sha256",
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a list of what ran (IMA).

    Without --allow and --policy, Trusted means: a prefix of the list leads to this PCR 10. No such prefix: cannot tell.
    """
    inputs.check_one_standard_input(file, allow, policy)
    case = ImaCase(
        data=inputs.binary(file, MAX_IMA_BYTES),
        pcr10=inputs.hexadecimal(pcr10, "--pcr10"),
        bank=bank,
        rules=None if policy is None else _rules(policy),
        files=None if allow is None else _listed(allow),
        at=int(time.time()),
    )
    finish(judge_ima_list(case), json=json)


def _rules(name: str) -> ImaRules:
    rules = policy_files.policy(name).spec.tpm.ima
    if rules is None:
        raise typer.BadParameter(f"{name}: the policy has no tpm.ima", param_hint="--policy")
    return rules


def _listed(name: str) -> FileAllowList:
    """What a list or a bundle allows. Who signed a bundle is not asked here: whoever gives it answers for it."""
    if name != inputs.STANDARD_INPUT and inputs.binary(name, 0) == b"{":
        bundle = policy_files.policy_or_bundle(name)
        if not isinstance(bundle, Predicate):
            raise typer.BadParameter(f"{name}: a policy; give it as --policy", param_hint="--allow")
        return CompactAllowList(bundle.files)
    files: dict[str, set[str]] = {}
    for good in read_checksums(name):
        files.setdefault(good.path, set()).update(good.digests)
    return ListedFiles({path: frozenset(digests) for path, digests in files.items()})
