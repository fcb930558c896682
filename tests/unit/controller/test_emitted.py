"""What is remembered of Secrets: whose name it is and what we wrote last, only as long as somebody wants it."""

from __future__ import annotations

from typing import Any

import pytest

from chatelaine.controller.emitted import EmittedObjects
from chatelaine.controller.reactions import Reactions
from chatelaine.controller.world import World
from chatelaine.kube.errors import AlreadyExists, NotFound
from chatelaine.kube.port import NO_GUARD, Guard, JsonObject, Resource
from chatelaine.model.identifiers import LABEL_MANAGED_BY, MANAGED_BY
from chatelaine.reconcile.plan import ApplySecret, DeleteSecret
from chatelaine.telemetry.metrics import OperatorMetrics
from support.quiet_server import QuietServer

PLACE = ("payments", "checkout-hsm")


class Secrets(QuietServer):
    """Keeps Secrets."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], JsonObject] = {}

    async def create(self, resource: Resource, body: JsonObject, namespace: str | None = None) -> JsonObject:
        place = (namespace or "", body["metadata"]["name"])
        if place in self.kept:
            raise AlreadyExists("there", 409)
        meta = {**body["metadata"], "namespace": place[0], "uid": "uid-s", "resourceVersion": "7"}
        self.kept[place] = {**body, "metadata": meta}
        return self.kept[place]

    async def get_metadata(self, resource: Resource, name: str, namespace: str | None = None) -> JsonObject:
        if (namespace or "", name) not in self.kept:
            raise NotFound("none", 404)
        return self.kept[namespace or "", name]

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, guard: Guard = NO_GUARD
    ) -> None:
        del self.kept[namespace or "", name]


class Silent(Reactions):
    """Nobody is told."""

    def secret_changed(self, change: Any) -> None:
        """Nothing follows."""


def apply_as(owner_uid: str) -> ApplySecret:
    meta = {
        "name": PLACE[1],
        "labels": {LABEL_MANAGED_BY: MANAGED_BY},
        "ownerReferences": [
            {"apiVersion": "chatelaine.dev/v1alpha1", "kind": "HsmClaim", "name": "c", "uid": owner_uid}
        ],
    }
    return ApplySecret(*PLACE, owner_uid, "digest", {"apiVersion": "v1", "kind": "Secret", "metadata": meta})


@pytest.fixture
def server() -> Secrets:
    return Secrets()


@pytest.fixture
def emitted(server: Secrets) -> EmittedObjects:
    return EmittedObjects(World(server, Silent(OperatorMetrics(), lambda: 0.0), lambda: 0.0, "system"))


async def test_secret_that_is_deleted_is_remembered_no_more(emitted: EmittedObjects, server: Secrets) -> None:
    await emitted.apply_secret(apply_as("uid-c"))
    assert emitted.written == {PLACE: 7}
    await emitted.delete_secret(DeleteSecret(*PLACE, "uid-c"))
    assert (emitted.written, emitted.taken, server.kept) == ({}, {}, {})


async def test_name_that_was_taken_is_remembered_no_more_once_its_claim_goes(
    emitted: EmittedObjects, server: Secrets
) -> None:
    await server.create(
        Resource("", "v1", "secrets", "Secret", namespaced=True), {"metadata": {"name": PLACE[1]}}, PLACE[0]
    )
    await emitted.apply_secret(apply_as("uid-c"))
    assert PLACE in emitted.taken
    await emitted.delete_secret(DeleteSecret(*PLACE, "uid-c"))
    assert (emitted.written, emitted.taken) == ({}, {})
    assert PLACE in server.kept
