"""What is stored of judged rounds, and what is believed of it after a restart."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools.lab import firmware

from chatelaine.appraisal.explain import Boot, pack_log
from chatelaine.appraisal.host import HostCase, appraise_host
from chatelaine.appraisal.replay import replay
from chatelaine.appraisal.stored import RoundKind, encode_appraisal
from chatelaine.appraisal.stored_form import decode_round, parts_of
from chatelaine.controller.evidence_course import (
    LAST_TRUSTED_SECONDS,
    MAX_TRUSTED_LIST_BYTES,
    Course,
    JudgedRound,
    kind_of,
    to_store,
)
from chatelaine.controller.evidence_folder import EvidenceFolder
from chatelaine.controller.evidence_keeper import EvidenceKeeper
from chatelaine.controller.evidence_store import EvidenceStore
from chatelaine.controller.hosts import HostMemory
from chatelaine.controller.interrogation import Told
from chatelaine.evidence.bundle import QuoteEvidence
from chatelaine.model.common import ObjectMeta
from chatelaine.model.hsm import (
    AttestationKeyStatus,
    AttestationStatus,
    EnrolledIdentity,
    EpochStatus,
    Hsm,
    HsmStatus,
    PolicyStatusRef,
)
from chatelaine.model.identifiers import digest_of
from chatelaine.model.policy import AttestationPolicy, AttestationPolicySpec
from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Outcome, PolicyStamp, Verdict
from chatelaine.reconcile.enrolment import Enrolment
from chatelaine.reconcile.judged import Judged, Standing
from chatelaine.reconcile.snapshot import EvidenceRound, HostKeys
from chatelaine.telemetry.metrics import OperatorMetrics
from support.paper_host import SUBJECT
from support.stored_rounds import EK_DIGEST, HOST, answer, policy, stored

NOW = 1_780_000_000.0
ASKED = stored().round.asked
KEYS = HostKeys(ASKED.identity.ak_name.hex(), digest_of(ASKED.identity.attestation_key_spki))
GOOD = answer(firmware.Boot())
TAMPERED = answer(firmware.Boot(), extended={4: b"behind the log"})


def case_of(spec: dict[str, Any] | None = None, *, generation: int = 1, at: float = NOW) -> HostCase:
    judging = AttestationPolicy(
        metadata=ObjectMeta(name="base", uid="uid-base", generation=3),
        spec=AttestationPolicySpec.model_validate(spec or policy()),
    )
    stamp = PolicyStamp("base", "uid-base", 3, judging.digest())
    return HostCase(SUBJECT, stamp, judging, EK_DIGEST, None, generation, int(at), frozenset())


def judged(
    evidence: QuoteEvidence = GOOD, *, at: float = NOW, kind: RoundKind | None = None, **case: Any
) -> JudgedRound:
    rules = case_of(at=at, **case)
    appraisal = appraise_host(HOST.judged(evidence, selection=ASKED.selection, wants_log=True), rules)
    found = RoundKind.TRUSTED if appraisal.verdict is Verdict.TRUSTED else RoundKind.REFUTED
    assert evidence.event_log is not None
    return JudgedRound(
        "hsm-a", kind or found, ASKED, replace(evidence, event_log=None), pack_log(evidence.event_log), None,
        Judged(rules, appraisal), (), (f"pcr4={evidence.pcrs[4].hex()}",), at,
    )  # fmt: skip


# --- the rule -------------------------------------------------------------------------------------------------


def test_of_rounds_that_stay_the_same_only_the_first_is_stored():
    course, first = Course(), judged()
    assert course.take(first) == (first,)
    for second in range(10, 3000, 10):
        assert course.take(judged(at=NOW + second)) == ()


def test_newest_trusted_round_is_stored_before_the_refutation():
    course, last, refuted = Course(), judged(at=NOW + 10), judged(TAMPERED, at=NOW + 20)
    course.take(judged())
    course.take(last)
    assert course.take(refuted) == (last, refuted)
    again = judged(TAMPERED, at=NOW + 30)
    assert course.take(again) == (again,)


def test_trusted_round_is_stored_again_after_an_hour():
    course = Course()
    course.take(judged())
    assert course.take(judged(at=NOW + LAST_TRUSTED_SECONDS - 1)) == ()
    late = judged(at=NOW + LAST_TRUSTED_SECONDS)
    assert course.take(late) == (late,)


@pytest.mark.parametrize("change", [{"generation": 2}, {"spec": policy(pinned=(0,))}])
def test_first_of_another_admission_or_policy_is_stored_after_the_last_of_the_one_before(change):
    course, last, other = Course(), judged(at=NOW + 10), judged(at=NOW + 20, **change)
    course.take(judged())
    course.take(last)
    assert course.take(other) == (last, other)


def test_pcr_that_moved_and_is_still_trusted_is_stored():
    course = Course()
    course.take(judged(spec=policy(pinned=(0,), log=False)))
    moved = judged(TAMPERED, at=NOW + 10, spec=policy(pinned=(0,), log=False))
    assert moved.kind is RoundKind.TRUSTED
    assert course.take(moved) == (moved,)


@pytest.mark.parametrize("kind", [RoundKind.AUDITED, RoundKind.BLOCKED])
def test_round_that_shows_the_same_again_is_not_stored_again(kind):
    course, first = Course(), judged(TAMPERED, kind=kind)
    assert course.take(first) == (first,)
    assert course.take(judged(TAMPERED, at=NOW + 10, kind=kind)) == ()
    other = judged(answer(firmware.Boot(), extended={4: b"else"}), at=NOW + 20, kind=kind)
    assert course.take(other) == (other,)
    course.take(judged(at=NOW + 30))
    again = judged(TAMPERED, at=NOW + 40, kind=kind)
    assert again in course.take(again)


def standing(round_: JudgedRound, verdict: Verdict, **more: Any) -> Standing:
    reference = PolicyStatusRef(name="base", uid="uid-base", generation=3, digest=round_.judged.case.stamp.digest)
    status = AttestationStatus(
        verdict=verdict, policy=reference, evidence_digest=round_.judged.appraisal.evidence_digest,
        epoch=EpochStatus(reset_count=5, restart_count=1, generation=1), valid_until="2026-01-01T00:00:00Z",
        facts=list(round_.facts),
    )  # fmt: skip
    enrolment = Enrolment(Outcome.HOLDS, Reason.IDENTITY_APPROVED, "")
    return Standing(
        verdict, Reason.EVIDENCE_HOLDS, "", serves=True, enrolment=enrolment, judged=round_.judged,
        attestation=status, **more,
    )  # fmt: skip


def test_kinds_are_those_that_the_standing_says():
    good, bad = judged(), judged(TAMPERED)
    assert kind_of(standing(good, Verdict.TRUSTED)) is RoundKind.TRUSTED
    assert kind_of(standing(bad, Verdict.UNTRUSTED, sticky=True)) is RoundKind.REFUTED
    assert kind_of(standing(bad, Verdict.UNKNOWN, blocked_by_policy=True)) is RoundKind.BLOCKED
    assert kind_of(standing(bad, Verdict.UNTRUSTED)) is RoundKind.AUDITED
    assert kind_of(replace(standing(good, Verdict.TRUSTED), judged=None)) is None


# --- what is written ------------------------------------------------------------------------------------------


def test_what_is_stored_replays():
    for evidence in (GOOD, TAMPERED):
        round_ = judged(evidence)
        found, parts = to_store(round_, "0.1")
        by_digest = dict(zip(found.parts, parts, strict=True))
        assert replay(found, by_digest.__getitem__).encoded == encode_appraisal(round_.judged.appraisal)


def test_long_list_of_a_trusted_round_is_left_out_and_of_a_refuted_one_is_not():
    listed = {"ima_list": bytes(MAX_TRUSTED_LIST_BYTES + 1), "ima_offset": 0}
    for kind, count in ((RoundKind.TRUSTED, 1), (RoundKind.REFUTED, 2)):
        found, parts = to_store(replace(judged(kind=kind), evidence=replace(GOOD, event_log=None, **listed)), "0.1")
        assert (len(found.parts), len(parts)) == (2, count)
        assert len(found.left_out) == 2 - count


def hsm_of(**identity: Any) -> Hsm:
    ours = ASKED.identity
    values: dict[str, Any] = {
        "ek_digest": EK_DIGEST,
        "ak_name": ours.ak_name.hex(),
        "ak_public": base64.b64encode(ours.ak_public).decode(),
        "attestation_key": AttestationKeyStatus(thumbprint=KEYS.attestation_key_thumbprint),
        "attestation_key_public": base64.b64encode(ours.attestation_key_spki).decode(),
        "enrolled_at": "2026-01-01T00:00:00Z",
        **identity,
    }
    status = HsmStatus(identity=EnrolledIdentity(**values))
    return Hsm.model_construct(metadata=ObjectMeta(name="hsm-a", uid=SUBJECT), status=status)


@asynccontextmanager
async def keeping(
    path: Path, *, room: int = 2**24
) -> AsyncIterator[tuple[EvidenceKeeper, EvidenceStore, OperatorMetrics]]:
    store, metrics = EvidenceStore(EvidenceFolder(path), room, parts_of=parts_of), OperatorMetrics()
    keeper = EvidenceKeeper(store, metrics, build="0.1", envelope=lambda _: None, living=lambda: {SUBJECT})
    running = asyncio.create_task(keeper.run())
    try:
        yield keeper, store, metrics
        await keeper.written()
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def tell(
    keeper: EvidenceKeeper, evidence: QuoteEvidence, verdict: Verdict, *, at: float = NOW, **more: Any
) -> HostMemory:
    """A round came and was judged."""
    memory = HostMemory("hsm-a", SUBJECT, NOW)
    round_ = judged(evidence, at=at)
    verified = HOST.judged(evidence, selection=ASKED.selection, wants_log=True)
    shown = EvidenceRound(verified, verified.evidence_digest, at, KEYS, wanted_log=True)
    memory.told = Told(shown, verified, ASKED, evidence, ASKED.agent_spki, 0)
    keeper.judged(memory, standing(round_, verdict, **more))
    return memory


async def test_judged_rounds_are_written_and_counted(tmp_path):
    async with keeping(tmp_path) as (keeper, store, metrics):
        memory = tell(keeper, GOOD, Verdict.TRUSTED)
        assert memory.told is None
        tell(keeper, TAMPERED, Verdict.UNTRUSTED, at=NOW + 5, sticky=True)
        await keeper.written()
        kinds = [entry.kind for entry in store.entries()]
        assert kinds == [RoundKind.TRUSTED, RoundKind.REFUTED]
        assert metrics.evidence_stored.labels("Refuted", "stored")._value.get() == 1
        assert metrics.evidence_bytes._value.get() == store.used_bytes > 0
        refuted = decode_round(store.read(store.entries()[1].digest))
        assert replay(refuted, store.read).encoded == refuted.appraisal


async def test_round_that_another_judgement_is_about_is_not_stored_under_it(tmp_path):
    async with keeping(tmp_path) as (keeper, store, _):
        memory = HostMemory("hsm-a", SUBJECT, NOW)
        verified = HOST.judged(TAMPERED, selection=ASKED.selection, wants_log=True)
        shown = EvidenceRound(verified, verified.evidence_digest, NOW, KEYS)
        memory.told = Told(shown, verified, ASKED, TAMPERED, ASKED.agent_spki, 0)
        keeper.judged(memory, standing(judged(), Verdict.TRUSTED))
        await keeper.written()
        assert len(store) == 0


async def test_full_store_is_told_and_stops_nothing(tmp_path):
    async with keeping(tmp_path, room=4096) as (keeper, store, metrics):
        tell(keeper, GOOD, Verdict.TRUSTED)
        await keeper.written()
        assert (len(store), metrics.evidence_stored.labels("Trusted", "full")._value.get()) == (0, 1)


async def test_refutation_whose_list_has_no_room_is_stored_without_it(tmp_path):
    """A host that was broken into shows as long a list as it likes; what refutes it stays all the same."""
    listed = replace(TAMPERED, ima_list=bytes(2**20), ima_offset=0)
    async with keeping(tmp_path, room=2**19) as (keeper, store, metrics):
        tell(keeper, GOOD, Verdict.TRUSTED)
        round_ = judged(TAMPERED, at=NOW + 5)
        memory = HostMemory("hsm-a", SUBJECT, NOW)
        shown = EvidenceRound(None, round_.judged.appraisal.evidence_digest, NOW + 5, KEYS, wanted_log=True)
        memory.told = Told(shown, None, ASKED, listed, ASKED.agent_spki, 0)
        keeper.judged(memory, standing(round_, Verdict.UNTRUSTED, sticky=True))
        await keeper.written()
        trusted, refuted = store.entries()
        assert (trusted.kind, refuted.kind) == (RoundKind.TRUSTED, RoundKind.REFUTED)
        assert len(decode_round(store.read(refuted.digest)).left_out) == 1
        assert metrics.evidence_stored.labels("Refuted", "stored")._value.get() == 1


# --- after a restart ------------------------------------------------------------------------------------------


async def stored_at(path: Path, *rounds: tuple[QuoteEvidence, Verdict]) -> None:
    async with keeping(path) as (keeper, _, _):
        for number, (evidence, verdict) in enumerate(rounds):
            tell(keeper, evidence, verdict, at=NOW + number, sticky=verdict is Verdict.UNTRUSTED)


async def test_last_trusted_boot_is_known_after_a_restart(tmp_path):
    await stored_at(tmp_path, (GOOD, Verdict.TRUSTED), (TAMPERED, Verdict.UNTRUSTED))
    async with keeping(tmp_path) as (keeper, store, _):
        found = await keeper.recall(hsm_of())
        assert found is not None
        assert found.keys == KEYS
        assert found.boot.pcrs == GOOD.pcrs
        assert found.boot.events() == Boot(found.boot.bank, {}, 0, pack_log(GOOD.event_log or b"")).events()
        # The same boot under the same policy: it is stored already.
        tell(keeper, GOOD, Verdict.TRUSTED, at=NOW + 60)
        await keeper.written()
        assert len(store) == 2


@pytest.mark.parametrize(
    "identity",
    [
        {"ak_name": "00" * 34},
        {"ak_public": base64.b64encode(b"another key").decode()},
        {"attestation_key_public": base64.b64encode(b"another key").decode()},
    ],
)
async def test_evidence_of_another_identity_is_not_remembered(tmp_path, identity):
    await stored_at(tmp_path, (GOOD, Verdict.TRUSTED))
    async with keeping(tmp_path) as (keeper, _, _):
        assert await keeper.recall(hsm_of(**identity)) is None


async def test_host_that_is_not_enrolled_has_nothing_to_remember(tmp_path):
    async with keeping(tmp_path) as (keeper, _, _):
        assert (
            await keeper.recall(Hsm.model_construct(metadata=ObjectMeta(name="a", uid=SUBJECT), status=HsmStatus()))
            is None
        )


async def test_damaged_part_is_told_and_not_compared_with(tmp_path):
    await stored_at(tmp_path, (GOOD, Verdict.TRUSTED))
    async with keeping(tmp_path) as (keeper, _, metrics):
        for file in (tmp_path / "sha256").glob("*/*"):
            if file.read_bytes() == GOOD.event_log:
                file.write_bytes(TAMPERED.evidence_digest().encode())
        assert await keeper.recall(hsm_of()) is None
        assert metrics.evidence_damaged._value.get() == 1


async def test_folder_of_another_process_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("chatelaine.controller.evidence_keeper.RETRY_SECONDS", 0.01)
    other = EvidenceFolder(tmp_path)
    other.take()
    async with keeping(tmp_path) as (keeper, store, _):
        tell(keeper, GOOD, Verdict.TRUSTED)
        monkeypatch.setattr("chatelaine.controller.evidence_keeper.RECALL_SECONDS", 0.01)
        assert await keeper.recall(hsm_of()) is None
        other.release()
        await keeper.written()
        assert len(store) == 1
