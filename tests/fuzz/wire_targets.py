"""What is fuzzed of the wire: messages of all kinds, answers of an agent, views, requests to sign, objects."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec
import yaml
from pydantic import ValidationError

from chatelaine.controller.interrogation import evidence_of, token_status
from chatelaine.evidence.errors import EvidenceError
from chatelaine.gateway.limits import MAX_CLAIMS
from chatelaine.gateway.operations import SignRequest, VerifyRequest, parse
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.view import LiveView, ViewOutdated, ViewRefused
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import key_label
from chatelaine.model.policy import AttestationPolicy
from chatelaine.tokens.cache import Moment
from chatelaine.wire import messages
from chatelaine.wire.errors import MessageError
from fuzz.target import Target
from support import paper_host

NOW = Moment(1_780_000_000.0, 0.0)
KINDS_OF_MESSAGE = sorted(
    (kind for kind in messages.Message.__subclasses__() if kind.__module__.startswith("chatelaine.wire.")),
    key=lambda kind: kind.__name__,
)


def message(data: bytes) -> None:
    """A message of the kind that the first byte chooses; what is taken reads the same when it is sent on."""
    kind = KINDS_OF_MESSAGE[data[0] % len(KINDS_OF_MESSAGE)] if data else messages.Problem
    taken = messages.decode(data[1:], kind)
    if messages.decode(messages.encode(taken), kind) != taken:
        raise AssertionError("sent on it is another message")


def seeds_of_messages() -> list[bytes]:
    """An empty object, and one with a version, of each kind."""
    return [bytes([number]) + body for number in range(len(KINDS_OF_MESSAGE)) for body in (b"{}", b'{"v":1}')]


def agent_evidence(data: bytes) -> None:
    """An agent's answer to a round, as far as it is read without the enrolled keys."""
    evidence_of(messages.decode(data, messages.EvidenceResponse)).encode()


def honest_evidence() -> bytes:
    """As an agent answers."""
    return messages.encode(paper_host.response_of(paper_host.PaperHost().answer()))


def gateway_identity(data: bytes) -> None:
    """What a gateway says of its token, bounded as a status wants it."""
    token_status(messages.decode(data, messages.GatewayIdentity).token)


def honest_identity() -> bytes:
    """As a gateway answers."""
    facts = messages.TokenFacts(
        serial="1", manufacturer="m", model="m", firmware="1", hardware_version="1",
        mechanisms_digest="sha256:" + "0" * 64, key_types=("EcP256", "Rsa3072"),
    )  # fmt: skip
    return messages.encode(messages.GatewayIdentity(gateway_spki=b"g", attestation_key_spki=b"a", token=facts))


def view(data: bytes) -> None:
    """A whole view, and then the same as a change of it."""
    update = messages.decode(data, messages.ViewUpdate)
    live = LiveView("fuzz")
    live.apply(msgspec.structs.replace(update, instance="fuzz", term=1, number=1, base=None), NOW)
    live.apply(msgspec.structs.replace(update, instance="fuzz", term=1, number=2, base=1), NOW)
    if len(live.claims) > MAX_CLAIMS or live.ended(NOW) - live.claims.keys():
        raise AssertionError("taken beyond its bounds")


def honest_view() -> bytes:
    """One claim with one key and one client."""
    uid = "0b1c2d3e-0000-4000-8000-000000000001"
    version = messages.KeyVersionView(version=1, state="Active", label=key_label(uid, "signing", 1))
    claim = messages.ClaimView(
        uid=uid, namespace="payments", name="checkout", sequence=1, valid_for_seconds=60.0, valid_until=1_780_000_060,
        keys=(messages.KeyView(name="signing", type="EcP256", usages=("Sign",), versions=(version,)),),
        clients=(
            messages.ClientView(service_account="app", pod_uids=("pod-1",), keys=("signing",), usages=("Sign",)),
        ),
        policy_digests=("sha256:" + "0" * 64,),
    )  # fmt: skip
    standing = messages.Standing(
        verdict="Trusted", reason="EvidenceHolds", epoch="1/0", policy_digest="sha256:" + "0" * 64,
        evidence_digest="sha256:" + "1" * 64, valid_for_seconds=60.0, valid_until=1_780_000_060,
    )  # fmt: skip
    cluster = messages.ClusterKeys(issuer="https://kubernetes.default.svc", jwks='{"keys":[]}')
    update = messages.ViewUpdate(
        instance="fuzz", term=1, number=1, standing=standing, cluster=cluster, claims=(claim,), gone=("other",)
    )
    return messages.encode(update)


def sign_request(data: bytes) -> None:
    """A body of `sign` or `verify`."""
    parse(data, SignRequest if data[:1] == b"{" else VerifyRequest)


def stored_object(data: bytes) -> None:
    """Any JSON as an object of any of our kinds, as a watch may bring it."""
    value = json.loads(data)
    for kind in (Hsm, HsmClaim, AttestationPolicy):
        with contextlib.suppress(ValidationError):
            kind.model_validate(value)


def examples() -> list[bytes]:
    """The objects of the quickstart."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
    documents = [item for path in sorted(folder.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())]
    return [json.dumps(item).encode() for item in documents]


TARGETS = {
    "message": Target(message, (MessageError,), seeds_of_messages),
    "agent-evidence": Target(agent_evidence, (MessageError, EvidenceError), lambda: [honest_evidence()]),
    "gateway-identity": Target(gateway_identity, (MessageError, EvidenceError), lambda: [honest_identity()]),
    "view": Target(view, (MessageError, ViewRefused, ViewOutdated), lambda: [honest_view()]),
    "sign-request": Target(sign_request, (Refusal,), lambda: [b'{"input":"AAAA"}', b' {"input":"","signature":""}']),
    "object": Target(stored_object, (ValueError, RecursionError), examples),
}
