"""GitOps tools tell the health of our objects rightly: every status that the operator writes, every reason."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from tools.reference import gitops

from chatelaine.model.crd import KINDS
from chatelaine.model.reasons import Reason
from support import argo_health, flux_health
from support.written_statuses import conditions

pytestmark = pytest.mark.xdist_group("gitops-health")

ROOT = Path(__file__).resolve().parents[3]
Json = dict[str, Any]


def expected(obj: Json) -> tuple[str, str]:
    """What the page of reasons says that Argo CD and Flux tell of this object."""
    said = conditions(obj)
    shown = gitops.shown(Reason(said["Ready"]["reason"]))
    assert shown is not None, said["Ready"]
    if "deletionTimestamp" in obj["metadata"]:
        return "Progressing", "Terminating"
    paused = said.get("Paused", {}).get("status") == "True"
    return ("Suspended" if paused and shown is not gitops.BROKEN else shown.argo_cd), shown.flux


def test_every_kind_has_its_checks() -> None:
    kinds = {kind.name for kind in KINDS}
    assert set(argo_health.checks()) == set(flux_health.expressions()) == kinds


def test_argo_cd_tells_of_every_written_status_what_the_page_says(written: list[Json]) -> None:
    for obj in written:
        ready = conditions(obj)["Ready"]
        told = argo_health.health(obj)
        assert told.status == expected(obj)[0], (obj["kind"], ready, told)
        if told.status in ("Degraded", "Progressing") and "deletionTimestamp" not in obj["metadata"]:
            assert told.message.startswith(ready["reason"]), told
            assert ready["message"] in told.message, told


def test_kstatus_tells_of_every_written_status_what_the_page_says(written: list[Json]) -> None:
    for obj, told in zip(written, flux_health.health(written), strict=True):
        assert told.kstatus == expected(obj)[1], (obj["kind"], conditions(obj), told)


def test_fluxs_expressions_agree_with_kstatus(written: list[Json]) -> None:
    alive = [obj for obj in written if "deletionTimestamp" not in obj["metadata"]]
    for obj, told in zip(alive, flux_health.health(alive), strict=True):
        assert (told.expressions, told.error) == (expected(obj)[1], ""), (obj["kind"], conditions(obj), told)


def test_what_decides_nothing_never_stands_in_ready(written: list[Json]) -> None:
    made = {Reason(conditions(obj)["Ready"]["reason"]) for obj in written}
    assert made & gitops.DECIDES_NOTHING == set()
    assert len(made) > 25, "too few to say anything"


def test_stalled_and_ready_agree_with_the_page(written: list[Json]) -> None:
    """`Stalled=True` exactly where the page says Failed: that is all that kstatus has to go by."""
    for obj in written:
        said = conditions(obj)
        broken = gitops.shown(Reason(said["Ready"]["reason"])) is gitops.BROKEN
        assert (said["Stalled"]["status"] == "True") is broken, (obj["kind"], said)


@pytest.mark.parametrize("reason", [reason for reason in Reason if gitops.shown(reason) is not None])
def test_each_reason_on_each_kind(reason: Reason) -> None:
    shown = gitops.shown(reason)
    assert shown is not None
    objects = [sample(kind.name, reason, shown) for kind in KINDS]
    for obj, told in zip(objects, flux_health.health(objects), strict=True):
        if shown is not gitops.FOR_A_PERSON or obj["kind"] == "Hsm":
            assert argo_health.health(obj).status == shown.argo_cd
        assert (told.kstatus, told.expressions) == (shown.flux, shown.flux)


def sample(kind: str, reason: Reason, shown: gitops.Shown = gitops.FINE) -> Json:
    """An object whose `Ready` gives this reason."""

    def condition(type_: str, *, holds: bool) -> Json:
        status = "True" if holds else "False"
        return {"type": type_, "status": status, "reason": reason.value, "message": "", "observedGeneration": 2}

    said = [condition("Ready", holds=shown is gitops.FINE), condition("Stalled", holds=shown is gitops.BROKEN)]
    return {
        "apiVersion": "chatelaine.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "x", "generation": 2},
        "spec": {},
        "status": {"observedGeneration": 2, "conditions": said},
    }


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_an_edited_object_is_not_healthy_by_what_was_said_of_its_last_spec(kind: str) -> None:
    edited = sample(kind, Reason.ALL_READY)
    edited["metadata"]["generation"] = 3
    assert argo_health.health(edited).status == "Progressing"
    (told,) = flux_health.health([edited])
    assert (told.kstatus, told.expressions) == ("InProgress", "InProgress")


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_new_object_without_a_status_is_not_healthy(kind: str) -> None:
    new = sample(kind, Reason.ALL_READY)
    del new["status"]
    begun = copy.deepcopy(new) | {"status": {}}
    assert argo_health.health(new).status == argo_health.health(begun).status == "Progressing"
    first, second = flux_health.health([new, begun])
    # kstatus alone takes it for finished (which is why expressions are shipped); Flux waits where they tell nothing.
    assert (first.kstatus, first.expressions) == ("Current", "")
    assert "status" in first.error
    assert second.expressions == "InProgress"


def test_a_refuted_host_under_a_pause_is_not_shown_as_merely_paused(written: list[Json]) -> None:
    paused = [obj for obj in written if conditions(obj).get("Paused", {}).get("status") == "True"]
    shown = {conditions(obj)["Ready"]["reason"]: argo_health.health(obj).status for obj in paused}
    assert shown["EvidenceRefuted"] == "Degraded"
    assert shown["AllReady"] == "Suspended"


def test_checks_use_nothing_that_argo_cd_does_not_give_them() -> None:
    new = sample("Hsm", Reason.ALL_READY)
    for check in ("string.format('x')", "('x'):rep(2)", "io.read()", "os.execute('x')", "require('os')"):
        with pytest.raises(argo_health.LuaError):
            argo_health.run(f"return {{status = 'Healthy', message = {check}}}", new)


def test_the_page_says_what_is_tested() -> None:
    page = (ROOT / "docs" / "reference" / "gitops-health.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+ \| \w+) \|$", page, re.MULTILINE))
    for reason in Reason:
        shown = gitops.shown(reason)
        assert rows.get(reason.value) == (None if shown is None else f"{shown.argo_cd} | {shown.flux}")
        assert f"`{reason}`" in page
