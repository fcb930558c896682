"""Runs the engine until it is killed; `python -m tools.cluster.policy --help` tells its options."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from tools.cluster.policy.objects import World, labels_of, pod_of, policy_of
from tools.cluster.policy.rules import render
from tools.cluster.policy.watch import Followed
from tools.control_plane.client import ApiClient

IN_FORCE = "in force"
"""Printed whenever the rules have changed."""

PODS, NAMESPACES, POLICIES = "pods", "namespaces", "networkpolicies"
PATHS = {
    PODS: "/api/v1/pods",
    NAMESPACES: "/api/v1/namespaces",
    POLICIES: "/apis/networking.k8s.io/v1/networkpolicies",
}
_AGAIN_SECONDS = 0.2


def main() -> NoReturn:
    """Command line; runs until it is killed."""
    parser = argparse.ArgumentParser(description="Enforce NetworkPolicies on one node.")
    parser.add_argument("--server", required=True, help="URL of the API server")
    parser.add_argument("--certificate-authority", type=Path, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--pods", required=True, help="addresses of all pods of the node, as in 10.0.0.0/24")
    arguments = parser.parse_args()
    identity = arguments.certificate, arguments.key
    followed = Followed(ApiClient(arguments.server, arguments.certificate_authority, identity=identity), PATHS)
    before = ""
    while True:
        followed.changed.wait()
        followed.changed.clear()
        world = _world(followed)
        if world is not None and (rules := render(world, arguments.pods)) != before:
            if _put_in_force(rules):
                before = rules
            else:
                time.sleep(_AGAIN_SECONDS)
                followed.changed.set()


def _world(followed: Followed) -> World | None:
    found = followed.snapshot()
    if found is None:
        return None
    return World(
        tuple(pod for obj in found[PODS] if (pod := pod_of(obj)) is not None),
        {obj["metadata"]["name"]: labels_of(obj) for obj in found[NAMESPACES]},
        tuple(policy_of(obj) for obj in found[POLICIES]),
    )


def _put_in_force(rules: str) -> bool:
    started = time.monotonic()
    done = subprocess.run(["nft", "--file", "-"], input=rules, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        print(f"nft refused: {done.stderr}\n{rules}", file=sys.stderr, flush=True)
        return False
    print(f"{IN_FORCE}: {rules.count(' return')} lines, in {time.monotonic() - started:.3f} s", flush=True)
    return True


if __name__ == "__main__":
    main()
