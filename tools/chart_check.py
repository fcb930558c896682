"""Static checks of the chart and of all manifests, without a network.

* `helm lint --strict`, and every template renders, with each set of values
* an unknown value is refused
* kubeconform: what was rendered, the CRDs and the examples fit the schemas of their kinds, with no unknown field
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import manifest_schemas  # noqa: E402 -- the root must be importable first
from tools.control_plane import build  # noqa: E402 -- the same

CHART = ROOT / "charts" / "chatelaine"
VALUES: tuple[tuple[str, ...], ...] = (
    (),
    ("crds.enabled=false",),
    ("crds.keep=false", "rbac.aggregate=false", "admission.enabled=false", "operator.replicas=0"),
)

PART_OF_A_POLICY = r"quickstart/rules\.yaml$"
"""What a person writes of a policy; `policy capture` adds the rest. By itself the API server refuses it, and a test of
the chart sees that."""


def main() -> int:
    """Exit status 0 if everything holds; otherwise says what does not."""
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rendered = folder / "rendered"
        rendered.mkdir()
        for number, settings in enumerate(VALUES):
            options = [word for setting in settings for word in ("--set", setting)]
            problems += _run(*_helm("lint", "--strict"), *options)
            problems += _run(*_helm("template", "check"), *options, into=rendered / f"{number}.yaml")
        problems += _unknown_value_passes()
        problems += _misfits([rendered, ROOT / "crds", ROOT / "examples"], folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _helm(*command: str) -> list[str]:
    kubernetes = build.version_of("kubernetes")
    return [str(build.require("helm")), *command, str(CHART), "--kube-version", kubernetes]


def _run(*words: str, into: Path | None = None) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if into is not None:
        into.write_text(done.stdout)
    return [f"{Path(words[0]).name} {' '.join(words[1:])}:\n{done.stdout}{done.stderr}"] if done.returncode else []


def _unknown_value_passes() -> list[str]:
    words = [*_helm("template", "check"), "--set", "operator.replicass=1"]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    if refused.returncode == 0 or "replicass" not in refused.stderr:
        return ["values.schema.json lets an unknown value through"]
    return []


def _misfits(manifests: list[Path], folder: Path) -> list[str]:
    schemas = folder / "schemas"
    schemas.mkdir()
    location = manifest_schemas.write(schemas, build.ensure_openapi(), sorted((ROOT / "crds").glob("*.yaml")))
    options = ["-schema-location", location, "-output", "text", "-ignore-filename-pattern", PART_OF_A_POLICY]
    return _run(str(build.require("kubeconform")), *options, *map(str, manifests))


if __name__ == "__main__":
    sys.exit(main())
