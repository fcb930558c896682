"""What changes between two bundles of reference values. No signature is looked at: that is for whoever uses them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping

from chatelaine.appraisal.policy_diff import Change, ChangeKind
from chatelaine.appraisal.policy_words import Effect, shown
from chatelaine.evidence.reference_files import FOREVER, GoodFile
from chatelaine.evidence.reference_values import Predicate


def diff_bundles(before: Predicate, after: Predicate) -> tuple[Change, ...]:
    """Every difference in what the bundles say; empty: one may stand for the other. Dates are for people alone."""
    return tuple(_differences(before, after))


def _differences(before: Predicate, after: Predicate) -> Iterator[Change]:
    if before.name != after.name:
        says = f"series {shown(before.name)} becomes {shown(after.name)}: a policy that names one refuses the other"
        yield Change("name", ChangeKind.CHANGED, Effect.EITHER, says, before.name, after.name)
    if before.version != after.version:
        says = f"version {before.version} becomes {after.version}"
        if after.version < before.version:
            says += ": it is refused wherever the higher one was used"
        yield Change("version", ChangeKind.CHANGED, Effect.NOTHING, says, before.version, after.version)
    for path, value, came in _came_and_went(_pcrs(before), _pcrs(after)):
        where = f"PCR {path.partition('.')[2]} ({path.partition('.')[0]})"
        says = f"{where}: {shown(value)} is good too" if came else f"{where}: {shown(value)} is not good by this bundle"
        yield _entry(f"pcrs.{path}", value, says, Effect.LOOSER, came=came)
    for _, digest, came in _came_and_went(
        {("", d) for d in before.dbx_at_least}, {("", d) for d in after.dbx_at_least}
    ):
        says = f"dbx must hold {shown(digest)}" if came else f"dbx need not hold {shown(digest)} any more"
        yield _entry("dbxAtLeast", digest, says, Effect.STRICTER, came=came)
    yield from _files(_contents(before.files), _contents(after.files))


def _entry(path: str, value: str, says: str, more: Effect, *, came: bool) -> Change:
    if came:
        return Change(path, ChangeKind.ADDED, more, says, None, value)
    less = Effect.STRICTER if more is Effect.LOOSER else Effect.LOOSER
    return Change(path, ChangeKind.REMOVED, less, says, value, None)


def _pcrs(bundle: Predicate) -> set[tuple[str, str]]:
    return {
        (f"{bank.value}.{index}", value)
        for bank, by_index in bundle.pcrs.items()
        for index, values in by_index.items()
        for value in values
    }


def _came_and_went(before: set[tuple[str, str]], after: set[tuple[str, str]]) -> Iterable[tuple[str, str, bool]]:
    return sorted((path, value, (path, value) in after) for path, value in before ^ after)


# --- files ----------------------------------------------------------------------------------------------------


def _contents(files: Iterable[GoodFile]) -> dict[tuple[str, str], int]:
    """The end of each content of each path. Listed with several ends, the last one counts."""
    found: dict[tuple[str, str], int] = {}
    for file in files:
        for digest in file.digests:
            key = (file.path, digest)
            found[key] = max(found.get(key, 0), FOREVER if file.until is None else file.until)
    return found


def _files(before: Mapping[tuple[str, str], int], after: Mapping[tuple[str, str], int]) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        path, digest = key
        name, content = shown(path), shown(digest)
        if old is None or new is None:
            says = f"{name}: {content} is good too{_until(new)}" if new else f"{name}: {content} is not good any more"
            yield _entry(f"files[{path}]", digest, says, Effect.LOOSER, came=old is None)
        else:
            effect = Effect.LOOSER if new > old else Effect.STRICTER
            says = (
                f"{name}: {content} is good{_until(new) or ' without an end'}, formerly{_until(old) or ' without one'}"
            )
            yield Change(f"files[{path}].until", ChangeKind.CHANGED, effect, says, _time(old), _time(new))


def _until(end: int | None) -> str:
    return "" if end is None or end == FOREVER else f" until {_time(end)}"


def _time(end: int) -> object:
    if end == FOREVER:
        return None
    try:
        return datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return end
