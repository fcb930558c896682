"""Are the kinds of the cluster those of this version? Schema by schema, as the API server holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from chatelaine.model.crd import KINDS, Kind, definition

NAMED: Final = 4
"""Differences that are named one by one."""

Definition = Mapping[str, Any]
OURS: Final[tuple[Kind, ...]] = tuple(KINDS)


def differences(kind: Kind, found: Definition) -> list[str]:
    """Where the definition in the cluster is not the one of this version, as paths; empty: it is.

    What only helps people (descriptions, columns) is not looked at.
    """
    ours, theirs = definition(kind)["spec"], found.get("spec", {})
    if theirs.get("scope") != ours["scope"] or theirs.get("names", {}).get("kind") != kind.name:
        return ["it is another kind"]
    version = ours["versions"][0]
    stored = next((one for one in theirs.get("versions", ()) if one.get("name") == version["name"]), None)
    if stored is None or not stored.get("served"):
        return [f"version {version['name']} is not served"]
    wanted = version["schema"]["openAPIV3Schema"]
    return list(_differing(wanted, stored.get("schema", {}).get("openAPIV3Schema", {}), ""))


def _differing(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs} - {"description"}):
            yield from _differing(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(ours, Sequence) and isinstance(theirs, Sequence) and not isinstance(ours, str):
        if list(ours) != list(theirs):
            yield path
    elif ours != theirs:
        yield path


def established(found: Definition) -> bool:
    """Does the API server serve it?"""
    conditions = found.get("status", {}).get("conditions", ())
    return any(one.get("type") == "Established" and one.get("status") == "True" for one in conditions)
