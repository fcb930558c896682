"""Policies and bundles as files: told apart, read within bounds, and nothing in them passed over in silence."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer
import yaml
from pydantic import ValidationError

from chatelaine.appraisal.policy_words import shown
from chatelaine.cli import policy_inputs, verify_inputs
from chatelaine.cli.policy_lists import twice
from chatelaine.evidence.dsse import MAX_ENVELOPE_BYTES, Envelope, parse_envelope
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_values import PAYLOAD_TYPE, Predicate, read_predicate
from chatelaine.model.identifiers import API_VERSION
from chatelaine.model.policy import AttestationPolicySpec

KIND: Final = "AttestationPolicy"
MAX_NAMED: Final = 16
"""Misspelt fields that are named at a time."""
_OF_BUNDLES: Final = ("payloadType", "predicateType", "issuedAt")


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """An AttestationPolicy out of a file.

    Attributes:
        name: of the object; empty where the file holds a spec alone.
        raw: the spec as it is written.
        spec: the same, typed.
    """

    name: str
    raw: dict[str, Any]
    spec: AttestationPolicySpec


def policy(name: str) -> PolicyFile:
    """An AttestationPolicy object, or its spec alone; YAML or JSON.

    What is no field is a usage error: a rule whose name is misspelt would judge nothing, and nobody would notice.
    """
    return _policy(name, _value(name, verify_inputs.text(name)))


def fragment(name: str) -> tuple[str, dict[str, Any]]:
    """Name (may be empty) and spec of an AttestationPolicy that need not be complete; `known` looks at its fields."""
    return _unwrapped(name, _value(name, verify_inputs.text(name)))


def policy_or_bundle(name: str) -> PolicyFile | Predicate:
    """Either. Signatures of a bundle are not checked."""
    data = verify_inputs.binary(name, MAX_ENVELOPE_BYTES)
    try:
        value = json.loads(data) if data.lstrip()[:1] == b"{" else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and any(member in value for member in _OF_BUNDLES):
        return _bundle(name, data, value)
    if len(data) > verify_inputs.MAX_TEXT_BYTES:
        raise typer.BadParameter(f"{name}: longer than {verify_inputs.MAX_TEXT_BYTES} bytes")
    try:
        return _policy(name, _value(name, data.decode()))
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{name}: not UTF-8 text") from error


def _bundle(name: str, data: bytes, value: dict[str, Any]) -> Predicate:
    try:
        if "predicateType" in value:
            return policy_inputs.predicate_of(Envelope(PAYLOAD_TYPE, data))
        if "issuedAt" in value:
            return read_predicate(value)
        return policy_inputs.predicate_of(parse_envelope(data))
    except ReferenceValuesError as error:
        raise typer.BadParameter(f"{name}: {error}") from error


def _value(name: str, text: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise typer.BadParameter(f"{name}: not YAML: {_where(error)}") from error


def _where(error: Exception) -> str:
    """What the parser expected, and in which line it found something else."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem is not None and error.problem_mark is not None:
        return shown(f"line {error.problem_mark.line + 1}: {error.problem}")
    return shown(" ".join(str(error).split()))


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error, as it is for kubectl."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See `yaml.SafeLoader`."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _unwrapped(name: str, value: object) -> tuple[str, dict[str, Any]]:
    called = ""
    if isinstance(value, dict) and ("kind" in value or "spec" in value):
        if value.get("kind", KIND) != KIND:
            raise typer.BadParameter(f"{name}: of kind {shown(value['kind'])}, not {KIND}")
        if value.get("apiVersion", API_VERSION) != API_VERSION:
            raise typer.BadParameter(f"{name}: of apiVersion {shown(value['apiVersion'])}, not {API_VERSION}")
        metadata = value.get("metadata")
        called = str(metadata.get("name") or "") if isinstance(metadata, dict) else ""
        value = value.get("spec")
    elif isinstance(value, dict) and any(member in value for member in _OF_BUNDLES):
        raise typer.BadParameter(f"{name}: a bundle of reference values, not an {KIND}")
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{name}: no {KIND} and no spec of one")
    return called, value


def _policy(name: str, value: object) -> PolicyFile:
    called, raw = _unwrapped(name, value)
    spec = typed(name, raw)
    known(name, raw, spec)
    again = [shown(entry) for entry in itertools.islice(twice(raw), MAX_NAMED)]
    if again:
        verb = "stands" if len(again) == 1 else "stand"
        raise typer.BadParameter(f"{name}: {', '.join(again)} {verb} twice; the API server takes each once")
    return PolicyFile(called, raw, spec)


def typed(name: str, raw: dict[str, Any]) -> AttestationPolicySpec:
    """The spec as it judges; what does not fit is a usage error that names the place."""
    try:
        return AttestationPolicySpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise typer.BadParameter(f"{name}: {shown(where)}: {shown(first['msg'])}") from error


def known(name: str, raw: dict[str, Any], spec: AttestationPolicySpec) -> None:
    """Nothing of `raw` is left out of `spec`; what is no field is a usage error that names it."""
    fields = [shown(field) for field in itertools.islice(_unknown(raw, spec.dump(), "spec"), MAX_NAMED)]
    if fields:
        verb = "is no field" if len(fields) == 1 else "are no fields"
        raise typer.BadParameter(f"{name}: {', '.join(fields)} {verb} of an {KIND}")


def _unknown(raw: object, model: object, path: str) -> Iterator[str]:
    """Paths of fields that the model does not have."""
    if isinstance(raw, dict) and isinstance(model, dict):
        for key, item in raw.items():
            if key in model:
                yield from _unknown(item, model[key], f"{path}.{key}")
            elif item is not None:
                yield f"{path}.{key}"
    elif isinstance(raw, list) and isinstance(model, list):
        for number, (item, typed_item) in enumerate(zip(raw, model, strict=False)):
            yield from _unknown(item, typed_item, f"{path}[{number}]")
