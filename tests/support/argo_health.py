"""Argo CD's health checks, run as Argo CD runs them: Lua 5.1 with its base and table libraries, and nothing else.

Argo CD does not ask a check about what is being deleted: it shows that as Progressing by itself (its source,
`gitops-engine/pkg/health`, `GetResourceHealth`). Neither files, processes nor string functions are at hand (its
`util/lua`, `runLua`); a check that uses them fails here as it would there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from lupa.lua51 import LuaError, LuaRuntime, lua_type

ROOT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = ROOT / "examples" / "gitops" / "argo-cd" / "argocd-cm.yaml"
PREFIX: Final = "resource.customizations.health."
OPEN: Final = {
    "assert", "collectgarbage", "error", "getfenv", "getmetatable", "ipairs", "load", "loadstring", "next", "pairs",
    "pcall", "print", "rawequal", "rawget", "rawset", "select", "setfenv", "setmetatable", "table", "tonumber",
    "tostring", "type", "unpack", "xpcall", "_G", "_VERSION",
}  # fmt: skip
STATES: Final = {"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}

__all__ = ["CONFIG", "Health", "LuaError", "checks", "health", "run"]


class Health(NamedTuple):
    """What Argo CD shows."""

    status: str
    message: str


def checks() -> dict[str, str]:
    """The shipped checks by kind, from the keys of the ConfigMap: `<group>_<Kind>`."""
    data = yaml.safe_load(CONFIG.read_text())["data"]
    return {key.removeprefix(PREFIX).partition("_")[2]: text for key, text in data.items() if key.startswith(PREFIX)}


def health(obj: dict[str, Any]) -> Health:
    """Health of an object as the shipped check tells it."""
    if "deletionTimestamp" in obj["metadata"]:
        return Health("Progressing", "Pending deletion")
    return run(checks()[obj["kind"]], obj)


def run(check: str, obj: dict[str, Any]) -> Health:
    """Run one check over an object.

    Raises:
        LuaError: the check uses what Argo CD does not give it, or fails.
        AssertionError: it does not answer in the form that Argo CD asks for.
    """
    lua = LuaRuntime(register_eval=False, register_builtins=False, unpack_returned_tuples=True)
    lua.execute('getmetatable("").__index = nil')  # methods of strings come with the library of strings
    names = lua.globals()
    for name in [name for name in names if name not in OPEN]:
        names[name] = None
    names["obj"] = _table(lua, obj)
    answer = lua.execute(check)
    assert lua_type(answer) == "table", f"a check returns a table, not {answer!r}"
    assert answer["status"] in STATES, f"{answer['status']} is no health of Argo CD's"
    return Health(answer["status"], answer["message"] or "")


def _table(lua: LuaRuntime, value: Any) -> Any:
    """As Argo CD decodes it: null is absent, numbers are doubles, lists begin at 1."""
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, item) for key, item in value.items() if item is not None})
    if isinstance(value, list):
        return lua.table_from([_table(lua, item) for item in value])
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
