"""Asks the operator for a rotation of the CA, and reads what it shows of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from chatelaine.controller.pki import FIELD_MANAGER, ROTATION_KEY
from chatelaine.controller.rotation import RotationReport
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import NotFound
from chatelaine.kube.port import CONFIG_MAPS, metadata_of
from chatelaine.model.identifiers import ANNOTATION_ROTATE_CA, ANNOTATION_ROTATE_CA_GRACE, CA_NAME
from chatelaine.model.printable import printable
from chatelaine.pki.authority import Phase

POLL_SECONDS: Final = 1.0
_MAX_REPORT_BYTES: Final = 64 * 1024
_MAX_SHOWN_CHARACTERS: Final = 200
_MEANS: Final = {
    Phase.SETTLED: "no rotation is under way",
    Phase.PUBLISHED: "old and new CA are trusted, the old one signs",
    Phase.SWITCHED: "old and new CA are trusted, the new one signs",
}


class RotationFailed(Exception):
    """The rotation was not begun, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the ConfigMap shows. `asked`: the request that stands in its annotation, begun or not."""

    report: RotationReport
    asked: str


async def seen(namespace: str, kubeconfig: Path | None) -> Seen:
    """How far it is.

    Raises:
        KubeError: the API server did not answer, or no operator has published its CA yet.
        RotationFailed: an operator of another version is at work.
    """
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-pki") as kube:
        return await _seen(kube, namespace)


async def begin(
    namespace: str, kubeconfig: Path | None, *, wall: Callable[[], float], grace_seconds: int | None
) -> str:
    """Ask for a rotation; gives the request's name. `grace_seconds`: None leaves it to the operator.

    Raises:
        KubeError: the API server did not do it.
        RotationFailed: one is under way, or asked for.
    """
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-pki") as kube:
        before = await _seen(kube, namespace)
        pending = before.asked not in ("", before.report.request) and not before.report.problem
        if before.report.phase is not Phase.SETTLED or pending:
            raise RotationFailed(
                f"a rotation is under way, or asked for already ({before.report.phase}); wait for its end:"
                " chatelaine pki status"
            )
        request = datetime.fromtimestamp(wall(), tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        grace = None if grace_seconds is None else str(grace_seconds)
        annotations = {ANNOTATION_ROTATE_CA: request, ANNOTATION_ROTATE_CA_GRACE: grace}
        body = {"metadata": {"annotations": annotations}}
        await kube.merge(CONFIG_MAPS, CA_NAME, body, field_manager=f"{FIELD_MANAGER}-people", namespace=namespace)
        return request


async def await_end(
    namespace: str, kubeconfig: Path | None, request: str, tell: Callable[[str], None], *, seconds: float
) -> None:
    """Return when the rotation of that request is over; tell of each change until then.

    Raises:
        KubeError: the API server did not answer.
        RotationFailed: not within `seconds`, or the operator does not take the request.
    """
    deadline, said = time.monotonic() + seconds, ""
    async with await KubeAdapter.connect(kubeconfig, user_agent="chatelaine-pki") as kube:
        while True:
            found = await _seen(kube, namespace)
            text = text_of(found)
            if text != said:
                tell(text)
                said = text
            if found.report.problem:
                raise RotationFailed(f"the operator does not take the request: {_shown(found.report.problem)}")
            if found.report.request == request and found.report.phase is Phase.SETTLED:
                return
            if time.monotonic() > deadline:
                raise RotationFailed(
                    f"not over within {seconds:.0f} s; it goes on all the same. {text}. Bring back whom it waits for,"
                    " or delete the Hsm of a host that is gone"
                )
            await asyncio.sleep(POLL_SECONDS)


def text_of(found: Seen) -> str:
    """For people: one line."""
    report = found.report
    parts = [f"{report.phase} since {_time(report.since)}: {_MEANS[report.phase]} ({_shown(report.signing)})"]
    if found.asked not in ("", report.request):
        parts.append(f"a rotation is asked for and has not begun: {_shown(found.asked)}")
    if report.waiting_count:
        names = ", ".join(_shown(name) for name in report.waiting_for)
        more = ", …" if report.waiting_count > len(report.waiting_for) else ""
        parts.append(f"{report.waiting_count} have not taken it yet: {names}{more}")
    if report.next_at is not None:
        parts.append(f"next step at {_time(report.next_at)}")
    if report.problem:
        parts.append(f"a request is not taken: {_shown(report.problem)}")
    return "; ".join(parts)


async def _seen(kube: KubeAdapter, namespace: str) -> Seen:
    try:
        found = await kube.get(CONFIG_MAPS, CA_NAME, namespace)
    except NotFound as error:
        raise NotFound(
            f"there is no ConfigMap {CA_NAME} in namespace {namespace}: is the operator there, and running, and is"
            " pki.mode Internal?"
        ) from error
    text = str((found.get("data") or {}).get(ROTATION_KEY, ""))[:_MAX_REPORT_BYTES]
    annotations: dict[str, str] = metadata_of(found).get("annotations") or {}
    try:
        return Seen(msgspec.json.decode(text, type=RotationReport), annotations.get(ANNOTATION_ROTATE_CA, ""))
    except msgspec.MsgspecError as error:
        raise RotationFailed(
            f"ConfigMap {namespace}/{CA_NAME} shows no rotation that this command understands; is the operator of this"
            " version, and does one lead?"
        ) from error


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(text: str) -> str:
    return printable(text, _MAX_SHOWN_CHARACTERS)
