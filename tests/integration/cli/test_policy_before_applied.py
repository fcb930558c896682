"""Policies judged on live hosts before they are applied: who would be refused, and who decides nothing."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.model.identifiers import key_label
from support.operator_cluster import ZERO, OperatorCluster
from support.policy_bench import impostor, operating, policy_of
from support.reference_bundles import Signer

OTHER = "ab" * 32


async def test_who_would_be_refused_is_told_before_anything_is_applied(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        good, other = await cluster.ready("a"), await cluster.ready("b")
        other.tpm.extend(0, b"\x33" * 32)
        stranger = await cluster.host("c")
        cluster.hsm(stranger, policy="another")
        before = bench.written()
        done = await bench.live(policy_of(cluster, p0=ZERO, p4=ZERO), "--json")
        assert done.status == 1, done.err
        hosts = {host["hsm"]: host for host in done.json()["hosts"]}
        assert hosts.keys() == {good.name, other.name}
        assert (hosts[good.name]["now"], hosts[good.name]["then"]) == ("Trusted", "Trusted")
        assert (hosts[other.name]["now"], hosts[other.name]["then"]) == ("Trusted", "Untrusted")
        assert "PCR 0" in hosts[other.name]["why"]
        assert bench.written() == before
        for host in (good, other):
            assert cluster.get_hsm(host)["status"]["attestation"]["verdict"] == "Trusted"
        shown = await bench.live(policy_of(cluster, p0=ZERO, p4=ZERO))
        assert shown.status == 1
        assert f"{other.name}: Trusted now, would be refused" in shown.out
        assert "1 of 2 would be refused. Nothing was changed." in shown.out


async def test_policy_that_all_hosts_meet_ends_with_zero(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        await cluster.ready()
        done = await bench.live(policy_of(cluster, p4=ZERO, p2=ZERO))
        assert done.status == 0, done.out + done.err


async def test_host_that_a_claim_puts_under_the_policy_is_asked_too(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        cluster.policy("payments")
        host = await cluster.ready()
        cluster.claim(policyRef={"name": f"{cluster.prefix}-payments"})
        await cluster.claim_is("Bound", "True")
        policy = policy_of(cluster, p4=OTHER)
        policy["metadata"]["name"] = f"{cluster.prefix}-payments"
        done = await bench.live(policy, "--json")
        assert [found["hsm"] for found in done.json()["hosts"]] == [host.name]
        assert done.status == 1


async def test_impostor_decides_nothing_about_a_host(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        thief = await impostor(cluster, host)
        try:
            done = await bench.live(policy_of(cluster, p4=ZERO), "--json")
            assert done.status == 2
            (found,) = done.json()["hosts"]
            assert found["then"] == "Unknown"
            assert "not" in found["why"]
        finally:
            await thief.stop()


async def test_claim_that_the_policy_would_not_release_is_told_before_it_is_cut(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("Bound", "True")
        policy = policy_of(cluster, p4=ZERO)
        here = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}}
        policy["spec"]["release"] = {"anyOf": [here]}
        done = await bench.live(policy, "--json")
        assert done.status == 0, done.err
        (kept,) = done.json()["claims"]
        assert (kept["claim"], kept["hsm"], kept["refused"], kept["why"]) == ("c1", host.name, False, "")
        for release in (None, {"anyOf": [{**here, "usages": ["Verify"]}]}):
            policy["spec"]["release"] = release
            done = await bench.live(policy)
            assert done.status == 1, done.out
            assert f"claim {cluster.namespace}/c1 on {host.name}: would be cut: " in done.out
            assert "1 of 1 bound claims would be cut." in done.out
        policy["spec"]["enforcement"] = "Audit"
        assert (await bench.live(policy)).status == 1, "Audit is about evidence: release rules cut all the same"
        assert "Sign" in (await bench.live(policy, "--json")).json()["claims"][0]["why"]


async def test_policy_that_judges_nobody_is_not_said_to_hold(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        await cluster.ready()
        policy = policy_of(cluster, p4=OTHER)
        policy["metadata"]["name"] = f"{cluster.prefix}-bsae"
        done = await bench.live(policy)
        assert done.status == 2
        assert "nothing was tried" in done.out


async def test_keys_of_claims_are_accounted_for_and_others_are_not(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("KeysReady", "True")
        policy = policy_of(cluster, p4=ZERO)
        policy["spec"]["hsm"] = {"inventory": "Accounted"}
        here = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}}
        policy["spec"]["release"] = {"anyOf": [here]}
        assert (await bench.live(policy)).status == 0
        label = key_label("0b9b1c52-31c8-4a51-a1a5-8d1f6a6a2f10", "signing", 1)
        host.pairs[label] = ec.generate_private_key(ec.SECP256R1())
        host._list_keys()
        done = await bench.live(policy)
        assert done.status == 1
        assert "belongs to no claim" in done.out


async def test_policy_that_leans_on_what_is_not_there_cannot_be_told(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        await cluster.ready()
        policy = policy_of(cluster, p4=ZERO)
        roots = [{"configMapRef": {"name": "vendors", "key": "ca.pem"}}]
        policy["spec"]["tpm"]["endorsement"] = {"roots": roots}
        done = await bench.live(policy)
        assert done.status in (1, 2)
        assert "ConfigMap vendors does not exist" in done.out


async def test_host_is_not_said_to_hold_by_a_policy_that_lacks_its_reference_values(
    cluster: OperatorCluster,
) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        policy = policy_of(cluster, p4=ZERO)
        policy["spec"]["referenceValues"] = {
            "series": "base", "threshold": 1, "keys": [Signer("release").listed().dump()],
            "configMapRefs": [{"name": "base-v9-0", "key": "envelope"}],
        }  # fmt: skip
        done = await bench.live(policy, "--json")
        (found,) = done.json()["hosts"]
        assert (done.status, found["now"], found["then"]) == (2, "Trusted", "Unknown")
        assert "its trust would end after" in found["why"]
        assert "base-v9-0 does not exist" in found["why"]
        shown = (await bench.live(policy)).out
        assert f"{host.name}: Trusted now, cannot be told" in shown
        assert "0 of 1 would be refused, of 1 it cannot be told. Nothing was changed." in shown
