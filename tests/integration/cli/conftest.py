"""Tests in this folder ask clusters with operators; one control plane for all of them."""

from support.operator_fixtures import cluster, plane

__all__ = ["cluster", "plane"]
