"""An operator of a large installation: 200 Hsms, 10,000 Ready claims; what it takes, and how it comes back.

Hosts are simulated, speak the real wire, and run in this process; API server and operator are real processes. The
claims name no keys: what is measured is the operator, not key generation. In this order:

1. claims are made until all are Ready; the operator's memory then;
2. after a pause, a minute in which nothing happens: writes, and CPU (rounds of evidence included);
3. the operator is killed and started anew: until its queue has been empty with every object examined;
4. every host reboots at once: until each has shown its new boot and is Trusted.

`FLEET_HSMS` and `FLEET_CLAIMS` make it smaller; the goals are for what stands here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from tools.lab.installation import SERVICE_ACCOUNT, Operator

from bench.lab import cpu_seconds, rss_megabytes, writes
from bench.report import Figure, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.operator_cluster import OperatorCluster, operator_plane
from support.simulated_host import SimulatedHost

HSMS: Final = int(os.environ.get("FLEET_HSMS", "200"))
CLAIMS: Final = int(os.environ.get("FLEET_CLAIMS", "10000"))
SMALL: Final = (HSMS, CLAIMS) != (200, 10000)
INTERVAL_SECONDS: Final = 30
SETTLE_SECONDS: Final = 10
IDLE_SECONDS: Final = 60
MAKERS: Final = 8
LONGEST_SECONDS: Final = 1800.0


def run() -> None:
    """Writes the figures."""
    write("fleet", asyncio.run(_run()))


async def _run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, operator_plane(Path(name) / "plane") as plane:
        cluster = OperatorCluster(plane, Path(name) / "hosts")
        plane.create_namespace(cluster.namespace)
        operator = Operator(plane, Path(name) / "operator")
        await asyncio.to_thread(operator.start)
        try:
            hosts = await _hosts(cluster)
            return [
                *await _claims(cluster, operator),
                *await _idle(cluster, operator),
                *await _restart(operator),
                *await _storm(cluster, operator, hosts),
            ]
        finally:
            for host in cluster.hosts.values():
                await host.stop()
            await asyncio.to_thread(operator.stop)


async def _hosts(cluster: OperatorCluster) -> list[SimulatedHost]:
    cluster.policy(freshness={"maxAgeSeconds": 120})
    hosts = []
    for number in range(HSMS):
        host = await cluster.host(f"h{number}")
        spec = {"policyRef": {"name": f"{cluster.prefix}-base"}, "intervalSeconds": INTERVAL_SECONDS}
        cluster.hsm(host, attestation=spec, capacity={"claims": 256})
        hosts.append(host)
    for host in hosts:
        await cluster.hsm_is(host, "Ready", "True")
    return hosts


async def _claims(cluster: OperatorCluster, operator: Operator) -> list[Figure]:
    cpu, begin = _cpu(operator), time.monotonic()
    names = [f"c{number}" for number in range(CLAIMS)]

    def made() -> None:
        with ThreadPoolExecutor(MAKERS) as pool:
            for _ in pool.map(lambda name: cluster.claim(name, keys=None, clients=None, binding=None), names):
                pass

    await asyncio.to_thread(made)
    await _until(operator, lambda now: now("chatelaine_ready_seconds_count") >= CLAIMS)
    seconds, used = time.monotonic() - begin, _cpu(operator) - cpu
    rss = rss_megabytes(_pid(operator))
    what = f"{CLAIMS} claims over {HSMS} Hsms"
    return [
        Figure(f"{what}: until all are Ready", seconds, "s"),
        Figure(f"{what}: operator CPU for it", used, "s"),
        Figure(f"{what}: operator RSS", rss, "MB", "<= 250", None if SMALL else rss <= 250),
    ]


async def _idle(cluster: OperatorCluster, operator: Operator) -> list[Figure]:
    log = cluster.plane.audit_log
    assert log is not None
    await asyncio.sleep(SETTLE_SECONDS)
    since, cpu = len(log.read_text().splitlines()), _cpu(operator)
    rounds = await _metric(operator, "chatelaine_evidence_rounds_total")
    await asyncio.sleep(IDLE_SECONDS)
    share = 100 * (_cpu(operator) - cpu) / IDLE_SECONDS
    rounds = await _metric(operator, "chatelaine_evidence_rounds_total") - rounds
    made = writes(log, SERVICE_ACCOUNT, since_line=since)
    others = sum(entry["objectRef"]["resource"] not in ("leases", "hsms") for entry in made)
    return [
        Figure("idle minute: writes besides the Lease and Hsm freshness", others, "writes", "0", others == 0),
        Figure("idle minute: operator CPU", share, "% of a core", "<= 1", None if SMALL else share <= 1),
        Figure("idle minute: rounds of evidence in it", rounds, "rounds"),
    ]


async def _restart(operator: Operator) -> list[Figure]:
    await asyncio.to_thread(operator.stop, hard=True)
    begin = time.monotonic()
    await asyncio.to_thread(operator.start)
    await _until(operator, lambda now: now("chatelaine_reconciles_total") >= CLAIMS + HSMS and _rests(now))
    seconds, rss = time.monotonic() - begin, rss_megabytes(_pid(operator))
    return [
        Figure("killed and started anew: until everything was examined", seconds, "s", "<= 10",
               None if SMALL else seconds <= 10),
        Figure("operator RSS after that", rss, "MB", "<= 250", None if SMALL else rss <= 250),
    ]  # fmt: skip


async def _storm(cluster: OperatorCluster, operator: Operator, hosts: list[SimulatedHost]) -> list[Figure]:
    cpu, begin = _cpu(operator), time.monotonic()
    for host in hosts:
        host.tpm.reset()
    waiting = {host.name for host in hosts}
    path = "/apis/chatelaine.dev/v1alpha1/hsms"
    while waiting and time.monotonic() - begin < LONGEST_SECONDS:
        await asyncio.sleep(0.2)
        for hsm in await asyncio.to_thread(cluster.list, path):
            attestation = hsm["status"].get("attestation", {})
            if attestation.get("verdict") == "Trusted" and attestation["epoch"]["resetCount"] > 1:
                waiting.discard(hsm["metadata"]["name"])
    if waiting:
        raise TimeoutError(f"{len(waiting)} hosts are not Trusted after their reboot")
    return [
        Figure(f"{HSMS} hosts reboot at once: until all are Trusted again", time.monotonic() - begin, "s"),
        Figure("operator CPU for it", _cpu(operator) - cpu, "s"),
    ]


# --- what the operator says of itself


def _rests(now: Callable[[str], float]) -> bool:
    return now("chatelaine_queue_depth") == 0


async def _until(operator: Operator, holds: Callable[[Callable[[str], float]], bool]) -> None:
    async with asyncio.timeout(LONGEST_SECONDS):
        while not holds((await _metrics(operator)).__getitem__):  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.25)


async def _metric(operator: Operator, name: str) -> float:
    return (await _metrics(operator))[name]


class _Sums(dict[str, float]):
    """Of all samples of one name; 0 where there are none."""

    def __missing__(self, name: str) -> float:
        return 0.0


async def _metrics(operator: Operator) -> _Sums:
    _, text = await asyncio.to_thread(operator.get, "/metrics")
    found = _Sums()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("lane") != "delayed":  # what will be looked at again some day
                found[sample.name] += sample.value
    return found


def _pid(operator: Operator) -> int:
    assert operator.process is not None
    return operator.process.pid


def _cpu(operator: Operator) -> float:
    return cpu_seconds(_pid(operator))
