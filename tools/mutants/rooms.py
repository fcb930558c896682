"""Which rooms are put to the test, and by which tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "operator" / "chatelaine"


@dataclass(frozen=True)
class Room:
    """A room of the product, and the folders or files of tests that should notice a fault in it."""

    name: str
    tests: tuple[str, ...]

    def modules(self, chosen: Sequence[str] = ()) -> tuple[str, ...]:
        """Its modules, as `room/module.py`; those of `chosen` only, if there are any.

        Raises:
            ValueError: there is no such module.
        """
        there = tuple(sorted(path.stem for path in (PACKAGE / self.name).glob("*.py") if path.stem != "__init__"))
        unknown = sorted(set(chosen) - set(there))
        if unknown:
            raise ValueError(f"{self.name} has no module {', '.join(unknown)}")
        return tuple(f"{self.name}/{stem}.py" for stem in there if not chosen or stem in chosen)


_BY_COMMAND: Final = tuple(
    f"tests/unit/cli/test_{name}.py" for name in ("policy_try", "policy_try_quotes", "verify_bundle")
)
"""What is judged for commands alone is tested through them."""

ROOMS: Final = {
    room.name: room
    for room in (
        Room("tokens", ("tests/unit/tokens",)),
        Room("release", ("tests/unit/release",)),
        Room("appraisal", ("tests/unit/appraisal", *_BY_COMMAND, "tests/unit/reconcile/test_unasked.py")),
        Room("evidence", ("tests/unit/evidence",)),
    )
}
