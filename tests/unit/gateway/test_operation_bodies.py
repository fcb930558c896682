"""Whatever a client sends as the body of an operation is a request, or refused as none."""

from __future__ import annotations

import pytest

from chatelaine.gateway import problems
from chatelaine.gateway.operations import SignRequest, VerifyRequest, parse
from chatelaine.gateway.problems import Refusal


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"input":"AAAA","scheme":"\xff"}', b"[" * 5000, b'{"input":' + b"[" * 5000]
)
@pytest.mark.parametrize("kind", [SignRequest, VerifyRequest])
def test_a_body_that_is_no_request_is_a_bad_request(body: bytes, kind: type[SignRequest]) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(body, kind)
    assert refusal.value.code == problems.BAD_REQUEST
