"""Invitations: the text, and the contract of their store."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.pki.errors import InvitationMalformed
from chatelaine.pki.invitation import Invitation, InvitationStore, secret_digest
from support.invitations import InvitationStoreContract, MemoryInvitations

SECRET = bytes(range(32))
GOOD = {
    "endpoint": "operator.example.net:8445",
    "ca_digest": "sha256:" + "ab" * 32,
    "host": "hsm-a",
    "secret": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode(),
    "expires": 1_800_000_000,
}


def token(**changes: object) -> str:
    body = json.dumps(GOOD | changes).encode()
    return "chat1." + base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def test_an_invitation_survives_its_text() -> None:
    made = Invitation.make(
        endpoint="[2001:db8::1]:8445", ca_digest=GOOD["ca_digest"], host="hsm-a", secret=SECRET, expires=7
    )  # fmt: skip
    back = Invitation.decode(made.encode() + "\n")
    assert back == made
    assert back.secret_bytes() == SECRET
    assert back.address == ("2001:db8::1", 8445)
    assert Invitation.decode(token()).address == ("operator.example.net", 8445)


@pytest.mark.parametrize(
    "text",
    [
        "", "chat1.", "chat2." + token()[6:], token()[:-4], "chat1.!!!", "chat1." + "A" * 5000,
        token(secret="AAAA"), token(host="*"), token(host="a/b"), token(host=""), token(ca_digest="sha1:00"),
        token(endpoint="https://x:1"), token(endpoint="x"), token(expires=-1), token(expires="1"), token(more=1),
    ],
)  # fmt: skip
def test_a_damaged_or_widened_invitation_is_refused(text: str) -> None:
    with pytest.raises(InvitationMalformed):
        Invitation.decode(text)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    for candidate in (text, "chat1." + text):
        try:
            Invitation.decode(candidate)
        except InvitationMalformed:
            continue


def test_the_secret_shows_in_no_repr_and_no_error() -> None:
    shown = repr(Invitation.decode(token()))
    assert str(GOOD["secret"]) not in shown
    with pytest.raises(InvitationMalformed) as refused:
        Invitation.decode(token(host="*"))
    assert str(GOOD["secret"]) not in str(refused.value)
    assert refused.value.__cause__ is None


def test_only_a_digest_of_the_secret_is_kept() -> None:
    assert secret_digest(SECRET).startswith("sha256:")
    assert SECRET.hex() not in secret_digest(SECRET)


class TestMemoryInvitations(InvitationStoreContract):
    @pytest.fixture(autouse=True)
    def _world(self) -> None:
        self.world: dict[str, tuple[str, int, bool]] = {}

    def open_store(self) -> InvitationStore:
        return MemoryInvitations(self.world)
