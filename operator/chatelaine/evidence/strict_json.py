"""JSON with one meaning: no duplicate member at any depth, no floats, no `NaN`, no text that is not Unicode.

So two parsers can never read two meanings out of one signed document.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

MAX_INTEGER: Final = 2**53 - 1
"""Larger ones are read differently by parsers that keep numbers as doubles."""


class NotStrict(ValueError):
    """Not JSON, or JSON with more than one meaning. The message says which, for people."""


def loads(data: bytes) -> Any:
    """The one value that `data` (UTF-8) holds. The caller owes a bound on its length.

    Raises:
        NotStrict: anything else than what the module says.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_refuse,
            parse_float=_refuse,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise NotStrict("it is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise NotStrict(f"it is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise NotStrict("it is nested too deeply") from error


def is_text(value: object) -> bool:
    """Is it a string of Unicode scalar values? JSON's escapes can also spell halves of characters."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrict("a member occurs twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAX_INTEGER)) + 1 or abs(int(digits)) > MAX_INTEGER:
        raise NotStrict("an integer is too large")
    return int(digits)


def _refuse(_: str) -> NoReturn:
    raise NotStrict("a number is not an integer")
