"""`chatelaine check network` on a cluster whose NetworkPolicies are enforced: real pods of our image."""

from __future__ import annotations

import json
import subprocess
import sys

from tools.cluster.cluster import Cluster
from tools.image.product import Built

SECONDS = "90"


def test_enforced_policies_are_found_to_be_and_nothing_is_left(cluster: Cluster, image: Built) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "chatelaine.cli.main", "check", "network", "--json", "--seconds", SECONDS,
            "--image", image.name, "--kubeconfig", str(cluster.kubeconfig),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["state"] == "Ready"
    assert [(check["check"], check["reason"]) for check in said["checks"]] == [
        ("without a policy", "Connected"),
        ("not named", "Cut"),
        ("named", "Connected"),
    ]
    assert "is gone" in done.stderr
    names = [item["metadata"]["name"] for item in cluster.admin.get("/api/v1/namespaces")["items"]]
    assert not [name for name in names if name.startswith("chatelaine-check-")]
