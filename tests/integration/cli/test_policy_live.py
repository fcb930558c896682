"""Policies captured from live hosts, applied and held; and who is not believed."""

from __future__ import annotations

import json
from dataclasses import replace

import yaml
from tools.lab.firmware import Boot, authority_digest

from chatelaine.evidence.dsse import Envelope
from chatelaine.evidence.event_log import MAX_LOG_BYTES
from chatelaine.evidence.ima import MAX_IMA_CHUNK_BYTES
from chatelaine.evidence.reference_values import PAYLOAD_TYPE
from support.operator_cluster import ZERO, OperatorCluster
from support.policy_bench import chatelaine, impostor, operating, policy_of
from support.reference_bundles import SERIES, Signer
from support.waiting import until

OTHER = "ab" * 32


# --- capture ----------------------------------------------------------------------------------------------------


async def test_captured_policy_is_applied_and_the_host_stays_trusted(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        host.tpm.extend(0, b"\x11" * 32)
        base = cluster.folder / "base.yaml"
        base.write_text("spec: {freshness: {maxAgeSeconds: 25}}")
        done = await bench.capture(host.name, "--base", base)
        (misspelt := cluster.folder / "misspelt.yaml").write_text("spec: {freshness: {maxAgeSeconds: 25}, relase: {}}")
        assert (await bench.capture(host.name, "--base", misspelt)).status == 64
        assert done.status == 0, done.err
        assert f"{host.name}: evidence of the enrolled identity" in done.err
        assert "left out  PCRs 1, 3, 5, 6, 8, 9, 10, 12: nothing was measured" in done.err
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
        left = {note["what"]: note["why"] for note in said["notes"] if not note["taken"]}
        assert left["PCRs 16, 23"]


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


async def test_refuted_host_is_said_to_be_untrusted_where_it_is_captured_or_looked_at(cluster: OperatorCluster) -> None:
    async with operating(cluster) as bench:
        cluster.policy()
        host = await cluster.ready()
        host.tamper(4)
        await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
        done = await bench.capture(host.name)
        assert done.status == 0, done.err
        assert f"{host.name} IS UNTRUSTED" in done.err
        assert f"# CAUTION: {host.name} IS UNTRUSTED" in done.out
        (caution,) = (await bench.capture(host.name, "--json")).json()["cautions"]
        assert f"{host.name} IS UNTRUSTED" in caution
        looked = await bench.live(yaml.safe_load(done.out), "--json")
        assert "until somebody re-admits it" in looked.json()["hosts"][0]["caution"]


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
        done = await bench.capture("nobody")
        assert (done.status, done.out) == (2, "")
        assert "there is no Hsm nobody. In this cluster: " in done.err
        assert hosts[0].name in done.err


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
        without = {**policy, "spec": {**policy["spec"], "tpm": {"pcrs": policy["spec"]["tpm"]["pcrs"]}}}
        (idle,) = (await bench.live(without, "--bundle", signed, "--json")).json()["notJudged"]
        assert "contents of files: the policy has no tpm.ima" in idle
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
