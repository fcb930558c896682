"""Tests in this folder run operators."""

from support.operator_fixtures import cluster, plane

__all__ = ["cluster", "plane"]
