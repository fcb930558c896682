"""Every write is told, with how it ended; nothing that is read is."""

from __future__ import annotations

from typing import Any

import pytest

from chatelaine.kube.errors import Conflict, KubeError, Unavailable
from chatelaine.kube.observed import ObservedKube, Write
from chatelaine.kube.port import CLAIMS, HSMS, LEASES, Guard, Selection
from support.quiet_server import QuietServer

BODY = {"metadata": {"name": "a", "resourceVersion": "5"}}


class Answers(QuietServer):
    """Takes merges and deletions, and meets replacements with a conflict."""

    async def merge(self, *_: Any, **__: Any) -> dict[str, Any]:
        return BODY

    async def delete(self, *_: Any, **__: Any) -> None:
        return None

    async def replace(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise Conflict("no", 409)


@pytest.fixture
def told() -> list[Write]:
    return []


@pytest.fixture
def kube(told: list[Write]) -> ObservedKube:
    return ObservedKube(Answers(), told.append)


async def test_what_is_written_is_told_with_its_answer(kube: ObservedKube, told: list[Write]) -> None:
    assert await kube.merge(CLAIMS, "a", {}, field_manager="m", namespace="n", subresource="status") == BODY
    await kube.delete(HSMS, "a", None, Guard(uid="u"))
    assert told == [
        Write("merge", CLAIMS, "status", "Done", BODY),
        Write("delete", HSMS, None, "Done", None),
    ]


async def test_what_fails_is_told_by_its_kind_and_still_fails(kube: ObservedKube, told: list[Write]) -> None:
    with pytest.raises(Conflict):
        await kube.replace(LEASES, "a", {}, "n")
    for call in (kube.create(HSMS, {}), kube.apply(HSMS, "a", {}, field_manager="m")):
        with pytest.raises(Unavailable):
            await call
    assert [(write.verb, write.result, write.answer) for write in told] == [
        ("replace", "Conflict", None),
        ("create", "Unavailable", None),
        ("apply", "Unavailable", None),
    ]


async def test_reading_is_no_write(kube: ObservedKube, told: list[Write]) -> None:
    for call in (kube.get(HSMS, "a"), kube.get_metadata(HSMS, "a"), kube.cluster_identity()):
        with pytest.raises(KubeError):
            await call
    assert (await kube.list_page(Selection(HSMS), limit=1)).items == ()
    assert told == []
