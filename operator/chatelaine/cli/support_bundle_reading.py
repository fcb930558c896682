"""Collects what goes into a support bundle, with the caller's own rights. Data of Secrets is never asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console

from chatelaine.cli.doctor_reading import DEFINITIONS, OUR_PODS, Tell, installation
from chatelaine.cli.explain_access import PersonAdapter
from chatelaine.cli.explain_reading import bodies, reading
from chatelaine.cli.explain_report import lines_of
from chatelaine.cli.invocation import command_name
from chatelaine.cli.support_bundle_files import Bundle
from chatelaine.diagnosis import discretion
from chatelaine.diagnosis.check import Diagnosis, State
from chatelaine.diagnosis.installation import examine
from chatelaine.diagnosis.names import Names
from chatelaine.diagnosis.sight import Unread
from chatelaine.kube.port import (
    CLAIMS,
    CONFIG_MAPS,
    EVENTS,
    HSMS,
    NETWORK_POLICIES,
    PODS,
    POLICIES,
    SECRETS,
    JsonObject,
    Resource,
    Selection,
    metadata_of,
)
from chatelaine.model.identifiers import GROUP, LABEL_MANAGED_BY, MANAGED_BY

OURS: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
LOG_LINES: Final = 5000
LOG_BYTES: Final = 4 * 1024 * 1024
MAX_OBJECTS: Final = 20_000
MAX_PODS: Final = 100


async def collected(
    kubeconfig: Path | None, system: str, says: Mapping[State, str], *, seconds: float, tell: Tell
) -> Bundle:
    """All of it; what could not be read is noted.

    Raises:
        LoginFailed: no usable credentials.
    """
    bundle = Bundle()
    async with await PersonAdapter.of(kubeconfig) as kube:
        seen = await installation(kube, system, (), seconds=seconds, tell=tell)
        diagnosis = examine(seen, Names(command_name(), system))
        bundle.put("doctor.json", discretion.discreet(diagnosis.as_dict()))
        bundle.files["doctor.txt"] = "\n".join(discretion.discreet_lines(_text(diagnosis, says))) + "\n"
        bundle.put("versions.json", {"chatelaine": seen.ours, "kubernetes": str(seen.server)})
        for name, selection, tidy in _selections(system):
            tell(frozenset({name}))
            await _objects(kube, bundle, name, selection, tidy)
        await _events(kube, bundle)
        await _logs(kube, bundle, system, tell)
    return bundle


Tidy = Callable[[JsonObject], Any]


def _selections(system: str) -> tuple[tuple[str, Selection, Tidy], ...]:
    """Secrets and ConfigMaps by their metadata alone: what lies in them may be anybody's."""
    plain, pod = discretion.discreet, discretion.pod
    return (
        ("hsms", Selection(HSMS), plain),
        ("hsmclaims", Selection(CLAIMS), plain),
        ("attestationpolicies", Selection(POLICIES), plain),
        ("networkpolicies", Selection(NETWORK_POLICIES, None, OURS), plain),
        ("pods", Selection(PODS, None, OUR_PODS), pod),
        ("deployments", Selection(DEPLOYMENTS, system), pod),
        ("secrets-names", Selection(SECRETS, None, OURS, metadata_only=True), plain),
        ("configmaps-names", Selection(CONFIG_MAPS, system, metadata_only=True), plain),
        ("definitions-names", Selection(DEFINITIONS, metadata_only=True), plain),
    )


async def _objects(kube: PersonAdapter, bundle: Bundle, name: str, selection: Selection, tidy: Tidy) -> None:
    async def read() -> list[Any]:
        found: list[Any] = []
        async for body in bodies(kube, selection):
            found.append(tidy(body))
            if len(found) >= MAX_OBJECTS:
                bundle.missing.append(f"{name} beyond the first {MAX_OBJECTS}")
                break
        return found

    where = f" in namespace {selection.namespace}" if selection.namespace else ""
    found = await reading(f"list {selection.resource.plural}{where}", read)
    if isinstance(found, Unread):
        bundle.missing.append(f"{name}: {found}")
    else:
        bundle.put(f"objects/{name}.json", found)


async def _events(kube: PersonAdapter, bundle: Bundle) -> None:
    """Those about our kinds."""

    async def read() -> list[Any]:
        return [
            discretion.discreet(body)
            async for body in bodies(kube, Selection(EVENTS))
            if str((body.get("regarding") or {}).get("apiVersion", "")).startswith(f"{GROUP}/")
        ]

    found = await reading("list events", read)
    if isinstance(found, Unread):
        bundle.missing.append(f"Events: {found}")
    else:
        bundle.put("events/events.json", found[-MAX_OBJECTS:])


async def _logs(kube: PersonAdapter, bundle: Bundle, system: str, tell: Tell) -> None:
    """Of our pods, all containers: those in reach of the caller."""

    async def listed(namespace: str | None) -> list[JsonObject]:
        return [body async for body in bodies(kube, Selection(PODS, namespace, OUR_PODS))]

    pods = await reading("list our pods", lambda: listed(None))
    if isinstance(pods, Unread):
        pods = await reading(f"list our pods in namespace {system}", lambda: listed(system))
    if isinstance(pods, Unread):
        bundle.missing.append(f"logs: {pods}")
        return
    for body in pods[:MAX_PODS]:
        meta: JsonObject = metadata_of(body)
        spec: JsonObject = body.get("spec") or {}
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
            where = (str(meta.get("namespace")), str(meta.get("name")), str(container.get("name")))
            tell(frozenset({f"the log of {where[1]}"}))
            await _log(kube, bundle, *where)


async def _log(kube: PersonAdapter, bundle: Bundle, namespace: str, pod: str, container: str) -> None:
    query = urlencode({"container": container, "tailLines": LOG_LINES, "limitBytes": LOG_BYTES})
    path = f"{PODS.path(namespace, pod, 'log')}?{query}"
    text = await reading(f"read the log of {namespace}/{pod}", lambda: kube.text(path, most_bytes=LOG_BYTES))
    if isinstance(text, Unread):
        bundle.missing.append(f"the log of {namespace}/{pod} {container}: {text}")
        return
    lines = discretion.discreet_lines(text)
    bundle.files[f"logs/{namespace}/{pod}/{container}.log"] = "\n".join(lines) + "\n"


def _text(diagnosis: Diagnosis, says: Mapping[State, str]) -> str:
    """As a person sees it."""
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, soft_wrap=True, no_color=True)
    console.print(f"{diagnosis.subject} {says[diagnosis.state]}", markup=False)
    width = max((len(check.name) for check in diagnosis.checks), default=0)
    for check in diagnosis.checks:
        for line in lines_of(check, width):
            console.print(line)
    return out.getvalue()
