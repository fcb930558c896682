"""People of a cluster: accounts with some of the chart's roles, and the kubeconfigs that they log in with."""

from __future__ import annotations

import secrets
from pathlib import Path

from support.operator_cluster import SYSTEM, OperatorCluster

RBAC = "rbac.authorization.k8s.io/v1"


def person(cluster: OperatorCluster, *roles: str, everywhere: bool = False) -> Path:
    """A kubeconfig of a new account with cluster roles, in the test's namespace or everywhere.

    Args:
        cluster: the test's cluster.
        roles: names of ClusterRoles.
        everywhere: bound for the whole cluster.
    """
    name = f"person-{secrets.token_hex(3)}"
    plane = cluster.plane
    plane.admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM}})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}
    for role in roles:
        meta = {"name": f"{name}-{role}"} | ({} if everywhere else {"namespace": cluster.namespace})
        plane.admin.create(
            {
                "apiVersion": RBAC,
                "kind": "ClusterRoleBinding" if everywhere else "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            }
        )
    path = cluster.folder / f"{name}.kubeconfig"
    plane.service_account_kubeconfig(SYSTEM, name, path)
    return path
