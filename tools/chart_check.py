"""Static checks of the chart and of all manifests, without a network.

* `helm lint --strict`, and every template renders, with each set of values: the chart's own and those of its `ci/`
* an unknown value is refused, and so is what contradicts itself, each with a sentence
* the page of privileges says what the rendered pods have
* kubeconform: what was rendered, the CRDs and the examples fit the schemas of their kinds, with no unknown field
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import manifest_schemas, privileges  # noqa: E402 -- the root must be importable first
from tools.control_plane import build  # noqa: E402 -- the same

CHART = ROOT / "charts" / "chatelaine"
KINDS_ARE_THERE = ("--api-versions", "chatelaine.dev/v1alpha1/Hsm")
NOT_DESCRIBED = "ServiceMonitor,PrometheusRule,Application,GitRepository,HelmRelease,Kustomization"
"""Kinds of the Prometheus operator, Argo CD and Flux, which Kubernetes does not describe; tests look at what is in
them."""

REFUSED = {
    "operator.replicass=1": "replicass",
    "hosts[0].name=Big": "hosts/0/name",
    "runAsUser=0": "runAsUser",
    "evaluation.enabled=true,admission.enabled=false": "hostDefaults.join: Self needs admission.enabled",
    "operator.replicas=2,operator.evidence.volume.hostPath.path=/x": "for one pod at a time",
}
"""Values that contradict themselves, or that nobody knows; and what is said of each."""

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
        for number, options in enumerate(value_sets()):
            problems += _run(*_helm("lint", "--strict"), *options)
            for there in ((), KINDS_ARE_THERE):
                into = rendered / f"{number}-{len(there)}.yaml"
                problems += _run(*_helm("template", "check"), *options, *there, into=into)
        problems += _refused()
        problems += [privileges.differs()] if privileges.differs() else []
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


def value_sets() -> list[list[str]]:
    """Options of helm, one list for each set of values that the chart is tried with."""
    return [[], *(["--values", str(path)] for path in sorted((CHART / "ci").glob("*.yaml")))]


def _refused() -> list[str]:
    problems = []
    for setting, said in REFUSED.items():
        words = [*_helm("template", "check"), "--set", setting]
        answer = subprocess.run(words, capture_output=True, text=True, check=False)
        if answer.returncode == 0 or said not in answer.stderr:
            problems.append(f"--set {setting} should be refused with: {said}\n{answer.stderr}")
    return problems


def _misfits(manifests: list[Path], folder: Path) -> list[str]:
    schemas = folder / "schemas"
    schemas.mkdir()
    location = manifest_schemas.write(schemas, build.ensure_openapi(), sorted((ROOT / "crds").glob("*.yaml")))
    options = ["-schema-location", location, "-output", "text", "-skip", NOT_DESCRIBED]
    options += ["-ignore-filename-pattern", PART_OF_A_POLICY]
    return _run(str(build.require("kubeconform")), *options, *map(str, manifests))


if __name__ == "__main__":
    sys.exit(main())
