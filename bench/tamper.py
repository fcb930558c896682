"""From the change of a PCR to the first refused operation, to closed connections, to policies that are gone."""

from __future__ import annotations

import time

from tools.lab.objects import GROUP, wait_condition
from tools.lab.system import TEAM, Lab, claim, running
from tools.lab.workload import Refusal, SigningClient

from bench.lab import ClaimWatch
from bench.report import Figure, percentile, write

RUNS = 100
CLAIM, HOST = "tamper", "real-0"


def run() -> None:
    """Tampers, measures, repairs and re-admits, 100 times."""
    refused: list[float] = []
    gone: list[float] = []
    with running(real=1) as lab:
        watch = ClaimWatch(lab.control_plane)
        watch.start()
        created = lab.control_plane.admin.create(claim(CLAIM, clients=True))
        watch.wait(watch.ready, {CLAIM}, seconds=60)
        watch.stop()
        pod = lab.pod(CLAIM)
        for _ in range(RUNS):
            client = lab.signing_client(CLAIM, pod)
            client.sign("key-0", b"warm")
            begin = time.monotonic()
            lab.pool.hosts[HOST].tamper()
            tampered = time.monotonic()
            refused.append(1000 * (_until_refused(client) - tampered))
            gone.append(1000 * (_until_no_policies(lab, created["metadata"]["uid"]) - begin))
            _repair(lab)
    to_refusal = "PCR changed to first refused operation"
    to_closed = "PCR changed to NetworkPolicies gone"
    write(
        "tamper",
        [
            _at_most(f"{to_refusal}, p50", percentile(refused, 0.5), 300),
            _at_most(f"{to_refusal}, p99", percentile(refused, 0.99), 1000),
            _at_most(f"{to_closed}, p99", percentile(gone, 0.99), 2000),
        ],
    )


def _at_most(what: str, value: float, goal_ms: float) -> Figure:
    return Figure(what, value, "ms", f"<= {goal_ms:.0f}", value <= goal_ms)


def _until_refused(client: SigningClient) -> float:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.sign("key-0", b"tick")
        except Refusal:
            return time.monotonic()
    raise TimeoutError("still signing 30 s after the change")


def _until_no_policies(lab: Lab, uid: str) -> float:
    path = f"/apis/networking.k8s.io/v1/networkpolicies?labelSelector=chatelaine.dev%2Fclaim-uid%3D{uid}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not lab.control_plane.admin.get(path)["items"]:
            return time.monotonic()
        time.sleep(0.01)
    raise TimeoutError("NetworkPolicies are still there after 30 s")


def _repair(lab: Lab) -> None:
    found = wait_condition(lambda: lab.pool.hsm(HOST), "Attested", "False")
    lab.pool.hosts[HOST].reboot()
    refuted = found["status"]["attestation"]["evidenceDigest"]
    hsm = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": HOST}}
    lab.control_plane.admin.merge(hsm, {"metadata": {"annotations": {"chatelaine.dev/readmit": refuted}}})
    wait_condition(lambda: lab.pool.hsm(HOST), "Ready", "True")
    wait_condition(lambda: lab.control_plane.admin.read(GROUP, "HsmClaim", CLAIM, TEAM), "Ready", "True")
