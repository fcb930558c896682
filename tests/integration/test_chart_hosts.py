"""The chart as Helm installs it: hosts and what their accounts and pods may do, objects that outlive releases."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import chart_check, privileges
from tools.control_plane import build
from tools.control_plane.client import ApiError
from tools.control_plane.embedded import ControlPlane
from tools.lab.installation import NAMESPACE, RELEASE, SERVICE_ACCOUNT
from tools.lab.objects import GROUP

from chatelaine.controller.pki import KubeInvitations
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.model.identifiers import FINALIZER
from chatelaine.pki.invitation import INVITATION_SECRET_TYPE, invitation_secret_name

pytestmark = pytest.mark.xdist_group("chart-hosts")

GATEWAYS, AGENTS = f"{NAMESPACE}-gateways", f"{NAMESPACE}-agents"
VALUES = (*privileges.HOSTS, "--set", "evaluation.enabled=true")
RESTRICTED, PRIVILEGED = "restricted", "privileged"


def helm(plane: ControlPlane, *arguments: str) -> str:
    command = [str(build.require("helm")), *arguments, "--namespace", NAMESPACE, "--kubeconfig", str(plane.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("chart-hosts") / "control-plane") as plane:
        for level in (RESTRICTED, PRIVILEGED):
            plane.create_namespace(level, {"pod-security.kubernetes.io/enforce": level})
            plane.wait_for_service_account(level, "default")
        said = helm(plane, "install", RELEASE, str(privileges.CHART), "--create-namespace", *VALUES)
        assert "EVALUATION HOSTS" in said
        yield plane


def hsm_uids(plane: ControlPlane) -> dict[str, str]:
    found = plane.admin.get("/apis/chatelaine.dev/v1alpha1/hsms")["items"]
    return {hsm["metadata"]["name"]: hsm["metadata"]["uid"] for hsm in found}


def test_hsms_are_made_by_the_first_release_and_kept_by_upgrades_and_by_its_end(released: ControlPlane) -> None:
    made = hsm_uids(released)
    assert set(made) == {"hsm-a", "hsm-b", "hsm-c", "evaluation-1", "evaluation-2"}
    identity = {"ekDigest": "sha256:" + "1" * 64, "attestationKeyThumbprint": "sha256:" + "2" * 64}
    approved = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": "hsm-a"}}
    released.admin.merge(approved, {"spec": {"identity": identity}})
    for level in ("DEBUG", "INFO"):
        helm(released, "upgrade", RELEASE, str(privileges.CHART), *VALUES, "--set", f"operator.logLevel={level}")
        assert hsm_uids(released) == made
    # What a person approved with kubectl is not taken back.
    assert released.admin.read(GROUP, "Hsm", "hsm-a")["spec"]["identity"] == identity
    kept = helm(released, "uninstall", RELEASE, "--no-hooks")
    assert "[Hsm] hsm-a" in kept
    assert f"[Namespace] {GATEWAYS}" in kept
    assert hsm_uids(released) == made
    helm(released, "install", RELEASE, str(privileges.CHART), *VALUES)
    assert hsm_uids(released) == made


def templates() -> list[Any]:
    """Every pod that the chart makes, with each set of values: name of the set, of the pod, its spec."""
    found = []
    for options in chart_check.value_sets():
        objects = privileges.rendered(*(options or ["--set", "global.none=true"]))
        values = Path(options[-1]).stem if options else "default"
        found += [pytest.param(name, spec, id=f"{values}-{name}") for name, spec in privileges.pods(objects)]
    return found


@pytest.mark.parametrize(("name", "spec"), templates())
def test_pods_are_admitted_where_they_belong_and_agents_nowhere_else(
    released: ControlPlane, name: str, spec: dict[str, Any]
) -> None:
    spec = {**copy.deepcopy(spec), "serviceAccountName": "default"}
    spec.setdefault("restartPolicy", "Always")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    # Those of a StatefulSet get a volume that the template alone does not have.
    mounted = {mount["name"] for part in ("containers", "initContainers") for one in spec.get(part, ())
               for mount in one["volumeMounts"]}  # fmt: skip
    for missing in mounted - {volume["name"] for volume in spec["volumes"]}:
        spec["volumes"].append({"name": missing, "persistentVolumeClaim": {"claimName": missing}})

    def admit(level: str) -> None:
        released.admin.request("POST", f"/api/v1/namespaces/{level}/pods?dryRun=All", pod)

    if name.startswith("agent-"):
        with pytest.raises(ApiError, match='violates PodSecurity "restricted'):
            admit(RESTRICTED)
        admit(PRIVILEGED)
    else:
        admit(RESTRICTED)


def secret(name: str, type_: str = INVITATION_SECRET_TYPE) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": {"name": name, "namespace": NAMESPACE}}


HOST_ACCOUNTS = [(AGENTS, "hsm-b"), (GATEWAYS, "evaluation-2")]


@pytest.mark.parametrize(("namespace", "host"), HOST_ACCOUNTS)
def test_host_that_invites_another_or_makes_or_reads_a_secret_is_refused(
    released: ControlPlane, namespace: str, host: str
) -> None:
    account = released.as_service_account(namespace, f"host-{host}")
    other = secret(invitation_secret_name("hsm-a"))
    released.admin.apply(other)
    released.admin.apply(secret("chatelaine-ca", "Opaque"))
    attempts = (
        lambda: account.create(secret(invitation_secret_name("hsm-x"))),
        lambda: account.create(secret(invitation_secret_name(f"{host}x"))),
        lambda: account.create(secret(invitation_secret_name(host), "Opaque")),
        lambda: account.create(secret("chatelaine-ca-2", "Opaque")),
        lambda: account.delete(other),
        lambda: account.read("v1", "Secret", "chatelaine-ca", NAMESPACE),
        lambda: account.read("v1", "Secret", invitation_secret_name(host), NAMESPACE),
        lambda: account.get(f"/api/v1/namespaces/{NAMESPACE}/secrets"),
        lambda: account.get(f"/api/v1/namespaces/{namespace}/secrets"),
        lambda: account.read("v1", "ConfigMap", "kube-root-ca.crt", NAMESPACE),
        lambda: account.get("/apis/chatelaine.dev/v1alpha1/hsms"),
    )
    for attempt in attempts:
        with pytest.raises(ApiError) as caught:
            attempt()
        assert caught.value.status == 403


@pytest.mark.parametrize(("namespace", "host"), HOST_ACCOUNTS)
async def test_a_host_makes_its_own_invitation_and_replaces_one_that_was_not_used(
    released: ControlPlane, tmp_path: Path, namespace: str, host: str
) -> None:
    own = released.service_account_kubeconfig(namespace, f"host-{host}", tmp_path / "kubeconfig")
    async with await KubeAdapter.connect(own) as kube:
        for digit in "12":
            await KubeInvitations(kube, NAMESPACE).create(host, f"sha256:{digit * 64}", 2_000_000_000)
    stored = released.admin.read("v1", "Secret", invitation_secret_name(host), NAMESPACE)
    assert stored["type"] == INVITATION_SECRET_TYPE


def test_the_token_of_a_host_is_in_the_container_that_joins_and_in_no_other(released: ControlPlane) -> None:
    for kind, namespace in (("agent-hsm-a", AGENTS), ("gateway-hsm-a", GATEWAYS), ("evaluation-1", GATEWAYS)):
        spec = released.admin.read("apps/v1", "StatefulSet", kind, namespace)["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        tokens = {volume["name"] for volume in spec["volumes"] if "serviceAccountToken" in json.dumps(volume)}
        holders = {
            container["name"]
            for container in (*spec["initContainers"], *spec["containers"])
            if tokens & {mount["name"] for mount in container["volumeMounts"]}
        }
        assert holders == (set() if kind.startswith("gateway-") else {"join"})


def chatelaine(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chatelaine.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


async def test_uninstalling_is_refused_while_a_claim_holds_a_finalizer_unless_it_is_abandoned(
    released: ControlPlane, tmp_path: Path
) -> None:
    operator = released.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT, tmp_path / "operator")
    check = ("uninstall", "check", "--kubeconfig", str(operator))
    assert (await asyncio.to_thread(chatelaine, *check)).returncode == 0
    released.create_namespace("stuck")
    claim = {
        "apiVersion": GROUP,
        "kind": "HsmClaim",
        "metadata": {"name": "held", "namespace": "stuck", "finalizers": [FINALIZER, "example.com/theirs"]},
        "spec": {"selector": {"matchLabels": {"chatelaine.dev/zone": "nowhere"}}},
    }
    released.admin.create(claim)
    refused = await asyncio.to_thread(chatelaine, *check)
    assert refused.returncode == 1
    assert "stuck/held" in refused.stderr

    # Under the account that the hook has after the operator is gone.
    for found in privileges.rendered("--set", "uninstall.claims=Abandon", "--show-only", "templates/uninstall.yaml"):
        if found["kind"] != "Job":
            released.admin.apply(found)
    leaver = released.service_account_kubeconfig(NAMESPACE, f"{RELEASE}-uninstall", tmp_path / "leaver")
    left = await asyncio.to_thread(chatelaine, "uninstall", "abandon", "--kubeconfig", str(leaver))
    assert (left.returncode, left.stdout) == (0, "1 objects were let go\n"), left.stderr
    assert released.admin.read(GROUP, "HsmClaim", "held", "stuck")["metadata"]["finalizers"] == ["example.com/theirs"]
    assert (await asyncio.to_thread(chatelaine, *check)).returncode == 0


GRANTED = {
    "ClusterRole": {
        ("chatelaine.dev", "hsms"): "get list patch watch",
        ("chatelaine.dev", "hsmclaims"): "get list patch watch",
        ("chatelaine.dev", "attestationpolicies"): "get list watch",
        ("chatelaine.dev", "hsms/status"): "get patch",
        ("chatelaine.dev", "hsmclaims/status"): "get patch",
        ("chatelaine.dev", "attestationpolicies/status"): "get patch",
        ("networking.k8s.io", "networkpolicies"): "create delete get list patch watch",
        ("", "secrets"): "create delete get list patch watch",
        ("", "pods"): "get list watch",
        ("", "namespaces"): "get list watch",
        ("discovery.k8s.io", "endpointslices"): "get list watch",
        ("events.k8s.io", "events"): "create",
        ("", "/openid/v1/jwks"): "get",
        ("", "/.well-known/openid-configuration"): "get",
    },
    "Role": {
        ("coordination.k8s.io", "leases"): "create get update",
        ("", "secrets"): "create delete get update",
        ("", "configmaps"): "create get list patch watch",
    },
}


@pytest.mark.parametrize("kind", GRANTED)
def test_the_operator_is_granted_these_verbs_and_no_other(released: ControlPlane, kind: str) -> None:
    namespace = NAMESPACE if kind == "Role" else None
    rules = released.admin.read("rbac.authorization.k8s.io/v1", kind, SERVICE_ACCOUNT, namespace)["rules"]
    found: dict[tuple[str, str], set[str]] = {}
    for rule in rules:
        for group in rule.get("apiGroups", [""]):
            for resource in (*rule.get("resources", ()), *rule.get("nonResourceURLs", ())):
                found.setdefault((group, resource), set()).update(rule["verbs"])
    assert {key: " ".join(sorted(verbs)) for key, verbs in found.items()} == GRANTED[kind]
