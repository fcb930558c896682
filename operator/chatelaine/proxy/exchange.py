"""One token exchange (RFC 8693) with the gateway of a binding, from the caller's side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import msgspec

from chatelaine.model.identifiers import TOKEN_AUDIENCE
from chatelaine.model.printable import printable
from chatelaine.proxy.errors import ExchangeRefused, GatewayMalformed
from chatelaine.proxy.limits import EXCHANGE_SECONDS, MAX_EXCHANGE_ANSWER_BYTES, MAX_TOKEN_SECONDS
from chatelaine.proxy.line import Line, Reply
from chatelaine.wire.errors import MessageError
from chatelaine.wire.message import Problem, decode

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 - a type, not a secret

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_MAX_TOKEN: Final = 4096
_MAX_SHOWN: Final = 300
_OK: Final = 200

_ADVICE: Final = {
    "ERROR_INVALID_TOKEN": (
        f"it takes tokens of this cluster's API server, projected into a pod, for the audience {TOKEN_AUDIENCE} alone"
    ),
    "ERROR_NOT_ATTESTED": "its HSM is not Trusted now, or the claim is not bound to it: look at the claim's conditions",
    "ERROR_NOT_A_CLIENT": (
        "no entry of the claim's spec.clients names this pod's service account and labels; a pod that has just started "
        "is known a moment later"
    ),
}


class _Answer(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: int
    certificate_chain: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """A trust token, its life from the moment it was asked for, and the leaf's chain (PEM) if one was asked for."""

    bearer: str
    seconds: int
    chain_pem: str


async def exchange(line: Line, account_token: str, csr: str) -> Issued:
    """Trade the pod's token for a trust token, and for a leaf if there is a `csr` (PKCS#10, base64).

    Raises:
        ExchangeRefused: the gateway said no.
        Refused: it cannot be asked, or its answer cannot be used.
    """
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": account_token,
        "subject_token_type": TOKEN_TYPE_JWT,
        "resource": line.binding.name,
        **({"csr": csr} if csr else {}),
    }
    reply = await line.call(
        "POST",
        "/v1/token",
        urlencode(form).encode(),
        {"content-type": "application/x-www-form-urlencoded"},
        seconds=EXCHANGE_SECONDS,
        max_bytes=MAX_EXCHANGE_ANSWER_BYTES,
    )
    if reply.status != _OK:
        raise _refused(line, problem_of(reply))
    try:
        answer = msgspec.json.decode(reply.body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GatewayMalformed("the gateway's answer to the token exchange is not as RFC 8693 has it") from error
    if len(answer.access_token) > _MAX_TOKEN or not _TOKEN.fullmatch(answer.access_token) or answer.expires_in < 1:
        raise GatewayMalformed("the gateway issued something that is no trust token")
    if csr and not answer.certificate_chain:
        raise GatewayMalformed("the gateway issued no certificate, though one was asked for")
    return Issued(answer.access_token, min(answer.expires_in, MAX_TOKEN_SECONDS), answer.certificate_chain)


def problem_of(reply: Reply) -> Problem:
    """The problem document of an answer; one without a code, where it is none."""
    try:
        return decode(reply.body, Problem)
    except MessageError:
        return Problem(status=reply.status, code="")


def _refused(line: Line, problem: Problem) -> ExchangeRefused:
    code = printable(problem.code, _MAX_SHOWN)
    said = " ".join(part for part in (code, printable(problem.detail, _MAX_SHOWN)) if part)
    advice = _ADVICE.get(problem.code, "see the reference of errors")
    return ExchangeRefused(f"the gateway of {line.binding.name} refused: {said or 'no reason given'}; {advice}", code)
