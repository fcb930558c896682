"""All commands with their arguments and options, from the command line itself."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Iterator
from typing import Any

import typer.main

from chatelaine.cli.main import SUBCOMMANDS, module_of
from chatelaine.pkcs11.settings import ENVIRONMENT_OF_MODULES
from chatelaine.proxy.binding import ROOT_VARIABLE
from tools.reference.markdown import page, table


def text() -> str:
    """The page."""
    parts = [part for name, summary in SUBCOMMANDS.items() for part in _subcommand(name, summary)]
    return page(
        "the commands in operator/chatelaine/cli/",
        "# Commands and settings",
        "Every setting is an option of a command; there are no configuration files. `chatelaine COMMAND --help` says\n"
        "the same as this page. Every process writes one JSON object a line to standard error.",
        *parts,
        "## Environment variables",
        table(
            ("variable", "read by", "what for"),
            (
                (
                    "`KUBECONFIG`",
                    "`operator`, `host invite`, `host enter`, `policy`, `uninstall`",
                    "the cluster, where `--kubeconfig` names none",
                ),
                (
                    f"`{ROOT_VARIABLE}`",
                    "`proxy`",
                    "the folder of all bindings (Service Binding), where `--binding` names none",
                ),
                (
                    ", ".join(f"`{name}`" for name in ENVIRONMENT_OF_MODULES),
                    "`gateway`",
                    "handed on, these alone, to the process that loads the PKCS#11 module: its configuration",
                ),
            ),
        ),
    )


def _subcommand(name: str, summary: str) -> Iterator[str]:
    command: Any = typer.main.get_command(importlib.import_module(module_of(name)).app)
    yield f"## `chatelaine {name}`"
    yield summary
    parts = {key: part for key, part in getattr(command, "commands", {}).items() if not part.hidden}
    if not parts:
        yield _options(command)
        return
    for part in parts.values():
        yield f"### `chatelaine {name} {part.name}`"
        yield " ".join(str(part.help).split())
        yield _options(part)


def _options(command: Any) -> str:
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    return table(("option", "default", "what"), rows)


def _row(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`", "required", parameter.help or ""
    names = " / ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = "required" if parameter.required else _shown(parameter.default)
    said = parameter.help or ""
    if isinstance(parameter.default, enum.Enum):
        said += f" One of {', '.join(f'`{choice.value}`' for choice in type(parameter.default))}."
    return names, default, said


def _shown(default: Any) -> str:
    if default in (None, "", False):
        return ""
    return "on" if default is True else f"`{getattr(default, 'value', default)}`"
