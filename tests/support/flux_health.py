"""What Flux makes of objects: by the shipped health check expressions, and by kstatus alone. Flux' own code answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from tools.control_plane import build

ROOT: Final = Path(__file__).resolve().parents[2]
KUSTOMIZATIONS: Final = ROOT / "examples" / "gitops" / "flux" / "kustomizations.yaml"
Json = dict[str, Any]


class FluxHealth(NamedTuple):
    """Statuses: InProgress, Failed, Current, Terminating. `error`: why the expressions tell none; Flux then waits."""

    kstatus: str
    kstatus_message: str
    expressions: str
    error: str


def expressions() -> dict[str, Json]:
    """The shipped expressions by kind."""
    found = {}
    for part in yaml.safe_load_all(KUSTOMIZATIONS.read_text()):
        for check in part["spec"].get("healthCheckExprs", ()):
            found[check["kind"]] = {name: check[name] for name in ("inProgress", "failed", "current")}
    return found


def health(objects: Iterable[Json]) -> list[FluxHealth]:
    """What Flux tells of each object."""
    by_kind = expressions()
    asked = [json.dumps({"object": obj, "expressions": by_kind[obj["kind"]]}) for obj in objects]
    done = subprocess.run(
        [build.require("flux-health")], input="\n".join(asked), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [FluxHealth(**json.loads(line)) for line in done.stdout.splitlines()]
