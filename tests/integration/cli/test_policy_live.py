"""Policies from live hosts: captured, applied and held; judged before they are applied; and who is not believed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from tools.lab.firmware import Boot, authority_digest

from chatelaine.evidence.dsse import Envelope
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.evidence.ima import MAX_IMA_CHUNK_BYTES
from chatelaine.evidence.reference_values import PAYLOAD_TYPE
from chatelaine.model.identifiers import key_label
from support.operator_cluster import API, ZERO, OperatorCluster
from support.operator_fixtures import cluster, plane
from support.reference_bundles import SERIES, Signer
from support.simulated_host import SimulatedHost
from support.waiting import until

__all__ = ["cluster", "plane"]

OTHER = "ab" * 32


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def chatelaine(*arguments: str | Path) -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatelaine.cli.main", *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


class Bench:
    """An operator whose leaf lies in a known folder, and the commands that use it."""

    def __init__(self, cluster: OperatorCluster) -> None:
        self.cluster = cluster
        self.state = cluster.folder / "operator"

    async def capture(self, *arguments: str | Path) -> Done:
        return await chatelaine("policy", "capture", *self._reach(), *arguments)

    async def live(self, policy: dict[str, Any], *arguments: str | Path) -> Done:
        file = self.cluster.folder / "new.yaml"
        file.write_text(yaml.safe_dump(policy))
        return await chatelaine("policy", "diff", "--live", file, *self._reach(), *arguments)

    def _reach(self) -> list[str | Path]:
        return ["--state-dir", self.state, "--kubeconfig", self.cluster.kubeconfig]

    def written(self) -> list[str]:
        """Versions of all objects of ours: nothing was written while they are the same."""
        kinds = ("hsms", "attestationpolicies", "hsmclaims")
        found = [item for kind in kinds for item in self.cluster.list(f"/apis/{API}/{kind}")]
        return [f"{item['metadata']['uid']}/{item['metadata']['generation']}" for item in found]


@asynccontextmanager
async def operating(cluster: OperatorCluster) -> AsyncIterator[Bench]:
    bench = Bench(cluster)
    async with cluster.operator(state_folder=bench.state):
        await until("the operator has a leaf", (bench.state / "chain.pem").exists)
        yield bench


def policy_of(cluster: OperatorCluster, **values: str) -> dict[str, Any]:
    """The test's policy with other good values, by `p4`."""
    pcrs = [{"index": int(name[1:]), "anyOf": [value]} for name, value in values.items()]
    body = {"freshness": {"maxAgeSeconds": 20}, "tpm": {"pcrs": {"bank": "Sha256", "values": pcrs}}}
    return {
        "apiVersion": API,
        "kind": "AttestationPolicy",
        "metadata": {"name": f"{cluster.prefix}-base"},
        "spec": body,
    }


async def impostor(cluster: OperatorCluster, host: SimulatedHost) -> SimulatedHost:
    """Somebody with good leaves of `host`, at its addresses, with another TPM and another token."""
    thief = cluster.double(host)
    thief.agent_port, thief.gateway_port = host.agent_port, host.gateway_port
    await host.stop()
    await thief.start()
    return thief


# --- capture ----------------------------------------------------------------------------------------------------


async def test_captured_policy_is_applied_and_the_host_stays_trusted(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        host.tpm.extend(0, b"\x11" * 32)
        base = cluster.folder / "base.yaml"
        base.write_text("spec: {freshness: {maxAgeSeconds: 25}}")
        done = await bench.capture(host.name, "--base", base)
        assert done.status == 0, done.err
        assert f"{host.name}: evidence of the enrolled identity" in done.err
        assert "left out  PCR 5" in done.err
        captured = yaml.safe_load(done.out)
        assert captured["metadata"]["name"] == f"{cluster.prefix}-base"
        assert [value["index"] for value in captured["spec"]["tpm"]["pcrs"]["values"]] == [0, 2, 4, 7]
        assert captured["spec"]["tpm"]["pcrs"]["values"][0]["anyOf"] != [ZERO]
        assert captured["spec"]["freshness"] == {"maxAgeSeconds": 25}
        cluster.admin.merge(captured, {"spec": captured["spec"]})

        def judged_by_it() -> bool:
            attestation = cluster.get_hsm(host)["status"]["attestation"]
            return attestation["policy"]["generation"] == 2 and attestation["verdict"] == "Trusted"

        await until("the captured policy has judged the host", judged_by_it)
        host.tamper(2)
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")


async def test_several_hosts_give_one_policy_by_which_all_of_them_hold(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        hosts = [await cluster.ready("a"), await cluster.ready("b")]
        hosts[1].tpm.extend(0, b"\x22" * 32)
        done = await bench.capture(hosts[0].name, hosts[1].name, "--json")
        assert done.status == 0, done.err
        said = done.json()
        assert said["hosts"] == dict.fromkeys([host.name for host in hosts], "Enrolled")
        assert said["cautions"] == []
        (zero,) = [value for value in said["policy"]["spec"]["tpm"]["pcrs"]["values"] if value["index"] == 0]
        assert len(zero["anyOf"]) == 2
        assert any(note["what"].startswith("PCR 5 ") and not note["taken"] and note["why"] for note in said["notes"])


async def test_bundle_is_written_beside_the_policy_and_says_the_same(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        files = (cluster.folder / "policy.yaml", cluster.folder / "bundle.json")
        done = await bench.capture(host.name, "--output", files[0], "--bundle", files[1], "--series", "edge")
        assert done.status == 0, done.err
        assert done.out == ""
        inspected = await chatelaine("policy", "diff", files[1], files[1])
        assert inspected.status == 0
        predicate = json.loads(files[1].read_bytes())["predicate"]
        values = yaml.safe_load(files[0].read_text())["spec"]["tpm"]["pcrs"]["values"]
        assert predicate["name"] == "edge"
        assert predicate["pcrs"] == {"Sha256": {str(value["index"]): value["anyOf"] for value in values}}


async def test_host_that_nobody_approved_is_captured_and_said_not_to_be_proven(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host()
        cluster.hsm(host, approved=False)
        done = await bench.capture(host.name)
        assert done.status == 0, done.err
        assert "NOBODY HAS APPROVED THIS HOST" in done.err
        assert "NOBODY HAS APPROVED THIS HOST" in done.out
        assert host.identity["ekDigest"] in done.err
        assert (await bench.capture(host.name, "--json")).json()["hosts"] == {host.name: "Unapproved"}


async def test_approved_host_is_captured_before_there_is_any_policy(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host()
        cluster.hsm(host)
        await cluster.hsm_is(host, "Enrolled", "Unknown", "PolicyNotFound")
        done = await bench.capture(host.name, "--json")
        assert done.json()["hosts"] == {host.name: "Approved"}
        cluster.admin.create(done.json()["policy"])
        await cluster.hsm_is(host, "Ready", "True")


async def test_nothing_is_captured_from_an_impostor_at_an_enrolled_hosts_address(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        thief = await impostor(cluster, host)
        try:
            done = await bench.capture(host.name)
            assert done.status == 1
            assert done.out == ""
            assert "not shown to be this host" in done.err
        finally:
            await thief.stop()


async def test_nothing_is_captured_from_another_host_than_the_approved_one(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host()
        cluster.hsm(host)
        thief = await impostor(cluster, host)
        try:
            done = await bench.capture(host.name)
            assert (done.status, done.out) == (1, "")
            assert host.identity["ekDigest"] in done.err
        finally:
            await thief.stop()


async def test_nothing_is_captured_where_one_of_several_hosts_is_silent(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        hosts = [await cluster.ready("a"), await cluster.ready("b")]
        await hosts[1].stop()
        done = await bench.capture(hosts[0].name, hosts[1].name)
        assert (done.status, done.out) == (2, "")
        assert f"{hosts[1].name}: nothing was captured" in done.err


async def test_without_the_operators_key_no_host_is_asked_and_no_key_is_made(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        bench.state = cluster.folder / "elsewhere"
        assert (await bench.capture(host.name)).status == 2
        assert not bench.state.exists()
        bench.state = cluster.folder / host.name / "gateway"
        done = await bench.capture(host.name)
        assert (done.status, done.out) == (2, "")


# --- logs and lists ---------------------------------------------------------------------------------------------


async def test_what_booted_and_what_ran_is_captured_and_judges_at_once(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host(boot=Boot())
        host.logs.ran("/var/log/wtmp", b"1")
        cluster.hsm(host)
        done = await bench.capture(host.name, "--json")
        assert done.status == 0, done.err
        policy = done.json()["policy"]
        assert policy["spec"]["tpm"]["eventLog"]["authorities"] == {"allowed": [authority_digest("Laboratory db")]}
        assert [file["path"] for file in policy["spec"]["tpm"]["ima"]["allow"]] == ["/usr/bin/agent", "/usr/bin/sh"]
        assert policy["spec"]["tpm"]["ima"]["unjudgedPaths"] == ["/var/log/**"]
        assert done.json()["cautions"] == []
        cluster.admin.create(policy)
        await cluster.hsm_is(host, "Ready", "True")
        host.logs.ran("/var/log/btmp", b"2")
        host.logs.ran("/usr/bin/evil", b"something nobody approved")
        host.measured()
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")


async def test_list_of_many_pieces_is_captured_into_a_bundle_that_judges_once_it_is_signed(
    cluster: OperatorCluster,
) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host(boot=Boot())
        for number in range(12_000):
            host.logs.ran(f"/usr/lib/some/longer/folder/of/libraries/number-{number}.so", b"%d" % number)
        assert host.logs.ima_list.stat().st_size > MAX_IMA_CHUNK_BYTES
        cluster.hsm(host)
        assert "ask for a bundle" in (await bench.capture(host.name)).err
        folder = cluster.folder
        policy_file, payload = folder / "policy.yaml", folder / "payload.json"
        done = await bench.capture(host.name, "--output", policy_file, "--bundle", payload, "--series", SERIES)
        assert done.status == 0, done.err
        assert "name it under referenceValues before you apply this" in done.err
        signer = Signer("release")
        envelope = Envelope(PAYLOAD_TYPE, payload.read_bytes())
        signed = folder / "envelope.json"
        signed.write_bytes(replace(envelope, signatures=(signer.sign(envelope.message),)).encode())
        policy = yaml.safe_load(policy_file.read_text())
        source = {"series": SERIES, "file": "not-there-yet", "threshold": 1, "keys": [signer.listed().dump()]}
        policy["spec"]["referenceValues"] = source
        assert (await bench.live(policy, "--bundle", signed)).status == 0
        missing = await bench.live(policy)
        assert missing.status == 1
        assert "missing referenceValues" in missing.out
        stranger = replace(envelope, signatures=(Signer("release").sign(envelope.message),)).encode()
        signed.write_bytes(stranger)
        assert (await bench.live(policy, "--bundle", signed)).status == 1


async def test_hostile_texts_of_logs_are_no_control_characters_in_what_is_printed(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        evil = "\x1b[2J\u202e\nspec: {enforcement: Audit}\r\x07"
        host = await cluster.host(boot=Boot(command_line=f"/vmlinuz {evil} lockdown={evil}"))
        host.logs.ran(f"/tmp/{evil}", b"1")
        host.logs.ran(f"/tmp/{evil}", b"2")
        cluster.hsm(host)
        for arguments in ((), ("--json",)):
            done = await bench.capture(host.name, *arguments)
            assert done.status == 0, done.err
            for text in (done.out, done.err):
                assert all(c == "\n" or c.isprintable() for c in text), text
        captured = (await bench.capture(host.name)).out
        assert "enforcement" not in yaml.safe_load(captured)["spec"]
        paths = [file["path"] for file in yaml.safe_load(captured)["spec"]["tpm"]["ima"]["allow"]]
        assert f"/tmp/{evil}" in paths
        policy = policy_of(cluster, p4=ZERO)
        policy["spec"]["tpm"]["ima"] = {"allow": [{"path": "/a", "digests": ["sha256:" + OTHER]}]}
        policy["spec"]["tpm"]["eventLog"] = {
            "replay": "Required",
            "kernelCommandLine": {"required": ["iommu=force"], "forbidden": ["lockdown=*"]},
        }
        for arguments in ((), ("--json",)):
            done = await bench.live(policy, *arguments)
            assert done.status == 1
            assert all(c == "\n" or c.isprintable() for c in done.out + done.err)


async def test_log_that_is_too_long_or_no_log_gives_no_rules_and_no_harm(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        host = await cluster.host(boot=Boot())
        cluster.hsm(host)
        for log in (b"\x00" * (MAX_LOG_BYTES + 1), b"\xff" * 5000, b""):
            host.logs.event_log.write_bytes(log)
            done = await bench.capture(host.name, "--json")
            assert done.status == 0, done.err
            assert "eventLog" not in done.json()["policy"]["spec"]["tpm"]
            (why,) = [note["why"] for note in done.json()["notes"] if note["what"] == "what booted (event log)"]
            assert why


# --- before it is applied ---------------------------------------------------------------------------------------


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


async def test_keys_of_claims_are_accounted_for_and_others_are_not(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        cluster.claim()
        await cluster.claim_is("KeysReady", "True")
        policy = policy_of(cluster, p4=ZERO)
        policy["spec"]["hsm"] = {"inventory": "Accounted"}
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
