"""What changes between two policies, in sentences, and whether a change can only refuse more, or only let in more.

The walk follows the model: lists that are sets or maps there are compared as such, so order means nothing, and what
is absent counts as its default. A field that has no row in the tables below is shown all the same; its effect is then
`Either`, never a promise.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from chatelaine.appraisal.errors import DuplicateEntry
from chatelaine.appraisal.policy_words import Effect, effect_of, says, shown
from chatelaine.model.identifiers import canonical_json
from chatelaine.model.policy import AttestationPolicySpec


class ChangeKind(enum.StrEnum):
    """How something differs."""

    ADDED = "Added"
    REMOVED = "Removed"
    CHANGED = "Changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        path: where, with the keys of list entries: `tpm.pcrs.values[4].anyOf`.
        kind: added, removed, or changed.
        effect: what it can do.
        says: a sentence for a person; printable and bounded.
        before, after: the values as plain JSON; None where there is none.
    """

    path: str
    kind: ChangeKind
    effect: Effect
    says: str
    before: object = None
    after: object = None

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "path": self.path,
            "kind": self.kind.value,
            "effect": self.effect.value,
            "says": self.says,
            "before": self.before,
            "after": self.after,
        }


def overall(changes: Sequence[Change]) -> Effect:
    """What all changes together can do."""
    effects = {change.effect for change in changes} - {Effect.NOTHING}
    if not effects:
        return Effect.NOTHING
    return effects.pop() if len(effects) == 1 else Effect.EITHER


def diff_specs(before: AttestationPolicySpec, after: AttestationPolicySpec) -> tuple[Change, ...]:
    """Every difference that means something, in the order of the model's fields; empty: they judge alike.

    Raises:
        DuplicateEntry: one of them has two entries with the same key in a list; the API server would refuse it.
    """
    return tuple(_models(_Place(), before, after))


# --- the walk -------------------------------------------------------------------------------------------------

_DEFAULTS: Final = {
    "enforcement": "Enforce",
    "tpm.ima.violations": "Refuse",
    "hsm.inventory": "Any",
    "hsm.statement": "HostAsserted",
}
"""What an absent field counts as."""
_EMPTY_IS_ABSENT: Final = frozenset({"hsm", "tpm.eventLog.authorities", "tpm.eventLog.kernelCommandLine"})
"""Parts that ask for nothing as long as they hold nothing."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk is: `pattern` without, `path` with the keys of list entries."""

    pattern: str = ""
    path: str = ""
    keys: tuple[str, ...] = ()

    def field(self, name: str) -> _Place:
        dot = "." if self.pattern else ""
        return _Place(f"{self.pattern}{dot}{name}", f"{self.path}{dot}{name}", self.keys)

    def entry(self, key: str) -> _Place:
        return _Place(self.pattern, f"{self.path}[{key}]", (*self.keys, key))


def _models(place: _Place, before: BaseModel, after: BaseModel) -> Iterator[Change]:
    for name, info in type(before).model_fields.items():
        here = place.field(info.alias or name)
        old, new = getattr(before, name), getattr(after, name)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        yield from _values(here, old, new, extra)


def _values(place: _Place, old: Any, new: Any, extra: Mapping[str, Any]) -> Iterator[Change]:
    model = next((value for value in (old, new) if isinstance(value, BaseModel)), None)
    if model is not None and place.pattern in _EMPTY_IS_ABSENT:
        empty = type(model).model_construct()
        old, new = old if old is not None else empty, new if new is not None else empty
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        yield from _models(place, old, new)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(place, old, new, extra)
    else:
        default = _DEFAULTS.get(place.pattern)
        before, after = (_plain(value) if value is not None else default for value in (old, new))
        if _same_form(before) != _same_form(after):
            yield _change(place, before, after)


def _lists(place: _Place, old: list[Any], new: list[Any], extra: Mapping[str, Any]) -> Iterator[Change]:
    keys = extra.get("x-kubernetes-list-map-keys")
    ordered = place.pattern in _ORDERED
    if ordered:
        if [_plain(item) for item in old] != [_plain(item) for item in new]:
            yield _change(place, _plain(old), _plain(new))
        return
    before, after = _by_key(old, keys), _by_key(new, keys)
    for key in [*before, *(key for key in after if key not in before)]:
        was, now = before.get(key), after.get(key)
        here = place.entry(key) if keys else place
        if was is None or now is None:
            yield _change(here, _plain(was), _plain(now), item=True)
        elif keys:
            yield from _models(here, was, now)


_ORDERED: Final = frozenset({"referenceValues.configMapRefs"})
"""Pieces of one envelope: their order is what they say."""


def _by_key(items: list[Any], keys: Sequence[str] | None) -> dict[str, Any]:
    """Entries by what tells them apart: their keys, or all that they are."""
    found: dict[str, Any] = {}
    for item in items:
        plain = _plain(item)
        key = ",".join(str(plain[name]) for name in keys) if keys else _same_form(plain).decode()
        if keys and key in found:
            raise DuplicateEntry(f"two entries of a list have the same {' and '.join(keys)}: {shown(key)}")
        found[key] = item
    return found


def _change(place: _Place, before: object, after: object, *, item: bool = False) -> Change:
    kind = ChangeKind.CHANGED
    if before is None or after is None:
        kind = ChangeKind.ADDED if before is None else ChangeKind.REMOVED
    effect = effect_of(place.pattern, before, after, item=item)
    sentence = says(place.pattern, place.path, place.keys, before, after, item=item)
    return Change(place.path, kind, effect, sentence, before, after)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


def _same_form(value: object) -> bytes:
    """The same bytes for values that mean the same: entries of lists inside of one that is compared whole, sorted."""
    return canonical_json(_sorted(value))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=canonical_json)
    return value
