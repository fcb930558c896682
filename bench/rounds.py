"""What a round of evidence costs: judged alone, and in an operator that asks many hosts.

A whole bundle is a quote, an HSM statement, an inventory and a boot log, each verified and appraised; the log is one
that was seen before, as in every round but a boot's first. Peers: the signatures that nobody can leave out, in the same
run, and `tpm2_checkquote`, which looks at the quote alone and is a process of its own for each: what it costs to start
is most of it, so that figure is no comparison of the work.

The live part asks simulated hosts, with boot logs of their own, over the real wire; they run in this process, the
operator in its own. Its CPU time in a window is divided by the rounds that its own metrics count there. What one host
more costs in memory is the difference between few hosts and many, divided by how many more they are.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client.parser import text_string_to_metric_families
from tools.lab import firmware
from tools.lab.installation import Operator

from bench.lab import cpu_seconds, rss_megabytes
from bench.report import Figure, write
from bench.turns import in_turn
from chatelaine.appraisal.host import HostCase, appraise_host
from chatelaine.evidence.bundle import EnrolledIdentity, QuoteEvidence, VerifiedEvidence, verify_evidence
from chatelaine.evidence.tpm_quote import attestation_key
from chatelaine.evidence.tpm_types import Selection, parse_quote
from chatelaine.model.common import ObjectMeta
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Appraisal, PolicyStamp, Verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.operator_cluster import OperatorCluster, operator_plane
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, SUBJECT
from support.paper_tpm import NONCE
from support.stored_rounds import EK_DIGEST, HOST, QUOTED, answer, policy

BLOCKS: Final = 41
CALLS: Final = 100
TOOL_RUNS: Final = 40
FEW, MANY = 10, 110
INTERVAL_SECONDS: Final = 2
WINDOW_SECONDS: Final = 30
SHARE_GOAL: Final = 25.0
"""Per cent of a core for 1,000 hosts that are asked every 10 s: a hundred rounds a second."""


def run() -> None:
    """Writes the figures."""
    write("rounds", [*_alone(), *asyncio.run(_live())])


# --- alone


def _alone() -> list[Figure]:
    evidence = answer(firmware.Boot())
    rules = AttestationPolicySpec.model_validate(policy())
    judging = AttestationPolicy(metadata=ObjectMeta(name="base", uid="uid-base", generation=1), spec=rules)
    case = HostCase(
        subject=SUBJECT, stamp=PolicyStamp("base", "uid-base", 1, judging.digest()), policy=judging,
        ek_digest=EK_DIGEST, ek_certificate=None, generation=1, issued_at=1_780_000_000, accounted=frozenset(),
    )  # fmt: skip
    identity = HOST.identity

    def judged() -> Appraisal:
        return appraise_host(_verified(evidence, identity), case)

    if judged().verdict is not Verdict.TRUSTED:
        raise AssertionError("the bundle was not accepted")
    whole, signatures = in_turn(judged, _signatures(evidence), blocks=BLOCKS, times=CALLS)
    raw: dict[str, object] = {"what": "its two P-256 signatures alone", "value": 1 / signatures, "unit": "1/s a core"}
    tool: dict[str, object] = {
        "what": "tpm2_checkquote, its start included; the quote alone",
        "value": 1 / _tool_seconds(evidence),
        "unit": "1/s a core",
    }
    return [
        Figure("whole bundles verified and appraised", 1 / whole, "1/s a core", peer=tool),
        Figure("the same, against their signatures alone", signatures / whole, "", peer=raw),
    ]


def _verified(evidence: QuoteEvidence, identity: EnrolledIdentity) -> VerifiedEvidence:
    return verify_evidence(
        evidence, nonce=NONCE, subject_uid=SUBJECT, identity=identity, agent_spki=AGENT_SPKI,
        gateway_spki=GATEWAY_SPKI, selection=Selection(Bank.SHA256, QUOTED), wants_log=True,
    )  # fmt: skip


def _signatures(evidence: QuoteEvidence) -> Callable[[], None]:
    """The two signatures of a bundle over messages of the same sizes, checked by keys of the same kind."""
    key, sha256 = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    messages = [bytes(len(evidence.attest)), bytes(len(evidence.statement))]
    signed = [(key.sign(message, sha256), message) for message in messages]
    public = key.public_key()

    def check() -> None:
        for signature, message in signed:
            public.verify(signature, message, sha256)

    return check


def _tool_seconds(evidence: QuoteEvidence) -> float:
    """Seconds of CPU that a run of `tpm2_checkquote` over this quote takes."""
    key: Any = attestation_key(HOST.tpm.public).key
    said = parse_quote(evidence.attest).extra_data.hex()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (folder / "quote").write_bytes(evidence.attest)
        (folder / "signature").write_bytes(evidence.signature)
        command = ["tpm2_checkquote", "-u", "key.pem", "-m", "quote", "-s", "signature", "-g", "sha256", "-q", said]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(TOOL_RUNS):
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / TOOL_RUNS


# --- in an operator


async def _live() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, operator_plane(Path(name) / "plane") as plane:
        cluster = OperatorCluster(plane, Path(name) / "hosts")
        plane.create_namespace(cluster.namespace)
        operator = Operator(plane, Path(name) / "operator")
        await asyncio.to_thread(operator.start)
        try:
            return await _measured(cluster, operator)
        finally:
            await cluster.clean()
            operator.stop()


async def _measured(cluster: OperatorCluster, operator: Operator) -> list[Figure]:
    assert operator.process is not None
    pid = operator.process.pid
    pinned = firmware.pcr_values(firmware.Boot())[7]
    tpm = {
        "pcrs": {"bank": "Sha256", "values": [{"index": 7, "anyOf": [pinned]}]},
        "eventLog": {"replay": "Required", "secureBoot": "Enabled"},
    }
    cluster.policy(tpm=tpm, freshness={"maxAgeSeconds": 60})
    await _hosts(cluster, range(FEW))
    await _rounds(operator, FEW * 5)
    few = rss_megabytes(pid)
    await _hosts(cluster, range(FEW, MANY))
    await _rounds(operator, MANY * 3)
    many = rss_megabytes(pid)
    before, cpu, begin = await _counted(operator), cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(WINDOW_SECONDS)
    rounds, used, seconds = await _counted(operator) - before, cpu_seconds(pid) - cpu, time.monotonic() - begin
    each = used / rounds
    share = each * 100 * 100
    return [
        Figure(f"rounds of {MANY} hosts, each asked every {INTERVAL_SECONDS} s", rounds / seconds, "1/s"),
        Figure("operator CPU a round, log and store included", each * 1e3, "ms CPU"),
        Figure("1,000 hosts every 10 s, by that", share, "% of a core", f"<= {SHARE_GOAL:.0f}", share <= SHARE_GOAL),
        Figure(f"operator RSS, {FEW} hosts", few, "MB"),
        Figure("memory of one host more, its boot log included", (many - few) * 1024 / (MANY - FEW), "KB"),
    ]


async def _hosts(cluster: OperatorCluster, numbers: Iterable[int]) -> None:
    """Made, approved, and Ready."""
    made = []
    for number in numbers:
        host = await cluster.host(f"h{number}", boot=firmware.Boot(serial=f"host {number}"))
        spec = {"policyRef": {"name": f"{cluster.prefix}-base"}, "intervalSeconds": INTERVAL_SECONDS}
        cluster.hsm(host, attestation=spec)
        made.append(host)
    for host in made:
        await cluster.hsm_is(host, "Ready", "True")


async def _rounds(operator: Operator, more: int) -> None:
    """Wait until that many rounds more have been made."""
    since = await _counted(operator)

    async with asyncio.timeout(120):
        while await _counted(operator) < since + more:  # noqa: ASYNC110 - another process counts
            await asyncio.sleep(0.5)


async def _counted(operator: Operator) -> float:
    """Rounds of evidence that the operator has made."""
    _, text = await asyncio.to_thread(operator.get, "/metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "chatelaine_evidence_rounds_total"
    )
