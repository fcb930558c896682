"""Hosts let in by their TPM's vendor, through a running operator: real certificates, and every way to forge one."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tools.lab.swtpm import Swtpm
from tools.lab.tpm_vendor import TpmVendor

from chatelaine.agent.tpm import TpmAttester
from chatelaine.evidence.tpm_public import parse_public
from support.operator_cluster import SYSTEM, ZERO, Json, OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.vendors import Vendor
from support.waiting import until

KEY = "vendors.pem"


def vendors_policy(cluster: OperatorCluster, name: str = "base", *, listed: list[Json] | None = None) -> Json:
    """A policy that leans on the ConfigMap of this test."""
    endorsement: Json = {"roots": [{"configMapRef": {"name": config_map(cluster), "key": KEY}}]}
    if listed is not None:
        endorsement["listed"] = listed
    pcrs = {"bank": "Sha256", "values": [{"index": i, "anyOf": [ZERO]} for i in (4, 7)]}
    return cluster.policy(name, tpm={"pcrs": pcrs, "endorsement": endorsement})


def config_map(cluster: OperatorCluster) -> str:
    """Its name: other tests' ConfigMaps lie in the same namespace."""
    return f"{cluster.prefix}-vendors"


def put(cluster: OperatorCluster, *pem: str, namespace: str = SYSTEM, data: Json | None = None) -> None:
    """Vendors' certificates, or `data`, as the ConfigMap of that name."""
    meta = {"name": config_map(cluster), "namespace": namespace}
    content = data if data is not None else {"data": {KEY: "".join(pem)}}
    cluster.admin.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **content})


def drop(cluster: OperatorCluster) -> None:
    """Take the ConfigMap away."""
    meta = {"name": config_map(cluster), "namespace": SYSTEM}
    cluster.admin.delete({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})


def policy_of(cluster: OperatorCluster, name: str = "base") -> Json:
    """As it stands."""
    return cluster.find("chatelaine.dev/v1alpha1", "AttestationPolicy", f"{cluster.prefix}-{name}") or {}


async def policy_is(cluster: OperatorCluster, status: str, reason: str, words: str = "") -> Json:
    """Wait for the condition Valid."""

    def holds() -> Json | None:
        found = policy_of(cluster)
        valid = condition_of(found, "Valid")
        same = (valid.get("status"), valid.get("reason")) == (status, reason) and words in valid["message"]
        return found if same else None

    return await until(f"Valid={status} {reason} {words}", holds)


def certified(host: SimulatedHost, vendor: Vendor, **options: Any) -> SimulatedHost:
    """The host's TPM holds a certificate of that vendor."""
    host.tpm.ek_certificate = vendor.certify(host.tpm.ek.public_key(), **options)
    return host


# --- a real TPM


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> TpmVendor:
    return TpmVendor(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def tpm(factory: TpmVendor, tmp_path: Path) -> Iterator[Swtpm]:
    with Swtpm(factory.make(tmp_path / "tpm")) as made:
        yield made


async def real_host(cluster: OperatorCluster, tpm: Swtpm) -> tuple[SimulatedHost, Json]:
    """A host whose agent drives a real TPM; and what a person approves of it."""
    host = await cluster.host()
    attester = TpmAttester(tpm.tcti, cluster.folder / "agent-state")
    await host.stop()
    host.attester = attester
    await host.start()
    ek = parse_public((await attester.identity()).ek_public)
    return host, {**host.identity, "ekDigest": ek.spki_digest}


async def test_manufactured_tpm_is_let_in_by_its_vendor_and_cut_when_the_vendor_is_dropped(
    cluster: OperatorCluster, factory: TpmVendor, tpm: Swtpm
) -> None:
    async with cluster.operator():
        put(cluster, factory.pem)
        vendors_policy(cluster)
        host, identity = await real_host(cluster, tpm)
        cluster.hsm(host, identity=identity)
        found = await cluster.hsm_is(host, "Ready", "True")
        assert (
            "let its EK in by EndorsementChains: id:00001014 swtpm, vouched for by CN=swtpm-localca-rootca"
            in (condition_of(found, "Enrolled")["message"])
        )
        cluster.claim()
        await cluster.claim_is("Ready", "True")
        await until("served", lambda: host.served)
        digest = policy_of(cluster)["status"]["digest"]
        assert found["status"]["attestation"]["policy"]["digest"] == digest

        put(cluster, Vendor("somebody else").pem)
        found = await cluster.hsm_is(host, "Attested", "False", "PolicyChanged")
        assert "ChainIncomplete" in condition_of(found, "Attested")["message"]
        assert "suspectSince" not in found["status"]["attestation"]
        await until("shut", lambda: not host.served)
        await until("another digest", lambda: policy_of(cluster)["status"]["digest"] != digest)

        put(cluster, Vendor("somebody else").pem, factory.pem)
        await cluster.hsm_is(host, "Ready", "True")
        await until("served again", lambda: host.served)


async def test_manufactured_tpm_of_another_factory_is_refused(
    cluster: OperatorCluster, factory: TpmVendor, tpm: Swtpm, tmp_path: Path
) -> None:
    other = TpmVendor(tmp_path / "other")
    other.make(tmp_path / "other-tpm")
    async with cluster.operator():
        put(cluster, other.pem)
        vendors_policy(cluster)
        host, identity = await real_host(cluster, tpm)
        cluster.hsm(host, identity=identity)
        found = await cluster.hsm_is(host, "Enrolled", "False", "EndorsementRefused")
        assert "ChainIncomplete" in condition_of(found, "Enrolled")["message"]
        put(cluster, other.pem, factory.pem)
        await cluster.hsm_is(host, "Ready", "True")


# --- forged certificates


async def test_tpm_of_a_known_vendor_that_nobody_approved_is_not_enrolled(cluster: OperatorCluster) -> None:
    vendor = Vendor()
    async with cluster.operator():
        put(cluster, vendor.pem)
        vendors_policy(cluster)
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host, approved=False)
        found = await cluster.hsm_is(host, "Enrolled", "False", "AwaitingApproval")
        assert host.identity["ekDigest"] in condition_of(found, "Enrolled")["message"]
        assert "identity" not in found["status"]


FORGERIES = {
    "another vendor's": (lambda key: Vendor("Another").certify(key), "ChainIncomplete"),
    "another vendor's of the same name": (lambda key: Vendor().certify(key), "ChainIncomplete"),
    "an attestation key's": (lambda key, vendor: vendor.certify(key, signs=True), "CertificateKindMismatch"),
    "expired": (lambda key, vendor: vendor.certify(key, days=29), "CertificateExpired"),
    "another TPM's": (
        lambda _, vendor: vendor.certify(rsa.generate_private_key(65537, 2048).public_key()),
        "EndorsementKeyMismatch",
    ),
    "garbage": (lambda _: os.urandom(1024), "CertificateMalformed"),
    "none": (lambda _: None, "CertificateAbsent"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_certificate_that_does_not_vouch_for_this_tpm_is_refused(cluster: OperatorCluster, forgery: str) -> None:
    vendor = Vendor()
    made, reason = FORGERIES[forgery]
    async with cluster.operator():
        put(cluster, vendor.pem)
        vendors_policy(cluster)
        host = await cluster.host()
        key = host.tpm.ek.public_key()
        host.tpm.ek_certificate = made(key, vendor) if made.__code__.co_argcount == 2 else made(key)
        cluster.hsm(host)
        found = await cluster.hsm_is(host, "Enrolled", "False", "EndorsementRefused")
        assert reason in condition_of(found, "Enrolled")["message"]
        assert condition_of(found, "Stalled")["status"] == "True"
        assert "identity" not in found["status"]


async def test_certificate_whose_key_is_not_the_activated_one_is_refused(cluster: OperatorCluster) -> None:
    """The certificate and the approval are of a good TPM, the credential is opened by another one."""
    vendor = Vendor()
    async with cluster.operator():
        put(cluster, vendor.pem)
        vendors_policy(cluster)
        host = certified(await cluster.host(), vendor)
        approved = host.identity
        host.tpm.ek = rsa.generate_private_key(65537, 2048)
        cluster.hsm(host, identity=approved)
        await cluster.hsm_is(host, "Enrolled", "False", "IdentityConflict")
        cluster.admin.merge(
            {**cluster.get_hsm(host), "apiVersion": "chatelaine.dev/v1alpha1", "kind": "Hsm"},
            {"spec": {"identity": host.identity}},
        )
        found = await cluster.hsm_is(host, "Enrolled", "False", "EndorsementRefused")
        assert "EndorsementKeyMismatch" in condition_of(found, "Enrolled")["message"]


# --- ConfigMaps


async def test_policy_whose_config_map_is_absent_is_not_valid_and_lets_nobody_in(cluster: OperatorCluster) -> None:
    vendor = Vendor()
    async with cluster.operator():
        vendors_policy(cluster)
        await policy_is(cluster, "False", "MaterialUnusable", f"does not exist in namespace {SYSTEM}")
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host)
        found = await cluster.hsm_is(host, "Enrolled", "Unknown", "PolicyInvalid")
        assert "identity" not in found["status"]
        # A tenant may make a ConfigMap of that name in a namespace of theirs.
        put(cluster, vendor.pem, namespace=cluster.namespace)
        put(cluster, data={"data": {"another": vendor.pem}})
        await policy_is(cluster, "False", "MaterialUnusable", "has no key vendors.pem")
        put(cluster, vendor.pem)
        await policy_is(cluster, "True", "RulesValid")
        await cluster.hsm_is(host, "Ready", "True")


async def test_megabyte_of_garbage_for_a_config_map_lets_nobody_in(cluster: OperatorCluster) -> None:
    vendor = Vendor()
    async with cluster.operator():
        garbage = base64.b64encode(os.urandom(2**20 - 2**10)).decode()
        put(cluster, data={"data": {}})
        cluster.admin.merge(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config_map(cluster), "namespace": SYSTEM}},
            {"binaryData": {KEY: garbage}},
        )
        vendors_policy(cluster)
        found = await policy_is(cluster, "False", "MaterialUnusable", "Oversized")
        assert len(condition_of(found, "Valid")["message"]) < 1024
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host)
        await cluster.hsm_is(host, "Enrolled", "Unknown", "PolicyInvalid")


async def test_missing_config_map_cuts_nobody_before_the_deadline_and_trusts_nobody_after_it(
    cluster: OperatorCluster,
) -> None:
    vendor = Vendor()
    async with cluster.operator():
        put(cluster, vendor.pem)
        endorsement: Json = {"roots": [{"configMapRef": {"name": config_map(cluster), "key": KEY}}]}
        pcrs = {"bank": "Sha256", "values": [{"index": i, "anyOf": [ZERO]} for i in (4, 7)]}
        cluster.policy(freshness={"maxAgeSeconds": 5}, tpm={"pcrs": pcrs, "endorsement": endorsement})
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
        drop(cluster)
        await policy_is(cluster, "False", "MaterialUnusable")
        found = await cluster.hsm_is(host, "Attested", "False", "PolicyInvalid")
        assert found["status"]["attestation"]["verdict"] == "Unknown"
        assert "suspectSince" not in found["status"]["attestation"]
        put(cluster, vendor.pem)
        await cluster.hsm_is(host, "Ready", "True")


async def test_config_map_that_a_claims_own_policy_misses_cuts_it_at_the_deadline_and_not_before(
    cluster: OperatorCluster,
) -> None:
    vendor = Vendor()
    async with cluster.operator():
        put(cluster, vendor.pem)
        cluster.policy()
        endorsement: Json = {"roots": [{"configMapRef": {"name": config_map(cluster), "key": KEY}}]}
        pcrs = {"bank": "Sha256", "values": [{"index": 4, "anyOf": [ZERO]}]}
        own = cluster.policy("own", freshness={"maxAgeSeconds": 5}, tpm={"pcrs": pcrs, "endorsement": endorsement})
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
        cluster.claim(policyRef={"name": own["metadata"]["name"]})
        await cluster.claim_is("Ready", "True")
        drop(cluster)

        def told() -> Json | None:
            attested = condition_of(cluster.get_claim("c1"), "Attested")
            return attested if "does not exist in namespace" in attested["message"] else None

        attested = await until("the claim tells of it", told)
        assert attested["status"] == "True"
        assert host.served
        await cluster.claim_is("Attested", "False", "PolicyInvalid")
        await until("it is cut", lambda: not host.served)
        put(cluster, vendor.pem)
        await cluster.claim_is("Ready", "True")
        await until("it is served", lambda: host.served)


async def test_operator_that_starts_anew_judges_by_the_certificate_that_it_kept(cluster: OperatorCluster) -> None:
    vendor = Vendor()
    put_first = (vendor.pem,)
    async with cluster.operator():
        put(cluster, *put_first)
        vendors_policy(cluster)
        host = certified(await cluster.host(), vendor)
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
    kept = cluster.get_hsm(host)["status"]["ekCertificate"]
    assert base64.b64decode(kept) == host.tpm.ek_certificate
    host.tpm.ek_certificate = None
    async with cluster.operator() as operator:
        await until("a fresh proof", lambda: (view := operator.snapshots.view(host.name)) and view.standing.fresh)
        assert condition_of(cluster.get_hsm(host), "Ready")["status"] == "True"
