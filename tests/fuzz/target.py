"""What a fuzz target is: a reader of foreign bytes, the errors it may refuse them with, and honest inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`parse` answers, or raises one of `refuses`; anything else is a finding. `seeds` are honest inputs."""

    parse: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]


def read_back(decode: Callable[[bytes], object], encode: Callable[..., bytes]) -> Callable[[bytes], object]:
    """A parser of something that has one encoding only: what it takes must encode to the same bytes."""

    def parse(data: bytes) -> None:
        if encode(decode(data)) != data:
            raise AssertionError("taken, but not the only encoding")

    return parse
