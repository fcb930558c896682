"""Differences between policies: nothing is overlooked, order means nothing, effects promise not too much."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.errors import DuplicateEntry
from chatelaine.appraisal.policy_diff import Change, ChangeKind, diff_specs, overall
from chatelaine.appraisal.policy_words import SHOWN_CHARACTERS, Effect, shown
from chatelaine.model.policy import AttestationPolicySpec

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
FULL: dict[str, Any] = {
    "enforcement": "Enforce",
    "freshness": {"maxAgeSeconds": 30},
    "tpm": {
        "endorsement": {"listed": [{"ekDigest": f"sha256:{A}", "note": "lab"}]},
        "pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": [A, B]}, {"index": 7, "anyOf": [A]}]},
        "eventLog": {
            "replay": "Required",
            "secureBoot": "Enabled",
            "authorities": {"allowed": [f"sha256:{A}"], "forbidden": [f"sha256:{B}"]},
            "dbxAtLeast": [A],
            "forbiddenImages": [B],
            "kernelCommandLine": {"required": ["lockdown=*"], "forbidden": ["init=*"]},
        },
        "ima": {"allow": [{"path": "/usr/bin/gateway", "digests": [f"sha256:{A}"]}], "unjudgedPaths": ["/var/log/*"]},
    },
    "hsm": {
        "firmware": [{"model": "softhsm v2", "anyOf": ["2.6"]}],
        "inventory": "Accounted",
        "compliance": [{"model": "luna-7", "firmware": "7.8", "holds": ["Fips140_3Level3"]}],
    },
    "release": {"anyOf": [{"namespaces": {"matchLabels": {"team": "payments"}}, "usages": ["Sign", "Verify"]}]},
}


def spec(value: dict[str, Any]) -> AttestationPolicySpec:
    return AttestationPolicySpec.model_validate(value)


def at(value: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def changed(path: str, new: object) -> dict[str, Any]:
    """`FULL` with one value replaced, or taken out (None)."""
    value = copy.deepcopy(FULL)
    head, _, last = path.rpartition(".")
    place = at(value, head) if head else value
    if isinstance(place, list):
        place[int(last)] = new
    elif new is None:
        del place[last]
    else:
        place[last] = new
    return value


def diff(before: dict[str, Any], after: dict[str, Any]) -> tuple[Change, ...]:
    return diff_specs(spec(before), spec(after))


# Path in FULL, new value, the one expected change: its path, what it can do, and words of its sentence.
ROWS = [
    ("enforcement", "Audit", "enforcement", "Looser", "Audit"),
    ("freshness.maxAgeSeconds", 60, "freshness.maxAgeSeconds", "Looser", "30 becomes 60"),
    ("freshness.maxAgeSeconds", 10, "freshness.maxAgeSeconds", "Stricter", "30 becomes 10"),
    ("tpm.endorsement", None, "tpm.endorsement", "Looser", "approved identity alone"),
    ("tpm.endorsement.listed.0.note", "other", "tpm.endorsement.listed[sha256:" + A + "].note", "Nothing", "other"),
    ("tpm.pcrs.bank", "Sha384", "tpm.pcrs.bank", "Either", "Sha384"),
    ("tpm.pcrs.values.0.anyOf", [A], "tpm.pcrs.values[0].anyOf", "Stricter", f"PCR 0: {B} is not good any more"),
    ("tpm.pcrs.values.1.anyOf", [A, C], "tpm.pcrs.values[7].anyOf", "Looser", f"PCR 7: {C} is good too"),
    ("tpm.pcrs.values", FULL["tpm"]["pcrs"]["values"][:1], "tpm.pcrs.values[7]", "Looser", "not judged any more"),
    ("tpm.eventLog", None, "tpm.eventLog", "Looser", "not judged any more"),
    ("tpm.eventLog.secureBoot", None, "tpm.eventLog.secureBoot", "Looser", "need not have been on"),
    ("tpm.eventLog.optionRoms", "Refuse", "tpm.eventLog.optionRoms", "Stricter", "option ROMs are refused"),
    ("tpm.eventLog.authorities", None, "tpm.eventLog.authorities.allowed", "Looser", "nothing"),
    ("tpm.eventLog.authorities.allowed", [f"sha256:{A}", f"sha256:{C}"], None, "Looser", "may verify"),
    ("tpm.eventLog.authorities.forbidden", None, None, "Looser", "nothing"),
    ("tpm.eventLog.authorities.required", [f"sha256:{A}"], None, "Stricter", "becomes"),
    ("tpm.eventLog.dbxAtLeast", [A, C], None, "Stricter", "dbx must hold"),
    ("tpm.eventLog.forbiddenImages", None, None, "Looser", "becomes nothing"),
    ("tpm.eventLog.kernelCommandLine.required", ["lockdown=*", "iommu=*"], None, "Stricter", "must be told iommu=*"),
    ("tpm.eventLog.kernelCommandLine.forbidden", None, None, "Looser", "becomes nothing"),
    ("tpm.ima", None, "tpm.ima", "Looser", "not judged any more"),
    ("tpm.ima.allow.0.digests", [f"sha256:{C}", f"sha256:{A}"], None, "Looser", "/usr/bin/gateway: sha256:cc"),
    ("tpm.ima.unjudgedPaths", None, None, "Stricter", "becomes nothing"),
    ("tpm.ima.violations", "Record", None, "Looser", "Refuse becomes Record"),
    ("hsm.firmware", None, None, "Looser", "firmware is not judged"),
    ("hsm.firmware.0.anyOf", ["2.6", "2.7"], None, "Looser", "softhsm v2: firmware 2.7"),
    ("hsm.inventory", None, None, "Looser", "Accounted becomes Any"),
    ("hsm.statement", "VendorAttested", None, "Stricter", "HostAsserted becomes VendorAttested"),
    ("hsm.compliance.0.holds", ["Fips140_3Level3", "CcEal4"], None, "Looser", "hold CcEal4 too"),
    ("release", None, None, "Stricter", "no claim may bind"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "new", "where", "effect", "words"), ROWS, ids=lambda value: str(value)[:40])
def test_each_change_is_found_with_its_effect_and_its_opposite(path, new, where, effect, words):
    changes = diff(FULL, changed(path, new))
    assert changes
    assert {change.effect.value for change in changes} == {effect}
    if where is not None:
        assert changes[0].path == where
    assert any(words in change.says for change in changes), [change.says for change in changes]
    opposite = {"Stricter": "Looser", "Looser": "Stricter"}.get(effect, effect)
    back = diff(changed(path, new), FULL)
    assert {change.effect.value for change in back} == {opposite}
    assert len(back) == len(changes)


def test_order_means_nothing_in_sets_and_maps():
    value = copy.deepcopy(FULL)
    value["tpm"]["pcrs"]["values"].reverse()
    value["tpm"]["pcrs"]["values"][1]["anyOf"].reverse()
    value["release"]["anyOf"][0]["usages"].reverse()
    assert diff(FULL, value) == ()


def test_what_is_absent_counts_as_its_default():
    value = copy.deepcopy(FULL)
    del value["enforcement"]
    value["tpm"]["ima"]["violations"] = "Refuse"
    value["hsm"]["statement"] = "HostAsserted"
    assert diff(FULL, value) == ()


def test_order_of_the_pieces_of_an_envelope_is_a_difference():
    def with_pieces(*keys: str) -> dict[str, Any]:
        refs = [{"name": "values", "key": key} for key in keys]
        key = {"name": "release", "publicKey": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}
        return {**FULL, "referenceValues": {"configMapRefs": refs, "keys": [key], "threshold": 1, "series": "s"}}

    (change,) = diff(with_pieces("a", "b"), with_pieces("b", "a"))
    assert (change.path, change.effect) == ("referenceValues.configMapRefs", Effect.EITHER)


def test_rule_of_release_that_is_widened_is_one_that_goes_and_one_that_comes():
    value = copy.deepcopy(FULL)
    value["release"]["anyOf"][0]["maxClaims"] = 5
    changes = diff(FULL, value)
    assert [change.kind for change in changes] == [ChangeKind.REMOVED, ChangeKind.ADDED]
    assert overall(changes) is Effect.EITHER


def test_same_index_twice_is_told_and_not_merged():
    value = copy.deepcopy(FULL)
    value["tpm"]["pcrs"]["values"].append({"index": 7, "anyOf": [C]})
    with pytest.raises(DuplicateEntry):
        diff(FULL, value)


def test_hostile_path_reaches_no_terminal():
    value = copy.deepcopy(FULL)
    value["tpm"]["ima"]["allow"].append({"path": "/tmp/\x1b[2J\n\u202eevil", "digests": [f"sha256:{A}"]})
    (change,) = diff(FULL, value)
    assert change.says.isprintable()
    assert "evil" in change.says


def test_long_values_are_cut():
    assert len(shown("x" * 10_000)) == SHOWN_CHARACTERS + 1


LEAVES = [path for path, *_ in ROWS]


@given(st.sampled_from(ROWS), st.sampled_from(ROWS))
def test_two_changes_are_both_found(first, second):
    """Whatever else changed, a change is not overlooked, and the whole is never called gentler than its parts."""
    if first[0].split(".")[0] == second[0].split(".")[0]:
        return
    value = changed(first[0], first[1])
    other = changed(second[0], second[1])
    value[second[0].split(".")[0]] = other.get(second[0].split(".")[0])
    value = {key: part for key, part in value.items() if part is not None}
    found = {change.path for change in diff(FULL, value)}
    alone = {change.path for row in (first, second) for change in diff(FULL, changed(row[0], row[1]))}
    assert found == alone


@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3, unique=True))
def test_no_difference_to_itself(values):
    value = changed("tpm.pcrs.values.0.anyOf", values)
    assert diff(value, value) == ()
    assert overall(()) is Effect.NOTHING


def test_each_difference_is_told_whole() -> None:
    """Path, kind, effect, sentence, and both values as plain JSON."""

    def rules(**members: Any) -> dict[str, Any]:
        return {"freshness": FULL["freshness"], "tpm": {"pcrs": FULL["tpm"]["pcrs"]}, **members}

    def signed(*names: str) -> dict[str, Any]:
        pieces = [{"name": name, "key": "bundle"} for name in names]
        keys = [{"name": "alice", "publicKey": "-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----"}]
        return {"series": "edge", "threshold": 1, "configMapRefs": pieces, "keys": keys}

    let_in = {"namespaces": {"matchLabels": {"team": "a"}}}
    five, six, nine = {**let_in, "maxClaims": 5}, {**let_in, "usages": ["Sign"]}, {**let_in, "keyTypes": ["EcP256"]}
    luna = {"model": "luna", "firmware": "7"}
    one, both = ({**luna, "holds": ["Fips140_3Level3", "Fips140_3Level2"][:count]} for count in (1, 2))
    other = {"model": "other", "firmware": "1", "holds": ["Fips140_3Level3"]}
    xy, yx = signed("x", "y"), signed("y", "x")
    changes = diff(
        rules(hsm={"compliance": [one]}, release={"anyOf": [five, six]}, referenceValues=xy, enforcement="Audit"),
        rules(
            hsm={"compliance": [both, other], "statement": "VendorAttested"},
            release={"anyOf": [six, nine]},
            referenceValues=yx,
        ),
    )
    words = {name: json.dumps(value) for name, value in {"five": five, "nine": nine}.items()}
    order = [json.dumps(value["configMapRefs"]) for value in (xy, yx)]
    assert [tuple(change.as_dict().values()) for change in changes] == [
        ("enforcement", "Changed", "Stricter", "enforcement: Audit becomes Enforce", "Audit", "Enforce"),
        ("hsm.statement", "Changed", "Stricter", "hsm.statement: HostAsserted becomes VendorAttested",
         "HostAsserted", "VendorAttested"),
        ("hsm.compliance[luna,7].holds", "Added", "Looser", "model and firmware luna,7 hold Fips140_3Level2 too",
         None, "Fips140_3Level2"),
        ("hsm.compliance[other,1]", "Added", "Looser", "model and firmware other,1 hold Fips140_3Level3", None, other),
        ("release.anyOf", "Removed", "Stricter", f"claims may not bind by this rule any more: {words['five']}",
         five, None),
        ("release.anyOf", "Added", "Looser", f"claims may bind by one rule more: {words['nine']}", None, nine),
        ("referenceValues.configMapRefs", "Changed", "Either",
         f"referenceValues.configMapRefs: {order[0]} becomes {order[1]}", xy["configMapRefs"], yx["configMapRefs"]),
    ]  # fmt: skip
    assert all(
        type(value) in (str, type(None), dict, list) for change in changes for value in change.as_dict().values()
    )
    assert overall(changes[:2]) is Effect.STRICTER
    assert overall(changes) is Effect.EITHER


def test_order_inside_of_an_entry_that_is_compared_whole_means_nothing() -> None:
    def rule(*usages: str) -> dict[str, Any]:
        return changed("release.anyOf.0", {"namespaces": {"matchLabels": {"a": "b"}}, "usages": list(usages)})

    assert diff(rule("Sign", "Verify"), rule("Verify", "Sign")) == ()
    assert len(diff(rule("Sign", "Verify"), rule("Sign", "Decrypt"))) == 2
