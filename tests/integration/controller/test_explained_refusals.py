"""Why a host was refused: in its status and in an Event, from stored evidence that anybody can judge again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.lab.event_log_writer import SHA256
from tools.lab.firmware import Boot, pcr_values
from typer.testing import CliRunner

from chatelaine.cli import evidence, verify
from support.operator_cluster import Json, OperatorCluster, condition_of
from support.simulated_host import SimulatedHost
from support.simulated_logs import allow_list
from support.waiting import until

RUNNER = CliRunner()
OTHER_LOADER = Boot(loader=b"boot loader nobody signed off")


def rules(*, log: bool = True) -> dict[str, Any]:
    values = pcr_values(Boot(), SHA256)
    tpm: Json = {"pcrs": {"bank": "Sha256", "values": [{"index": i, "anyOf": [values[i]]} for i in (0, 4, 7)]}}
    return {**tpm, "eventLog": {"replay": "Required", "secureBoot": "Enabled"}} if log else tpm


async def trusted(cluster: OperatorCluster, *, log: bool = True) -> SimulatedHost:
    cluster.policy(tpm=rules(log=log))
    host = await cluster.host(boot=Boot())
    cluster.hsm(host)
    await cluster.hsm_is(host, "Ready", "True")
    return host


async def trusted_and_stored(cluster: OperatorCluster, state: Path) -> SimulatedHost:
    """A host that was trusted, and an operator that has written so and is gone."""
    async with cluster.operator(state_folder=state) as operator:
        host = await trusted(cluster)
        await operator.keeper.written()
    return host


async def reboot(host: SimulatedHost, boot: Boot) -> None:
    await host.stop()
    host.logs.boot(boot)
    await host.start()


async def refused(cluster: OperatorCluster, host: SimulatedHost) -> tuple[list[str], Json]:
    """The explanation, and the whole Hsm."""
    found = await cluster.hsm_is(host, "Attested", "False", "EvidenceRefuted")
    return found["status"]["attestation"]["explanation"], found


def names_the_other_loader(told: list[str]) -> None:
    assert "of PCR 4 (unchecked name: boot application \\EFI\\BOOT\\BOOTX64.EFI) has digest " in told[0]
    assert "at the last trusted boot " in told[0]


def notes(cluster: OperatorCluster, host: SimulatedHost) -> list[str]:
    events = cluster.list("/apis/events.k8s.io/v1/namespaces/default/events")
    return [event["note"] for event in events if event["regarding"]["name"] == host.name]


def run(app: Any, *arguments: str, code: int) -> Any:
    done = RUNNER.invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.stdout_bytes


async def test_pcr_that_was_extended_behind_the_log_is_explained_in_status_and_event(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    state = tmp_path / "operator"
    async with cluster.operator(state_folder=state) as operator:
        host = await trusted(cluster)
        host.tamper(4)
        told, hsm = await refused(cluster, host)
        assert told[0].startswith("PCR 4 holds a value that its log does not explain: the log ends at event ")
        assert told[0].endswith("something extended it without an event.")
        assert "are those of the last trusted boot, so it was extended after all of them" in told[1]
        assert told[2] == "The host was not rebooted since its last trusted evidence."
        assert told[0] in condition_of(hsm, "Attested")["message"]
        await until("the Event says it", lambda: any(told[0] in note for note in notes(cluster, host)))
        await operator.keeper.written()
    # What was stored says the same, to whoever judges it again.
    digest = hsm["status"]["attestation"]["evidenceDigest"]
    rows = run(evidence.app, "list", "--state-dir", str(state), "--json", code=0)
    assert rows[0]["kind"] == "Trusted"
    assert digest in {row["evidenceDigest"] for row in rows if row["kind"] == "Refuted"}
    bundle = tmp_path / "refuted.cbor"
    bundle.write_bytes(run(evidence.app, "export", digest, "--state-dir", str(state), code=0))
    run(verify.app, "replay", str(bundle), "--ak-name", hsm["status"]["identity"]["akName"], code=0)
    run(verify.app, "replay", str(state / "evidence"), code=0)
    judged = run(verify.app, "bundle", str(state / "evidence"), "--json", code=1)
    assert judged["facts"]["rounds"][-1]["explanation"][0] == told[0]


async def test_another_boot_loader_is_named_by_its_event(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster)
        await reboot(host, OTHER_LOADER)
        told, _ = await refused(cluster, host)
        names_the_other_loader(told)
        assert "The host was rebooted since its last trusted evidence" in told[-1]


async def test_operator_that_starts_anew_still_knows_the_last_trusted_boot(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    state = tmp_path / "operator"
    host = await trusted_and_stored(cluster, state)
    await reboot(host, OTHER_LOADER)
    async with cluster.operator(state_folder=state):
        told, _ = await refused(cluster, host)
        names_the_other_loader(told)


async def test_operator_whose_stored_evidence_was_damaged_says_what_it_can(
    cluster: OperatorCluster, tmp_path: Path
) -> None:
    state = tmp_path / "operator"
    host = await trusted_and_stored(cluster, state)
    for file in (state / "evidence" / "sha256").glob("*/*"):
        file.write_bytes(file.read_bytes()[:-1])
    await reboot(host, OTHER_LOADER)
    async with cluster.operator(state_folder=state) as operator:
        told, _ = await refused(cluster, host)
        assert told[-1].startswith("No earlier trusted evidence of this TPM is known")
        assert operator.metrics.evidence_damaged._value.get() > 0


async def test_without_a_log_it_is_said_which_pcrs_moved(cluster: OperatorCluster) -> None:
    async with cluster.operator():
        host = await trusted(cluster, log=False)
        host.tamper(4)
        told, _ = await refused(cluster, host)
        assert told[0].startswith("PCR 4 holds ")
        assert "at the last trusted evidence it held" in told[0]
        assert "the policy asks for no event log" in told[1]


async def test_rounds_whose_list_of_measurements_goes_on_replay_too(cluster: OperatorCluster, tmp_path: Path) -> None:
    state = tmp_path / "operator"
    async with cluster.operator(state_folder=state) as operator:
        allowed = allow_list(("/usr/bin/later", b"later 1.0"))
        cluster.policy(tpm={**rules(), "ima": {"allow": allowed}})
        host = await cluster.host(boot=Boot())
        cluster.hsm(host)
        await cluster.hsm_is(host, "Ready", "True")
        judged = operator.metrics.rounds.labels("authenticated")._value.get
        before = judged()
        host.logs.ran("/usr/bin/later", b"later 1.0")
        host.measured()
        await until("two more rounds", lambda: judged() > before + 1)
        host.logs.ran("/tmp/.x", b"something nobody approved")
        host.measured()
        _, hsm = await refused(cluster, host)
        await operator.keeper.written()
    rows = run(evidence.app, "list", "--state-dir", str(state), "--json", code=0)
    assert {"Trusted", "Refuted"} <= {row["kind"] for row in rows}
    replayed = run(verify.app, "replay", str(state / "evidence"), "--json", code=0)
    assert len(replayed["facts"]["rounds"]) == len(rows)
    assert hsm["status"]["attestation"]["evidenceDigest"] in {row["evidenceDigest"] for row in rows}
