from __future__ import annotations

import json
import re
from pathlib import Path

from chatelaine.gateway.problems import KINDS as OF_GATEWAYS
from chatelaine.proxy import errors, problems
from chatelaine.proxy.app import refusal

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "proxy.md"
ROW = re.compile(r"^\| `(ERROR_\w+)` \| (\d+) \|", re.MULTILINE)


def test_every_code_is_documented_with_its_status_and_no_other_is() -> None:
    documented = {code: int(status) for code, status in ROW.findall(PAGE.read_text())}
    assert documented == {code: kind.status for code, kind in problems.KINDS.items()}


def test_codes_that_gateways_have_too_have_the_same_status() -> None:
    for code in problems.KINDS.keys() & OF_GATEWAYS.keys():
        assert problems.KINDS[code].status == OF_GATEWAYS[code].status


def test_a_refusal_is_a_problem_document() -> None:
    response = refusal(errors.GatewayUnreachable("nobody is there"))
    assert (response.status, response.content_type) == (503, "application/problem+json")
    assert response.headers["retry-after"] == "1"
    assert isinstance(response.body, bytes)
    assert json.loads(response.body) == {
        "title": "The gateway does not answer",
        "status": 503,
        "code": "ERROR_GATEWAY_UNREACHABLE",
        "detail": "nobody is there",
    }
