"""How far a restore has come: each object of a backup, held against what the cluster has now. Pure.

Three outcomes for each: it is back and at work; it waits, for the operator or a person; it is missing, or went wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chatelaine.kube.port import CLAIMS, HSMS, JsonObject
from chatelaine.model.claim import HsmClaim
from chatelaine.model.conditions import find
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import ANNOTATION_READMIT, CA_NAME
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome

Live = Mapping[tuple[str, str, str], JsonObject]
"""Objects of the cluster by kind, namespace (empty for cluster-scoped ones) and name."""


@dataclass(frozen=True, slots=True)
class Found:
    """One object. HOLDS: back and at work. CANNOT_TELL: it waits. REFUTED: missing, or wrong. `then`: what to do."""

    what: str
    outcome: Outcome
    message: str
    then: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain JSON value."""
        return {"what": self.what, "outcome": self.outcome.value, "message": self.message, "then": self.then}


def live_by_name(bodies: Sequence[JsonObject]) -> Live:
    """Of objects with `kind`."""
    return {_key(body): body for body in bodies}


def authority(namespace: str, *, there: bool) -> Found:
    """The CA of our own processes."""
    what = f"Secret {namespace}/{CA_NAME}"
    if there:
        return Found(what, Outcome.HOLDS, "is there")
    return Found(
        what, Outcome.REFUTED, "is missing: the operator would make another CA, which no host knows",
        "restore it before the operator starts; if it is lost, let every host join again (chatelaine host invite)",
    )  # fmt: skip


def check(backup: Sequence[JsonObject], live: Live) -> list[Found]:
    """Every object of the backup, in its order."""
    return [_found(body, live, _promises(backup)) for body in backup]


def worst(found: Sequence[Found]) -> Outcome:
    """REFUTED if anything is missing or wrong, else CANNOT_TELL if anything waits."""
    outcomes = {one.outcome for one in found}
    return next((one for one in (Outcome.REFUTED, Outcome.CANNOT_TELL) if one in outcomes), Outcome.HOLDS)


def _found(body: JsonObject, live: Live, promises: Mapping[tuple[str, str], dict[str, str]]) -> Found:
    kind, namespace, name = key = _key(body)
    what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    now = live.get(key)
    if now is None:
        return Found(what, Outcome.REFUTED, "is missing", "kubectl apply --server-side --filename the backup")
    if kind == HSMS.kind:
        return _hsm(what, Hsm.model_validate(body | {"metadata": now["metadata"]}), Hsm.model_validate(now))
    if kind == CLAIMS.kind:
        return _claim(what, HsmClaim.model_validate(now), promises.get((namespace, name), {}))
    return Found(what, Outcome.HOLDS, "is there")


def _hsm(what: str, wanted: Hsm, now: Hsm) -> Found:
    said = {(one.claim_uid, one.namespace, one.name) for one in now.spec.adoptions or ()}
    lacking = [one for one in wanted.spec.adoptions or () if (one.claim_uid, one.namespace, one.name) not in said]
    if lacking:
        names = ", ".join(sorted({f"{one.namespace}/{one.name}" for one in lacking})[:6])
        message = f"does not say whose keys it holds (spec.adoptions): {names} would get new keys, perhaps elsewhere"
        return Found(what, Outcome.REFUTED, message, "kubectl apply --server-side --filename the backup")
    attestation = now.status.attestation
    if attestation is not None and attestation.reason == Reason.AWAITING_READMISSION.value:
        return Found(
            what, Outcome.CANNOT_TELL, "waits for a person: its status was lost, its token holds keys",
            "look at the host, then, as somebody with the verb readmit:"
            f" kubectl annotate hsm {now.metadata.name} {ANNOTATION_READMIT}={attestation.evidence_digest}",
        )  # fmt: skip
    ready = find(now.status.conditions, ConditionType.READY.value)
    if ready is not None and ready.status == "True":
        return Found(what, Outcome.HOLDS, "is there and Ready")
    return Found(what, Outcome.CANNOT_TELL, f"is there, and not Ready: {ready.message if ready else 'no operator yet'}")


def _claim(what: str, now: HsmClaim, promised: Mapping[str, str]) -> Found:
    """`promised`: uids of former claims whose keys it takes over, and the Hsm that holds them."""
    allocation = now.status.allocation
    if allocation is not None and promised and now.metadata.uid not in promised:
        makers = {version.made_by for key in now.status.keys for version in key.versions}
        wanted = {key.name for key in now.spec.keys or ()}
        if wanted and not makers & set(promised):
            homes = ", ".join(sorted(set(promised.values())))
            return Found(
                what, Outcome.REFUTED,
                f"is bound to Hsm {allocation.hsm.name} with new keys; its own are on Hsm {homes}",
                "if nobody needs the new keys: delete the claim, and apply it again",
            )  # fmt: skip
    ready = find(now.status.conditions, ConditionType.READY.value)
    if ready is not None and ready.status == "True":
        return Found(
            what, Outcome.HOLDS, "is there and Ready, with the keys it had" if promised else "is there and Ready"
        )
    bound = find(now.status.conditions, ConditionType.BOUND.value)
    why = (bound.message if bound and bound.status != "True" else ready.message if ready else "") or "no operator yet"
    return Found(what, Outcome.CANNOT_TELL, f"is there, and not Ready: {why}")


def _promises(backup: Sequence[JsonObject]) -> dict[tuple[str, str], dict[str, str]]:
    """By namespace and name of a claim: uids of former claims, each with the Hsm that holds its keys."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for hsm, one in _adoptions(backup):
        place = (str(one.get("namespace")), str(one.get("name")))
        found.setdefault(place, {})[str(one.get("claimUid"))] = hsm
    return found


def _adoptions(backup: Sequence[JsonObject]) -> Iterator[tuple[str, JsonObject]]:
    for body in backup:
        if body["kind"] == HSMS.kind:
            for one in body.get("spec", {}).get("adoptions") or ():
                yield body["metadata"]["name"], one


def _key(body: JsonObject) -> tuple[str, str, str]:
    return str(body["kind"]), str(body["metadata"].get("namespace") or ""), str(body["metadata"]["name"])
