"""Reference values as a person writes them down: YAML or JSON, in the words of the predicate.

    name: baseline
    version: 8
    pcrs: {Sha256: {4: ["<64 hexadecimal digits>"]}}
    dbxAtLeast: ["<64 hexadecimal digits>"]
    files:
    - {path: /usr/bin/gateway, digests: ["sha256:…"]}
    - {path: /usr/bin/gateway, digests: ["sha256:…"], until: 2026-12-01T00:00:00Z}

All but `name` and `version` may be absent, and these two where the command says them.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable
from typing import Annotated, Any, Final

import typer
import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from chatelaine.cli import verify_inputs as inputs
from chatelaine.evidence.reference_files import GoodFile

MAX_LISTED_FILES: Final = 10_000
"""Longer lists come from file lists, which are read faster."""


class _Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class _File(_Strict):
    path: str
    digests: list[str]
    until: AwareDatetime | None = None

    def good(self) -> GoodFile:
        return GoodFile(self.path, tuple(self.digests), None if self.until is None else seconds(self.until))


class Description(_Strict):
    """What a person wrote; digests, paths and bounds are checked where the predicate is read."""

    name: str | None = None
    version: int | None = None
    issued_at: AwareDatetime | None = None
    pcrs: dict[str, dict[int, list[str]]] = Field(default_factory=dict)
    dbx_at_least: list[str] = Field(default_factory=list)
    files: Annotated[list[_File], Field(max_length=MAX_LISTED_FILES)] = Field(default_factory=list)

    def good_files(self) -> tuple[GoodFile, ...]:
        """The files that are listed here."""
        return tuple(file.good() for file in self.files)


def read_description(name: str) -> Description:
    """The description in a file; what is none is a usage error."""
    try:
        value = yaml.load(inputs.text(name), _Loader)  # noqa: S506 -- a safe loader that refuses duplicate keys
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise typer.BadParameter(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return Description.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the description"
        raise typer.BadParameter(f"{name}: {where}: {first['msg']}") from error


def moment(text: str, option: str) -> int:
    """Seconds since the epoch of an RFC 3339 time."""
    try:
        return seconds(datetime.datetime.fromisoformat(text))
    except ValueError as error:
        raise typer.BadParameter(f"no RFC 3339 time: {error}", param_hint=option) from error


def seconds(found: datetime.datetime) -> int:
    """Seconds since the epoch.

    Raises:
        ValueError: the time has no zone.
    """
    if found.tzinfo is None:
        raise ValueError("the time needs a zone, as in 2026-01-31T12:00:00Z")
    return int(found.timestamp())


def rfc3339(at: int) -> str:
    """UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(at, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As usual, but for duplicates."""
        names = [str(self.construct_object(key, deep=True)) for key, _ in node.value]
        if len(set(names)) != len(names):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice in one mapping", node.start_mark)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found
