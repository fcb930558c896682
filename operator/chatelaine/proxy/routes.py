"""What applications may ask: the key routes of the gateway, for the one claim of the binding. Everything else is not
forwarded. Paths are compared letter by letter, never decoded.

    GET  /v1/keys/{key}                  or /v1/keys/{namespace}/{claim}/{key}
    POST /v1/keys/{key}/sign | verify    or /v1/keys/{namespace}/{claim}/{key}/sign | verify
    GET  /v1/random?bytes=n
    GET  /healthz /readyz                answered here
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from chatelaine.proxy import problems
from chatelaine.proxy.errors import Refused

VERBS: Final = ("sign", "verify")
_NAME: Final = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_KEY: Final = re.compile(rf"/v1/keys/(?:({_NAME})/({_NAME})/)?({_NAME})(?:/({'|'.join(VERBS)}))?", re.ASCII)
_RANDOM: Final = re.compile(r"/v1/random\?bytes=[1-9][0-9]{0,5}", re.ASCII)


class Own(enum.StrEnum):
    """Paths that the sidecar answers by itself."""

    HEALTH = "/healthz"
    READY = "/readyz"
    METRICS = "/metrics"
    """At the listener for probes alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is forwarded. `named`: the claim in its path, if any; `operation`: its name in metrics."""

    method: str
    operation: str
    key: str = ""
    verb: str = ""
    query: str = ""
    named: str = ""

    def path(self, claim: str) -> str:
        """The gateway's path for it, in `claim` (`<namespace>/<name>`).

        Raises:
            Refused: `ERROR_NOT_FOUND`, it names another claim.
        """
        if self.query:
            return self.query
        if self.named not in ("", claim):
            raise Refused(
                f"this sidecar's binding is of the claim {claim}, the path names {self.named}; leave the claim out, "
                "or run a sidecar for each claim",
                problems.NOT_FOUND,
            )
        return f"/v1/keys/{claim}/{self.key}{'/' if self.verb else ''}{self.verb}"


def parse(method: str, target: str) -> Asked | Own:
    """What a request's first line asks for; `target` as it was sent, with its query.

    Raises:
        Refused: nothing that is forwarded, or by another method.
    """
    if target in (Own.HEALTH, Own.READY):
        return _by("GET", method, Own(target))
    if _RANDOM.fullmatch(target):
        return _by("GET", method, Asked("GET", "Random", query=target))
    if target.partition("?")[0] == "/v1/random":
        raise Refused("ask for /v1/random?bytes=<number>")
    key = _KEY.fullmatch(target)
    if key is None:
        raise Refused(
            "expected /v1/keys/<key>, /v1/keys/<key>/sign, /v1/keys/<key>/verify or /v1/random?bytes=<number>; "
            "names are small letters, digits and '-', never percent-encoded, and keys take no query",
            problems.NOT_FOUND,
        )
    namespace, claim, name, verb = key.groups()
    wanted = "POST" if verb else "GET"
    named = f"{namespace}/{claim}" if namespace else ""
    operation = verb.capitalize() if verb else "PublicKeys"
    return _by(wanted, method, Asked(wanted, operation, name, verb or "", named=named))


def _by(wanted: str, method: str, asked: Asked | Own) -> Asked | Own:
    if method != wanted:
        raise Refused(f"use {wanted}", problems.METHOD_NOT_ALLOWED)
    return asked
