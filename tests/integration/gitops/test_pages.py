"""The pages about GitOps tools hold: their commands run in order. The tools' kinds are there as bare definitions."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.control_plane import build
from tools.control_plane.access import ClusterAccess

from support.argo_health import PREFIX, checks
from support.flux_health import expressions

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "gitops"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TOOLS = {
    ("argoproj.io", "v1alpha1"): ("Application",),
    ("source.toolkit.fluxcd.io", "v1"): ("GitRepository",),
    ("kustomize.toolkit.fluxcd.io", "v1"): ("Kustomization",),
    ("helm.toolkit.fluxcd.io", "v2"): ("HelmRelease",),
}


def definition(group: str, version: str, kind: str) -> dict[str, Any]:
    """A kind whose content nobody looks at."""
    plural = "gitrepositories" if kind == "GitRepository" else f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(scope="module")
def cluster(control_plane: ClusterAccess) -> ClusterAccess:
    """With the kinds of both tools, a ConfigMap of Argo CD's, and a host."""
    kinds = [definition(*place, kind) for place, names in TOOLS.items() for kind in names]
    found = yaml.safe_dump_all(kinds)
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=found)
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", "-", stdin=found)
    for namespace in ("argocd", "flux-system", "chatelaine-system"):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(space))
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    control_plane.kubectl(
        "apply",
        "--server-side",
        "-f",
        "-",
        stdin=yaml.safe_dump(theirs | {"data": {"url": "https://argo.example.net"}}),
    )
    control_plane.kubectl("apply", "--server-side", "-f", str(EXAMPLES / "fleet"))
    return control_plane


@pytest.mark.parametrize("page", ["gitops-argo-cd.md", "gitops-flux.md"])
def test_every_command_of_the_page_runs(cluster: ClusterAccess, page: str) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / page).read_text())
    assert len(blocks) == 3
    kubectl = build.require("kubectl")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{kubectl.parent}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_patched_configuration_keeps_what_was_there(cluster: ClusterAccess) -> None:
    cluster.kubectl(
        "patch", "configmap", "argocd-cm", "-n", "argocd", "--patch-file", str(EXAMPLES / "argo-cd" / "argocd-cm.yaml")
    )
    data = cluster.admin.read("v1", "ConfigMap", "argocd-cm", "argocd")["data"]
    assert data["url"] == "https://argo.example.net"
    assert {name for name in data if name.startswith(PREFIX)} == {f"{PREFIX}chatelaine.dev_{kind}" for kind in checks()}


def test_parts_wait_for_what_they_hold() -> None:
    """Every kind under a part's folder has its expressions in that part; what depends comes later."""
    parts = {part["metadata"]["name"]: part["spec"] for part in yaml.safe_load_all(
        (EXAMPLES / "flux" / "kustomizations.yaml").read_text()
    )}  # fmt: skip
    for spec in parts.values():
        held = {yaml.safe_load(path.read_text())["kind"] for path in (EXAMPLES / spec["path"]).glob("*.yaml")}
        assert held == {check["kind"] for check in spec["healthCheckExprs"]}
        assert spec["wait"]
        assert spec["prune"]
    assert parts["payments-keys"]["dependsOn"] == [{"name": "hsm-fleet"}]
    assert len({str(check) for check in expressions().values()}) == 1


def test_every_manifest_is_covered() -> None:
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.yaml")}
    assert found == {
        "argo-cd/applications.yaml", "argo-cd/argocd-cm.yaml", "fleet/hsm-a.yaml", "fleet/policy.yaml",
        "flux/kustomizations.yaml", "flux/sources.yaml", "payments/claim.yaml",
    }  # fmt: skip
