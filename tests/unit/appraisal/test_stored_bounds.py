"""Bounds of stored rounds, from both sides: what the field holds at most is read, one more is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatelaine.appraisal.ima_history import ImaFindings, ImaHistory
from chatelaine.appraisal.stored import MAX_FINDING_DEPTH, MAX_LABELS, MAX_PARTS, StoredRound, decode_finding
from chatelaine.appraisal.stored_form import decode_round, encode_round, parts_of
from chatelaine.evidence import cbor
from chatelaine.evidence.errors import Malformed
from chatelaine.evidence.ima import ImaProgress
from chatelaine.model.tpm_policy import Bank
from chatelaine.model.verdict import Epoch, Finding, Outcome
from support.stored_rounds import sha, stored

PROGRESS = ImaProgress(5, 1, Bank.SHA256, 100, 2, bytes(32))
HISTORY = ImaHistory(PROGRESS, ImaFindings({}))
ROUND = encode_round(stored(ima_before=HISTORY, last_epoch=Epoch(1, 2, 3), ek_certificate=b"der").round)


def bent(path: str, new: object) -> StoredRound:
    value: Any = cbor.decode(ROUND, limit_bytes=2**20, what="the test")
    *parents, name = path.split("/")
    at = value
    for parent in parents:
        at = at[parent]
    assert name in at
    at[name] = new
    return decode_round(cbor.encode(value))


def digests(count: int) -> list[bytes]:
    return sorted(sha(b"%d" % number) for number in range(count))


def labels(count: int) -> list[str]:
    return [f"{number:05}" for number in range(count)]


@pytest.mark.parametrize(
    ("path", "most", "more"),
    [
        ("hsm", "h" * 253, "h" * 254),
        ("build", "h" * 256, "h" * 257),
        ("received_ms", 2**53, 2**53 + 1),
        ("received_ms", 0, -1),
        ("asked/nonce", bytes(64), bytes(65)),
        ("asked/indices", list(range(24)), list(range(25))),
        ("asked/agent_spki", bytes(4096), bytes(4097)),
        ("asked/gateway_spki", bytes(4096), bytes(4097)),
        ("asked/identity/ak_public", bytes(4096), bytes(4097)),
        ("asked/identity/ak_name", bytes(68), bytes(69)),
        ("asked/identity/serial", None, 1),
        ("case/ek_certificate", bytes(16384), bytes(16385)),
        ("case/accounted", labels(MAX_LABELS), labels(MAX_LABELS + 1)),
        ("case/policy/name", "a" * 253, "a" * 254),
        ("case/policy/name", "a.b-c", "a; rm"),
        ("case/ima_before/pcr10", bytes(48), bytes(65)),
        ("case/last_epoch", None, {}),
        ("case/ima_before", None, []),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_one_more_than_a_field_may_hold_is_refused(path: str, most: object, more: object) -> None:
    assert bent(path, most)
    with pytest.raises(Malformed):
        bent(path, more)


def test_parts_are_bounded_and_all_that_the_round_leans_on_is_among_them() -> None:
    value: Any = cbor.decode(ROUND, limit_bytes=2**20, what="the test")
    mine = value["parts"]
    others = digests(MAX_PARTS + 1 - len(mine))
    assert len(bent("parts", sorted(mine + others[1:])).parts) == MAX_PARTS
    with pytest.raises(Malformed):
        bent("parts", sorted(mine + others))
    with pytest.raises(Malformed):
        bent("case/reference", sha(b"not among the parts"))
    assert bent("left_out", mine).left_out == tuple(mine)
    assert parts_of(ROUND) == tuple(mine)
    value["left_out"] = mine[:1]
    assert parts_of(cbor.encode(value)) == tuple(mine[1:])


def nested(depth: int) -> bytes:
    tree: dict[str, Any] = {"check": "c", "outcome": "Holds", "reason": "r"}
    for _ in range(depth):
        tree = {"check": "c", "outcome": "Holds", "reason": "r", "children": [tree]}
    return json.dumps(tree).encode()


def test_findings_are_read_to_their_depth_and_not_below() -> None:
    assert decode_finding(nested(MAX_FINDING_DEPTH)).check == "c"
    with pytest.raises(Malformed):
        decode_finding(nested(MAX_FINDING_DEPTH + 1))


@pytest.mark.parametrize(
    "value", [[], "c", None, {"check": "c", "outcome": "Holds", "reason": "r", "more": "m"}, {"outcome": "Holds"},
              {"check": "c", "outcome": "Holds", "reason": "r", "found": 1},
              {"check": "c", "outcome": "Holds", "reason": "r", "children": {}}]
)  # fmt: skip
def test_tree_of_another_form_is_no_finding(value: object) -> None:
    with pytest.raises(Malformed):
        decode_finding(json.dumps(value).encode())


def test_finding_is_read_back_whole() -> None:
    leaf = Finding("a", Outcome.REFUTED, "Reason", "why", expected="this", found="that")
    tree = Finding("b", Outcome.CANNOT_TELL, "Other", children=(leaf, leaf))
    assert decode_finding(json.dumps(tree.as_dict()).encode()) == tree
