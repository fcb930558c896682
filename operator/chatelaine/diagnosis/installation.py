"""The whole installation: what everything rests on first, then hosts, policies and claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chatelaine.diagnosis.check import Advice, Check, Diagnosis, State, state_of
from chatelaine.diagnosis.claim import explain_claim
from chatelaine.diagnosis.conditions import operator_check
from chatelaine.diagnosis.hsm import explain_hsm
from chatelaine.diagnosis.kinds import NAMED, OURS, Definition, differences, established
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.policy import explain_policy
from chatelaine.diagnosis.rights import Rule, lacking
from chatelaine.diagnosis.sight import Sight, Unread
from chatelaine.model.claim import HsmClaim
from chatelaine.model.conditions import find
from chatelaine.model.reasons import ConditionType
from chatelaine.model.verdict import Outcome

SKEW_SECONDS: Final = 5.0
"""Certificates and tokens of a few minutes' life do not mind less; humans comparing logs do."""
BAD_SKEW_SECONDS: Final = 60.0
SOON_SECONDS: Final = 7 * 86400
"""Our own CA and leaves are renewed long before: what ends within a week should not be there any more."""
SHOWN: Final = 20
"""Objects that are shown one by one."""


@dataclass(frozen=True, slots=True)
class PodSight:
    """One of our pods."""

    namespace: str
    name: str
    component: str
    image: str
    ready: bool
    phase: str
    restarts: int = 0
    why: str = ""

    @property
    def version(self) -> str:
        """Tag or digest of its image."""
        return self.image.rpartition("@")[2] if "@" in self.image else self.image.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class CertificateSight:
    """Somebody's certificate; when it begins and ends, seconds since the epoch."""

    of: str
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class InstallationSight:
    """Everything that was read.

    `kinds`: by plural; None where it is not there. `may`: what the caller asked to be allowed, and whether.
    `leaf`: certificates that lie in a folder that the caller named.
    """

    sight: Sight
    ours: str
    server: str | Unread
    kinds: Mapping[str, Definition | None] | Unread
    rules: tuple[Rule, ...] | Unread
    may: Mapping[str, bool] | Unread
    pods: tuple[PodSight, ...] | Unread
    certificates: tuple[CertificateSight, ...] | Unread
    leaves: tuple[CertificateSight, ...] = ()


def examine(seen: InstallationSight, names: Names) -> Diagnosis:
    """Every check, in the order in which later ones rest on earlier ones."""
    checks = (
        _server(seen),
        _clock(seen.sight),
        _kinds(seen),
        _caller(seen),
        _operator(seen.sight, names),
        _operator_rights(seen, names),
        _pods(seen, names),
        _certificates(seen),
        _policies(seen.sight, names),
        _hsms(seen.sight, names),
        _claims(seen.sight, names),
    )
    return Diagnosis(f"The installation in namespace {names.system}", state_of(checks), checks)


def not_known(name: str, unread: Unread, *, decides: bool = False) -> Check:
    """A check that could not be made."""
    outcome = Outcome.CANNOT_TELL if decides else None
    return Check(name, outcome, unread.why.value, "", f"Not known: {unread}.", decides=decides)


# --- the cluster ----------------------------------------------------------------------------------------------


def _server(seen: InstallationSight) -> Check:
    if isinstance(seen.server, Unread):
        advice = Advice("See whether your kubeconfig is the right one.", ("kubectl cluster-info",))
        return replace(not_known("api server", seen.server, decides=True), advice=(advice,))
    return Check("api server", Outcome.HOLDS, "Answers", "", f"Kubernetes {seen.server}; this command is {seen.ours}.")


def _clock(sight: Sight) -> Check:
    """Of this machine: the operator's own clock only its own machine knows."""
    expected = f"This machine's clock and the API server's are less than {SKEW_SECONDS:.0f} s apart."
    if sight.skew_seconds is None:
        return Check("clock", None, "NotTold", expected, "The API server did not say what time it is.", decides=False)
    apart = f"It is {abs(sight.skew_seconds):.1f} s {'ahead' if sight.skew_seconds > 0 else 'behind'}."
    if abs(sight.skew_seconds) <= SKEW_SECONDS:
        return Check("clock", Outcome.HOLDS, "Agrees", expected, apart, decides=False)
    advice = Advice("Set the clock by NTP, on this machine and on the nodes.", ("timedatectl status",))
    bad = abs(sight.skew_seconds) > BAD_SKEW_SECONDS
    outcome = Outcome.REFUTED if bad else Outcome.HOLDS
    return Check("clock", outcome, "Differs", expected, apart, advice=(advice,), decides=bad)


def _kinds(seen: InstallationSight) -> Check:
    expected = "The three kinds are there, and of this version."
    advice = Advice(
        "Upgrade the chart, or use a command of the chart's version. Helm leaves kinds alone that it did not make.",
        ("helm list --all-namespaces", "kubectl get crds"),
    )
    if isinstance(seen.kinds, Unread):
        return not_known("kinds", seen.kinds)
    parts = []
    for kind in OURS:
        found = seen.kinds.get(kind.plural)
        if found is None:
            parts.append(Check(kind.name, Outcome.REFUTED, "Missing", "", f"There is no {kind.definition_name}."))
            continue
        wrong = differences(kind, found)
        if not established(found):
            parts.append(Check(kind.name, Outcome.REFUTED, "NotServed", "", "The API server does not serve it."))
        elif wrong:
            text = f"Another version's: {', '.join(wrong[:NAMED])}" + (" and more." if len(wrong) > NAMED else ".")
            parts.append(Check(kind.name, Outcome.REFUTED, "OtherVersion", "", text))
        else:
            parts.append(Check(kind.name, Outcome.HOLDS, "SameVersion"))
    return _whole("kinds", parts, expected, "All three are of this version.", (advice,))


def _caller(seen: InstallationSight) -> Check:
    """What the caller may not read is what this command cannot tell."""
    if isinstance(seen.may, Unread):
        return not_known("your rights", seen.may)
    denied = [wish for wish, allowed in seen.may.items() if not allowed]
    if not denied:
        return Check("your rights", Outcome.HOLDS, "Enough", "", "You may read all that is looked at.", decides=False)
    check = Check("your rights", None, "Limited", "", "Some of it you may not read: not judged.", decides=False)
    return check.with_notes(*(f"You may not {wish}." for wish in denied))


# --- our own processes ----------------------------------------------------------------------------------------


def _operator(sight: Sight, names: Names) -> Check:
    """Whoever asks about one object cannot tell without an operator; of the installation it is the fault itself."""
    check = operator_check(sight, names)
    return replace(check, outcome=Outcome.REFUTED) if check.fails else check


def _operator_rights(seen: InstallationSight, names: Names) -> Check:
    expected = "The operator's account is allowed what the operator does."
    if isinstance(seen.rules, Unread):
        return not_known("operator's rights", seen.rules)
    missing = lacking(seen.rules)
    if not missing:
        return Check("operator's rights", Outcome.HOLDS, "Enough", expected, "Its roles give all that it needs.")
    advice = Advice(
        "Let Helm put the chart's roles back; if others took rights away, ask them.",
        ("helm upgrade --help", f"kubectl get clusterrole,role --namespace {names.system}"),
    )
    found = f"{len(missing)} rights are missing: {', '.join(map(str, missing[:8]))}."
    return Check("operator's rights", Outcome.REFUTED, "Lacking", expected, found, advice=(advice,))


def _pods(seen: InstallationSight, names: Names) -> Check:
    expected = "Every pod of ours is ready, and of this version."
    if isinstance(seen.pods, Unread):
        return not_known("pods", seen.pods)
    if not seen.pods:
        found = "There are none: operator and hosts run outside this cluster, or nothing is installed."
        return Check("pods", None, "NoPods", expected, found, decides=False)
    versions = Counter((pod.component, pod.version) for pod in seen.pods)
    notes = [f"{component}: {count} of version {version}." for (component, version), count in sorted(versions.items())]
    if len({version for _, version in versions}) > 1:
        notes.append("Several versions run: an upgrade is under way, or was left half done.")
    bad = [pod for pod in seen.pods if not pod.ready]
    if not bad:
        restarted = [pod for pod in seen.pods if pod.restarts]
        notes += [f"{pod.namespace}/{pod.name} was restarted {pod.restarts} times." for pod in restarted[:SHOWN]]
        return Check("pods", Outcome.HOLDS, "Ready", expected, f"{len(seen.pods)} are ready.", notes=tuple(notes))
    parts = tuple(
        Check(
            f"{pod.namespace}/{pod.name}", Outcome.REFUTED, pod.why or pod.phase, "",
            f"Restarted {pod.restarts} times.",
            advice=(Advice("See why.", tuple(_of_pod(pod, names))),),
        )
        for pod in bad[:SHOWN]
    )  # fmt: skip
    found = f"{len(bad)} of {len(seen.pods)} are not ready."
    return Check("pods", Outcome.REFUTED, "NotReady", expected, found, notes=tuple(notes), parts=parts)


def _of_pod(pod: PodSight, names: Names) -> list[str]:
    named = replace(names, namespace=pod.namespace, name=pod.name)
    templates = (
        "kubectl --namespace {namespace} describe pod {name}",
        "kubectl --namespace {namespace} logs {name} --all-containers",
    )
    return [command for command in map(named.fill, templates) if command is not None]


def _certificates(seen: InstallationSight) -> Check:
    expected = "The CA and the certificates made by it are valid, and not about to end."
    if isinstance(seen.certificates, Unread):
        return not_known("certificates", seen.certificates)
    found = (*seen.certificates, *seen.leaves)
    if not found:
        text = "The operator has not published its CA."
        return Check("certificates", None, "NotPublished", expected, text, decides=False)
    parts = [_certificate(certificate, seen.sight.now) for certificate in found]
    soonest = min(found, key=lambda certificate: certificate.ends)
    days = (soonest.ends - seen.sight.now) / 86400
    advice = Advice("The operator and the hosts renew them by themselves; see what their logs say of it.")
    well = f"{len(found)} are valid; the first to end is that of {soonest.of}, in {days:.0f} days."
    return _whole("certificates", parts, expected, well, (advice,))


def _certificate(certificate: CertificateSight, now: float) -> Check:
    days = (certificate.ends - now) / 86400
    if now < certificate.begins:
        return Check(certificate.of, Outcome.REFUTED, "NotYetValid", "", "It begins later: a clock is wrong.")
    if now >= certificate.ends:
        return Check(certificate.of, Outcome.REFUTED, "Expired", "", f"It ended {-days:.0f} days ago.")
    lifetime = certificate.ends - certificate.begins
    if certificate.ends - now < min(SOON_SECONDS, lifetime / 10):
        return Check(certificate.of, Outcome.REFUTED, "EndsSoon", "", f"It ends in {days:.1f} days.")
    return Check(certificate.of, Outcome.HOLDS, "Valid", "", f"It ends in {days:.0f} days.")


# --- objects --------------------------------------------------------------------------------------------------


def _policies(sight: Sight, names: Names) -> Check:
    if isinstance(sight.policies, Unread):
        return not_known("policies", sight.policies, decides=True)
    found = [explain_policy(policy, _led(sight), names) for policy in sight.policies]
    return _objects("policies", found, "Every AttestationPolicy can be enforced.", "explain policy", names)


def _hsms(sight: Sight, names: Names) -> Check:
    if isinstance(sight.hsms, Unread):
        return not_known("hsms", sight.hsms, decides=True)
    found = [explain_hsm(hsm, _led(sight), names) for hsm in sight.hsms]
    return _objects("hsms", found, "Every Hsm is Ready.", "explain hsm", names)


def _claims(sight: Sight, names: Names) -> Check:
    """Only those that are not Ready are looked at closely: there may be ten thousand."""
    if isinstance(sight.claims, Unread):
        return not_known("claims", sight.claims, decides=True)
    reasons = Counter(_reason(claim) for claim in sight.claims)
    notes = [f"{count} {reason}." for reason, count in reasons.most_common(12)]
    bad = [claim for claim in sight.claims if not _is_ready(claim)]
    found = [explain_claim(claim, _led(sight), names) for claim in bad[:SHOWN]]
    check = _objects("claims", found, "Every HsmClaim is Ready.", "explain claim", names, total=len(sight.claims))
    if len(bad) > SHOWN:
        notes.append(f"{len(bad)} are not Ready; {SHOWN} of them are shown.")
    return replace(check, outcome=Outcome.REFUTED if bad else check.outcome).with_notes(*notes)


def _led(sight: Sight) -> Sight:
    """Who leads is asked once, not for every object."""
    return replace(sight, lease=None)


def _reason(claim: HsmClaim) -> str:
    ready = find(claim.status.conditions, ConditionType.READY.value)
    return "Ready" if _is_ready(claim) else f"not Ready ({ready.reason if ready is not None else 'not examined'})"


def _is_ready(claim: HsmClaim) -> bool:
    ready = find(claim.status.conditions, ConditionType.READY.value)
    return ready is not None and ready.status == "True"


def _objects(
    name: str, found: list[Diagnosis], expected: str, command: str, names: Names, *, total: int | None = None
) -> Check:
    """One line for each that is not Ready, with the command that explains it."""
    bad = [diagnosis for diagnosis in found if diagnosis.state is not State.READY]
    count = len(found) if total is None else total
    if not bad:
        return Check(name, Outcome.HOLDS, "Ready" if count else "None", expected, f"{count} are Ready.")
    outcome = Outcome.REFUTED if any(one.state is State.NOT_READY for one in bad) else Outcome.CANNOT_TELL
    parts = tuple(_object(diagnosis, command, names) for diagnosis in bad[:SHOWN])
    return Check(name, outcome, "NotReady", expected, f"{len(bad)} of {count} are not Ready.", parts=parts)


def _object(diagnosis: Diagnosis, command: str, names: Names) -> Check:
    subject = diagnosis.subject.split(" ", 1)[1]
    deciding = diagnosis.deciding
    outcome = Outcome.REFUTED if diagnosis.state is State.NOT_READY else Outcome.CANNOT_TELL
    told = replace(names, name=subject).fill(f"{{chatelaine}} {command} {{name}}")
    advice = Advice("See the whole chain, and what to do.", (told,) if told is not None else ())
    if deciding is None:
        return Check(subject, outcome, "NotReady", "", "", advice=(advice,))
    return Check(subject, outcome, deciding.reason, "", f"{deciding.name}: {deciding.found}", advice=(advice,))


def _whole(name: str, parts: list[Check], expected: str, well: str, advice: tuple[Advice, ...]) -> Check:
    bad = [part for part in parts if part.fails]
    if not bad:
        return Check(name, Outcome.HOLDS, parts[0].reason, expected, well, parts=())
    return Check(name, Outcome.REFUTED, bad[0].reason, expected, "", parts=tuple(bad), advice=advice)
