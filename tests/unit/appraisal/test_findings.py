"""What each rule says, in full: this is what a status shows, an audit keeps, and an attestation result carries."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from chatelaine.appraisal import boot_rules
from chatelaine.appraisal.appraise import appraise, pcrs_of
from chatelaine.appraisal.ear import ear_claims
from chatelaine.appraisal.ima_history import ImaFindings
from chatelaine.appraisal.rules import (
    MAX_NAMED_KEYS,
    FirmwareTable,
    InventoryRule,
    PcrRule,
    StatementRule,
    compared_by,
)
from chatelaine.model.identifiers import key_id, key_label
from chatelaine.model.material import NO_MATERIAL
from chatelaine.model.policy import AttestationPolicySpec, FirmwareRule, StatementLevel
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Appraisal, Epoch, Finding, Outcome, PolicyStamp, Verdict
from support.paper_host import SERVICE_KEYS, PaperHost, token_key
from support.paper_tpm import PCRS

LABEL = key_label("0b9b1c52-31c8-4a51-a1a5-8d1f6a6a2f10", "signing", 1)
GOOD, OTHER = PCRS[7].hex(), "ab" * 32


def finding(check: str, outcome: str, reason: str, **more: object) -> dict[str, object]:
    return {"check": check, "outcome": outcome, "reason": reason, **more}


@pytest.mark.parametrize(
    ("index", "values", "said"),
    [
        (7, (OTHER, GOOD), finding("pcr Sha256:7", "Holds", "PcrMatches", expected=f"{OTHER} or {GOOD}", found=GOOD)),
        (
            7,
            (OTHER, "cd" * 32),
            finding(
                "pcr Sha256:7",
                "Refuted",
                "PcrMismatch",
                detail=f"PCR 7 is {GOOD}; expected {OTHER} or {'cd' * 32}",
                expected=f"{OTHER} or {'cd' * 32}",
                found=GOOD,
            ),
        ),
        (
            4,
            (OTHER,),
            finding(
                "pcr Sha256:4",
                "Refuted",
                "PcrNotQuoted",
                detail="PCR 4 of bank Sha256 was not quoted",
                expected=OTHER,
                found="Sha256:0,7",
            ),
        ),
    ],
)
def test_a_pcr_is_told_with_what_was_expected(index: int, values: tuple[str, ...], said: dict[str, object]) -> None:
    assert PcrRule(Bank.SHA256, index, values).judge(PaperHost().judged()).as_dict() == said


ROWS = (FirmwareRule(model="SoftHSM v2", anyOf=["2.5", "2.6"]), FirmwareRule(model="Luna 7", anyOf=["7.8"]))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ({}, finding("firmware", "Holds", "FirmwareListed", expected="2.5 or 2.6", found="2.6")),
        (
            {"firmware": " 2.4 "},
            finding(
                "firmware",
                "Refuted",
                "FirmwareNotListed",
                detail="softhsm v2 runs firmware 2.4; the policy lists 2.5 or 2.6",
                expected="2.5 or 2.6",
                found="2.4",
            ),
        ),
        (
            {"model": "SoftHSM v3"},
            finding(
                "firmware",
                "Refuted",
                "ModelNotListed",
                detail="the policy has no row for model softhsm v3; it lists Luna 7, SoftHSM v2",
                expected="Luna 7, SoftHSM v2",
                found="softhsm v3",
            ),
        ),
    ],
)
def test_firmware_is_told_with_what_the_policy_lists(statement: dict[str, str], said: dict[str, object]) -> None:
    host = PaperHost()
    assert FirmwareTable(ROWS).judge(host.judged(host.answer(statement=statement))).as_dict() == said


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (
            StatementLevel.HOST_ASSERTED,
            finding("statement", "Holds", "StatementLevelReached", expected="HostAsserted", found="HostAsserted"),
        ),
        (
            StatementLevel.VENDOR_ATTESTED,
            finding(
                "statement",
                "Refuted",
                "StatementLevelTooLow",
                detail="the HSM statement is HostAsserted; the policy asks for VendorAttested",
                expected="VendorAttested",
                found="HostAsserted",
            ),
        ),
    ],
)
def test_who_vouches_is_told_with_who_should(level: StatementLevel, said: dict[str, object]) -> None:
    assert StatementRule(level).judge(PaperHost().judged()).as_dict() == said


# --- inventory --------------------------------------------------------------------------------------------------


def judged_keys(*keys: Any, accounted: Any = frozenset({LABEL})) -> Finding:
    return InventoryRule(accounted).judge(PaperHost(keys=(*SERVICE_KEYS, *keys)).judged())


def test_an_inventory_in_order_is_counted() -> None:
    assert judged_keys(token_key(LABEL)).as_dict() == finding(
        "inventory", "Holds", "InventoryAccounted", detail="all 5 key objects are accounted for"
    )


def test_an_inventory_without_accounts_says_so() -> None:
    assert judged_keys(accounted=None).as_dict() == finding(
        "inventory", "CannotTell", "AccountsUnknown", detail="which keys are accounted for is not known yet"
    )


def test_every_offending_key_is_told_by_label_id_and_reason() -> None:
    name = f"'{LABEL}' (id {key_id(LABEL)[:32].hex()})"
    detail = f"private key {name} is not as we make keys: it may do "
    detail += "CKA_SIGN, CKA_WRAP?"
    assert judged_keys(token_key(LABEL, usages=("CKA_SIGN", "CKA_WRAP\n"))).as_dict() == finding(
        "inventory",
        "Refuted",
        "KeyMisused",
        detail=detail,
        children=[finding(f"key private {name}", "Refuted", "KeyMisused", detail=detail, found=name)],
    )


def test_a_usage_is_shown_up_to_its_bound() -> None:
    told = judged_keys(token_key(LABEL, usages=("x" * 81, "y"))).detail
    assert told.endswith(f"it may do {'x' * 80}…, y")


def test_a_secret_key_of_ours_that_does_nothing_is_told_as_such() -> None:
    twin = token_key(LABEL, "secret", usages=(), sensitive=True, extractable=False, never_extractable=True)
    assert judged_keys(twin).detail.endswith("it may do nothing")


@pytest.mark.parametrize(
    ("foreign", "suffix"),
    [
        (MAX_NAMED_KEYS - 1, ""),
        (MAX_NAMED_KEYS, ""),
        (MAX_NAMED_KEYS + 1, " (and 1 more than are listed)"),
        (MAX_NAMED_KEYS + 2, " (and 2 more than are listed)"),
    ],
)
def test_offending_keys_beyond_those_named_are_counted(foreign: int, suffix: str) -> None:
    found = judged_keys(*(token_key(f"foreign-{number:02}") for number in range(foreign)))
    assert (
        found.detail
        == f"private key {found.children[0].found} belongs to no claim, no retained key and no service of ours{suffix}"
    )
    assert found.reason == "KeyUnaccounted"
    assert len(found.children) == min(foreign, MAX_NAMED_KEYS)


def test_a_label_is_shown_up_to_its_bound_and_in_print() -> None:
    label = "x\n" + "y" * 100
    (child,) = judged_keys(token_key(label, id=b"")).children
    assert child.found == f"'x?{'y' * 78}…' (id none)"


def test_offending_keys_can_be_asked_for_without_accounts() -> None:
    """Without accounts no key but a service key is known; the rule says so and does not guess."""
    rule = InventoryRule(None)
    assert [(key.label, reason) for key, reason, _ in rule.offending((*SERVICE_KEYS, token_key(LABEL)))] == [
        (LABEL, "KeyUnaccounted")
    ]


def test_what_was_compared_is_listed_once_and_in_order() -> None:
    host = PaperHost()
    evidence = host.judged(host.answer(statement={"model": "  " + "M" * 90}))
    rules = [
        StatementRule(StatementLevel.HOST_ASSERTED),
        PcrRule(Bank.SHA384, 4, (OTHER,)),
        PcrRule(Bank.SHA256, 7, (OTHER,)),
        PcrRule(Bank.SHA256, 0, (OTHER,)),
        PcrRule(Bank.SHA256, 7, (GOOD,)),
        FirmwareTable(ROWS),
        InventoryRule(None),
    ]
    assert compared_by(rules, evidence) == (
        "pcr Sha256:0,7",
        "pcr Sha384:4",
        f"firmware of {'m' * 80}…",
        "inventory",
        "statement",
    )


# --- the verdict and its attestation result ---------------------------------------------------------------------


def spec_of(**tpm: Any) -> AttestationPolicySpec:
    pcrs = {"bank": "Sha256", "values": [{"index": 7, "anyOf": [GOOD]}]}
    return AttestationPolicySpec.model_validate({"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": pcrs} | tpm})


@pytest.mark.parametrize(
    ("tpm", "asked"),
    [
        ({}, {7}),
        ({"ima": {}}, {7, 10}),
        ({"eventLog": {"replay": "Required"}}, set(range(10))),
        ({"eventLog": {"replay": "Required"}, "ima": {}}, set(range(11))),
        ({"eventLog": {"replay": "Required", "kernelCommandLine": {"required": ["ro"]}}}, {*range(10), 12}),
        (
            {
                "pcrs": {"bank": "Sha256", "values": [{"index": 14, "anyOf": [GOOD]}]},
                "eventLog": {"replay": "Required"},
                "ima": {},
            },
            {*range(11), 14},
        ),
    ],
)
def test_every_pcr_that_a_rule_rests_on_must_be_quoted(tpm: dict[str, Any], asked: set[int]) -> None:
    assert pcrs_of(spec_of(**tpm)) == asked


def test_what_ran_is_told_as_it_was_judged_when_it_was_read() -> None:
    spec, host = spec_of(ima={}), PaperHost()
    stamp = PolicyStamp("baseline", "uid", 3, spec.digest())

    def told(known: ImaFindings | None) -> Finding:
        verdict = appraise(
            host.judged(),
            [(stamp, spec, NO_MATERIAL)],
            subject="hsm-a",
            generation=2,
            issued_at=1000,
            accounted=frozenset(),
            ima=known,
        )
        return verdict.findings.children[0].children[-1]

    held = Finding("ima", Outcome.HOLDS, "FilesListed", "ten entries")
    assert told(ImaFindings({stamp.digest: held})) is held
    assert told(ImaFindings({"sha256:another": held})).as_dict() == finding(
        "ima",
        "CannotTell",
        "ImaNotJudged",
        detail="the list of measurements has not been judged by this policy yet",
    )
    assert told(None).reason == "ImaListMissing"


def test_a_verdict_is_about_its_subject_and_its_evidence() -> None:
    spec = spec_of()
    host = PaperHost()
    evidence = host.answer()
    stamp = PolicyStamp("baseline", "uid", 3, spec.digest())
    verdict = appraise(
        host.judged(evidence),
        [(stamp, spec, NO_MATERIAL)],
        subject="hsm-a",
        generation=2,
        issued_at=1000,
        accounted=frozenset(),
    )
    assert (verdict.subject, verdict.evidence_digest) == ("hsm-a", f"sha256:{sha256(evidence.encode()).hexdigest()}")
    assert verdict.findings.check == "appraisal"
    assert [child.check for child in verdict.findings.children] == ["policy baseline"]


def result_of(*children: Finding, **claims: Any) -> dict[str, Any]:
    tree = Finding("appraisal", Outcome.HOLDS, "Any", children=children)
    said = Appraisal(
        subject="hsm-a",
        verdict=Verdict.TRUSTED,
        findings=tree,
        policies=(PolicyStamp("baseline", "uid-1", 3, "sha256:aa"), PolicyStamp("more", "uid-2", 4, "sha256:bb")),
        evidence_digest="sha256:ee",
        epoch=Epoch(5, 1, 2),
        issued_at=1000,
        valid_until=1030,
        reference_digest="sha256:rr",
        compared=("pcr Sha256:0", "inventory"),
    )
    return ear_claims(said, build="1.2.3", **claims)


def leaf(check: str, outcome: Outcome) -> Finding:
    return Finding(check, outcome, "Any")


def of_policy(*rules: Finding) -> Finding:
    return Finding("policy p", Outcome.HOLDS, "Any", children=rules)


def test_an_attestation_result_says_all_that_the_verdict_does() -> None:
    pcr, statement = leaf("pcr Sha256:0", Outcome.HOLDS), leaf("statement", Outcome.CANNOT_TELL)
    claims = result_of(of_policy(pcr, statement))
    findings = claims.pop("chatelaine.dev/findings")
    assert findings["children"][0]["children"] == [pcr.as_dict(), statement.as_dict()]
    ids = ["baseline/uid-1/3/sha256:aa", "more/uid-2/4/sha256:bb"]
    assert claims == {
        "eat_profile": "tag:ietf.org,2026:rats/ear#04",
        "iat": 1000,
        "exp": 1030,
        "ear_verifier_id": {"build": "1.2.3", "developer": "https://chatelaine.dev"},
        "submods": {
            "tpm": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {"instance-identity": 2, "executables": 2},
                "ear_appraisal_policy_ids": ids,
            },
            "hsm": {
                "ear_status": "none",
                "ear_trustworthiness_vector": {"instance-identity": 2, "configuration": 0},
                "ear_appraisal_policy_ids": ids,
            },
        },
        "chatelaine.dev/status": "affirming",
        "chatelaine.dev/verdict": "Trusted",
        "chatelaine.dev/subject": "hsm-a",
        "chatelaine.dev/evidence-digest": "sha256:ee",
        "chatelaine.dev/reference-digest": "sha256:rr",
        "chatelaine.dev/compared": ["pcr Sha256:0", "inventory"],
        "chatelaine.dev/epoch": {"resetCount": 5, "restartCount": 1, "generation": 2},
        "chatelaine.dev/policies": [
            {"name": "baseline", "uid": "uid-1", "generation": 3, "digest": "sha256:aa"},
            {"name": "more", "uid": "uid-2", "generation": 4, "digest": "sha256:bb"},
        ],
    }


def test_nothing_is_claimed_of_an_identity_that_was_not_enrolled() -> None:
    claims = result_of(of_policy(leaf("pcr Sha256:0", Outcome.HOLDS)), enrolled=False)
    assert claims["submods"]["tpm"]["ear_trustworthiness_vector"] == {"instance-identity": 0, "executables": 2}


QUOTE_HOLDS, QUOTE_REFUTED = leaf("quote", Outcome.HOLDS), leaf("quote", Outcome.REFUTED)
PCR = leaf("pcr Sha256:0", Outcome.HOLDS)
STATEMENT = leaf("statement", Outcome.HOLDS)


@pytest.mark.parametrize(
    ("children", "tpm", "hsm"),
    [
        ((of_policy(PCR),), "affirming", None),
        ((of_policy(STATEMENT),), None, "affirming"),
        ((QUOTE_HOLDS, of_policy(PCR)), "affirming", None),
        ((QUOTE_REFUTED, of_policy(PCR)), "contraindicated", None),
        ((QUOTE_HOLDS,), "none", None),
        ((QUOTE_REFUTED,), "contraindicated", None),
        ((QUOTE_HOLDS, of_policy(STATEMENT)), "none", "affirming"),
        ((QUOTE_REFUTED, of_policy(STATEMENT)), "contraindicated", "affirming"),
        ((of_policy(PCR, leaf("pcr Sha256:1", Outcome.CANNOT_TELL)),), "none", None),
        ((of_policy(PCR), of_policy(leaf("pcr Sha256:1", Outcome.REFUTED))), "contraindicated", None),
        ((of_policy(leaf(boot_rules.CHECK, Outcome.REFUTED), STATEMENT),), "contraindicated", "affirming"),
    ],
)
def test_checks_of_the_evidence_refute_the_platform_and_affirm_nothing_by_themselves(
    children: tuple[Finding, ...], tpm: str | None, hsm: str | None
) -> None:
    submods = result_of(*children)["submods"]
    assert {name: part["ear_status"] for name, part in submods.items()} == {
        name: status for name, status in (("tpm", tpm), ("hsm", hsm)) if status is not None
    }


def test_keys_that_are_not_ours_do_not_count_as_seen_twice() -> None:
    twice = judged_keys(token_key(LABEL), replace(token_key(LABEL), key_type="RSA"))
    assert [child.reason for child in twice.children] == ["KeyDuplicated"]
