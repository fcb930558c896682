"""The grammar of key labels stands in one place; every room reads labels by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.model.identifiers import CLAIM_UID, claim_prefix, key_label, parse_key_label, service_key_label

UIDS = st.from_regex(CLAIM_UID, fullmatch=True)
NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z", fullmatch=True)


@given(UIDS, NAMES, st.integers(1, 10**6))
def test_every_label_that_is_made_is_read_back(uid, key, version):
    label = key_label(uid, key, version)
    assert parse_key_label(label) == (uid, key, version)
    assert label.startswith(claim_prefix(uid))


@given(UIDS, UIDS, NAMES)
def test_no_claims_prefix_covers_another_claims_key(uid, other, key):
    assert key_label(other, key, 1).startswith(claim_prefix(uid)) == (uid == other)


@pytest.mark.parametrize("version", [0, 10**6 + 1, 999_999_999])
def test_versions_that_no_key_can_have_are_no_labels(version):
    assert parse_key_label(key_label("uid", "signing", version)) is None


def test_service_keys_are_no_claims_keys():
    assert parse_key_label(service_key_label("token")) is None
    assert not CLAIM_UID.fullmatch("service")
    assert CLAIM_UID.fullmatch("service-1")
    assert parse_key_label("chat/service-1/signing/1") == ("service-1", "signing", 1)
