"""The story: join, approve, capture a policy, attest, bind, sign, tamper, cut, move, repair, re-admit, sign again."""

from __future__ import annotations

import time
import urllib.request
from functools import partial
from typing import Any

from tools.control_plane.processes import StartError
from tools.demo.narrator import Narrator
from tools.demo.stage import HOSTS, Stage
from tools.lab.objects import approve, condition_of, wait_condition
from tools.lab.system import exchange_when_known
from tools.lab.workload import Refusal, SigningClient

MESSAGE = b"pay 10 EUR to the bakery"


def tell(stage: Stage, narrator: Narrator) -> None:
    """Plays every step; raises at the first that is not as it should be."""
    _set_up(stage, narrator)
    _join(stage, narrator)
    _approve(stage, narrator)
    client = _bind_and_sign(stage, narrator)
    _tamper(stage, narrator, client)
    _rebind(stage, narrator)
    _readmit(stage, narrator)


def _set_up(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("control plane: etcd, kube-apiserver, kube-controller-manager"):
        stage.start_control_plane()
    with narrator.step("three HSM hosts: each its own token and its own TPM, booted and measured"):
        stage.start_hosts()
    with narrator.step("install the chart, start the operator under the chart's own roles"):
        stage.install()
    with narrator.step("apply namespaces and the pool of Hsms; nobody has written a policy yet"):
        for file in ("namespaces.yaml", "hsms.yaml"):
            stage.apply(file)
        stage.publish_gateways()


def _join(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("hosts join by an invitation (single use, 30 minutes)"):
        assert stage.operator is not None
        for name, host in stage.hosts.items():
            invitation = stage.operator.invite(name)
            host.join(invitation)
            try:
                host.join(invitation)
            except StartError:
                narrator.say(f"{name} joined; the same invitation a second time is refused")
            else:
                raise StartError(f"{name}: the invitation was accepted twice")
            host.start()
    with narrator.step("hosts show who they are, and wait for a person"):
        for name in HOSTS:
            found = wait_condition(partial(stage.hsm, name), "Enrolled", "False", reason="AwaitingApproval")
            narrator.say(f"{name}: {condition_of(found, 'Enrolled')['message']}")


def _approve(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("a person approves the digests"):
        for name in HOSTS:
            approve(stage.control_plane, name)
        for name in HOSTS:
            wait_condition(partial(stage.hsm, name), "Enrolled", "Unknown", reason="PolicyNotFound")
            narrator.say(f"{name} is approved; without a policy nothing is trusted")
    with narrator.step("a policy is captured from the hosts: fresh quotes, boot logs that replay to them"):
        manifest, report = stage.capture_policy()
        for line in report.splitlines():
            narrator.say(line)
        narrator.console.print(manifest, markup=False, style="dim")
    with narrator.step("what would become of the hosts is asked before it is applied; then it is"):
        for line in stage.try_policy(manifest).splitlines():
            narrator.result(line)
        stage.control_plane.kubectl("apply", "-f", "-", stdin=manifest)
        for name in HOSTS:
            found = wait_condition(partial(stage.hsm, name), "Ready", "True")
            attestation = found["status"]["attestation"]
            narrator.result(f"{name}: {attestation['verdict']}, {_epoch(attestation)}")


def _epoch(attestation: dict[str, Any]) -> str:
    epoch = attestation["epoch"]
    return f"admission {epoch['generation']}, TPM reset {epoch['resetCount']}"


def _bind_and_sign(stage: Stage, narrator: Narrator) -> SigningClient:
    with narrator.step("claims bind; keys are made inside the token; the network path opens"):
        stage.apply("claims.yaml")
        for name in ("checkout", "receipts"):
            found = wait_condition(partial(stage.claim, name), "Ready", "True")
            narrator.result(f"{name} is bound to {found['status']['allocation']['hsm']['name']}")
            narrator.say(f"NetworkPolicies: {', '.join(stage.network_policies(name))}")
        narrator.console.print(stage.control_plane.kubectl("get", "hsms,hsmclaims", "--all-namespaces"), markup=False)
    with narrator.step("a client trades its service-account token for a trust token, and signs"):
        client, token = stage.client("checkout")
        exchange_when_known(client, token)
        signature = client.sign("signing", MESSAGE)
        narrator.result(
            f"signature of {len(signature)} bytes; openssl says: "
            + stage.openssl_verifies("checkout", "signing", MESSAGE, signature)
        )
    return client


def _tamper(stage: Stage, narrator: Narrator, client: SigningClient) -> None:
    hsm = stage.claim("checkout")["status"]["allocation"]["hsm"]["name"]
    with narrator.step(f"{hsm}: something extends PCR 4 behind the operator's back"):
        client.sign("signing", MESSAGE)
        port = client.local_port
        begin = time.monotonic()
        stage.hosts[hsm].tamper()
        refusal, signed = _sign_until_refused(client)
        if refusal.code != "ERROR_INVALID_TOKEN":
            raise StartError(f"ERROR_INVALID_TOKEN expected, found {refusal}")
        narrator.result(
            f"refused {1000 * (time.monotonic() - begin):.0f} ms after the change, after {signed} more signatures, "
            f"on the same open connection (local port {port}): {refusal.status} {refusal.code}"
        )
    with narrator.step("the path is closed, and everybody is told why"):
        found = wait_condition(lambda: stage.hsm(hsm), "Attested", "False", reason="EvidenceRefuted")
        narrator.result(condition_of(found, "Attested")["message"])
        for sentence in found["status"]["attestation"].get("explanation", []):
            narrator.result(f"explained: {sentence}")
        _wait_no_policies(stage, "checkout")
        narrator.result("NetworkPolicies of checkout: none")
        narrator.result(f"Event {_event(stage, hsm, 'EvidenceRefuted')}")
        narrator.say(_metric(stage, "chatelaine_hsm_verdict{"))


def _sign_until_refused(client: SigningClient) -> tuple[Refusal, int]:
    """Signs in a tight loop on the open connection until the gateway refuses; within 10 s."""
    port, signed, deadline = client.local_port, 0, time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.sign("signing", MESSAGE)
        except Refusal as refusal:
            return refusal, signed
        if client.local_port != port:
            raise StartError("the connection was not the same any more before a refusal was seen")
        signed += 1
    raise StartError("the gateway still signs 10 s after the host was tampered with")


def _wait_no_policies(stage: Stage, claim: str) -> None:
    deadline = time.monotonic() + 10
    while policies := stage.network_policies(claim):
        if time.monotonic() > deadline:
            raise StartError(f"these NetworkPolicies should be gone: {policies}")
        time.sleep(0.02)


def _stays_refuted(stage: Stage, hsm: str, seconds: float = 2) -> None:
    """Good evidence alone lets nobody in again: the agent announces the reset at once, and nothing follows from it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        verdict = stage.hsm(hsm)["status"]["attestation"]["verdict"]
        if verdict != "Untrusted":
            raise StartError(f"{hsm}: Untrusted expected until somebody re-admits it, found {verdict}")
        time.sleep(0.1)


def _event(stage: Stage, hsm: str, reason: str) -> str:
    deadline = time.monotonic() + 10
    while not (found := [event for event in stage.events("Hsm", hsm) if event.startswith(f"{reason}:")]):
        if time.monotonic() > deadline:
            raise StartError(f"no Event {reason} about {hsm}")
        time.sleep(0.05)
    return found[-1]


def _metric(stage: Stage, name: str) -> str:
    assert stage.operator is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.operator.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith(name) and not line.endswith(" 0.0")]
    if not found:
        raise StartError(f"the operator has no metric {name}")
    return "; ".join(found[:6])


def _rebind(stage: Stage, narrator: Narrator) -> None:
    with narrator.step("receipts (failover: Rebind) moves to another HSM; checkout (Hold) waits"):
        deadline = time.monotonic() + 30
        while (allocation := stage.claim("receipts")["status"]["allocation"])["sequence"] < 2:
            if time.monotonic() > deadline:
                raise StartError(f"a new allocation expected, found {allocation}")
            time.sleep(0.05)
        wait_condition(lambda: stage.claim("receipts"), "Ready", "True")
        narrator.result(f"receipts is now bound to {allocation['hsm']['name']}, with a new key")
        client, token = stage.client("receipts")
        exchange_when_known(client, token)
        signature = client.sign("seal", MESSAGE)
        narrator.say("openssl says: " + stage.openssl_verifies("receipts", "seal", MESSAGE, signature))
        client.close()


def _readmit(stage: Stage, narrator: Narrator) -> None:
    hsm = stage.claim("checkout")["status"]["allocation"]["hsm"]["name"]
    with narrator.step(f"{hsm} is repaired (TPM reset, clean boot): still refused until a person re-admits it"):
        stage.hosts[hsm].reboot()
        _stays_refuted(stage, hsm)
        refuted = stage.hsm(hsm)["status"]["attestation"]["evidenceDigest"]
        stage.control_plane.kubectl("annotate", "--overwrite", "hsm", hsm, f"chatelaine.dev/readmit={refuted}")
        found = wait_condition(lambda: stage.hsm(hsm), "Ready", "True")
        attestation = found["status"]["attestation"]
        narrator.result(f"{hsm}: {attestation['verdict']}, {_epoch(attestation)}")
    with narrator.step("checkout serves again"):
        wait_condition(lambda: stage.claim("checkout"), "Ready", "True")
        client, token = stage.client("checkout")
        exchange_when_known(client, token)
        signature = client.sign("signing", MESSAGE)
        narrator.result("openssl says: " + stage.openssl_verifies("checkout", "signing", MESSAGE, signature))
        client.close()
        narrator.console.print(stage.control_plane.kubectl("get", "hsms,hsmclaims", "--all-namespaces"), markup=False)
