"""Real operator, agents, gateways, tokens and TPMs as processes; what a person, a tenant and an attacker do."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tools.control_plane.client import ApiError
from tools.lab.host import HsmHost, Ports
from tools.lab.installation import Operator
from tools.lab.objects import GROUP, condition_of, wait_condition
from tools.lab.system import TEAM, Lab, claim, exchange_when_known, running
from tools.lab.workload import Refusal, SigningClient

from chatelaine.pki.invitation import Invitation
from support.waiting import eventually

pytestmark = pytest.mark.xdist_group("system")

SECONDS = 30
SUFFIXES = {"attest_seconds_count", "bind_seconds_count", "ready_seconds_count", "revoke_seconds_count"}
GAUGES = {"queue_depth", "queue_oldest_seconds", "hsm_verdict", "hsm_verdict_seconds_left", "leading", "objects"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running(real=2) as system:
        yield system


@pytest.fixture(autouse=True)
def closed_clients(lab: Lab) -> Iterator[None]:
    yield
    lab.close_clients()


def refusal_of(client: SigningClient, seconds: float) -> Refusal:
    """Signs on one and the same connection until the gateway refuses."""
    port, deadline = client.local_port, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            client.sign("key-0", b"tick")
        except Refusal as refusal:
            return refusal
        assert client.local_port == port, "the connection was closed before a refusal was seen"
    raise AssertionError("never refused")


def samples(operator: Operator) -> dict[str, list[Sample]]:
    """What Prometheus would read, by the name of the sample."""
    status, text = operator.get("/metrics")
    assert status == 200
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name.removeprefix("chatelaine_"), []).append(sample)
    return found


def leads(operator: Operator) -> bool:
    return samples(operator)["leading"][0].value == 1


def epoch_of(lab: Lab, host: str) -> dict[str, int]:
    return dict(lab.pool.hsm(host)["status"]["attestation"]["epoch"])


def readmit(lab: Lab, host: str) -> None:
    before = lab.pool.hsm(host)["status"]["attestation"]
    target = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": host}}
    named = {"chatelaine.dev/readmit": before["evidenceDigest"]}
    lab.control_plane.admin.merge(target, {"metadata": {"annotations": named}})
    generation = before["epoch"]["generation"] + 1
    eventually(lambda: epoch_of(lab, host)["generation"] == generation, "admitted anew")
    wait_condition(lambda: lab.pool.hsm(host), "Ready", "True", seconds=SECONDS)


def policies_of(lab: Lab, uid: str) -> list[str]:
    path = f"/apis/networking.k8s.io/v1/networkpolicies?labelSelector=chatelaine.dev%2Fclaim-uid%3D{uid}"
    return [item["metadata"]["name"] for item in lab.control_plane.admin.get(path)["items"]]


TOKEN_SECONDS = 60
"""Trust tokens end by then; a client renews its own well before."""


def test_a_pod_signs_and_the_binding_secret_holds_no_key(lab: Lab) -> None:
    bound = lab.bind(claim("plain", clients=True))
    client = lab.signing_client("plain", lab.pod("plain"))
    assert client.sign("key-0", b"message")
    secret = lab.control_plane.admin.read("v1", "Secret", "plain", TEAM)
    content = "".join(base64.b64decode(value).decode() for value in secret["data"].values())
    assert "PRIVATE" not in content
    assert secret["metadata"]["ownerReferences"][0]["uid"] == bound["metadata"]["uid"]


def test_token_of_a_pod_that_no_client_names_is_refused(lab: Lab) -> None:
    lab.bind(claim("named", clients=True))
    lab.bind(claim("stranger", clients=True))
    stranger = lab.pod("stranger")
    lab.signing_client("stranger", stranger)  # the gateway knows this pod
    lab.signing_client("named", lab.pod("named"))  # and this claim
    with pytest.raises(Refusal) as caught:
        lab.client("named").exchange(lab.service_account_token(stranger))
    assert caught.value.code == "ERROR_NOT_A_CLIENT"


def test_token_for_another_audience_is_refused(lab: Lab) -> None:
    lab.bind(claim("audience", clients=True))
    pod = lab.pod("audience")
    lab.signing_client("audience", pod)
    with pytest.raises(Refusal) as caught:
        lab.client("audience").exchange(lab.service_account_token(pod, audience="https://kubernetes.default.svc"))
    assert caught.value.code == "ERROR_INVALID_TOKEN"


def test_tokens_die_with_their_pod(lab: Lab) -> None:
    lab.bind(claim("mortal", clients=True))
    pod = lab.pod("mortal")
    client = lab.signing_client("mortal", pod)
    client.sign("key-0", b"alive")
    lab.control_plane.admin.delete(pod)

    assert refusal_of(client, seconds=SECONDS).code == "ERROR_INVALID_TOKEN"


def test_open_connection_to_a_tampered_host_is_refused_and_policies_go(lab: Lab) -> None:
    bound = lab.bind(claim("cut", clients=True))
    uid, host = bound["metadata"]["uid"], bound["status"]["allocation"]["hsm"]["name"]
    client = lab.signing_client("cut", lab.pod("cut"))
    client.sign("key-0", b"open")
    assert policies_of(lab, uid)
    lab.pool.hosts[host].tamper(pcr=7)
    refusal = refusal_of(client, seconds=SECONDS)
    assert (refusal.code, refusal.connection_closes) == ("ERROR_INVALID_TOKEN", True)
    eventually(lambda: not policies_of(lab, uid), "the policies are gone")
    found = wait_condition(lambda: lab.pool.hsm(host), "Attested", "False", reason="EvidenceRefuted", seconds=SECONDS)
    assert "PCR 7" in condition_of(found, "Attested")["message"]
    wait_condition(lambda: lab.claim("cut"), "Ready", "False", seconds=SECONDS)
    # A clean boot alone changes nothing; the annotation does.
    lab.pool.hosts[host].reboot()
    readmit(lab, host)
    eventually(lambda: policies_of(lab, uid), "the policies are back")
    wait_condition(lambda: lab.claim("cut"), "Ready", "True", seconds=SECONDS)


def test_rebooted_host_stays_trusted_under_a_new_epoch_and_old_tokens_die(lab: Lab) -> None:
    bound = lab.bind(claim("reboot", clients=True))
    host = bound["status"]["allocation"]["hsm"]["name"]
    pod = lab.pod("reboot")
    client = lab.signing_client("reboot", pod)
    client.sign("key-0", b"before")
    before = epoch_of(lab, host)
    # The processes of the host go with the reboot: nobody reads PCRs while the boot is being measured.
    lab.pool.hosts[host].restart()
    eventually(lambda: epoch_of(lab, host) != before, "the reboot is seen")
    after = lab.pool.hsm(host)["status"]["attestation"]
    assert after["verdict"] == "Trusted"
    assert after["epoch"]["resetCount"] == before["resetCount"] + 1
    wait_condition(lambda: lab.claim("reboot"), "Ready", "True", seconds=SECONDS)
    client.close()
    with pytest.raises(Refusal) as caught:
        client.sign("key-0", b"after")
    assert caught.value.code == "ERROR_INVALID_TOKEN"
    exchange_when_known(lab.client("reboot"), lab.service_account_token(pod))


def test_replaced_tpm_is_a_conflict_and_never_an_overwrite(lab: Lab) -> None:
    host = "real-1"
    before = lab.pool.hsm(host)["status"]["identity"]
    lab.pool.hosts[host].replace_tpm()
    wait_condition(lambda: lab.pool.hsm(host), "Enrolled", "False", reason="IdentityConflict", seconds=60)
    assert lab.pool.hsm(host)["status"]["identity"] == before
    # The first TPM again, with a new attestation key: still a person's decision, by the annotation alone.
    lab.pool.hosts[host].restore_tpm()
    wait_condition(lambda: lab.pool.hsm(host), "Reachable", "True", seconds=60)
    assert condition_of(lab.pool.hsm(host), "Enrolled")["reason"] == "IdentityConflict"
    readmit(lab, host)
    after = lab.pool.hsm(host)["status"]["identity"]
    assert after["ekDigest"] == before["ekDigest"]
    assert after["akName"] != before["akName"]


def test_namespace_deleted_under_a_claim_goes_away_and_its_keys_are_retained(lab: Lab) -> None:
    lab.control_plane.create_namespace("short-lived", {"chatelaine.dev/lab": "yes"})
    bound = lab.bind(claim("gone", clients=True, namespace="short-lived"))
    uid, host = bound["metadata"]["uid"], bound["status"]["allocation"]["hsm"]["name"]
    lab.control_plane.admin.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short-lived"}})

    def absent() -> bool:
        try:
            lab.control_plane.admin.read("v1", "Namespace", "short-lived")
        except ApiError as error:
            return error.status == 404
        return False

    eventually(absent, "the namespace is gone", seconds=60)
    status = lab.pool.hsm(host)["status"]
    assert uid in {entry["claimUid"] for entry in status["retained"]}
    assert uid not in {entry["claimUid"] for entry in status.get("allocations", [])}
    assert not policies_of(lab, uid)


def test_claim_pointing_at_a_secret_that_is_not_its_own_is_told_so_and_the_secret_is_untouched(lab: Lab) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "theirs", "namespace": TEAM},
        "stringData": {"password": "untouched"},
    }
    lab.control_plane.admin.create(theirs)
    before = lab.control_plane.admin.read("v1", "Secret", "theirs", TEAM)
    lab.control_plane.admin.create(claim("thief", clients=True, binding={"secretName": "theirs"}))
    found = wait_condition(lambda: lab.claim("thief"), "Stalled", "True", seconds=SECONDS)
    assert "SecretNameTaken" in json.dumps(found["status"]["conditions"])
    after = lab.control_plane.admin.read("v1", "Secret", "theirs", TEAM)
    assert (after["data"], after["metadata"]["resourceVersion"]) == (
        before["data"],
        before["metadata"]["resourceVersion"],
    )


def test_claim_of_a_namespace_that_no_rule_names_is_refused_with_the_reason(lab: Lab) -> None:
    lab.control_plane.create_namespace("outsiders")
    lab.control_plane.admin.create(claim("wish", namespace="outsiders"))
    found = wait_condition(lambda: lab.claim("wish", "outsiders"), "Bound", "False", seconds=SECONDS)
    assert "namespace" in condition_of(found, "Bound")["message"]
    assert "allocation" not in found["status"]


def test_operator_killed_and_started_again_cuts_nothing(lab: Lab) -> None:
    lab.bind(claim("steady", clients=True))
    client = lab.signing_client("steady", lab.pod("steady"))
    assert lab.operator.process is not None
    lab.operator.stop(hard=True)
    client.sign("key-0", b"while nobody leads")
    lab.operator.start()
    client.sign("key-0", b"after the restart")
    lab.bind(claim("later"))


def test_leader_killed_while_a_client_signs_is_followed_by_the_standby(lab: Lab) -> None:
    lab.bind(claim("through", clients=True))
    pod = lab.pod("through")
    client = lab.signing_client("through", pod)
    client.sign("key-0", b"while the first leads")
    port, renewed_at = client.local_port, time.monotonic()

    def signed_and(holds: Callable[[], bool]) -> bool:
        nonlocal renewed_at
        if time.monotonic() - renewed_at > TOKEN_SECONDS / 3:
            client.exchange(lab.service_account_token(pod))
            renewed_at = time.monotonic()
        client.sign("key-0", b"all the while")
        assert client.local_port == port, "another connection"
        return holds()

    assert leads(lab.operator)
    with lab.standby() as standby:
        assert not leads(standby)
        lab.operator.stop(hard=True)
        eventually(lambda: signed_and(lambda: leads(standby)), "the standby leads", seconds=60)
        late = claim("after-failover", clients=True)
        lab.control_plane.admin.create(late)

        def ready() -> bool:
            return condition_of(lab.claim("after-failover"), "Ready").get("status") == "True"

        eventually(lambda: signed_and(ready), "a new claim is bound", seconds=60)
        lab.signing_client("after-failover", lab.pod("after-failover")).sign("key-0", b"by the new leader")
        assert lab.claim("through")["status"]["allocation"]["sequence"] == 1
        # For the tests that follow: the first one takes its place again.
        lab.operator.start()
    eventually(lambda: leads(lab.operator), "the first leads again")


def test_probes_and_metrics_of_the_process_tell_of_a_bind_and_a_cut(lab: Lab) -> None:
    bound = lab.bind(claim("measured"))
    host = bound["status"]["allocation"]["hsm"]["name"]
    eventually(lambda: lab.operator.get("/readyz")[0] == 200, "ready")
    assert lab.operator.get("/healthz") == (200, "ok\n")
    before = samples(lab.operator)
    assert before.keys() >= SUFFIXES | GAUGES
    counts = {name: before[name][0].value for name in SUFFIXES}
    assert all(counts[name] > 0 for name in SUFFIXES - {"revoke_seconds_count"}), counts
    assert verdicts_of(before, host) == {("Trusted", "EvidenceHolds")}
    assert {sample.labels["lane"] for sample in before["queue_depth"]} == {"fast", "normal", "delayed", "active"}
    assert before["queue_oldest_seconds"][0].value >= 0

    lab.pool.hosts[host].tamper(pcr=7)
    eventually(lambda: verdicts_of(samples(lab.operator), host) == {("Untrusted", "EvidenceRefuted")}, "refuted")
    eventually(
        lambda: samples(lab.operator)["revoke_seconds_count"][0].value > counts["revoke_seconds_count"],
        "the cut was acknowledged and measured",
    )
    # A refuted host is no fault of the operator.
    assert lab.operator.get("/healthz")[0] == lab.operator.get("/readyz")[0] == 200
    wait_condition(lambda: lab.pool.hsm(host), "Attested", "False", reason="EvidenceRefuted", seconds=SECONDS)
    lab.pool.hosts[host].reboot()
    readmit(lab, host)


def verdicts_of(found: dict[str, list[Sample]], host: str) -> set[tuple[str, str]]:
    """Verdict and reason that are exposed for a host."""
    shown = [sample for sample in found["hsm_verdict"] if sample.labels["hsm"] == host and sample.value == 1]
    return {(sample.labels["verdict"], sample.labels["reason"]) for sample in shown}


def test_logs_statuses_and_arguments_hold_no_secret(lab: Lab) -> None:
    # Every secret there is passes by, in this very test.
    invited = HsmHost("invited", lab.pool.directory / "invited", Ports("127.0.0.1", 1, "127.0.0.1", 2), simulated=True)
    invitation = lab.operator.invite(invited.name)
    invited.join(invitation)
    unused = lab.operator.invite("never-joins")
    lab.bind(claim("talkative", clients=True))
    pod = lab.pod("talkative")
    projected = lab.service_account_token(pod)
    client = lab.client("talkative")
    trust = exchange_when_known(client, projected)["access_token"]
    client.sign("key-0", b"message")

    secrets = {host.token.pin for host in lab.pool.hosts.values() if host.token is not None}
    assert secrets
    for token in (invitation, unused):
        secrets |= {token, Invitation.decode(token).secret}
    for token in (projected, trust):
        # The signature is what makes it a token; a log may well name its claims.
        secrets |= {token, token.rpartition(".")[2]}

    logs = [path for path in lab.operator.directory.parent.rglob("*") if path.is_file() and is_log(path)]
    roles = {(path.parts[-3], path.parts[-2]) for path in logs if path.name == "log"}
    hosts = {(name, role) for name in lab.pool.hosts for role in ("agent", "gateway")}
    assert roles >= hosts, roles
    assert lab.operator.directory / "log" in logs
    assert {path.parts[-2] for path in logs if path.name == "audit.jsonl"} == {"gateway"}
    texts = {str(path): path.read_text(errors="replace") for path in logs}
    assert all(texts[str(lab.pool.directory / name / role / "log")] for name, role in hosts)
    texts["statuses"] = lab.control_plane.kubectl(
        "get", "hsms,hsmclaims,attestationpolicies,events,configmaps,networkpolicies", "-A", "-o", "yaml"
    )
    ps = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True)
    texts["arguments and environments"] = ps.stdout
    assert f"operator --kubeconfig {lab.operator.kubeconfig}" in ps.stdout
    for where, text in texts.items():
        assert not [secret[:8] for secret in secrets if secret in text], where
        assert "PRIVATE KEY" not in text, where
        # A JWT in a log would be somebody's token, also one that this test does not know.
        assert "eyJhbGciOi" not in text, where


def is_log(path: Path) -> bool:
    return path.name in ("log", "audit.jsonl") and "control-plane" not in path.parts
