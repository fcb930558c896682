"""The projected token: what may leave the pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatelaine.proxy.account import read
from chatelaine.proxy.errors import AccountTokenUnusable
from support.tokens import Cluster

NOW = 1_900_000_000
CLUSTER = Cluster()


def token(**changes: object) -> bytes:
    return CLUSTER.token(CLUSTER.claims(NOW, **changes))


def test_a_projected_token_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for account in ("one", "two"):
        file.write_bytes(token(account=account) + b"\n")
        assert read(file, NOW) == token(account=account).decode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (token(aud=["https://kubernetes.default.svc"]), "audience chatelaine.dev alone"),
        (token(aud=["chatelaine.dev", "https://kubernetes.default.svc"]), "audience chatelaine.dev alone"),
        (token(aud=[]), "audience chatelaine.dev alone"),
        (token(exp=NOW), "the token has ended"),
        (token(exp="never"), "the token has ended"),
        (b"", "not three base64url parts"),
        (b"a.b.c\r\nX-Header: d", "not three base64url parts"),
        (b"x" * 8193, "over 8192 bytes"),
    ],
)
def test_token_that_is_none_for_gateways_stays_here(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(AccountTokenUnusable, match=told) as caught:
        read(file, NOW)
    assert "eyJ" not in caught.value.detail


def test_a_token_that_is_not_mounted_is_told_with_what_to_mount(tmp_path: Path) -> None:
    with pytest.raises(AccountTokenUnusable, match=r"No such file.*serviceAccountToken \(audience chatelaine.dev\)"):
        read(tmp_path / "absent", NOW)
