"""How access ends: on the same open connection, on idle ones, at a deadline, and when the operator is gone."""

from __future__ import annotations

import pytest

from chatelaine.gateway.limits import MAX_CLAIMS_LOGGED
from support.waiting import eventually

CLAIM = "checkout-hsm"


def _untrusted(operator, uid):
    operator.world.verdict = "Untrusted"


def _claim_gone(operator, uid):
    operator.world.claims.clear()


def _rebooted(operator, uid):
    operator.world.epoch = "4.0.1"


CUTS = pytest.mark.parametrize("cut", [_untrusted, _claim_gone, _rebooted], ids=["untrusted", "unbound", "rebooted"])


@CUTS
def test_next_request_on_the_same_connection_is_refused_and_ends_it(client, operator, made_uid, cut):
    with client.line() as line:
        assert client.sign(line, CLAIM).status == 200
        cut(operator, made_uid)
        operator.tell()
        reply = client.sign(line, CLAIM)
        assert (reply.status, reply.code, reply.closes) == (403, "ERROR_INVALID_TOKEN", True)
        eventually(line.closed_by_peer, "the connection is closed after the answer")


@CUTS
def test_idle_connection_of_a_revoked_claim_is_closed(client, operator, made_uid, cut):
    with client.line() as line, client.gateway.line() as stranger:
        assert client.sign(line, CLAIM).status == 200
        assert stranger.ask("GET", "/healthz").status == 200
        cut(operator, made_uid)
        operator.tell()
        eventually(line.closed_by_peer, "the idle connection is closed")
        assert not stranger.closed_by_peer()
        assert stranger.ask("GET", "/healthz").status == 200


def test_one_update_can_revoke_one_claim_and_leave_the_others(client, new_client, operator, made_uid):
    operator.bind("other-hsm", "11111111-2222-3333-4444-555555555555", make_keys=False)
    operator.tell()
    other = new_client().login("other-hsm")
    with client.line() as line, other.line() as kept:
        assert client.sign(line, CLAIM).status == 200
        assert kept.ask("GET", "/v1/random?bytes=1", None, other.headers()).status == 200
        base = operator.number
        operator.tell(operator.update(base=base, claims=(), standing=None, cluster=None, gone=(made_uid,)))
        assert client.sign(line, CLAIM).code == "ERROR_INVALID_TOKEN"
        eventually(line.closed_by_peer, "the revoked claim's connection is closed")
        assert kept.ask("GET", "/v1/random?bytes=1", None, other.headers()).status == 200


@CUTS
def test_log_names_the_claims_that_are_cut(client, operator, made_uid, cut):
    lines = "claims are not served any more"
    before = len(client.gateway.logged(lines))
    cut(operator, made_uid)
    operator.tell()
    (line,) = client.gateway.logged(lines)[before:]
    assert (line["why"], line["claims"], line["claim_uids"]) == ("Revoked", 1, [made_uid])


def test_log_of_a_fallen_host_names_a_bounded_number_of_claims(operator):
    for number in range(MAX_CLAIMS_LOGGED + 1):
        operator.bind(f"claim-{number}", f"uid-{number:04}", make_keys=False)
    operator.tell()
    operator.world.verdict = "Untrusted"
    operator.tell()
    line = operator.gateway.logged("claims are not served any more")[-1]
    assert line["claims"] == MAX_CLAIMS_LOGGED + 2
    assert line["claim_uids"] == sorted(operator.world.claims)[:MAX_CLAIMS_LOGGED]


def test_what_is_granted_and_revoked_in_one_update_is_revoked(client, operator, made_uid):
    operator.tell(operator.update(gone=(made_uid,)))
    with client.line() as line:
        assert client.sign(line, CLAIM).code == "ERROR_INVALID_TOKEN"


def test_silent_operator_lets_the_deadline_pass_and_the_gateway_fails_closed(client, gateway, operator):
    operator.world.valid_seconds = 1.0
    operator.tell()
    with client.line() as line:
        assert client.sign(line, CLAIM).status in (200, 403)
        eventually(line.closed_by_peer, "the connection ends with the deadline")
    with client.line() as line:
        reply = client.sign(line, CLAIM)
    assert (reply.status, reply.code, reply.closes) == (403, "ERROR_INVALID_TOKEN", True)
    assert gateway.audit()[-1]["reason"] == "DeadlinePassed"
    assert client.exchange(client.form(CLAIM)).code == "ERROR_NOT_ATTESTED"
    assert gateway.metric("chatelaine_gateway_deadline_seconds") == 0


def test_deadline_of_one_claim_ends_that_claim_alone(client, gateway, operator, made_uid):
    operator.bind("other-hsm", "11111111-2222-3333-4444-555555555555", make_keys=False)
    operator.bind(CLAIM, made_uid, make_keys=False, valid_for_seconds=0.0)
    operator.tell()
    with client.line() as line:
        assert client.sign(line, CLAIM).code == "ERROR_INVALID_TOKEN"
    assert gateway.audit()[-1]["reason"] == "ClaimDeadlinePassed"
    client.login("other-hsm")


def test_deadline_already_past_by_the_wall_clock_serves_nothing(client, gateway, operator):
    update = operator.update()
    past = type(update.standing)(**{**_fields(update.standing), "valid_until": 1})
    operator.tell(operator.update(standing=past))
    with client.line() as line:
        assert client.sign(line, CLAIM).code == "ERROR_INVALID_TOKEN"
    assert gateway.audit()[-1]["reason"] == "DeadlinePassed"


def test_a_renewed_view_disturbs_no_open_connection(client, operator):
    with client.line() as line:
        for _ in range(5):
            assert client.sign(line, CLAIM).status == 200
            operator.tell()
        assert client.sign(line, CLAIM).status == 200
        assert not line.closed_by_peer()


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
