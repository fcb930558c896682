"""NetworkPolicies are enforced: what a policy forbids cannot be reached, and what it no longer forbids can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tools.control_plane.client import Object
from tools.control_plane.processes import wait_until

from support.cluster_pods import PORT, Pods

SECONDS = 20.0
POD = {"apiVersion": "v1", "kind": "Pod"}


@pytest.fixture
def server(pods: Pods) -> str:
    """Address of a pod that serves."""
    return pods.serve("server", role="server")


def policy(pods: Pods, **spec: Any) -> Object:
    selector = {"matchLabels": {"role": "server"}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "policy", "namespace": pods.namespace},
        "spec": {"podSelector": selector, **spec},
    }


def cut(pods: Pods, client: str, server: str) -> Callable[[], bool]:
    return lambda: not pods.reaches(client, server)


def test_a_policy_cuts_and_its_deletion_opens(pods: Pods, server: str) -> None:
    pods.start("client")
    assert pods.reaches("client", server)
    deny = pods.cluster.admin.create(policy(pods, policyTypes=["Ingress"]))
    wait_until(cut(pods, "client", server), "the server cannot be reached", seconds=SECONDS)
    assert not pods.reaches("client", "server")
    pods.cluster.admin.delete(deny)
    wait_until(lambda: pods.reaches("client", server), "the server can be reached again", seconds=SECONDS)


def test_only_pods_that_a_policy_names_reach_the_port_that_it_names(pods: Pods, server: str) -> None:
    pods.start("claimed", claim="mine")
    pods.start("unclaimed", claim="none")
    peer = {"podSelector": {"matchLabels": {"claim": "mine"}}}
    pods.cluster.admin.create(policy(pods, ingress=[{"from": [peer], "ports": [{"port": PORT}]}]))
    wait_until(cut(pods, "unclaimed", server), "the unclaimed pod is cut off", seconds=SECONDS)
    assert pods.reaches("claimed", server)
    change = {"metadata": {"labels": {"claim": "none"}}}
    pods.cluster.admin.merge(pods.cluster.admin.read("v1", "Pod", "claimed", pods.namespace) | POD, change)
    wait_until(cut(pods, "claimed", server), "a pod that lost its label is cut off", seconds=SECONDS)


def test_a_pod_that_may_send_to_one_port_only_reaches_nothing_else(pods: Pods, server: str) -> None:
    pods.start("client", role="client")
    selector = {"matchLabels": {"role": "client"}}
    ports = [{"port": PORT, "protocol": "TCP"}]
    pods.cluster.admin.create(policy(pods, podSelector=selector, policyTypes=["Egress"], egress=[{"ports": ports}]))
    wait_until(lambda: not pods.reaches("client", "10.96.0.1", 443), "the API server is cut off", seconds=SECONDS)
    assert pods.reaches("client", server)


def test_a_pod_that_starts_under_a_policy_is_never_open(pods: Pods) -> None:
    pods.start("client")
    pods.cluster.admin.create(policy(pods, policyTypes=["Ingress"]))
    server = pods.serve("server", role="server")
    assert not pods.reaches("client", server)
