"""Asks the hosts that a policy is captured from, and judges them by what was captured: nothing is written anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chatelaine.appraisal.capture import Capture
from chatelaine.appraisal.policy_words import shown
from chatelaine.cli.live_hosts import Asked, LiveHosts, NotThisHost, Standing, Wanted, live_hosts
from chatelaine.cli.live_verdicts import accounted_in, verdict_of, was_refuted
from chatelaine.cli.policy_ends import CANNOT_TELL, REFUSED, Reach, ended, say
from chatelaine.cli.policy_material import unsigned
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.errors import EventLogMismatch, EvidenceError
from chatelaine.evidence.reference_values import Predicate
from chatelaine.evidence.tpm_types import Selection
from chatelaine.evidence.uefi_command_line import STUB_PCR
from chatelaine.kube.errors import KubeError, NotFound
from chatelaine.model.claim import HsmClaim
from chatelaine.model.common import ObjectMeta
from chatelaine.model.hsm import Hsm
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Verdict
from chatelaine.pki.errors import PkiError
from chatelaine.wire.peer import PeerError, PeerNotAuthenticated, PeerRefused

MAX_NAMED: Final = 16
"""Hsms that are named where the one asked for is not there."""
LOG_TOO_LONG: Final = "LogTooLong"
"""What an agent answers whose log is over the bound."""

_WHOSE: Final = {
    Standing.ENROLLED: "evidence of the enrolled identity",
    Standing.APPROVED: "evidence of the identity that spec.identity approves; it is not enrolled yet",
    Standing.UNAPPROVED: (
        "NOBODY HAS APPROVED THIS HOST, so its identity is not proven: this is some TPM's evidence, perhaps not that of"
        " the host you mean. Compare both digests with the machine's and commit them to spec.identity first"
    ),
}


@dataclass(frozen=True, slots=True)
class CapturedHosts:
    """What was asked of each host, and the claims of the cluster, as they are now."""

    asked: Mapping[str, Asked]
    claims: Sequence[HsmClaim]

    @property
    def evidence(self) -> dict[str, VerifiedEvidence]:
        """By name of the host."""
        found = {name: asked.evidence for name, asked in self.asked.items()}
        return {name: evidence for name, evidence in found.items() if isinstance(evidence, VerifiedEvidence)}

    @property
    def policy_name(self) -> str:
        """Of the policy that the first Hsm names."""
        return next(iter(self.asked.values())).hsm.spec.attestation.policy_ref.name

    def whose(self) -> dict[str, str]:
        """Whose evidence each is, as a sentence with the digests that name the host."""
        return {
            name: f"{_WHOSE[asked.standing]} (EK {asked.ek_digest}, HSM key {asked.attestation_key_thumbprint})"
            for name, asked in self.asked.items()
        }

    def standings(self) -> dict[str, str]:
        """The same as one word."""
        return {name: asked.standing.value for name, asked in self.asked.items()}

    def refuted(self) -> list[str]:
        """Hosts that stand as Untrusted: what was captured from them may be what was refused."""
        return [
            f"{name} IS UNTRUSTED: what it shows now was refused before, or came after that, and becomes good by this"
            " policy. Apply it only if you know what was changed on the host, and by whom"
            for name, asked in self.asked.items()
            if was_refuted(asked.hsm)
        ]

    def refused_by(self, name: str, made: Capture) -> list[str]:
        """Hosts that would not hold under what was captured from them, and why: a rule of the base refuses them."""
        policy = AttestationPolicy(metadata=ObjectMeta(name=name), spec=made.typed())
        policy = policy.with_material(_material(made.bundle))
        said = []
        for host, asked in self.asked.items():
            verdict = verdict_of(asked, policy, accounted_in(asked.hsm, self.claims))
            leaf = verdict.findings.first(verdict.findings.outcome)
            if verdict.verdict is not Verdict.TRUSTED and leaf is not None:
                said.append(f"{host} would not hold under this policy: {leaf.check}: {leaf.detail or leaf.reason}")
        return said


def _material(bundle: Predicate | None) -> PolicyMaterial:
    return NO_MATERIAL if bundle is None else PolicyMaterial(reference=unsigned(bundle))


def ask_hosts(names: Sequence[str], bank: Bank, indices: Sequence[int], reach: Reach) -> CapturedHosts:
    """Fresh evidence of each host, by its name; all of them answer, or nothing is captured.

    Raises:
        typer.Exit: 1 where whoever answers is not shown to be the host, 2 where nobody answers.
    """
    try:
        return asyncio.run(_ask_all(names, Selection(bank, tuple(indices)), reach))
    except (PkiError, KubeError, OSError) as error:
        raise ended(str(error), CANNOT_TELL) from error


async def _ask_all(names: Sequence[str], selection: Selection, reach: Reach) -> CapturedHosts:
    async with live_hosts(reach.state_dir, reach.kubeconfig) as live:
        claims = await live.claims()
        return CapturedHosts({name: await _ask(live, name, selection) for name in names}, claims)


async def _ask(live: LiveHosts, name: str, selection: Selection) -> Asked:
    try:
        hsm = await live.hsm(name)
    except NotFound as error:
        known = ", ".join(shown(hsm.metadata.name) for hsm in (await live.hsms())[:MAX_NAMED]) or "none"
        raise ended(f"there is no Hsm {shown(name)}. In this cluster: {known}", CANNOT_TELL) from error
    try:
        asked = await _asked(live, hsm, selection)
    except (NotThisHost, EvidenceError, PeerNotAuthenticated) as error:
        why = f"{name}: nothing was captured; whoever answers is not shown to be this host: {error}"
        raise ended(why, REFUSED) from error
    except PeerError as error:
        raise ended(f"{name}: nothing was captured; it did not answer: {error}", CANNOT_TELL) from error
    if not isinstance(asked.evidence, VerifiedEvidence):
        raise ended(f"{name}: nothing was captured; its evidence is refused: {asked.evidence.detail}", REFUSED)
    return asked


async def _asked(live: LiveHosts, hsm: Hsm, selection: Selection) -> Asked:
    wanted = Wanted(selection, event_log=True, ima=True, certificate=True)
    try:
        asked = await live.ask(hsm, wanted)
    except PeerRefused as refused:
        if refused.problem.code != LOG_TOO_LONG:
            raise
        say(f"{hsm.metadata.name}: captured without its boot event log: {refused}")
        return await live.ask(hsm, replace(wanted, event_log=False))
    if _moved_later(asked):
        fewer = tuple(index for index in selection.indices if index != STUB_PCR)
        return await live.ask(hsm, replace(wanted, selection=Selection(selection.bank, fewer)))
    return asked


def _moved_later(asked: Asked) -> bool:
    """A log of the firmware does not replay, perhaps for what the running system measured into PCR 12."""
    evidence = asked.evidence
    flaw = evidence.boot_log_flaw if isinstance(evidence, VerifiedEvidence) else None
    return flaw is not None and flaw.reason == EventLogMismatch.reason
