from __future__ import annotations

import json
import re
from pathlib import Path

from chatelaine.gateway.problems import HSM_STATUS, KINDS, Refusal
from chatelaine.pkcs11.errors import BY_CODE

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d+) \|", re.MULTILINE)


def test_every_code_is_documented_with_its_status_and_no_other_is():
    documented = {code: int(status) for code, status in ROW.findall(PAGE.read_text())}
    assert documented == {code: kind.status for code, kind in KINDS.items()} | HSM_STATUS


def test_every_error_of_the_hsm_has_a_status():
    assert HSM_STATUS.keys() == BY_CODE.keys()
    assert set(HSM_STATUS.values()) <= {400, 404, 502, 503}


def test_the_inner_reason_never_goes_out():
    refusal = Refusal("ERROR_INVALID_TOKEN", reason="HolderOther")
    document = json.loads(refusal.document())
    assert document == {"title": KINDS["ERROR_INVALID_TOKEN"].title, "status": 403, "code": "ERROR_INVALID_TOKEN"}
    assert refusal.closes
