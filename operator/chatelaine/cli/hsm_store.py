"""Reads an Hsm and what hangs on it, cordons it, deletes it; writes are guarded by what was read."""

from __future__ import annotations

from typing import Final

from chatelaine.cli.hsm_inventory import Inventory, inventory
from chatelaine.cli.hsm_owned import owners_of
from chatelaine.kube.port import CLAIMS, HSMS, Guard, JsonObject, KubePort, Selection, metadata_of
from chatelaine.model.claim import HsmClaim
from chatelaine.model.hsm import Cordon, Hsm

FIELD_MANAGER: Final = "chatelaine-hsm"
PAGE: Final = 500


class SomebodyElses(Exception):
    """The field is another manager's, which would put it back; the message says what to do instead."""


async def read(kube: KubePort, name: str) -> tuple[JsonObject, Inventory]:
    """The Hsm as it is, and its inventory.

    Raises:
        NotFound: there is none of that name.
        KubeError: the API server did not answer.
    """
    body = await kube.get(HSMS, name)
    claims: list[HsmClaim] = []
    token = ""
    while True:
        page = await kube.list_page(Selection(CLAIMS), limit=PAGE, continue_token=token)
        claims += map(HsmClaim.model_validate, page.items)
        token = page.continue_token
        if not token:
            return body, inventory(Hsm.model_validate(body), claims)


async def cordon(kube: KubePort, name: str, wanted: Cordon) -> bool:
    """Set or take back `spec.cordoned`; False: it was so already.

    Raises:
        SomebodyElses: another manager owns the field.
        NotFound: there is none of that name.
        KubeError: the API server did not answer, or the object has just changed.
    """
    body = await kube.get(HSMS, name)
    said = Hsm.model_validate(body).spec.cordoned or Cordon.DISABLED
    if said is wanted:
        return False
    others = [owner for owner in owners_of(body, "spec", "cordoned") if owner != FIELD_MANAGER]
    if others:
        raise SomebodyElses(
            f"spec.cordoned of Hsm {name} is {said}, and is managed by {', '.join(others)}, which may put it back."
            f" Expected: nobody, or {FIELD_MANAGER}. Write `cordoned: {wanted}` where that manager takes it from"
            f" (for example Git), or: kubectl patch hsm {name} --type merge"
            f' --patch \'{{"spec":{{"cordoned":"{wanted}"}}}}\''
        )
    meta = metadata_of(body)
    guard = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    spec = {"cordoned": wanted.value} if wanted is Cordon.ENABLED else {}
    await kube.apply(HSMS, name, {"metadata": guard, "spec": spec}, field_manager=FIELD_MANAGER)
    return True


async def delete(kube: KubePort, body: JsonObject) -> None:
    """Delete exactly what was read: a place that was given since, or keys that were retained, keep it.

    Raises:
        Conflict: it has changed.
        KubeError: the API server did not do it.
    """
    meta = metadata_of(body)
    await kube.delete(HSMS, meta["name"], guard=Guard(meta["uid"], meta["resourceVersion"]))
