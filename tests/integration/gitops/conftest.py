"""Tests in this folder run operators, and ask the health checks of GitOps tools about what operators write."""

from __future__ import annotations

from typing import Any

import pytest

from support.operator_fixtures import cluster, plane
from support.written_statuses import gather

__all__ = ["cluster", "plane"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """An object for every set of conditions that the operator writes in its tests."""
    return gather(tmp_path_factory.mktemp("written"))
