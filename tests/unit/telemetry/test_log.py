"""Log lines: JSON, bounded, with facts as fields, and never a field that is named like a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from chatelaine.telemetry.log import (
    ALLOWED,
    FORBIDDEN,
    MAX_VALUE_CHARACTERS,
    ForbiddenField,
    JsonFormatter,
    Logger,
    logger,
)

NAME = "chatelaine.test_log"


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    target = logging.getLogger(NAME)
    target.addHandler(handler)
    target.setLevel(logging.INFO)
    yield stream
    target.removeHandler(handler)
    target.setLevel(logging.NOTSET)


@pytest.fixture
def log() -> Logger:
    return logger(NAME)


def fault(log: Logger, **facts: object) -> None:
    try:
        int("broken")
    except ValueError as error:
        log.exception("fault", error, **facts)  # noqa: TRY401 - our own logger wants it


def line(output: io.StringIO) -> dict[str, Any]:
    (only,) = output.getvalue().splitlines()
    found: dict[str, Any] = json.loads(only)
    return found


def test_facts_are_fields(log: Logger, output: io.StringIO) -> None:
    log.info("bound", claim_uid="u-1", hsm="hsm-a", sequence=2)
    found = line(output)
    assert {key: found[key] for key in ("level", "logger", "message", "claim_uid", "hsm", "sequence")} == {
        "level": "INFO", "logger": NAME, "message": "bound", "claim_uid": "u-1", "hsm": "hsm-a", "sequence": 2,
    }  # fmt: skip


@pytest.mark.parametrize("word", FORBIDDEN)
@pytest.mark.parametrize("shape", ["{}", "user_{}", "{}_value", "the_{}_of_it"])
def test_field_named_like_a_secret_never_reaches_a_log(log: Logger, output: io.StringIO, word: str, shape: str) -> None:
    with pytest.raises(ForbiddenField, match="would carry a secret"):
        log.info("login", **{shape.format(word): "1234"})
    assert output.getvalue() == ""


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_every_level_refuses(log: Logger, output: io.StringIO, level: str) -> None:
    with pytest.raises(ForbiddenField):
        getattr(log, level)("login", pin="1234")
    assert output.getvalue() == ""


def test_fault_with_a_field_named_like_a_secret_is_refused(log: Logger, output: io.StringIO) -> None:
    with pytest.raises(ForbiddenField):
        fault(log, token="eyJ")
    assert output.getvalue() == ""


@pytest.mark.parametrize("name", sorted(ALLOWED | {"pinned", "tokens_seen", "secretive"}))
def test_names_of_things_that_are_no_secrets_pass(log: Logger, output: io.StringIO, name: str) -> None:
    log.info("seen", **{name: "x"})
    assert line(output)[name] == "x"


def test_long_values_are_cut(log: Logger, output: io.StringIO) -> None:
    log.info("m" * 5000, why="w" * 5000)
    found = line(output)
    assert (len(found["message"]), len(found["why"])) == (MAX_VALUE_CHARACTERS, MAX_VALUE_CHARACTERS)


def test_line_breaks_in_a_value_do_not_make_a_second_line(log: Logger, output: io.StringIO) -> None:
    forged = 'x\n{"level": "INFO", "message": "bound"}'
    log.info("refused", why=forged)
    assert line(output)["why"] == forged


def test_fault_carries_its_trace(log: Logger, output: io.StringIO) -> None:
    fault(log, claim_uid="u-1")
    found = line(output)
    assert found["claim_uid"] == "u-1"
    assert "ValueError: invalid literal" in found["exception"]


def test_what_is_below_the_level_is_not_written(log: Logger, output: io.StringIO) -> None:
    log.debug("quiet", claim_uid="u-1")
    assert output.getvalue() == ""
