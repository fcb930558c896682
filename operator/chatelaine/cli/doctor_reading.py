"""Reads the whole installation within a bounded time, all at once, with the caller's own rights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509

from chatelaine import __version__
from chatelaine.cli.explain_access import PersonAdapter, Wish
from chatelaine.cli.explain_reading import bodies, everything, lease, reading, skew
from chatelaine.diagnosis.installation import CertificateSight, InstallationSight, PodSight
from chatelaine.diagnosis.kinds import OURS, Definition
from chatelaine.diagnosis.rights import Rule
from chatelaine.diagnosis.sight import Sight, Unread, Why
from chatelaine.kube.errors import Forbidden, NotFound
from chatelaine.kube.port import (
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    HSMS,
    LEASES,
    NAMESPACES,
    PODS,
    POLICIES,
    JsonObject,
    Resource,
    Selection,
    metadata_of,
)
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Hsm
from chatelaine.model.identifiers import CA_NAME
from chatelaine.model.policy import AttestationPolicy
from chatelaine.pki.chain import load_bundle
from chatelaine.pki.errors import PkiError

BUNDLE_KEY: Final = "ca.crt"
OUR_PODS: Final = "app.kubernetes.io/name=chatelaine"
COMPONENT: Final = "app.kubernetes.io/component"
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
_RBAC: Final = "rbac.authorization.k8s.io"
ROLES: Final = Resource(_RBAC, "v1", "roles", "Role", namespaced=True)
CLUSTER_ROLES: Final = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
ROLE_BINDINGS: Final = Resource(_RBAC, "v1", "rolebindings", "RoleBinding", namespaced=True)
CLUSTER_ROLE_BINDINGS: Final = Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
ACCOUNT: Final = "chatelaine-operator"

Found = TypeVar("Found")
Tell = Callable[[frozenset[str]], None]
"""Told what is still being read."""


class _Round:
    """Several reads at a time, each with its name, all with one deadline."""

    def __init__(self, seconds: float, tell: Tell) -> None:
        self._ends = time.monotonic() + seconds
        self._seconds = seconds
        self._tell = tell
        self._pending: set[str] = set()

    async def read(self, what: str, work: Coroutine[Any, Any, Found]) -> Found | Unread:
        """What `work` gives, unless the time is over."""
        self._pending.add(what)
        self._tell(frozenset(self._pending))
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.monotonic())):
                return await work
        except TimeoutError:
            return Unread(f"read {what}", Why.UNAVAILABLE, f"not within {self._seconds:.0f} s")
        finally:
            self._pending.discard(what)
            self._tell(frozenset(self._pending))


async def installation(
    kube: PersonAdapter, system: str, leaves: tuple[CertificateSight, ...], *, seconds: float, tell: Tell
) -> InstallationSight:
    """Everything that `diagnosis.installation.examine` looks at.

    Args:
        kube: the API server.
        system: the operator's namespace.
        leaves: certificates that were found elsewhere.
        seconds: bound on all of it.
        tell: hears what is still being read.
    """
    round_ = _Round(seconds, tell)
    # Before anything else: what many reads at once take their time for is no difference of clocks.
    off = await round_.read("the clock", skew(kube))
    async with asyncio.TaskGroup() as tasks:
        start = tasks.create_task
        server = start(round_.read("the version", reading("get the version", kube.version)))
        claims = start(round_.read("claims", everything(kube, CLAIMS, HsmClaim)))
        hsms = start(round_.read("Hsms", everything(kube, HSMS, Hsm)))
        policies = start(round_.read("policies", everything(kube, POLICIES, AttestationPolicy)))
        leads = start(round_.read("the Lease", lease(kube, system)))
        kinds = start(round_.read("kinds", reading("get customresourcedefinitions", lambda: _kinds(kube))))
        rules = start(round_.read("roles", reading("read the operator's roles", lambda: _rules(kube, system))))
        may = start(round_.read("your rights", reading("create selfsubjectaccessreviews", lambda: _may(kube, system))))
        pods = start(round_.read("pods", reading("list our pods", lambda: _pods(kube, system))))
        ca = start(round_.read("certificates", reading(f"get ConfigMap {CA_NAME}", lambda: _published(kube, system))))
    sight = Sight(
        now=time.time(),
        claims=claims.result(),
        hsms=hsms.result(),
        policies=policies.result(),
        namespaces=await _namespaces(kube, claims.result(), round_),
        lease=leads.result(),
        skew_seconds=None if isinstance(off, Unread) else off,
    )
    return InstallationSight(
        sight=sight,
        ours=__version__,
        server=server.result(),
        kinds=kinds.result(),
        rules=rules.result(),
        may=may.result(),
        pods=pods.result(),
        certificates=ca.result(),
        leaves=leaves,
    )


async def _namespaces(kube: PersonAdapter, claims: tuple[HsmClaim, ...] | Unread, round_: _Round) -> dict[str, Any]:
    """Labels of the namespaces of claims, which release rules ask for."""
    names = set() if isinstance(claims, Unread) else {claim.metadata.namespace or "" for claim in claims}

    async def listed() -> dict[str, Any]:
        return {
            str(metadata_of(body)["name"]): metadata_of(body).get("labels") or {}
            async for body in bodies(kube, Selection(NAMESPACES, metadata_only=True))
        }

    found = await round_.read("namespaces", reading("list namespaces", listed)) if names else {}
    return dict.fromkeys(names, found) if isinstance(found, Unread) else found


async def _kinds(kube: PersonAdapter) -> dict[str, Definition | None]:
    async def one(name: str) -> Definition | None:
        try:
            return await kube.get(DEFINITIONS, name)
        except NotFound:
            return None

    found = await asyncio.gather(*(one(kind.definition_name) for kind in OURS))
    return {kind.plural: definition for kind, definition in zip(OURS, found, strict=True)}


async def _may(kube: PersonAdapter, system: str) -> dict[str, bool]:
    wishes = (
        Wish("list", HSMS),
        Wish("list", CLAIMS),
        Wish("list", POLICIES),
        Wish("list", NAMESPACES),
        Wish("list", PODS),
        Wish("list", EVENTS),
        Wish("get", DEFINITIONS),
        Wish("list", CLUSTER_ROLE_BINDINGS),
        Wish("get", CLUSTER_ROLES),
        Wish("get", LEASES, system),
        Wish("get", CONFIG_MAPS, system),
        Wish("get", PODS, system, "log"),
    )
    answers = await asyncio.gather(*(kube.may(wish) for wish in wishes))
    return {str(wish): answer for wish, answer in zip(wishes, answers, strict=True)}


# --- the operator's roles -------------------------------------------------------------------------------------


async def _rules(kube: PersonAdapter, system: str) -> tuple[Rule, ...]:
    """What is bound to the operator's account by name; groups of accounts are not looked at."""
    account = await _account(kube, system)
    found: list[Rule] = []
    for bindings, namespace in ((CLUSTER_ROLE_BINDINGS, None), (ROLE_BINDINGS, system)):
        async for binding in bodies(kube, Selection(bindings, namespace)):
            if not any(_is(subject, system, account) for subject in binding.get("subjects") or ()):
                continue
            ref = binding.get("roleRef") or {}
            cluster = ref.get("kind") == CLUSTER_ROLES.kind
            try:
                role = await kube.get(
                    CLUSTER_ROLES if cluster else ROLES, str(ref.get("name")), None if cluster else system
                )
            except NotFound:
                continue
            found += [_rule(rule, own=namespace is not None) for rule in role.get("rules") or ()]
    return tuple(found)


def _is(subject: JsonObject, system: str, account: str) -> bool:
    named = (subject.get("kind"), subject.get("namespace"), subject.get("name"))
    return named == ("ServiceAccount", system, account)


async def _account(kube: PersonAdapter, system: str) -> str:
    """The account of the operator's pods; as the chart names it where there is none."""
    selector = f"{OUR_PODS},{COMPONENT}=operator"
    try:
        async for pod in bodies(kube, Selection(PODS, system, selector)):
            return str((pod.get("spec") or {}).get("serviceAccountName") or ACCOUNT)
    except Forbidden:
        pass
    return ACCOUNT


def _rule(rule: JsonObject, *, own: bool) -> Rule:
    def named(field: str) -> frozenset[str]:
        return frozenset(map(str, rule.get(field) or ()))

    return Rule(named("apiGroups"), named("resources"), named("verbs"), named("resourceNames"), own_namespace=own)


# --- pods and certificates ------------------------------------------------------------------------------------


async def _pods(kube: PersonAdapter, system: str) -> tuple[PodSight, ...]:
    """Ours, of all namespaces; of the operator's alone where the caller may not see more."""
    try:
        return tuple([_pod(body) async for body in bodies(kube, Selection(PODS, None, OUR_PODS))])
    except Forbidden:
        return tuple([_pod(body) async for body in bodies(kube, Selection(PODS, system, OUR_PODS))])


def _pod(body: JsonObject) -> PodSight:
    meta: JsonObject = metadata_of(body)
    spec: JsonObject = body.get("spec") or {}
    status: JsonObject = body.get("status") or {}
    containers = status.get("containerStatuses") or ()
    conditions = status.get("conditions") or ()
    waiting = (container.get("state", {}).get("waiting", {}).get("reason") for container in containers)
    phase = str(status.get("phase", "Unknown"))
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return PodSight(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        component=str((meta.get("labels") or {}).get(COMPONENT, "pod")),
        image=next((str(container.get("image", "")) for container in spec.get("containers") or ()), ""),
        ready=ready or phase == "Succeeded",
        phase=phase,
        restarts=sum(int(container.get("restartCount", 0)) for container in containers),
        why=str(next(filter(None, waiting), "")),
    )


async def _published(kube: PersonAdapter, system: str) -> tuple[CertificateSight, ...]:
    """The CA's public half, as the operator publishes it for people. Its Secret holds a key and is not read."""
    try:
        body = await kube.get(CONFIG_MAPS, CA_NAME, system)
    except NotFound:
        return ()
    return sights("the CA", str((body.get("data") or {}).get(BUNDLE_KEY, "")))


def sights(of: str, pem: str) -> tuple[CertificateSight, ...]:
    """Certificates of a PEM text.

    Raises:
        ValueError: it is none.
    """
    try:
        return tuple(_sight(of, certificate) for certificate in load_bundle(pem))
    except PkiError as error:
        raise ValueError(f"{of}: {error}") from error


def _sight(of: str, certificate: x509.Certificate) -> CertificateSight:
    return CertificateSight(
        of, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    )


def leaves_in(folders: Iterable[Path]) -> tuple[CertificateSight, ...]:
    """Leaves that processes keep as `chain.pem` in folders of theirs.

    Raises:
        OSError, ValueError: a folder has none that can be read.
    """
    found: list[CertificateSight] = []
    for folder in folders:
        chain = x509.load_pem_x509_certificates((folder / "chain.pem").read_bytes())
        found += [_sight(str(folder), certificate) for certificate in chain[:1]]
    return tuple(found)
