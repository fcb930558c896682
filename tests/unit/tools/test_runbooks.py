"""Each alert of the chart has a runbook, and its commands are commands."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from tools import privileges

from chatelaine.cli.main import SUBCOMMANDS

FOLDER = privileges.ROOT / "docs" / "runbooks"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((privileges.CHART / "files" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
SECTIONS = ["## What it means", "## Look", "## Causes, and what to do", "## When it ends"]


def test_every_alert_has_its_runbook_and_no_runbook_is_of_no_alert() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} - {"README"} == set(RULES)
    listed = re.findall(r"\[(\w+)\]\((\w+)\.md\)", (FOLDER / "README.md").read_text())
    assert listed == [(name, name) for name in RULES]


@pytest.mark.parametrize("alert", RULES)
def test_a_runbook_says_what_it_must(alert: str) -> None:
    text = (FOLDER / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert f"Severity: {RULES[alert]['labels']['severity']}." in text
    assert re.findall(r"^## .*$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("alert", RULES)
def test_commands_of_a_runbook_exist(alert: str) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (FOLDER / f"{alert}.md").read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[0] in ("kubectl", "chatelaine")
        ours = words if words[0] == "chatelaine" else words[words.index("--") + 1 :] if "--" in words else []
        assert not ours or (ours[0] == "chatelaine" and ours[1] in SUBCOMMANDS)


@pytest.mark.parametrize("alert", RULES)
def test_links_of_a_runbook_lead_somewhere(alert: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (FOLDER / f"{alert}.md").read_text()):
        assert (FOLDER / target).is_file(), target
