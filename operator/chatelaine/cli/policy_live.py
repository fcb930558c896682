"""`chatelaine policy diff --live`: who would be refused by a policy, and why, before it is applied."""

from __future__ import annotations

import asyncio
import json as json_text
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import typer
from rich.markup import escape

from chatelaine.appraisal.policy_words import shown
from chatelaine.appraisal.unasked import unasked
from chatelaine.cli.live_claims import ClaimOutlook, claims_under
from chatelaine.cli.live_hosts import LiveHosts, NotThisHost, live_hosts
from chatelaine.cli.live_verdicts import accounted_in, caution_of, judged_by, material_of, verdict_of, wanted_by
from chatelaine.cli.policy_ends import CANNOT_TELL, REFUSED, Reach, ended
from chatelaine.cli.policy_files import PolicyFile
from chatelaine.cli.report import Terminal
from chatelaine.evidence.errors import EvidenceError
from chatelaine.kube.errors import KubeError
from chatelaine.model.claim import HsmClaim
from chatelaine.model.common import ObjectMeta
from chatelaine.model.hsm import Hsm
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicy, Enforcement
from chatelaine.model.verdict import Finding, Outcome, Verdict
from chatelaine.pki.errors import PkiError
from chatelaine.wire.peer import PeerError

TOGETHER = 16
"""Hosts that are asked at a time."""
MAX_CLAIMS = 64
"""Claims that would be cut, and are shown to a person."""
MAX_REASONS = 8
"""Findings of one host that are shown to a person; `--json` has the whole tree."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would become of one host.

    Attributes:
        hsm: its name.
        now: the verdict that stands in its status; Unknown where there is none.
        then: the verdict under the policy; None where the host could not be asked, and `why` says why.
        findings: the tree behind `then`.
        why: one sentence; empty where it holds.
        caution: whose evidence it is, where that is not the enrolled host's.
    """

    hsm: str
    now: Verdict
    then: Verdict | None
    findings: Finding | None = None
    why: str = ""
    caution: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "hsm": self.hsm,
            "now": self.now.value,
            "then": (self.then or Verdict.UNKNOWN).value,
            "why": self.why,
            "caution": self.caution,
            "findings": self.findings.as_dict() if self.findings is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """All that would become of hosts and of claims that are bound, and what the policy leans on."""

    material: PolicyMaterial
    hosts: Sequence[Outlook]
    claims: Sequence[ClaimOutlook]


def diff_live(file: PolicyFile, reach: Reach, *, json: bool) -> NoReturn:
    """Ask every host that the policy judges, and say what would become of it, and of the claims that are bound.

    Raises:
        typer.Exit: with 0, 1 or 2, as `policy diff --live` documents.
    """
    try:
        found = asyncio.run(_look(file, reach))
    except (KubeError, PkiError, OSError) as error:
        raise ended(str(error), CANNOT_TELL) from error
    if json:
        typer.echo(json_text.dumps(_object(file, found), indent=2))
    else:
        _print(file, found)
    raise typer.Exit(_status(found))


async def _look(file: PolicyFile, reach: Reach) -> Found:
    async with live_hosts(reach.state_dir, reach.kubeconfig) as live:
        material = await material_of(
            live.kube, file.name, file.spec,
            namespace=reach.namespace, folder=reach.reference_values_dir, bundle=reach.bundle,
        )  # fmt: skip
        policy = AttestationPolicy(metadata=ObjectMeta(name=file.name), spec=file.spec).with_material(material)
        claims = await live.claims()
        hosts = judged_by(file.name, await live.hsms(), claims)
        seats = asyncio.Semaphore(TOGETHER)
        found = await asyncio.gather(*(_outlook(live, hsm, policy, claims, seats) for hsm in hosts))
        return Found(material, found, await claims_under(live.kube, policy, hosts, claims))


async def _outlook(
    live: LiveHosts, hsm: Hsm, policy: AttestationPolicy, claims: Sequence[HsmClaim], seats: asyncio.Semaphore
) -> Outlook:
    name, before = hsm.metadata.name, hsm.status.attestation
    now = before.verdict if before is not None else Verdict.UNKNOWN
    try:
        async with seats:
            asked = await live.ask(hsm, wanted_by(policy.spec))
    except NotThisHost as error:
        return Outlook(name, now, None, why=f"whoever answers is not this host: {error}")
    except EvidenceError as error:
        return Outlook(name, now, None, why=f"the answer is not shown to be this host's: {error}")
    except (PeerError, KubeError) as error:
        return Outlook(name, now, None, why=f"it could not be asked: {error}")
    verdict = verdict_of(asked, policy, accounted_in(hsm, claims))
    if verdict.verdict is Verdict.TRUSTED and policy.material.missing:
        # Its rules are met, and yet it will not be trusted: a policy that lacks what it names trusts nobody anew.
        return Outlook(name, now, Verdict.UNKNOWN, verdict.findings, _lacking(policy), caution_of(asked))
    leaf = verdict.findings.first(verdict.findings.outcome)
    why = "" if verdict.verdict is Verdict.TRUSTED or leaf is None else leaf.detail or leaf.reason
    return Outlook(name, now, verdict.verdict, verdict.findings, why, caution_of(asked))


def _lacking(policy: AttestationPolicy) -> str:
    seconds = policy.spec.freshness.max_age_seconds
    return f"what it shows is good, and its trust would end after {seconds} s: {'; '.join(policy.material.missing)}"


def _status(found: Found) -> int:
    refused = any(outlook.then is Verdict.UNTRUSTED for outlook in found.hosts)
    if refused or any(claim.refused for claim in found.claims):
        return REFUSED
    undecided = any(outlook.then is not Verdict.TRUSTED for outlook in found.hosts)
    # Where nobody is judged, nothing was shown: perhaps the name is misspelt.
    return CANNOT_TELL if undecided or found.material.missing or not found.hosts else 0


def _object(file: PolicyFile, found: Found) -> dict[str, object]:
    return {
        "policy": file.name,
        "digest": file.spec.digest(),
        "enforcement": (file.spec.enforcement or Enforcement.ENFORCE).value,
        "missing": list(found.material.missing),
        "notJudged": list(unasked(file.spec, found.material.reference)),
        "hosts": [outlook.as_dict() for outlook in found.hosts],
        "claims": [outlook.as_dict() for outlook in found.claims],
    }


_WORDS = {
    Verdict.TRUSTED: "[green]holds[/green]",
    Verdict.UNTRUSTED: "[red]would be refused[/red]",
    Verdict.UNKNOWN: "[yellow]cannot be told[/yellow]",
    None: "[yellow]could not be asked[/yellow]",
}


def _print(file: PolicyFile, found: Found) -> None:
    console = Terminal()
    for part in unasked(file.spec, found.material.reference):
        console.print(f"[yellow]not judged[/yellow] {escape(shown(part))}")
    for sentence in found.material.missing:
        console.print(f"[yellow]missing[/yellow] {escape(shown(sentence))}: nothing would be newly trusted")
    if not found.hosts:
        console.print(f"No Hsm is judged by {escape(shown(file.name))}, so nothing was tried.")
    for outlook in found.hosts:
        console.print(f"[bold]{escape(outlook.hsm)}[/bold]: {outlook.now.value} now, {_WORDS[outlook.then]}")
        for line in (outlook.caution, *_reasons(outlook)):
            if line:
                console.print(f"  {escape(line)}")
    cut = [claim for claim in found.claims if claim.refused]
    for claim in cut[:MAX_CLAIMS]:
        console.print(
            f"claim [bold]{escape(claim.namespace)}/{escape(claim.claim)}[/bold] on {escape(claim.hsm)}:"
            f" [red]would be cut[/red]: {escape(claim.why)}"
        )
    if len(cut) > MAX_CLAIMS:
        console.print(f"and {len(cut) - MAX_CLAIMS} more claims; --json shows all")
    refused = sum(outlook.then is Verdict.UNTRUSTED for outlook in found.hosts)
    audit = " It is in Audit: no host would be cut." if file.spec.enforcement is Enforcement.AUDIT else ""
    open_ = sum(outlook.then in (None, Verdict.UNKNOWN) for outlook in found.hosts)
    rest = f", of {open_} it cannot be told" if open_ else ""
    console.print(f"{refused} of {len(found.hosts)} would be refused{rest}.{audit} Nothing was changed.")
    if found.claims:
        console.print(f"{len(cut)} of {len(found.claims)} bound claims would be cut.")


def _reasons(outlook: Outlook) -> list[str]:
    """Why, finding by finding, where there is more than one."""
    if outlook.findings is None:
        return [shown(outlook.why)]
    leaves = [leaf for leaf in outlook.findings.leaves() if leaf.outcome is not Outcome.HOLDS]
    if not leaves:
        return [shown(outlook.why)]
    lines = [f"{shown(leaf.check)}: {shown(leaf.detail or leaf.reason)}" for leaf in leaves[:MAX_REASONS]]
    return [*lines, f"and {len(leaves) - MAX_REASONS} more"] if len(leaves) > MAX_REASONS else lines
