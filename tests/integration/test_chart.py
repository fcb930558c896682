"""The chart on a real API server: everything applies, the guard guards, and no role for people writes a status."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tools.control_plane.access import ClusterAccess
from tools.control_plane.client import ApiError
from tools.control_plane.embedded import ControlPlane
from tools.lab.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, install, render
from tools.lab.objects import GROUP

from chatelaine.controller.evidence_folder import EVIDENCE
from chatelaine.controller.pki import KubeInvitations
from chatelaine.controller.settings import OperatorSettings
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.kube.errors import AlreadyExists

pytestmark = pytest.mark.xdist_group("chart")

REFUTED = "sha256:" + "7" * 64


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("chart") / "control-plane") as plane:
        install(plane)
        yield plane


def person(cluster: ClusterAccess, name: str, role: str, namespace: str | None = None) -> list[str]:
    """Binds a role to a user and returns the kubectl arguments that act as that user."""
    kind = "clusterrolebinding" if namespace is None else "rolebinding"
    scope = [] if namespace is None else ["-n", namespace]
    cluster.kubectl("create", kind, f"{name}-{role}", f"--clusterrole={role}", f"--user={name}", *scope)
    return ["--as", name]


def refusal(cluster: ClusterAccess, *arguments: str, stdin: str | None = None) -> str:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cluster.kubectl(*arguments, stdin=stdin)
    return str(caught.value.stderr)


def captured_policy() -> str:
    """The quickstart's rules together with what `chatelaine policy capture` adds: values that some host has."""
    policy = yaml.safe_load((ROOT / "examples" / "quickstart" / "rules.yaml").read_text())
    values = [{"index": index, "anyOf": ["0" * 64]} for index in (0, 4, 7)]
    policy["spec"]["tpm"] = {"pcrs": {"bank": "Sha256", "values": values}}
    return str(yaml.safe_dump(policy))


def test_rules_of_the_quickstart_are_no_policy_before_the_hosts_were_captured(installed: ControlPlane) -> None:
    said = refusal(installed, "apply", "-f", str(ROOT / "examples" / "quickstart" / "rules.yaml"))
    assert "spec.tpm: Required" in said


def test_quickstart_applies_and_a_second_apply_changes_nothing(installed: ControlPlane) -> None:
    names = ("namespaces.yaml", "hsms.yaml", "claims.yaml", "deployment.yaml")
    files = [ROOT / "examples" / "quickstart" / file for file in names]
    manifests = [captured_policy(), *(file.read_text() for file in files)]
    for manifest in manifests:
        installed.kubectl("apply", "-f", "-", stdin=manifest)
    for manifest in manifests:
        again = installed.kubectl("apply", "-f", "-", stdin=manifest)
        assert all(line.endswith(" unchanged") for line in again.splitlines()), again


def test_every_manifest_of_the_quickstart_is_covered() -> None:
    found = {path.name for path in (ROOT / "examples" / "quickstart").rglob("*.yaml")}
    assert found == {f"{name}.yaml" for name in ("namespaces", "rules", "hsms", "claims", "deployment")}


def test_readmission_by_somebody_who_may_only_patch_is_refused(installed: ControlPlane) -> None:
    installed.kubectl("apply", "-f", "-", stdin=captured_policy())
    installed.kubectl("apply", "-f", str(ROOT / "examples" / "quickstart" / "hsms.yaml"))
    platform = person(installed, "paula", "chatelaine-platform")
    security = person(installed, "sam", "chatelaine-security")
    annotate = ["annotate", "--overwrite", "hsm", "hsm-a"]

    said = refusal(installed, *platform, *annotate, f"chatelaine.dev/readmit={REFUTED}")
    assert "needs the verb readmit" in said

    installed.kubectl(*platform, *annotate, "team=platform")
    installed.kubectl(*security, *annotate, f"chatelaine.dev/readmit={REFUTED}")
    # What the security team set does not shut others out of the object.
    installed.kubectl(*platform, *annotate, "team=platform-2")
    said = refusal(installed, *platform, *annotate, f"chatelaine.dev/readmit={REFUTED[:-1]}8")
    assert "needs the verb readmit" in said


def test_an_hsm_created_with_the_readmit_annotation_is_refused(installed: ControlPlane) -> None:
    installed.kubectl("apply", "-f", "-", stdin=captured_policy())
    platform = person(installed, "peter", "chatelaine-platform")
    manifest = next(yaml.safe_load_all((ROOT / "examples" / "quickstart" / "hsms.yaml").read_text()))
    manifest["metadata"]["name"] = "hsm-new"
    manifest["metadata"]["annotations"] = {"chatelaine.dev/readmit": REFUTED}
    said = refusal(installed, *platform, "create", "-f", "-", stdin=yaml.safe_dump(manifest))
    assert "needs the verb readmit" in said


@pytest.mark.parametrize("verb", ["apply-server-side", "replace-status"])
def test_readmission_by_another_door_is_refused(installed: ControlPlane, verb: str) -> None:
    installed.kubectl("apply", "-f", "-", stdin=captured_policy())
    installed.kubectl("apply", "-f", str(ROOT / "examples" / "quickstart" / "hsms.yaml"))
    wanted = {"metadata": {"annotations": {"chatelaine.dev/readmit": REFUTED[:-1] + "5"}}}
    if verb == "apply-server-side":
        platform = person(installed, "petra", "chatelaine-platform")
        manifest = next(yaml.safe_load_all((ROOT / "examples" / "quickstart" / "hsms.yaml").read_text()))
        manifest["metadata"]["annotations"] = wanted["metadata"]["annotations"]
        arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        assert "needs the verb readmit" in refusal(installed, *platform, *arguments, stdin=yaml.safe_dump(manifest))
    else:
        # Even who may write the status, as the operator may, moves no annotation by it.
        installed.kubectl(
            "patch", "hsm", "hsm-a", "--subresource=status", "--type=merge", "-p", json.dumps(wanted),
            "--as", f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}",
        )  # fmt: skip
    assert REFUTED[:-1] + "5" not in installed.kubectl("get", "hsm", "hsm-a", "-o", "yaml")


def secret_of(name: str, type_: str, annotations: dict[str, str] | None = None) -> str:
    meta = {"name": name, "namespace": NAMESPACE, "annotations": annotations or {}}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": meta})


def test_inviter_who_makes_a_ca_or_a_service_account_token_is_refused(installed: ControlPlane) -> None:
    installed.kubectl(
        "create", "rolebinding", "ines", "--role=chatelaine-inviter", "--user=ines", "-n", NAMESPACE
    )  # fmt: skip
    create, ines = ["create", "-f", "-"], ["--as", "ines"]
    installed.kubectl(*ines, *create, stdin=secret_of("chatelaine-invitation-h", "chatelaine.dev/invitation"))
    token = {"kubernetes.io/service-account.name": SERVICE_ACCOUNT}
    for wrong in (
        secret_of("chatelaine-ca", "Opaque"),
        secret_of("chatelaine-ca", "chatelaine.dev/invitation"),
        secret_of("chatelaine-invitation-i", "kubernetes.io/service-account-token", token),
    ):
        assert "may create invitations only" in refusal(installed, *ines, *create, stdin=wrong)
    # The operator, who looks after the CA, is not hindered.
    operator = ["--as", f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"]
    installed.kubectl(*operator, *create, stdin=secret_of("chatelaine-ca", "Opaque"))


@pytest.mark.parametrize("role", ["edit", "admin", "chatelaine-platform", "chatelaine-security"])
def test_a_person_who_writes_a_status_is_refused(installed: ControlPlane, role: str) -> None:
    for file in ("namespaces.yaml", "hsms.yaml", "claims.yaml"):
        installed.kubectl("apply", "-f", str(ROOT / "examples" / "quickstart" / file))
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": f"as-{role}", "namespace": "payments"},
    }
    installed.admin.apply(account)
    installed.kubectl(
        "create", "clusterrolebinding", f"as-{role}", f"--clusterrole={role}", f"--serviceaccount=payments:as-{role}"
    )
    tenant = installed.as_service_account("payments", f"as-{role}")
    claim = {"apiVersion": GROUP, "kind": "HsmClaim", "metadata": {"name": "checkout", "namespace": "payments"}}
    hsm = {"apiVersion": GROUP, "kind": "Hsm", "metadata": {"name": "hsm-a"}}
    for target in (claim, hsm):
        with pytest.raises(ApiError) as caught:
            tenant.merge(target, {"status": {"conditions": []}}, subresource="status")
        assert caught.value.status == 403
        assert "/status" in caught.value.message


@pytest.mark.parametrize("role", ["edit", "admin", "chatelaine-platform", "chatelaine-security"])
def test_tenant_who_reads_or_changes_anothers_secret_or_the_ca_is_refused(installed: ControlPlane, role: str) -> None:
    theirs, other, name = f"own-{role}", f"other-{role}", f"binding-{role}"
    for namespace in (theirs, other):
        installed.create_namespace(namespace)
    for namespace, secret in ((theirs, name), (other, name), (NAMESPACE, name)):
        meta = {"name": secret, "namespace": namespace}
        installed.admin.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {}})
    installed.admin.apply(yaml.safe_load(secret_of("chatelaine-ca", "Opaque")))
    installed.kubectl("create", "serviceaccount", "tenant", "-n", theirs)
    # What the chart adds to the cluster's own roles counts too: the aggregated ones are bound in one namespace, the
    # teams' roles everywhere.
    kind, scope = ("rolebinding", ["-n", theirs]) if role in ("edit", "admin") else ("clusterrolebinding", [])
    account = f"--serviceaccount={theirs}:tenant"
    installed.kubectl("create", kind, f"tenant-{role}", f"--clusterrole={role}", account, *scope)
    tenant = installed.as_service_account(theirs, "tenant")
    if role in ("edit", "admin"):
        assert tenant.read("v1", "Secret", name, theirs)["metadata"]["name"] == name
    for namespace, secret in ((other, name), (NAMESPACE, name), (NAMESPACE, "chatelaine-ca")):
        target = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": namespace}}
        attempts = (
            lambda namespace=namespace, secret=secret: tenant.read("v1", "Secret", secret, namespace),
            lambda namespace=namespace: tenant.get(f"/api/v1/namespaces/{namespace}/secrets"),
            lambda target=target: tenant.merge(target, {"data": {"host": "ZXZpbA=="}}),
            lambda target=target: tenant.delete(target),
            lambda namespace=namespace: tenant.create(
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted", "namespace": namespace}}
            ),
        )
        for attempt in attempts:
            with pytest.raises(ApiError) as caught:
                attempt()
            assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
            assert "secrets" in caught.value.message
    with pytest.raises(ApiError) as caught:
        tenant.get("/api/v1/secrets")
    assert caught.value.status == 403


def test_a_tenant_who_writes_a_policy_or_an_hsm_is_refused(installed: ControlPlane) -> None:
    installed.kubectl("apply", "-f", str(ROOT / "examples" / "quickstart" / "namespaces.yaml"))
    tenant = person(installed, "tina", "admin", "payments")
    hsms = (ROOT / "examples" / "quickstart" / "hsms.yaml").read_text()
    for manifest in (captured_policy(), hsms):
        assert "forbidden" in refusal(installed, *tenant, "create", "-f", "-", stdin=manifest)


def test_the_operator_may_not_write_specs_by_update_or_create_objects_of_its_kinds(installed: ControlPlane) -> None:
    operator = installed.as_service_account(NAMESPACE, SERVICE_ACCOUNT)
    hsm = next(yaml.safe_load_all((ROOT / "examples" / "quickstart" / "hsms.yaml").read_text()))
    installed.admin.apply(hsm)
    for attempt in (lambda: operator.create({**hsm, "metadata": {"name": "other"}}), lambda: operator.replace(hsm)):
        with pytest.raises(ApiError) as caught:
            attempt()
        assert caught.value.status == 403


def test_the_operator_reads_the_key_set_of_service_accounts(installed: ControlPlane) -> None:
    operator = installed.as_service_account(NAMESPACE, SERVICE_ACCOUNT)
    assert operator.get("/openid/v1/jwks")["keys"]
    assert operator.get("/.well-known/openid-configuration")["issuer"]


def test_operator_that_looks_for_config_maps_in_a_tenants_namespace_is_refused(installed: ControlPlane) -> None:
    installed.create_namespace("tenant-of-maps")
    for namespace in ("tenant-of-maps", NAMESPACE):
        meta = {"name": "tpm-vendors", "namespace": namespace}
        installed.admin.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}})
    operator = installed.as_service_account(NAMESPACE, SERVICE_ACCOUNT)
    assert operator.read("v1", "ConfigMap", "tpm-vendors", NAMESPACE)["metadata"]["namespace"] == NAMESPACE
    assert operator.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps")["items"]
    for attempt in (
        lambda: operator.read("v1", "ConfigMap", "tpm-vendors", "tenant-of-maps"),
        lambda: operator.get("/api/v1/namespaces/tenant-of-maps/configmaps"),
        lambda: operator.get("/api/v1/namespaces/tenant-of-maps/configmaps?watch=true&timeoutSeconds=1"),
        lambda: operator.get("/api/v1/configmaps"),
    ):
        with pytest.raises(ApiError) as caught:
            attempt()
        assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


async def test_inviter_is_told_what_to_do_about_an_invitation_that_was_not_used(
    installed: ControlPlane, tmp_path: Path
) -> None:
    installed.kubectl("create", "serviceaccount", "iris", "-n", NAMESPACE)
    account = f"--serviceaccount={NAMESPACE}:iris"
    installed.kubectl("create", "rolebinding", "iris", "--role=chatelaine-inviter", account, "-n", NAMESPACE)
    as_iris = installed.service_account_kubeconfig(NAMESPACE, "iris", tmp_path / "iris.kubeconfig")
    async with await KubeAdapter.connect(as_iris) as kube:
        invitations = KubeInvitations(kube, NAMESPACE)
        await invitations.create("hsm-twice", "sha256:" + "1" * 64, 2_000_000_000)
        with pytest.raises(AlreadyExists, match="host hsm-twice has an invitation that was not used yet"):
            await invitations.create("hsm-twice", "sha256:" + "2" * 64, 2_000_000_000)


NOT_NEEDED = [
    ("apiextensions.k8s.io", "customresourcedefinitions", "", ("get", "list", "watch")),
    ("", "events", "", ("create", "patch")),
    ("events.k8s.io", "events", "", ("patch",)),
    ("coordination.k8s.io", "leases", "", ("patch", "delete", "list")),
    ("", "configmaps", "", ("update", "delete")),
    ("chatelaine.dev", "attestationpolicies", "", ("patch",)),
    *(
        ("chatelaine.dev", kind, part, verbs)
        for kind in ("hsms", "hsmclaims", "attestationpolicies")
        for part, verbs in (("status", ("update",)), ("finalizers", ("update",)))
    ),
]


@pytest.mark.parametrize(
    ("group", "resource", "part", "verbs"), NOT_NEEDED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_operator_that_was_taken_over_may_not_do_what_it_never_does(
    installed: ControlPlane, group: str, resource: str, part: str, verbs: tuple[str, ...]
) -> None:
    for verb in verbs:
        asked = {"group": group, "resource": resource, "subresource": part, "verb": verb, "namespace": NAMESPACE}
        user = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": asked},
        }
        said = installed.kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}", stdin=yaml.safe_dump(review))
        assert said == "false", verb


def test_the_operators_pods_carry_the_labels_that_network_policies_let_in_and_can_write_their_state() -> None:
    deployment = next(doc for doc in yaml.safe_load_all(render()) if doc and doc["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    assert dict(OperatorSettings(NAMESPACE).pod_labels).items() <= template["metadata"]["labels"].items()
    container = template["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (state,) = (argument.partition("=")[2] for argument in container["args"] if argument.startswith("--state-dir"))
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    for folder in ("/tmp", state):
        assert volumes[mounts[folder]]["emptyDir"]["medium"] == "Memory"


def test_stored_evidence_goes_to_a_disk_that_is_larger_than_its_bound() -> None:
    for settings in ((), ("operator.evidence.volume.persistentVolumeClaim.claimName=evidence",)):
        rendered = yaml.safe_load_all(render(NAMESPACE, *settings))
        pod = next(doc for doc in rendered if doc and doc["kind"] == "Deployment")["spec"]["template"]["spec"]
        arguments = dict(one.partition("=")[::2] for one in pod["containers"][0]["args"])
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        volume = {one["name"]: one for one in pod["volumes"]}[mounts[f"{arguments['--state-dir']}/{EVIDENCE}"]]
        if settings:
            assert volume["persistentVolumeClaim"] == {"claimName": "evidence"}
        else:
            limit = volume["emptyDir"]["sizeLimit"]
            assert int(limit.removesuffix("Mi")) > int(arguments["--evidence-mebibytes"])
            assert "medium" not in volume["emptyDir"]


def test_volume_of_reference_values_is_mounted_only_where_one_is_named() -> None:
    for settings, there in (((), False), (("operator.referenceValuesVolume.configMap.name=values",), True)):
        rendered = yaml.safe_load_all(render(NAMESPACE, *settings))
        pod = next(doc for doc in rendered if doc and doc["kind"] == "Deployment")["spec"]["template"]["spec"]
        container = pod["containers"][0]
        folders = [one.partition("=")[2] for one in container["args"] if one.startswith("--reference-values-dir=")]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert bool(folders) is there
        assert ("reference-values" in volumes) is there
        if there:
            assert mounts[folders[0]] == {"name": "reference-values", "mountPath": folders[0], "readOnly": True}
            assert volumes["reference-values"]["configMap"] == {"name": "values"}


def test_definitions_stay_when_the_release_goes() -> None:
    kept = [doc for doc in yaml.safe_load_all(render()) if doc and doc["kind"] == "CustomResourceDefinition"]
    assert len(kept) == 3
    assert all(doc["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for doc in kept)
    assert GROUP.split("/")[0] in kept[0]["spec"]["group"]
