"""Stored rounds: one encoding, and the same verdict byte for byte whenever and wherever they are judged again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import firmware

from chatelaine.appraisal.explain import explain, refuted_pcrs
from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.appraisal.replay import boot_of, replay
from chatelaine.appraisal.stored import RoundKind
from chatelaine.appraisal.stored_form import decode_round, encode_round, parts_of
from chatelaine.evidence import cbor
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import (
    AttestationKeyMismatch,
    EvidenceError,
    EvidencePartMissing,
    ExtraDataMismatch,
    Malformed,
    Oversized,
    StatementLogMismatch,
    StatementSignatureInvalid,
    ThresholdNotMet,
)
from chatelaine.evidence.ima import ImaProgress
from chatelaine.evidence.reference_values import verify_bundle
from chatelaine.model.identifiers import key_label
from chatelaine.model.material import PolicyMaterial
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Epoch, Finding, Outcome, Verdict
from support.paper_host import SERVICE_KEYS, PaperHost, token_key
from support.paper_tpm import PaperTpm, ecc_key
from support.reference_bundles import ALICE, BOB, MALLORY, bundle, source
from support.stored_rounds import HOST, Told, answer, policy, sha, stored

ROOT = Path(__file__).parents[3]
GOOD = stored()
TAMPERED = stored(evidence=answer(firmware.Boot(), extended={4: b"behind the log"}), kind=RoundKind.REFUTED)
SECOND = """
import sys
from support.stored_rounds import Told
from chatelaine.appraisal.replay import replay
from chatelaine.appraisal.stored_form import decode_round
from chatelaine.evidence import cbor
kept = cbor.decode(sys.stdin.buffer.read(), limit_bytes=2**25, what="the test")
parts = {bytes.fromhex(name): data for name, data in kept["parts"].items()}
sys.stdout.buffer.write(replay(decode_round(kept["round"]), parts.__getitem__).encoded)
"""


def in_another_process(told: Told, seed: str) -> bytes:
    """The verdict that a fresh interpreter makes."""
    sent = cbor.encode(
        {"round": encode_round(told.round), "parts": {digest.hex(): data for digest, data in told.parts.items()}}
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", SECOND], input=sent, capture_output=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# --- the same verdict -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told", [GOOD, TAMPERED, stored(accounted=None)], ids=["trusted", "tampered", "keys that are not known"]
)
def test_replay_gives_the_same_bytes(told):
    again = replay(decode_round(encode_round(told.round)), told.part)
    assert again.encoded == told.round.appraisal
    stamp = told.round.case.stamp
    named = again.policy.metadata
    assert (named.name, named.uid, named.generation) == (stamp.name, stamp.uid, stamp.generation)
    assert json.loads(again.encoded)["verdict"] == again.appraisal.verdict.value


@pytest.mark.parametrize("seed", ["0", "1", "4294967295"])
def test_replay_gives_the_same_bytes_in_another_process_whatever_its_hashes(seed):
    labels = frozenset(key_label("0b9b1c52", f"key-{number}", 1) for number in range(64))
    told = stored(spec={**policy(), "hsm": {"inventory": "Accounted"}}, accounted=labels, kind=RoundKind.TRUSTED)
    assert in_another_process(told, seed) == told.round.appraisal
    assert in_another_process(TAMPERED, seed) == TAMPERED.round.appraisal


def test_verdict_over_refused_evidence_is_replayed_too():
    told = stored(kind=RoundKind.REFUTED, serial="another token", last_epoch=Epoch(4, 1, 2))
    again = replay(told.round, told.part)
    assert again.evidence is None
    assert again.encoded == told.round.appraisal
    assert json.loads(again.encoded)["findings"]["reason"] == "StatementSerialMismatch"


def test_only_labels_of_keys_in_the_token_are_stored():
    told = stored(accounted=frozenset({"chat/elsewhere/key/1"}))
    assert told.round.case.accounted == ()
    assert stored(accounted=lambda label: label.startswith("chat/")).round.case.accounted is not None


def test_key_that_nobody_accounts_for_stays_refuted_in_a_replay():
    host = PaperHost(keys=(*SERVICE_KEYS, token_key("smuggled-in")))
    evidence = replace(host.answer(pcrs=answer(firmware.Boot()).pcrs), event_log=None)
    told = stored(
        evidence=evidence, spec={**policy(log=False), "hsm": {"inventory": "Accounted"}}, kind=RoundKind.REFUTED
    )
    again = replay(told.round, told.part)
    assert again.encoded == told.round.appraisal
    assert again.appraisal.verdict is Verdict.UNTRUSTED


def leaning(envelope: bytes) -> Told:
    """Judged by a policy that leans on signed reference values and on vendors' certificates."""
    good = source(ALICE, BOB, threshold=2)
    spec = {**policy(), "referenceValues": good.dump()}
    spec["tpm"]["endorsement"] = {"roots": [{"configMapRef": {"name": "vendors", "key": "roots.pem"}}]}
    material = PolicyMaterial((b"a vendor", b"another"), verify_bundle(envelope, good, not_below=0))
    shown = {"ek_certificate": b"\x30\x03no certificate"}
    return stored(spec=spec, material=material, reference=envelope, kind=RoundKind.REFUTED, **shown)


def test_what_the_policy_leaned_on_is_replayed_with_it():
    told = leaning(bundle(ALICE, BOB))
    again = replay(decode_round(encode_round(told.round)), told.part)
    assert again.encoded == told.round.appraisal
    assert json.loads(again.encoded)["referenceDigest"] == again.policy.material.reference.digest
    assert in_another_process(told, "7") == told.round.appraisal


def test_reference_values_of_strangers_do_not_replay():
    told = leaning(bundle(ALICE, BOB))
    forged = bundle(MALLORY, BOB)
    digest = sha(forged)
    known = {**told.parts, digest: forged}
    other = told.changed(
        case=replace(told.round.case, reference=digest), parts=tuple(sorted({*told.round.parts, digest}))
    )
    with pytest.raises(ThresholdNotMet):
        replay(other.round, replace(other, parts=known).part)


# --- what does not replay -------------------------------------------------------------------------------------


def test_verdict_that_was_written_by_hand_differs():
    forged = GOOD.changed(appraisal=TAMPERED.round.appraisal)
    assert replay(forged.round, forged.part).encoded != forged.round.appraisal


def test_rules_that_were_exchanged_are_refused():
    loose = stored(spec=policy(pinned=(0,), log=False)).round.case
    forged = TAMPERED.changed(case=replace(TAMPERED.round.case, spec=loose.spec))
    with pytest.raises(Malformed, match="not those that judged") as refused:
        replay(forged.round, forged.part)
    assert refused.value.expected == TAMPERED.round.case.stamp.digest
    assert refused.value.found == AttestationPolicySpec.model_validate_json(loose.spec).digest()


@pytest.mark.parametrize(
    ("field", "error"),
    [(("ak_public", "ak_name"), AttestationKeyMismatch), (("attestation_key_spki",), StatementSignatureInvalid)],
    ids=["another TPM", "another token"],
)
def test_evidence_of_another_tpm_or_token_is_refused(field, error):
    stranger = PaperHost(tpm=PaperTpm(number=1), hsm_key=ecc_key(alg.NIST_P256, 77)).identity
    theirs = replace(HOST.identity, **{name: getattr(stranger, name) for name in field})
    with pytest.raises(error):
        replay(GOOD.changed(asked=replace(GOOD.round.asked, identity=theirs)).round, GOOD.part)


def test_answer_to_another_nonce_is_refused():
    forged = GOOD.changed(asked=replace(GOOD.round.asked, nonce=bytes(32)))
    with pytest.raises(ExtraDataMismatch) as refused:
        replay(forged.round, forged.part)
    assert not refused.value.authenticated


def test_without_a_part_nothing_can_be_told():
    with pytest.raises(EvidencePartMissing):
        replay(GOOD.round, replace(GOOD, parts={}).part)


def test_part_of_another_content_is_not_taken():
    exchanged = replace(GOOD, parts={digest: data + b"\0" for digest, data in GOOD.parts.items()})
    with pytest.raises(EvidencePartMissing, match="another one") as refused:
        replay(GOOD.round, exchanged.part)
    assert refused.value.expected in {digest.hex() for digest in GOOD.parts}


def test_answer_that_was_asked_for_a_log_and_came_without_one_is_refused():
    pcrs = dict(answer(firmware.Boot()).pcrs)
    told = stored(spec=policy(log=False), evidence=HOST.answer(pcrs=pcrs, statement={"log_digest": sha(b"a log")}))
    assert replay(told.round, told.part).appraisal.verdict is Verdict.TRUSTED
    asked = told.changed(asked=replace(told.round.asked, wants_log=True))
    with pytest.raises(StatementLogMismatch):
        replay(asked.round, asked.part)


def test_boot_of_what_is_no_evidence_is_refused():
    with pytest.raises(Malformed):
        boot_of(GOOD.changed(evidence=cbor.encode([1])).round, GOOD.part)


# --- what is compared with ------------------------------------------------------------------------------------


def test_boot_of_a_stored_round_explains_a_later_one():
    trusted, now = boot_of(GOOD.round, GOOD.part), replay(TAMPERED.round, TAMPERED.part)
    assert now.boot is not None
    told = explain(now.boot, trusted, refuted_pcrs(now.appraisal.findings), log_asked=True)
    assert told[0].startswith("PCR 4 holds a value that its log does not explain: the log ends at event ")


def test_boot_is_not_taken_from_evidence_that_is_not_genuine():
    forged = GOOD.changed(asked=replace(GOOD.round.asked, subject_uid="another"))
    with pytest.raises(ExtraDataMismatch):
        boot_of(forged.round, forged.part)


def test_boot_is_read_without_the_ima_list():
    listed = replace(answer(firmware.Boot()), ima_list=b"a long list", ima_offset=0)
    told = stored(evidence=listed)
    short = replace(told, parts={digest: data for digest, data in told.parts.items() if data != b"a long list"})
    assert boot_of(told.round, short.part) == boot_of(GOOD.round, GOOD.part)


# --- form -----------------------------------------------------------------------------------------------------

HISTORY = ImaHistory(
    ImaProgress(5, 1, Bank.SHA256, 1000, 10, b"\x10" * 32),
    ImaFindings({GOOD.round.case.stamp.digest: Finding("ima", Outcome.HOLDS, "FilesListed", "10 entries")}),
)


@pytest.mark.parametrize(
    "told",
    [
        GOOD,
        TAMPERED,
        stored(accounted=None, last_epoch=Epoch(3, 0, 1), ek_certificate=b"\x30\x03abc"),
        stored(ima_before=HISTORY),
        GOOD.changed(left_out=GOOD.round.parts),
    ],
)
def test_a_round_has_one_encoding(told):
    data = encode_round(told.round)
    assert decode_round(data) == told.round
    assert encode_round(decode_round(data)) == data


def test_parts_that_were_left_out_need_not_be_there():
    assert parts_of(encode_round(GOOD.round)) == GOOD.round.parts
    assert parts_of(encode_round(GOOD.changed(left_out=GOOD.round.parts).round)) == ()


def bent(**changes: object) -> bytes:
    value = cbor.decode(encode_round(stored(ima_before=HISTORY).round), limit_bytes=2**20, what="the test")
    assert isinstance(value, dict)
    for path, new in changes.items():
        *parents, name = path.split("__")
        at = value
        for parent in parents:
            at = at[parent]
        at[name] = new
    return cbor.encode(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": "chatelaine/stored-round/v2"},
        {"kind": "Loved"},
        {"hsm": "x" * 1000},
        {"received_ms": -1},
        {"received_ms": True},
        {"more": 1},
        {"parts": [sha(b"b"), sha(b"b")]},
        {"parts": [b"short"]},
        {"left_out": [sha(b"nothing that is named")]},
        {"evidence": "text"},
        {"asked__nonce": b"n" * 65},
        {"asked__bank": "Sha1"},
        {"asked__indices": [7, 4]},
        {"asked__indices": [4, 4]},
        {"asked__indices": []},
        {"asked__indices": [24]},
        {"asked__indices": ["4"]},
        {"asked__indices": 4},
        {"asked__indices": "4"},
        {"case__reference": "r" * 32},
        {"asked__wants_log": 1},
        {"asked__identity__serial": 5},
        {"case__accounted": ["b", "a"]},
        {"case__accounted": [1]},
        {"case__accounted": "a"},
        {"case__policy__generation": "3"},
        {"case__reference": b"short"},
        {"case__roots": [sha(b"not among the parts")]},
        {"case__last_epoch": {"reset_count": 1}},
        {"case__ima_before__pcr10": b"p" * 100},
        {"case__ima_before__finding": b"[]"},
        {"case__ima_before__finding": b'{"check":"c","outcome":"Loved","reason":"r"}'},
        {"case__ima_before__finding": b'{"check":"c","outcome":"Holds"}'},
        {"case__ima_before__finding": b'{"check":1,"outcome":"Holds","reason":"r"}'},
        {"case__ima_before__finding": b'{"check":"c","outcome":"Holds","reason":"r","children":1}'},
    ],
)
def test_bent_rounds_are_refused(changes):
    with pytest.raises(Malformed):
        decode_round(bent(**changes))
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parts_of(bent(**changes))


def test_rules_that_are_none_are_refused():
    with pytest.raises(Malformed):
        replay(decode_round(bent(case__spec=b"{}")), GOOD.part)


def test_round_that_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(Oversized):
        decode_round(bytes(32 * 1024 * 1024))


@given(st.integers(0, len(encode_round(GOOD.round)) - 1), st.integers(1, 255))
def test_no_changed_byte_makes_another_verdict_replay(at, change):
    data = bytearray(encode_round(GOOD.round))
    data[at] ^= change
    try:
        other = decode_round(bytes(data))
        again = replay(other, GOOD.part)
    except EvidenceError:
        return
    assert encode_round(other) == bytes(data)
    assert again.encoded != other.appraisal or other.appraisal == GOOD.round.appraisal
