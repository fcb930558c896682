"""Structured logs: one JSON object a line on standard error, facts as fields, never a secret.

A field whose name speaks of a secret is refused when it is written, so a slip shows in the first test that runs it.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Any, Final

FORBIDDEN: Final = ("pin", "secret", "password", "token", "invitation", "private_key", "credential")
"""Words that may not stand in a field's name (whole words, separated by `_`)."""
ALLOWED: Final = frozenset({"secret_name", "token_label", "token_serial"})
MAX_VALUE_CHARACTERS: Final = 2048


class ForbiddenField(ValueError):
    """A field's name says that its value is a secret."""


class JsonFormatter(logging.Formatter):
    """One line of JSON a record. Records of other libraries carry their message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, Any] = {
            "at": _moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:MAX_VALUE_CHARACTERS],
        }
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            line.update(facts)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).isoformat(timespec="milliseconds")


class Logger:
    """A logger whose calls take facts as keyword arguments."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **facts: object) -> None:
        """For somebody who looks for a fault."""
        self._write(logging.DEBUG, message, facts)

    def info(self, message: str, **facts: object) -> None:
        """A transition."""
        self._write(logging.INFO, message, facts)

    def warning(self, message: str, **facts: object) -> None:
        """Something that heals by itself, or needs a look."""
        self._write(logging.WARNING, message, facts)

    def error(self, message: str, **facts: object) -> None:
        """Something that needs a person."""
        self._write(logging.ERROR, message, facts)

    def exception(self, message: str, error: BaseException, **facts: object) -> None:
        """A fault of ours, with its trace."""
        self._write(logging.ERROR, message, facts, error)

    def _write(self, level: int, message: str, facts: dict[str, object], error: BaseException | None = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        for name in facts:
            if name not in ALLOWED and any(f"_{word}_" in f"_{name}_" for word in FORBIDDEN):
                raise ForbiddenField(f"the field {name!r} would carry a secret into a log")
        cut = {name: v[:MAX_VALUE_CHARACTERS] if isinstance(v, str) else v for name, v in facts.items()}
        self._logger.log(level, message, extra={"facts": cut}, exc_info=error)


def logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


def configure(level: str = "INFO", *, libraries: str = "WARNING") -> None:
    """Send everything to standard error as JSON lines; libraries only from `libraries` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(libraries)
    logging.getLogger("chatelaine").setLevel(level)
