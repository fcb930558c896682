"""Evidence of a whole host: whoever is not that host, or answers another question, is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab.event_log_writer import EventLogWriter
from tools.lab.firmware import Boot, measured

from chatelaine.evidence import errors
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.binding import Binding, quote_extra_data
from chatelaine.evidence.bundle import EnrolledIdentity, decode_evidence, with_ima
from chatelaine.evidence.hsm_statement import statement_to_sign
from chatelaine.evidence.inventory import encode_inventory
from chatelaine.evidence.tpm_types import Selection
from chatelaine.model.tpm_policy import Bank
from support.paper_host import AGENT_SPKI, GATEWAY_SPKI, SUBJECT, PaperHost, raw_sign, token_key
from support.paper_ima import PaperIma
from support.paper_tpm import NONCE, PCRS, PaperTpm, ecc_key, ek_public, sized

HOST = PaperHost()


def refused(expected: type[errors.EvidenceError], evidence=None, **changed) -> errors.EvidenceError:
    with pytest.raises(expected) as refusal:
        HOST.judged(evidence, **changed)
    assert refusal.type is expected
    return refusal.value


def test_honest_answer_is_verified():
    evidence = HOST.answer()
    verified = HOST.judged(evidence)
    assert verified.quote.pcrs == PCRS
    assert verified.statement.serial == HOST.serial
    assert verified.inventory == tuple(sorted(HOST.keys))
    assert verified.evidence_digest == evidence.evidence_digest()
    assert verified.ak_name == HOST.tpm.name


def test_evidence_of_another_host_is_refused():
    refused(errors.AttestationKeyMismatch, PaperHost(tpm=PaperTpm(number=1)).answer())


def test_quote_of_another_host_under_our_keys_name_is_refused():
    stranger = PaperHost(tpm=PaperTpm(number=1)).answer()
    refused(errors.SignatureInvalid, replace(stranger, ak_public=HOST.tpm.public))


def test_replayed_evidence_is_refused():
    refused(errors.ExtraDataMismatch, HOST.answer(bytes(32)))


def test_evidence_made_for_another_subject_is_refused():
    refused(errors.ExtraDataMismatch, HOST.answer(subject="another"))


def test_evidence_relayed_by_a_stranger_with_another_tls_key_is_refused():
    refused(errors.ExtraDataMismatch, agent_spki=b"key of the stranger")


def test_evidence_of_a_host_behind_another_gateway_is_refused():
    refused(errors.ExtraDataMismatch, gateway_spki=b"key of the stranger")


def test_evidence_of_another_purpose_is_refused():
    evidence = HOST.answer()
    binding = Binding.of_hsm_host(
        subject_uid=SUBJECT, agent_spki=AGENT_SPKI, gateway_spki=GATEWAY_SPKI, statement=evidence.statement
    )
    attest, signature = HOST.tpm.quote(quote_extra_data(NONCE, replace(binding, purpose="Component")))
    refused(errors.ExtraDataMismatch, replace(evidence, attest=attest, signature=signature))


@pytest.mark.parametrize("nonce", [b"", NONCE[:-1], NONCE + b"\x00"])
def test_nonce_of_another_length_is_refused(nonce):
    refused(errors.NonceRefused, nonce=nonce)


@pytest.mark.parametrize("missing", ["agent_spki", "gateway_spki", "subject_uid"])
def test_evidence_is_never_verified_without_what_it_is_bound_to(missing):
    refused(errors.NonceRefused, **{missing: type(AGENT_SPKI)() if missing != "subject_uid" else ""})


def test_swapped_statement_is_refused():
    other = HOST.statement(NONCE, PCRS, firmware="9.9")
    signature = raw_sign(HOST.hsm_key, statement_to_sign(other))
    refused(errors.ExtraDataMismatch, replace(HOST.answer(), statement=other.encode(), statement_signature=signature))


def test_statement_that_the_enrolled_token_did_not_sign_is_refused():
    impostor = PaperHost(hsm_key=ecc_key(alg.NIST_P256, 51))
    error = refused(errors.StatementSignatureInvalid, impostor.answer())
    assert not error.authenticated


def test_statement_without_its_domain_prefix_is_refused():
    evidence = HOST.answer()
    refused(
        errors.StatementSignatureInvalid,
        replace(evidence, statement_signature=raw_sign(HOST.hsm_key, evidence.statement)),
    )


def test_statement_of_an_earlier_round_is_refused():
    refused(errors.StatementNonceMismatch, HOST.answer(statement={"nonce": bytes(32)}))


def test_statement_of_an_earlier_boot_state_is_refused_and_asked_again():
    error = refused(errors.StatementPcrMismatch, HOST.answer(statement={"pcr_digest": bytes(32)}))
    assert not error.authenticated


def test_another_token_under_the_enrolled_key_counts_against_the_host():
    error = refused(errors.StatementSerialMismatch, HOST.answer(statement={"serial": "other"}))
    assert error.authenticated


def test_serial_is_not_compared_before_it_is_pinned():
    identity = replace(HOST.identity, serial=None)
    assert HOST.judged(HOST.answer(statement={"serial": "new"}), identity=identity).statement.serial == "new"


def test_inventory_with_a_key_hidden_is_refused():
    host = PaperHost(keys=(*HOST.keys, token_key("smuggled")))
    refused(errors.InventoryMismatch, replace(host.answer(), inventory=encode_inventory(HOST.keys)))


def test_enrolled_name_must_be_that_of_the_enrolled_key():
    identity = replace(HOST.identity, ak_name=PaperTpm(number=1).name)
    refused(errors.KeyRefused, identity=identity)


def test_enrolled_endorsement_key_as_attestation_key_is_refused():
    identity = EnrolledIdentity(ek_public(), b"", HOST.identity.attestation_key_spki)
    refused(errors.AttributesRefused, identity=identity)


def test_evidence_of_another_bank_is_refused():
    refused(errors.Malformed, replace(HOST.answer(), bank="Sha384"))


def test_public_area_may_come_with_its_size_in_front():
    evidence = HOST.answer()
    assert HOST.judged(replace(evidence, ak_public=sized(evidence.ak_public))).quote.safe


@pytest.mark.parametrize("field", ["attest", "signature", "statement", "statement_signature", "inventory", "ak_public"])
def test_every_bit_of_every_part_matters(field):
    evidence = HOST.answer()
    original = getattr(evidence, field)
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1
        with pytest.raises(errors.EvidenceError) as refusal:
            HOST.judged(replace(evidence, **{field: bytes(changed)}))
        assert not refusal.value.authenticated


@pytest.mark.parametrize("field", ["attest", "signature", "statement", "statement_signature", "inventory", "ak_public"])
def test_every_truncation_is_refused(field):
    evidence = HOST.answer()
    original = getattr(evidence, field)
    for length in range(len(original)):
        with pytest.raises(errors.EvidenceError):
            HOST.judged(replace(evidence, **{field: original[:length]}))


def test_stored_evidence_is_read_back_and_verifies_to_the_same():
    evidence = HOST.answer()
    again = decode_evidence(evidence.encode())
    assert again == evidence
    assert HOST.judged(again) == HOST.judged(evidence)


def test_evidence_digest_does_not_depend_on_the_order_of_pcrs():
    evidence = HOST.answer()
    assert replace(evidence, pcrs=dict(reversed(PCRS.items()))).evidence_digest() == evidence.evidence_digest()


@pytest.mark.parametrize("pcrs", [[[7, PCRS[7]], [0, PCRS[0]]], [[0, PCRS[0]], [0, PCRS[0]], [7, PCRS[7]]]])
def test_stored_evidence_has_one_encoding(pcrs):
    stored = cbor2.loads(HOST.answer().encode()) | {"pcrs": pcrs}
    with pytest.raises(errors.Malformed):
        decode_evidence(cbor2.dumps(stored, canonical=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"attest": "text"},
        {"bank": 4},
        {"pcrs": {}},
        {"pcrs": [[0]]},
        {"pcrs": [["0", b""]]},
        {"pcrs": [[24, b""]]},
        {"pcrs": [[-1, b""]]},
        {"pcrs": [[0, bytes(65)]]},
        {"pcrs": [[index, b""] for index in range(25)]},
    ],
    ids=str,
)
def test_stored_evidence_with_a_field_of_another_kind_is_refused(changed):
    stored = cbor2.loads(HOST.answer().encode()) | changed
    with pytest.raises(errors.Malformed):
        decode_evidence(cbor2.dumps(stored, canonical=True))


@given(st.binary(max_size=200))
def test_no_stored_bytes_make_the_decoder_fail_otherwise(data):
    with pytest.raises(errors.EvidenceError):
        decode_evidence(data)


def test_results_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HOST.judged().evidence_digest = "sha256:0"


# --- logs -------------------------------------------------------------------------------------------------------

BOOT = measured(Boot())
LOG = BOOT.data
NO_BYTES = hashlib.sha256(b"").digest()
BOOTED = {index: BOOT.values[0x000B][index] for index in range(10)}
LOGGED = Selection(Bank.SHA256, tuple(range(10)))


def with_log(log: bytes | None = LOG, *, pcrs=BOOTED, **changed):
    return HOST.answer(pcrs=pcrs, event_log=log, **changed)


def logged(evidence, **changed):
    return HOST.judged(evidence, selection=LOGGED, wants_log=True, **changed)


def test_a_log_that_replays_to_the_quote_is_believed():
    verified = logged(with_log())
    assert verified.boot_log is not None
    assert verified.boot_log.digest == hashlib.sha256(LOG).digest()
    assert verified.boot_log_flaw is None


def test_the_log_of_another_host_is_refused_by_the_statement():
    other = measured(Boot(serial="another host")).data
    with pytest.raises(errors.StatementLogMismatch) as refusal:
        logged(replace(with_log(), event_log=other))
    assert not refusal.value.authenticated


def test_a_log_that_was_cut_on_the_way_is_refused_by_the_statement():
    with pytest.raises(errors.StatementLogMismatch):
        logged(replace(with_log(), event_log=LOG[:-1]))


def test_a_log_that_was_left_out_on_the_way_is_refused_by_the_statement():
    with pytest.raises(errors.StatementLogMismatch):
        logged(replace(with_log(), event_log=None))


def test_a_log_that_the_statement_does_not_name_is_refused():
    with pytest.raises(errors.StatementLogMismatch):
        logged(with_log(statement={"log_digest": None}))
    with pytest.raises(errors.StatementLogMismatch):
        HOST.judged(with_log(statement={"log_digest": None}), selection=LOGGED)


def test_a_host_that_says_that_it_has_no_log_shows_none():
    verified = logged(with_log(None))
    assert (verified.boot_log, verified.boot_log_flaw) == (None, None)


def test_a_log_that_the_host_itself_vouches_for_and_that_does_not_replay_refutes():
    verified = logged(with_log(measured(Boot(loader=b"another")).data))
    assert verified.boot_log is None
    assert verified.boot_log_flaw is not None
    assert (verified.boot_log_flaw.reason, verified.boot_log_flaw.refutes) == ("EventLogMismatch", True)


def test_a_log_that_cannot_be_read_tells_nothing():
    flaw = logged(with_log(b"no log at all")).boot_log_flaw
    assert flaw is not None
    assert not flaw.refutes


def test_a_log_of_another_bank_tells_nothing():
    sha384 = EventLogWriter(banks=(0x000C,))
    sha384.measure(0, 8, b"version")
    flaw = logged(with_log(sha384.data)).boot_log_flaw
    assert flaw is not None
    assert (flaw.reason, flaw.refutes) == ("EventLogBankMissing", False)


def test_stored_evidence_names_its_log_and_list_and_holds_neither():
    evidence = with_log(ima=(100, b"entries"))
    stored = evidence.encode()
    assert LOG not in stored
    assert b"entries" not in stored
    parts = {hashlib.sha256(part).digest(): part for part in (LOG, b"entries")}
    assert decode_evidence(stored, parts.__getitem__) == evidence


def test_a_log_or_a_list_of_other_bytes_is_other_evidence():
    digests = {
        with_log(ima=(offset, entries), statement={"log_digest": None}).evidence_digest()
        for offset, entries in ((0, b"a"), (1, b"a"), (0, b"b"))
    }
    assert len(digests) == 3
    assert replace(with_log(), event_log=b"x").evidence_digest() != with_log().evidence_digest()


def test_stored_evidence_whose_log_is_missing_or_exchanged_is_refused():
    stored = with_log().encode()
    with pytest.raises(errors.EvidencePartMissing):
        decode_evidence(stored)
    with pytest.raises(errors.Malformed):
        decode_evidence(stored, lambda _: LOG + b"x")


@pytest.mark.parametrize(
    "changed",
    [
        {"event_log": b"short"}, {"event_log": "text"}, {"event_log": 7}, {"ima": []}, {"ima": [0]},
        {"ima": [0, b"short"]}, {"ima": [-1, NO_BYTES]}, {"ima": [2**40, NO_BYTES]}, {"ima": ["0", NO_BYTES]},
        {"ima": b"x"},
    ],
    ids=str,
)  # fmt: skip
def test_stored_evidence_that_names_its_parts_otherwise_is_refused(changed):
    stored = cbor2.loads(HOST.answer().encode()) | changed
    with pytest.raises(errors.Malformed):
        decode_evidence(cbor2.dumps(stored, canonical=True), lambda _: b"")


# --- what ran ---------------------------------------------------------------------------------------------------


def ran(ima: PaperIma, offset: int = 0, *, pcr10: bytes | None = None, **quote):
    pcrs = {**PCRS, 10: pcr10 or ima.pcr10}
    evidence = HOST.answer(pcrs=pcrs, ima=(offset, ima.data[offset:]), quote=quote)
    return HOST.judged(evidence, selection=Selection(Bank.SHA256, (0, 7, 10))), evidence


def test_a_list_is_believed_up_to_the_quoted_pcr():
    ima = PaperIma.booted().ran("/bin/sh", b"x")
    verified = with_ima(*ran(ima), None)
    assert verified.ima is not None
    assert [entry.path for entry in verified.ima.entries] == ["boot_aggregate", "/bin/sh"]


def test_a_list_that_goes_on_from_elsewhere_than_it_was_left_tells_nothing():
    ima = PaperIma.booted().ran("/bin/sh", b"x")
    progress = with_ima(*ran(ima), None).ima.progress
    verified, evidence = ran(ima, progress.offset_bytes)
    assert with_ima(verified, evidence, None).ima_flaw.reason == "ImaProgressLost"
    assert with_ima(verified, evidence, progress).ima is not None


def test_a_list_of_another_boot_tells_nothing():
    ima = PaperIma.booted()
    progress = with_ima(*ran(ima), None).ima.progress
    assert with_ima(*ran(ima, progress.offset_bytes, resets=6), progress).ima_flaw.reason == "ImaProgressLost"


def test_a_list_that_leads_nowhere_tells_nothing_and_refutes_nothing():
    flaw = with_ima(*ran(PaperIma.booted(), pcr10=bytes(32)[:31] + b"\x01"), None).ima_flaw
    assert (flaw.reason, flaw.refutes) == ("ImaNoPrefix", False)


def test_without_a_list_nothing_is_added():
    assert with_ima(HOST.judged(), HOST.answer(), None).ima is None
