"""Requests that are malformed, oversized, slow, or that try to name what they may not."""

from __future__ import annotations

import base64
import http.client
import json

import pytest

from support.gateway import Client

CLAIM = "checkout-hsm"
SIGN = f"/v1/keys/payments/{CLAIM}/signing/sign"
BODY = json.dumps({"input": "bWVzc2FnZQ=="}).encode()


def head_of(client: Client, token: str | None = None) -> str:
    """The head of a signing request, as far as it does not speak of the body."""
    return f"POST {SIGN} HTTP/1.1\r\nhost: x\r\nauthorization: {client.headers(token)['authorization']}"


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("idle/../signing", 404),
        ("..", 403),
        (".", 403),
        ("%2e%2e", 404),
        ("signing%00", 404),
        ("sign%69ng", 404),
        ("idle%2fsigning", 404),
        ("Signing", 403),
        ("signing.", 403),
        ("s%C4%B1gning", 404),
        ("", 403),
        ("chat", 403),
        ("*", 403),
    ],
)
def test_key_names_that_look_like_others_reach_nothing(client, key, status):
    with client.line() as line:
        for path in (f"/v1/keys/payments/{CLAIM}/{key}/sign", f"/v1/keys/payments/{CLAIM}/{key}/verify"):
            reply = line.ask("POST", path, BODY, client.headers())
            assert reply.status == status, reply.body
            assert reply.code in ("ERROR_NOT_FOUND", "ERROR_USAGE_NOT_ALLOWED")


@pytest.mark.parametrize("byte", ["\x00", "\xc3\xa9", " ", "\t"])
def test_raw_bytes_in_a_path_are_refused(client, byte):
    with client.line() as line:
        head = f"POST /v1/keys/payments/{CLAIM}/signing{byte}/sign HTTP/1.1\r\nhost: x\r\ncontent-length: 0"
        assert line.raw("POST", head).status in (400, 403, 404)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/keys/", "/v1/keys/a/b", f"{SIGN}/", f"{SIGN}/x", "/v1/keys/a/b/c/encrypt", "//v1/token",
     "/v1/token/", "/V1/token", "/local/v1/statement", "/openapi.json", "/metrics/x"],
)  # fmt: skip
def test_there_is_nothing_elsewhere(client, path):
    with client.line() as line:
        assert line.ask("POST", path, BODY, client.headers()).code == "ERROR_NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", SIGN), ("PUT", SIGN), ("DELETE", f"/v1/keys/payments/{CLAIM}/signing"), ("GET", "/v1/token"),
     ("POST", "/v1/random?bytes=1"), ("POST", "/healthz")],
)  # fmt: skip
def test_other_methods_are_refused(client, method, path):
    with client.line() as line:
        assert line.ask(method, path, None, client.headers()).code == "ERROR_METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "fields",
    [{"input": 1}, {"input": "%"}, {}, {"input": "", "extra": 1}, {"input": "", "prehashed": "yes"},
     {"input": "AAAA", "prehashed": True}, {"input": "", "key_version": "1"}, {"input": "", "marshaling": "pgp"},
     {"input": "", "signature_algorithm": "md5"}],
)  # fmt: skip
def test_requests_in_another_form_are_refused(client, fields):
    with client.line() as line:
        reply = line.ask("POST", SIGN, json.dumps(fields).encode(), client.headers())
        assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")
        reply = line.ask("POST", SIGN, json.dumps(fields).encode(), client.headers("x"))
        assert (reply.status, reply.code) == (403, "ERROR_INVALID_TOKEN")


def test_algorithm_of_another_key_type_is_refused(client):
    with client.line() as line:
        reply = client.sign(line, CLAIM, signature_algorithm="pss")
        assert (reply.status, reply.code) == (400, "ERROR_ALGORITHM_NOT_SUPPORTED")


@pytest.mark.parametrize("length", ["1048577", "99999999999", "-1", "1e3", "0x10"])
def test_oversized_or_odd_body_is_refused_before_it_is_read(client, length):
    with client.line() as line:
        reply = line.raw("POST", f"{head_of(client)}\r\ncontent-length: {length}")
        assert reply.status in (400, 413)
        assert reply.closes


def test_oversized_chunked_body_is_refused_while_it_is_read(client):
    with client.line() as line:
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        reply = line.raw("POST", f"{head_of(client)}\r\ntransfer-encoding: chunked", chunk * 17)
        assert (reply.status, reply.code, reply.closes) == (413, "ERROR_BODY_TOO_LARGE", True)


def test_body_of_who_may_not_use_the_key_is_not_waited_for(client):
    with client.line() as line:
        reply = line.raw("POST", f"{head_of(client, 'x')}\r\ncontent-length: 1000000")
        assert (reply.status, reply.code, reply.closes) == (403, "ERROR_INVALID_TOKEN", True)


def test_refusal_reaches_who_sends_a_great_body_all_the_same(client):
    body = json.dumps({"input": base64.b64encode(b"x" * 780_000).decode()}).encode()
    with client.line() as line:
        reply = line.ask("POST", SIGN, body, client.headers("x"))
        assert (reply.status, reply.code) == (403, "ERROR_INVALID_TOKEN")


def test_claim_revoked_while_the_body_comes_is_used_no_more(client, operator):
    with client.line() as line:
        head = f"{head_of(client)}\r\nexpect: 100-continue\r\ncontent-length: {len(BODY)}\r\n\r\n"
        line.socket.sendall(head.encode())
        assert line.socket.recv(1024).startswith(b"HTTP/1.1 100 "), "allowed so far: now the body is read"
        operator.world.verdict = "Untrusted"
        operator.tell()
        line.socket.sendall(BODY)
        answer = http.client.HTTPResponse(line.socket)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (403, "ERROR_INVALID_TOKEN")


def test_a_message_of_the_greatest_size_is_signed(client):
    body = json.dumps({"input": base64.b64encode(b"x" * 780_000).decode()}).encode()
    assert len(body) < 1024 * 1024
    with client.line() as line:
        assert line.ask("POST", SIGN, body, client.headers()).status == 200


@pytest.mark.parametrize(
    "head",
    ["GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + "a" * 17_000,
     "GET /healthz HTTP/1.1\r\n" + "\r\n".join(f"x{number}: a" for number in range(70)),
     "GET /" + "a" * 3000 + " HTTP/1.1\r\nhost: x"],
    ids=["long header", "many headers", "long path"],
)  # fmt: skip
def test_oversized_head_is_refused(client, head):
    with client.line() as line:
        reply = line.raw("GET", head)
        assert (reply.status, reply.code, reply.closes) == (431, "ERROR_HEADERS_TOO_LARGE", True)


def test_what_is_no_http_is_refused(client):
    with client.line() as line:
        reply = line.raw("GET", "\x16\x03\x01 hello")
        assert (reply.status, reply.code) == (400, "ERROR_BAD_REQUEST")


@pytest.mark.parametrize("target", ["*", "https://elsewhere/healthz", "http://[", "elsewhere:443"])
def test_odd_request_targets_harm_nobody(client, target):
    with client.line() as line:
        assert line.raw("OPTIONS", f"OPTIONS {target} HTTP/1.1\r\nhost: x").status in (400, 404, 405)
    with client.line() as line:
        assert client.sign(line, CLAIM).status == 200


def test_pipelined_requests_are_answered_in_order(client):
    with client.line() as line:
        head = "\r\n".join([f"GET /v1/random?bytes=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.token}"])
        line.socket.sendall((head + "\r\n\r\n").encode() * 3)
        assert line.raw("GET", "GET /healthz HTTP/1.1\r\nhost: x").json.keys() == {"random"}
