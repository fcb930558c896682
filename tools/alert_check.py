"""The chart's alerts on time series: which fire, when, and that no other does. Evaluated by Prometheus' own code.

The stories stand in `charts/chatelaine/tests/alerts.yaml`, in the form of `promtool test rules`, which would run them
as well. promtool itself takes longer to build than everything else together, so a small program does it:
`control_plane/modules/alerts`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.control_plane import build  # noqa: E402 -- the root must be importable first

STORIES = ROOT / "charts" / "chatelaine" / "tests" / "alerts.yaml"
_ALERT = re.compile(r'\{alertname="(\w+)"\}')


def main() -> int:
    """Exit status 0 if every story goes as it is told."""
    stories = yaml.safe_load(STORIES.read_text())
    (rules,) = ((STORIES.parent / name).resolve() for name in stories["rule_files"])
    evaluator = build.ensure(["alerts"])["alerts"]
    problems = [
        problem
        for story in stories["tests"]
        for problem in _misfits(story, evaluator, rules, _seconds(stories["evaluation_interval"]))
    ]
    told = {name for story in stories["tests"] for check in story["promql_expr_test"] for name in _expected(check)}
    named = {rule["alert"] for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]}
    problems += [f"{name}: no story tells when it fires" for name in sorted(named - told)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(stories['tests'])} stories of {len(named)} alerts")
    return 1 if problems else 0


def _misfits(story: dict[str, Any], evaluator: Path, rules: Path, interval_seconds: int) -> Iterator[str]:
    series = [f"  {one['series']} {one['values']}" for one in story["input_series"]] or ["  nothing 0"]
    checks = story["promql_expr_test"]
    told = {
        "rules": str(rules),
        "load": "\n".join([f"load {story['interval']}", *series]),
        "interval_seconds": interval_seconds,
        "until_seconds": max(_seconds(check["eval_time"]) for check in checks),
    }
    done = subprocess.run([evaluator], input=json.dumps(told), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield f"{story['name']}: {done.stderr}"
        return
    fired = json.loads(done.stdout)
    for check in checks:
        expected, found = _expected(check), fired[str(_seconds(check["eval_time"]))]
        if found != expected:
            yield f"{story['name']}, after {check['eval_time']}: {expected or 'nothing'} should fire, not {found}"


def _expected(check: dict[str, Any]) -> dict[str, int]:
    found = {}
    for sample in check["exp_samples"]:
        if (named := _ALERT.fullmatch(sample["labels"])) is None:
            raise ValueError(f"{STORIES}: {sample['labels']} should name one alert")
        found[named.group(1)] = int(sample["value"])
    return found


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


if __name__ == "__main__":
    sys.exit(main())
