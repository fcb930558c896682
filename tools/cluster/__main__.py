"""Runs a cluster until it is told to stop: `python -m tools.cluster --directory DIR --image ARCHIVE`.

Prints the administrator's kubeconfig when the node is Ready and names are answered.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tools.cluster.cluster import Cluster
from tools.cluster.requirements import MissingError
from tools.control_plane.build import BuildError
from tools.control_plane.embedded import exit_on_signals
from tools.control_plane.processes import StartError


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run a Kubernetes cluster of one node, without a container engine.")
    parser.add_argument("--directory", type=Path, required=True, help="emptied; gets keys, logs and kubeconfigs")
    parser.add_argument("--image", type=Path, action="append", default=[], help="OCI archive to load; may be repeated")
    arguments = parser.parse_args()
    exit_on_signals()
    try:
        with Cluster(arguments.directory, archives=tuple(arguments.image)) as cluster:
            print(cluster.kubeconfig, flush=True)
            signal.pause()
    except (MissingError, BuildError, StartError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
