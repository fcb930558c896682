"""Signed reference values through a running operator: which version judges whom, and none that was not signed so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from chatelaine.model.tpm_policy import Bank
from support.operator_cluster import SYSTEM, ZERO, Json, OperatorCluster, condition_of
from support.reference_bundles import ALICE, BOB, MALLORY, PREDICATE, SERIES, Signer, bundle
from support.waiting import until

NOBODYS = "f" * 64
"""A value of PCR 4 that no host has: only the bundle can say a good one."""
KEY = "bundle"


def piece(cluster: OperatorCluster, number: int) -> str:
    return f"{cluster.prefix}-values-{number}"


def put(cluster: OperatorCluster, envelope: bytes, number: int = 0) -> None:
    """A piece of an envelope, as a ConfigMap."""
    meta = {"name": piece(cluster, number), "namespace": SYSTEM}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: envelope.decode()}}
    cluster.admin.apply(body)


def values(version: int, *good: str, signers: tuple[Signer, ...] = (ALICE,), **changes: Any) -> bytes:
    """A bundle that adds `good` values of PCR 4."""
    pcrs = {Bank.SHA256: {4: good or (ZERO,)}}
    return bundle(*signers, version=version, pcrs=pcrs, files=(), dbx_at_least=(), **changes)


def policy(cluster: OperatorCluster, *, pieces: int = 1, threshold: int = 1, seconds: int = 20, **source: Any) -> Json:
    """Of Alice and Bob; PCR 4 holds only by what they sign."""
    numbers = {"index": 4, "anyOf": [NOBODYS]}, {"index": 7, "anyOf": [ZERO]}
    refs = [{"name": piece(cluster, number), "key": KEY} for number in range(pieces)]
    return cluster.policy(
        freshness={"maxAgeSeconds": seconds},
        tpm={"pcrs": {"bank": "Sha256", "values": list(numbers)}},
        referenceValues={
            "series": SERIES,
            "keys": [signer.listed().dump() for signer in (ALICE, BOB)],
            "threshold": threshold,
            **(source or {"configMapRefs": refs}),
        },
    )


def policy_of(cluster: OperatorCluster) -> Json:
    return cluster.find("chatelaine.dev/v1alpha1", "AttestationPolicy", f"{cluster.prefix}-base") or {}


async def policy_is(cluster: OperatorCluster, status: str, words: str = "") -> Json:
    """Wait for the condition Valid."""

    def holds() -> Json | None:
        found = policy_of(cluster)
        valid = condition_of(found, "Valid")
        return found if valid.get("status") == status and words in valid["message"] else None

    return await until(f"Valid={status} {words}", holds)


def used(found: Json) -> tuple[str, int]:
    """Series and version that stand in a policy's status."""
    stands = found["status"]["referenceValues"]
    return stands["name"], stands["version"]


async def test_status_shows_which_version_judged_whom_and_every_change_of_version_is_told(
    cluster: OperatorCluster,
) -> None:
    async with cluster.operator():
        put(cluster, values(1))
        policy(cluster)
        host = await cluster.ready()
        judged = cluster.get_hsm(host)["status"]["attestation"]
        found = await policy_is(cluster, "True")
        assert used(found) == (SERIES, 1)
        assert found["status"]["referenceValues"]["signedBy"] == ["alice"]
        assert judged["reference"] == {k: found["status"]["referenceValues"][k] for k in ("name", "version", "digest")}
        assert judged["policy"]["digest"] == found["status"]["digest"]

        # Values of an update are shipped before the update.
        changed = hashlib.sha256(bytes(32) + hashlib.sha256(b"something nobody approved").digest()).hexdigest()
        put(cluster, values(2, ZERO, changed, signers=(BOB,)))
        await until(
            "judged by version 2",
            lambda: cluster.get_hsm(host)["status"]["attestation"]["reference"]["version"] == 2,
        )
        assert condition_of(cluster.get_hsm(host), "Ready")["status"] == "True"
        host.tamper()
        await until(
            "the new value is accepted",
            lambda: f"Sha256:4={changed}" in cluster.get_hsm(host)["status"]["attestation"]["facts"],
        )
        assert condition_of(cluster.get_hsm(host), "Ready")["status"] == "True"
        events = await until(
            "both versions were told of",
            lambda: len(found := events_of(cluster)) == 2 and found,
        )
        assert any("version 2" in note and "signed by bob, before: version 1" in note for note in events)


def events_of(cluster: OperatorCluster) -> list[str]:
    return [
        event["note"]
        for event in cluster.list("/apis/events.k8s.io/v1/namespaces/default/events")
        if event["regarding"]["name"] == f"{cluster.prefix}-base" and event["reason"] == "ReferenceValuesChanged"
    ]


async def test_values_that_a_new_version_withdraws_cut_by_policy_and_come_back(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        put(cluster, values(1))
        policy(cluster)
        host = await cluster.ready()
        put(cluster, values(2, "e" * 64))
        found = await cluster.hsm_is(host, "Attested", "False", "PolicyChanged")
        assert "suspectSince" not in found["status"]["attestation"]
        put(cluster, values(3))
        await cluster.hsm_is(host, "Ready", "True")


async def test_older_version_is_refused_also_by_an_operator_that_starts_anew(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        put(cluster, values(2))
        policy(cluster, seconds=5)
        host = await cluster.ready()
        put(cluster, values(1, ZERO, "e" * 64))
        found = await policy_is(cluster, "False", "ReferenceRolledBack")
        assert used(found) == (SERIES, 2), "what was used stays"
        await cluster.hsm_is(host, "Attested", "False", "PolicyInvalid")
    async with cluster.operator() as operator:
        looked = await until("looked up", lambda: operator.snapshots.policy(f"{cluster.prefix}-base"))
        assert "ReferenceRolledBack" in looked.policy.material.missing[0]
        assert condition_of(cluster.get_hsm(host), "Attested")["reason"] == "PolicyInvalid"
        put(cluster, values(2))
        await cluster.hsm_is(host, "Ready", "True")


REFUSED: dict[str, tuple[bytes, str]] = {
    "unsigned": (PREDICATE.encode(), "EnvelopeMalformed"),
    "signed by a stranger": (values(1, signers=(MALLORY,)), "referenceValues"),
    "below the threshold": (values(1, signers=(ALICE, MALLORY)), "referenceValues"),
    "one signer twice": (values(1, signers=(ALICE, ALICE)), "referenceValues"),
    "of another series": (values(9, name="another", signers=(ALICE, BOB)), "SeriesMismatch"),
    "garbage": (b"{" * 2**19, "EnvelopeMalformed"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_bundle_that_is_not_signed_as_the_policy_asks_trusts_nobody(cluster: OperatorCluster, case: str) -> None:
    envelope, words = REFUSED[case]
    async with cluster.operator():
        put(cluster, envelope)
        policy(cluster, threshold=2)
        found = await policy_is(cluster, "False", words)
        assert condition_of(found, "Valid")["reason"] == "MaterialUnusable"
        assert "referenceValues" not in found["status"]
        host = await cluster.host()
        cluster.hsm(host)
        await cluster.hsm_is(host, "Enrolled", "Unknown", "PolicyInvalid")
        put(cluster, values(1, signers=(ALICE, BOB)))
        await policy_is(cluster, "True")
        await cluster.hsm_is(host, "Ready", "True")


async def test_pieces_that_are_missing_or_in_the_wrong_order_are_refused(cluster: OperatorCluster) -> None:
    envelope = values(1)
    third = len(envelope) // 3
    parts = [envelope[:third], envelope[third : 2 * third], envelope[2 * third :]]
    async with cluster.operator():
        for number in (0, 1):
            put(cluster, parts[number], number)
        policy(cluster, pieces=3)
        await policy_is(cluster, "False", f"ConfigMap {piece(cluster, 2)} does not exist")
        put(cluster, parts[2], 2)
        await policy_is(cluster, "True")
        put(cluster, parts[1], 0)
        put(cluster, parts[0], 1)
        await policy_is(cluster, "False", "Envelope")
        put(cluster, parts[0], 0)
        put(cluster, parts[1], 1)
        await policy_is(cluster, "True")


async def test_file_of_the_operators_folder_is_as_good_as_a_config_map(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    folder = tmp_path / "reference-values"
    folder.mkdir()
    async with cluster.operator(reference_values_folder=folder):
        policy(cluster, file="fleet.dsse.json")
        await policy_is(cluster, "False", "file fleet.dsse.json cannot be read")
        (folder / "new").write_bytes(values(1))
        (folder / "new").rename(folder / "fleet.dsse.json")
        await policy_is(cluster, "True")
        await cluster.ready()
