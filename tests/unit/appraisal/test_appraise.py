"""Verdicts: what each rule refutes, that no reason is lost, and that a replay gives the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.appraise import appraise, compliance_of, pcrs_of, selection_of
from chatelaine.appraisal.ear import EAR_PROFILE, ear_claims
from chatelaine.appraisal.errors import NoPolicy
from chatelaine.appraisal.ima_history import ImaFindings
from chatelaine.appraisal.ima_rules import ListedFiles
from chatelaine.appraisal.rules import MAX_NAMED_KEYS, PcrRule
from chatelaine.evidence.bundle import decode_evidence
from chatelaine.model.identifiers import canonical_json, key_label
from chatelaine.model.material import NO_MATERIAL, PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, Verdict
from support.paper_host import SERVICE_KEYS, PaperHost, token_key
from support.paper_tpm import PCRS

CLAIM = "0b9b1c52-31c8-4a51-a1a5-8d1f6a6a2f10"
LABEL = key_label(CLAIM, "signing", 1)
CLAIM_KEYS = (token_key(LABEL), token_key(LABEL, "public"))
GOOD = {"bank": "Sha256", "values": [{"index": i, "anyOf": ["ab" * 32, v.hex()]} for i, v in PCRS.items()]}
HSM = {
    "firmware": [{"model": "softhsm v2", "anyOf": ["2.5", "2.6"]}],
    "inventory": "Accounted",
    "statement": "HostAsserted",
    "compliance": [
        {"model": "SoftHSM v2", "firmware": "2.6", "holds": ["LabOnly"]},
        {"model": "luna-7", "firmware": "7.8", "holds": ["Fips140_3Level3"]},
    ],
}
HOST = PaperHost(keys=(*SERVICE_KEYS, *CLAIM_KEYS))


def policy(*, pcrs=GOOD, hsm=HSM, seconds=30, **tpm) -> AttestationPolicySpec:
    value = {"freshness": {"maxAgeSeconds": seconds}, "tpm": {"pcrs": pcrs, **tpm}}
    if hsm is not None:
        value["hsm"] = hsm
    return AttestationPolicySpec.model_validate(value)


def stamped(
    spec: AttestationPolicySpec, name: str = "baseline", material: PolicyMaterial = NO_MATERIAL
) -> tuple[PolicyStamp, AttestationPolicySpec, PolicyMaterial]:
    return PolicyStamp(name, f"uid-{name}", 3, spec.digest()), spec, material


def judged(*specs: AttestationPolicySpec, host: PaperHost = HOST, accounted=frozenset({LABEL}), **answer) -> Appraisal:
    verified = host.judged(host.answer(**answer))
    policies = [stamped(spec, f"p{number}") for number, spec in enumerate(specs or (policy(),))]
    return appraise(verified, policies, subject="hsm-a", generation=2, issued_at=1000, accounted=accounted)


def reasons(appraisal: Appraisal) -> set[str]:
    return {leaf.reason for leaf in appraisal.findings.leaves() if leaf.outcome is not Outcome.HOLDS}


def with_keys(*keys) -> Appraisal:
    return judged(host=PaperHost(keys=(*HOST.keys, *keys)))


def test_host_that_meets_every_rule_is_trusted():
    result = judged()
    assert result.verdict is Verdict.TRUSTED
    assert result.epoch == Epoch(5, 1, 2)
    assert (result.issued_at, result.valid_until) == (1000, 1030)
    assert result.compared == ("pcr Sha256:0,7", "firmware of softhsm v2", "inventory", "statement")
    assert result.policies[0].name == "p0"


def test_extended_pcr_refutes():
    result = judged(pcrs={**PCRS, 7: b"\x00" * 32})
    assert result.verdict is Verdict.UNTRUSTED
    assert reasons(result) == {"PcrMismatch"}
    leaf = result.findings.first(Outcome.REFUTED)
    assert leaf is not None
    assert leaf.found == "00" * 32
    assert "77" * 32 in (leaf.expected or "")


def test_pcr_that_was_not_quoted_refutes():
    pcrs = {"bank": "Sha256", "values": [*GOOD["values"], {"index": 4, "anyOf": ["00" * 32]}]}
    result = judged(policy(pcrs=pcrs))
    assert result.verdict is Verdict.UNTRUSTED
    assert reasons(result) == {"PcrNotQuoted"}


def test_value_of_another_bank_does_not_count():
    rule = PcrRule(Bank.SHA384, 0, (PCRS[0].hex(),))
    assert rule.judge(HOST.judged()).reason == "PcrNotQuoted"


def test_firmware_that_is_not_listed_refutes():
    result = judged(statement={"firmware": "2.4"})
    assert result.verdict is Verdict.UNTRUSTED
    assert reasons(result) == {"FirmwareNotListed"}


def test_model_without_a_row_refutes():
    assert reasons(judged(statement={"model": "SoftHSM v3"})) == {"ModelNotListed"}


@pytest.mark.parametrize("field", ["model", "firmware"])
def test_token_whose_description_would_steer_a_terminal_is_told_harmlessly(field):
    result = judged(statement={field: "x\x1b[2J\nTrusted\u202e"})
    refused = [leaf for leaf in result.findings.leaves() if leaf.outcome is Outcome.REFUTED]
    assert [(leaf.detail.isprintable(), leaf.found.isprintable()) for leaf in refused] == [(True, True)]
    assert all(text.isprintable() for text in result.compared)


def test_model_is_compared_trimmed_and_in_lower_case():
    assert judged(statement={"model": "  SOFTHSM v2   "}).verdict is Verdict.TRUSTED


def test_key_that_nobody_accounts_for_refutes_and_is_named():
    result = with_keys(token_key("smuggled-in"))
    assert result.verdict is Verdict.UNTRUSTED
    assert reasons(result) == {"KeyUnaccounted"}
    assert "smuggled-in" in (result.findings.first(Outcome.REFUTED) or Finding("", Outcome.HOLDS, "")).detail


def test_key_of_a_claim_that_is_not_accounted_refutes():
    assert reasons(with_keys(token_key(key_label("other-uid", "signing", 1)))) == {"KeyUnaccounted"}


def test_key_version_that_nobody_intended_refutes():
    assert reasons(with_keys(token_key(key_label(CLAIM, "signing", 2)))) == {"KeyUnaccounted"}


def test_key_under_our_label_with_another_id_refutes():
    label = key_label(CLAIM, "signing", 1)
    assert reasons(with_keys(token_key(label, "secret", id=b"another"))) == {"KeyUnaccounted"}


def test_second_key_under_our_label_refutes():
    twin = token_key(LABEL, key_type="RSA")
    assert reasons(with_keys(twin)) == {"KeyDuplicated"}


@pytest.mark.parametrize("changed", [{"extractable": True}, {"sensitive": False}])
def test_key_that_can_leave_the_token_refutes(changed):
    host = PaperHost(keys=(*SERVICE_KEYS, replace(CLAIM_KEYS[0], **changed), CLAIM_KEYS[1]))
    assert reasons(judged(host=host)) == {"KeyExposed"}


@pytest.mark.parametrize("changed", [{"local": False}, {"never_extractable": False}])
def test_key_that_was_imported_or_was_extractable_once_refutes(changed):
    host = PaperHost(keys=(*SERVICE_KEYS, replace(CLAIM_KEYS[0], **changed), CLAIM_KEYS[1]))
    assert reasons(judged(host=host)) == {"KeyForeign"}


@pytest.mark.parametrize(
    ("half", "usages"),
    [
        (0, ("CKA_SIGN", "CKA_UNWRAP")),
        (0, ("CKA_DECRYPT", "CKA_SIGN")),
        (0, ("CKA_DERIVE", "CKA_SIGN")),
        (1, ("CKA_ENCRYPT", "CKA_VERIFY")),
        (1, ("CKA_VERIFY", "CKA_WRAP")),
    ],
)
def test_key_under_our_label_that_does_more_than_sign_refutes(half, usages):
    keys = [*CLAIM_KEYS]
    keys[half] = replace(keys[half], usages=usages)
    assert reasons(judged(host=PaperHost(keys=(*SERVICE_KEYS, *keys)))) == {"KeyMisused"}


@pytest.mark.parametrize("usages", [("CKA_WRAP",), ()])
def test_secret_key_under_our_label_refutes(usages):
    twin = token_key(LABEL, "secret", usages=usages, sensitive=True, extractable=False, never_extractable=True)
    assert reasons(with_keys(twin)) == {"KeyMisused"}


def test_unknown_accounts_leave_the_inventory_undecided():
    result = judged(accounted=None)
    assert result.verdict is Verdict.UNKNOWN
    assert reasons(result) == {"AccountsUnknown"}


def test_deviation_counts_even_while_accounts_are_unknown():
    assert judged(accounted=None, statement={"firmware": "0"}).verdict is Verdict.UNTRUSTED


def test_accounts_may_be_a_test():
    assert judged(accounted=lambda label: label.startswith(f"chat/{CLAIM}/")).verdict is Verdict.TRUSTED


def test_endless_foreign_keys_do_not_flood_the_verdict():
    result = with_keys(*(token_key(f"foreign-{number:04}") for number in range(500)))
    assert len(list(result.findings.leaves())) < MAX_NAMED_KEYS + 10
    assert f"{500 - MAX_NAMED_KEYS} more" in result.findings.children[0].detail


def test_label_of_a_foreign_key_cannot_forge_lines():
    result = with_keys(token_key("x\n\x1b[31mTrusted"))
    leaf = result.findings.first(Outcome.REFUTED)
    assert leaf is not None
    assert leaf.detail.isprintable()


def test_host_asserted_statement_does_not_satisfy_vendor_attested():
    result = judged(policy(hsm={"statement": "VendorAttested"}))
    assert reasons(result) == {"StatementLevelTooLow"}


def test_statement_that_calls_itself_vendor_attested_is_still_the_hosts_word():
    told = {"level": "VendorAttested"}
    refused = judged(policy(hsm={"statement": "VendorAttested"}), statement=told)
    assert reasons(refused) == {"StatementLevelTooLow"}
    detail = refused.findings.first(Outcome.REFUTED).detail
    assert detail.startswith("the HSM statement is HostAsserted; the policy asks for VendorAttested. It calls itself")
    assert judged(policy(hsm={"statement": "HostAsserted"}), statement=told).verdict is Verdict.TRUSTED


def test_every_policy_must_hold_and_no_reason_is_lost():
    bad_pcr = policy(pcrs={"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}, hsm=None)
    bad_firmware = policy(hsm={"firmware": [{"model": "softhsm v2", "anyOf": ["9"]}]}, seconds=10)
    result = judged(policy(), bad_pcr, bad_firmware)
    assert result.verdict is Verdict.UNTRUSTED
    assert reasons(result) == {"PcrMismatch", "FirmwareNotListed"}
    assert result.valid_until == 1010
    assert [child.check for child in result.findings.children] == ["policy p0", "policy p1", "policy p2"]


def test_no_policy_never_holds():
    with pytest.raises(NoPolicy):
        appraise(HOST.judged(), [], subject="x", generation=1, issued_at=0, accounted=frozenset())


def test_replay_of_stored_evidence_gives_the_same_bytes():
    evidence = HOST.answer()
    stored = decode_evidence(evidence.encode())

    def result(source) -> bytes:
        found = appraise(
            HOST.judged(source), [stamped(policy())], subject="hsm-a", generation=1, issued_at=7, accounted={LABEL}
        )
        return canonical_json(ear_claims(found, build="1"))

    assert result(evidence) == result(stored)


# --- EAR --------------------------------------------------------------------------------------------------------


def test_attestation_result_keeps_the_whole_tree():
    result = judged(pcrs={**PCRS, 7: b"\x00" * 32})
    claims = ear_claims(result, build="test")
    assert claims["eat_profile"] == EAR_PROFILE
    assert claims["chatelaine.dev/findings"] == result.findings.as_dict()
    assert (claims["iat"], claims["exp"]) == (1000, 1030)
    submods = claims["submods"]
    assert submods["tpm"]["ear_status"] == "contraindicated"
    assert submods["hsm"]["ear_status"] == "affirming"
    assert submods["tpm"]["ear_trustworthiness_vector"] == {"instance-identity": 2, "executables": 96}


@pytest.mark.parametrize(
    ("accounted", "status"), [(frozenset({LABEL}), "affirming"), (frozenset(), "contraindicated"), (None, "none")]
)
def test_status_of_the_attestation_result_follows_the_verdict(accounted, status):
    claims = ear_claims(judged(accounted=accounted), build="test")
    assert claims["chatelaine.dev/status"] == claims["submods"]["hsm"]["ear_status"] == status


def test_attestation_result_is_plain_json():
    claims = ear_claims(judged(), build="test")
    assert json.loads(canonical_json(claims)) == claims


# --- what to ask for, and tables --------------------------------------------------------------------------------


@given(st.lists(st.sets(st.integers(0, 23), min_size=1), min_size=1, max_size=4))
def test_every_pcr_that_a_policy_names_is_asked_for(sets):
    specs = [
        policy(pcrs={"bank": "Sha384", "values": [{"index": i, "anyOf": ["00" * 48]} for i in found]}) for found in sets
    ]
    selection = selection_of(specs)
    assert selection is not None
    assert selection.bank is Bank.SHA384
    assert set(selection.indices) == set().union(*sets)


def test_the_first_policys_bank_decides_and_pcrs_of_another_bank_are_not_asked_for():
    """One quote covers one bank; the other policy then finds its PCRs missing, which refutes."""
    other = policy(pcrs={"bank": "Sha384", "values": [{"index": 11, "anyOf": ["00" * 48]}]})
    ours = selection_of([policy(), other])
    theirs = selection_of([other, policy()])
    assert ours == selection_of([policy()])
    assert theirs is not None
    assert (theirs.bank, theirs.indices) == (Bank.SHA384, (11,))


def test_nothing_is_asked_for_without_a_policy():
    assert selection_of([]) is None


@pytest.mark.parametrize(
    ("model", "firmware", "holds"),
    [
        ("SOFTHSM V2  ", "2.6", {"LabOnly"}),
        ("softhsm v2", "2.7", set()),
        ("luna-7", "7.8", {"Fips140_3Level3"}),
        ("luna-70", "7.8", set()),
        ("", "", set()),
    ],
)
def test_compliance_is_read_from_the_table_alone(model, firmware, holds):
    assert compliance_of(policy(), model, firmware) == holds


def test_policy_without_a_table_gives_no_compliance():
    assert compliance_of(policy(hsm=None), "luna-7", "7.8") == frozenset()


# --- logs and reference values ----------------------------------------------------------------------------------

LOG = {"eventLog": {"replay": "Required"}}


def test_a_policy_about_logs_has_all_that_they_rest_on_quoted():
    pinned = set(PCRS)
    assert pcrs_of(policy()) == pinned
    assert pcrs_of(policy(**LOG)) == pinned | set(range(10))
    assert pcrs_of(policy(ima={})) == pinned | {10}
    line = {"eventLog": {"replay": "Required", "kernelCommandLine": {"forbidden": ["init=*"]}}}
    assert pcrs_of(policy(**line)) == pinned | set(range(10)) | {12}


def test_one_quote_covers_the_logs_of_all_policies():
    selection = selection_of([policy(), policy(**LOG), policy(ima={})])
    assert selection is not None
    assert set(selection.indices) == set(range(11))


def test_a_host_that_answers_without_a_log_is_refuted():
    assert "EventLogMissing" in reasons(judged(policy(**LOG)))


def test_a_list_that_no_policy_of_this_digest_has_judged_leaves_it_undecided():
    verified = HOST.judged(HOST.answer())
    stamp, spec, material = stamped(policy(ima={}))
    holds = Finding("ima", Outcome.HOLDS, "x")
    for known, outcome in ((ImaFindings({}), Outcome.CANNOT_TELL), (ImaFindings({stamp.digest: holds}), Outcome.HOLDS)):
        found = appraise(
            verified, [(stamp, spec, material)], subject="x", generation=1, issued_at=0,
            accounted=frozenset({LABEL}), ima=known,
        )  # fmt: skip
        assert found.findings.outcome is outcome
        assert "ima" in found.compared


def test_what_ran_and_what_booted_count_for_the_platform_in_an_attestation_result():
    verified = HOST.judged(HOST.answer())
    stamp, spec, material = stamped(policy(ima={}))
    refused = ImaFindings({stamp.digest: Finding("ima", Outcome.REFUTED, "ImaFileNotAllowed")})
    found = appraise(
        verified, [(stamp, spec, material)], subject="x", generation=1, issued_at=0,
        accounted=frozenset({LABEL}), ima=refused,
    )  # fmt: skip
    submods = ear_claims(found, build="x")["submods"]
    assert (submods["tpm"]["ear_status"], submods["hsm"]["ear_status"]) == ("contraindicated", "affirming")


def test_reference_values_add_good_values_to_pcrs_that_the_policy_names_and_to_no_others():
    bad = {"bank": "Sha256", "values": [{"index": i, "anyOf": ["ab" * 32]} for i in PCRS]}
    pcrs = {Bank.SHA256: {index: (value.hex(),) for index, value in PCRS.items()} | {9: ("cd" * 32,)}}
    reference = ReferenceValues("fleet", 3, "sha256:" + "e" * 64, ("alice",), pcrs, frozenset(), ListedFiles({}))
    verified = HOST.judged(HOST.answer())

    def verdict(material: PolicyMaterial) -> Appraisal:
        given = [stamped(policy(pcrs=bad), material=material)]
        return appraise(verified, given, subject="x", generation=1, issued_at=0, accounted=frozenset({LABEL}))

    assert verdict(NO_MATERIAL).verdict is Verdict.UNTRUSTED
    with_values = verdict(PolicyMaterial(reference=reference))
    assert (with_values.verdict, with_values.reference_digest) == (Verdict.TRUSTED, reference.digest)
    other = {Bank.SHA384: pcrs[Bank.SHA256]}
    assert verdict(PolicyMaterial(reference=replace(reference, pcrs=other))).verdict is Verdict.UNTRUSTED
