"""Who wrote a field of an object, by its `managedFields`. Pure."""

from __future__ import annotations

from typing import Any

from chatelaine.kube.port import JsonObject, metadata_of


def owners_of(body: JsonObject, *path: str) -> list[str]:
    """Field managers that own the field at `path` (`spec`, `cordoned`), sorted."""
    found = set()
    for entry in metadata_of(body).get("managedFields") or ():
        place: Any = entry.get("fieldsV1") or {}
        for name in path:
            place = place.get(f"f:{name}") if isinstance(place, dict) else None
        if place is not None:
            found.add(str(entry.get("manager") or "somebody"))
    return sorted(found)
