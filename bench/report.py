"""The shape in which every benchmark reports, and percentiles."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build" / "bench"
VERSIONS = ("cryptography", "kopf", "kubernetes", "python-pkcs11", "tpm2-pytss", "uvicorn")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `holds` is None where there is no goal."""

    what: str
    value: float
    unit: str
    goal: str | None = None
    holds: bool | None = None
    peer: dict[str, object] | None = None


def write(name: str, figures: Sequence[Figure]) -> Path:
    """Writes `build/bench/<name>.json` and prints the figures."""
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{name}.json"
    content = {
        "name": name,
        "figures": [asdict(figure) for figure in figures],
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "cpu": _cpu()},
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in VERSIONS}},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    for figure in figures:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[figure.holds]
        goal = f"(goal {figure.goal}) " if figure.goal else ""
        print(f"{name}: {figure.what}: {figure.value:.4g} {figure.unit} {goal}{verdict}", flush=True)
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, math.ceil(len(ranked) * share) - 1))]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"
