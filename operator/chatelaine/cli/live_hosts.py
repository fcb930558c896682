"""Asks live hosts for fresh evidence, as the operator does and with the operator's own leaf, and writes nothing.

Agents and gateways let the operator's certificate in and nobody else, so this runs where its key is. What a host
answers is evidence of exactly the host that the Hsm object means: of the enrolled identity where there is one, else
of the approved one, else of nobody that anybody has vouched for, and then it is said.
"""

from __future__ import annotations

import enum
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from chatelaine.appraisal.endorsement import NONE_SHOWN
from chatelaine.controller.addresses import gateway_addresses
from chatelaine.controller.hosts import GATEWAY_SECONDS, agent_client, gateway_client
from chatelaine.controller.ima_reading import ImaQuestion
from chatelaine.controller.interrogation import (
    ActivationRefused,
    Question,
    Told,
    check_hierarchy,
    enrolled_of,
    interrogate,
    present,
)
from chatelaine.controller.summaries import SERVICE_LABEL, SliceSummary, endpoint_slice
from chatelaine.evidence.bundle import EnrolledIdentity, VerifiedEvidence
from chatelaine.evidence.errors import StatementPcrMismatch
from chatelaine.evidence.ima import verify_ima
from chatelaine.evidence.tpm_types import Selection
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.port import CLAIMS, ENDPOINT_SLICES, HSMS, JsonObject, KubePort, Resource
from chatelaine.kube.port import Selection as Objects
from chatelaine.kube.watch import Kept, version_of
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import EnrolledIdentity as EnrolledStatus
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME
from chatelaine.pki.errors import NoLeafYet
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.reconcile.endorsed import same
from chatelaine.reconcile.snapshot import AuthenticatedRefusal, PresentedIdentity
from chatelaine.wire.messages import GatewayHello
from chatelaine.wire.peer import PeerClient, PeerError, PeerUnreachable

PAGE: Final = 500
RACES: Final = 5
"""A PCR may honestly move between statement and quote; a host is asked again at once, so often."""


class Standing(enum.StrEnum):
    """Whose evidence it is."""

    ENROLLED = "Enrolled"
    """Of the enrolled identity: its keys are those in the status."""
    APPROVED = "Approved"
    """Of the identity that a person approved in spec.identity; it is not enrolled yet."""
    UNAPPROVED = "Unapproved"
    """Of some TPM and token that hold together; nobody has said that they are the ones that are meant."""


class NotThisHost(Exception):
    """Whoever answers is not the host that the Hsm object means; nothing of its answer is used."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask a host for: PCRs, its boot event log, its whole IMA list, its EK certificate."""

    selection: Selection
    event_log: bool = False
    ima: bool = False
    certificate: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One host's fresh round, and whose it is shown to be.

    `evidence` holds the IMA list from its beginning, entry by entry, where it was asked for and came.
    `ek_certificate` is as `appraisal.endorsement` takes it.
    """

    hsm: Hsm
    standing: Standing
    evidence: VerifiedEvidence | AuthenticatedRefusal
    evidence_digest: str
    received_at: float
    ek_digest: str
    attestation_key_thumbprint: str
    ek_certificate: bytes | None


class LiveHosts:
    """The hosts of one cluster, asked with one TLS identity. Make it with `live_hosts`."""

    def __init__(self, kube: KubePort, context: ssl.SSLContext) -> None:
        self.kube = kube
        self._context = context

    async def hsm(self, name: str) -> Hsm:
        """One Hsm object, read live.

        Raises:
            KubeError: it is not there, or the server did not answer.
        """
        return Hsm.model_validate(await self.kube.get(HSMS, name))

    async def hsms(self) -> list[Hsm]:
        """All of them, by name.

        Raises:
            KubeError: the server did not answer.
        """
        found = [Hsm.model_validate(body) async for body in self._all(HSMS)]
        return sorted(found, key=lambda hsm: hsm.metadata.name)

    async def claims(self) -> list[HsmClaim]:
        """All claims of all namespaces.

        Raises:
            KubeError: the server did not answer.
        """
        return [HsmClaim.model_validate(body) async for body in self._all(CLAIMS)]

    async def ask(self, hsm: Hsm, wanted: Wanted) -> Asked:
        """Fresh evidence of the host behind `hsm`.

        Raises:
            NotThisHost: whoever answers is shown to be another one, or cannot show who it is.
            EvidenceError: the answer is not shown to be this host's.
            PeerError: no usable answer.
            KubeError: the API server did not say where the gateway is.
        """
        async with agent_client(hsm, self._context) as agent:
            gateway_spki = await self._gateway_key(hsm)
            enrolled = hsm.status.identity
            if enrolled is None or wanted.certificate:
                shown = await _presented(agent, gateway_spki)
                if enrolled is None:
                    return await self._ask_presented(hsm, agent, shown, wanted)
                if not same(enrolled, shown):
                    raise NotThisHost(f"it shows EK {shown.ek_digest}; enrolled is {enrolled.ek_digest}")
                certificate = shown.ek_certificate or NONE_SHOWN
                return await self._ask_enrolled(hsm, enrolled, agent, gateway_spki, wanted, certificate)
            return await self._ask_enrolled(hsm, enrolled, agent, gateway_spki, wanted, None)

    async def _ask_enrolled(
        self,
        hsm: Hsm,
        enrolled: EnrolledStatus,
        agent: PeerClient,
        gateway_spki: bytes,
        wanted: Wanted,
        certificate: bytes | None,
    ) -> Asked:
        approved = hsm.spec.identity
        pair = (enrolled.ek_digest, enrolled.attestation_key.thumbprint)
        if approved is not None and pair != (approved.ek_digest, approved.attestation_key_thumbprint):
            raise NotThisHost("spec.identity names another host than the one that is enrolled; re-admit one of them")
        serial = hsm.status.token.serial if hsm.status.token is not None else None
        told = await _interrogated(hsm, agent, gateway_spki, wanted, enrolled_of(enrolled, serial))
        return _asked(hsm, Standing.ENROLLED, told, *pair, certificate)

    async def _ask_presented(self, hsm: Hsm, agent: PeerClient, shown: PresentedIdentity, wanted: Wanted) -> Asked:
        standing = _standing(hsm, shown)
        identity = EnrolledIdentity(
            ak_public=shown.ak_public,
            ak_name=bytes.fromhex(shown.ak_name_hex),
            attestation_key_spki=shown.attestation_key_spki,
        )
        told = await _interrogated(hsm, agent, shown.gateway_spki, wanted, identity)
        if told.verified is not None:
            check_hierarchy(told.verified, shown)
        return _asked(
            hsm, standing, told, shown.ek_digest, shown.attestation_key_thumbprint, shown.ek_certificate or NONE_SHOWN
        )

    async def _gateway_key(self, hsm: Hsm) -> bytes:
        """The key that the gateway proves on TLS; the quote must be bound to it."""
        failed: PeerError = PeerUnreachable(f"no address is known of the gateway of {hsm.metadata.name}")
        for address in gateway_addresses(hsm, await self._slices(hsm)):
            client = gateway_client(hsm.metadata.name, address, self._context, seconds=GATEWAY_SECONDS)
            async with client:
                try:
                    return (await client.call("GET", "/control/v1/hello", None, GatewayHello)).peer_spki
                except PeerError as error:
                    failed = error
        raise failed

    async def _slices(self, hsm: Hsm) -> list[Kept[SliceSummary]]:
        service = hsm.spec.gateway.service
        if service is None:
            return []
        wanted = Objects(ENDPOINT_SLICES, service.namespace, f"{SERVICE_LABEL}={service.name}")
        page = await self.kube.list_page(wanted, limit=PAGE)
        return [
            Kept(service.namespace, body["metadata"]["name"], "", version_of(body), endpoint_slice(body))
            for body in page.items
        ]

    async def _all(self, resource: Resource) -> AsyncIterator[JsonObject]:
        token = ""
        while True:
            page = await self.kube.list_page(Objects(resource), limit=PAGE, continue_token=token)
            for body in page.items:
                yield body
            token = page.continue_token
            if not token:
                return


async def _presented(agent: PeerClient, gateway_spki: bytes) -> PresentedIdentity:
    try:
        return await present(agent, gateway_spki)
    except ActivationRefused as refused:
        raise NotThisHost(str(refused)) from refused


async def _interrogated(
    hsm: Hsm, agent: PeerClient, gateway_spki: bytes, wanted: Wanted, identity: EnrolledIdentity
) -> Told:
    question = Question(
        hsm.metadata.uid,
        gateway_spki,
        wanted.selection,
        wants_log=wanted.event_log,
        ima=ImaQuestion({}) if wanted.ima else None,
    )
    for _ in range(RACES - 1):
        try:
            return await interrogate(agent, question, identity, now=time.time())
        except StatementPcrMismatch:
            continue
    return await interrogate(agent, question, identity, now=time.time())


def _asked(
    hsm: Hsm, standing: Standing, told: Told, ek_digest: str, thumbprint: str, certificate: bytes | None
) -> Asked:
    evidence = told.round.evidence
    if isinstance(evidence, VerifiedEvidence) and evidence.ima is not None and told.evidence.ima_list is not None:
        # A round hands on what a list has shown; here every entry is needed.
        evidence = replace(evidence, ima=verify_ima(told.evidence.ima_list, evidence.quote))
    return Asked(
        hsm, standing, evidence, told.round.evidence_digest, told.round.received_at, ek_digest, thumbprint, certificate
    )


def _standing(hsm: Hsm, shown: PresentedIdentity) -> Standing:
    approved = hsm.spec.identity
    if approved is None:
        return Standing.UNAPPROVED
    if (approved.ek_digest, approved.attestation_key_thumbprint) != (shown.ek_digest, shown.attestation_key_thumbprint):
        raise NotThisHost(
            f"it shows EK {shown.ek_digest} and HSM attestation key {shown.attestation_key_thumbprint}; approved are"
            f" {approved.ek_digest} and {approved.attestation_key_thumbprint}"
        )
    return Standing.APPROVED


@asynccontextmanager
async def live_hosts(state_dir: Path, kubeconfig: Path | None) -> AsyncIterator[LiveHosts]:
    """Asks with the leaf that an operator keeps in `state_dir`, as its `--state-dir` names it.

    Raises:
        NoLeafYet: no operator has kept a leaf there.
        PkiError: what lies there is damaged, exposed or another process's.
        LoginFailed: no usable credentials for the API server.
    """
    # Opening a leaf makes a key where there is none; a reader must not.
    if not (state_dir / "key.pem").exists():
        raise NoLeafYet(f"{state_dir} holds no key of an operator; run this in the operator's pod, or name --state-dir")
    context = ProcessLeaf(state_dir, OPERATOR_SERVER_NAME).client_context()
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-policy") as kube:
        yield LiveHosts(kube, context)
