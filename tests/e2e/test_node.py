"""The node: it is Ready, runs pods of our image, resolves names, and carries Services."""

from __future__ import annotations

from tools.cluster.cluster import Cluster
from tools.cluster.layout import NODE

from support.cluster_pods import PORT, Pods

WHAT_IT_IS = "import os; print(os.getuid(), os.getgid(), os.access('/', os.W_OK))"
RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
NATIVE = "import pkcs11, tpm2_pytss, uvloop; print(tpm2_pytss.ESAPI.__name__)"


def test_the_node_is_ready_and_of_the_pinned_version(cluster: Cluster) -> None:
    status = cluster.admin.read("v1", "Node", NODE)["status"]
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    assert status["nodeInfo"]["kubeletVersion"] == "v1.35.4"


def test_a_pod_of_our_image_runs_its_command(pods: Pods) -> None:
    assert "Usage: chatelaine" in pods.run("command", "--help")


def test_our_image_runs_as_nobody_in_particular_and_holds_what_gateway_and_agent_need(pods: Pods) -> None:
    pods.start("plain")
    assert pods.python("plain", WHAT_IT_IS).split() == ["65532", "65532", "False"]
    assert pods.python("plain", NATIVE).strip() == "ESAPI"


def test_names_lead_to_services_and_services_to_pods(pods: Pods) -> None:
    pods.serve("server")
    pods.start("client")
    name = f"server.{pods.namespace}.svc.cluster.local"
    service = pods.cluster.admin.read("v1", "Service", "server", pods.namespace)
    assert pods.python("client", RESOLVE, name).strip() == service["spec"]["clusterIP"]
    assert pods.reaches("client", name)
    # The search list of the pod's own namespace.
    assert pods.reaches("client", "server")
    assert not pods.reaches("client", "server", PORT + 1)


def test_a_pod_reaches_itself_by_its_service(pods: Pods) -> None:
    pods.serve("server")
    assert pods.reaches("server", "server")
