"""The chart's static checks: helm lint with strict values, every template renders, the CRDs are those of `crds/`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.control_plane import build  # noqa: E402 -- the root must be importable first

CHART = ROOT / "charts" / "chatelaine"
VALUES: tuple[tuple[str, ...], ...] = (
    (),
    ("crds.enabled=false",),
    ("crds.keep=false", "rbac.aggregate=false", "admission.enabled=false", "operator.replicas=0"),
)


def main() -> int:
    """Exit status 0 if everything holds; otherwise says what does not."""
    helm = str(build.require("helm"))
    problems = _stale_definitions()
    for settings in VALUES:
        options = [word for setting in settings for word in ("--set", setting)]
        for command in (["lint", "--strict"], ["template", "check"]):
            words = [helm, *command, str(CHART), "--kube-version", "1.35.0", *options]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                problems.append(f"helm {' '.join(command + options)}: {done.stdout}{done.stderr}")
    refused = subprocess.run(
        [helm, "template", "check", str(CHART), "--kube-version", "1.35.0", "--set", "operator.replicass=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    if refused.returncode == 0 or "replicass" not in refused.stderr:
        problems.append("values.schema.json lets an unknown value through")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _stale_definitions() -> list[str]:
    expected = {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}
    found = {path.name: path.read_bytes() for path in (CHART / "files" / "crds").glob("*.yaml")}
    return [] if expected == found and expected else ["charts/chatelaine/files/crds is not crds/: run `make generate`"]


if __name__ == "__main__":
    sys.exit(main())
