"""Fixtures of tests with an operator: one control plane for each worker, a clean part of it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tools.control_plane.embedded import ControlPlane

from support.operator_cluster import OperatorCluster, operator_plane


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the chart installed."""
    with operator_plane(tmp_path_factory.mktemp("operator-plane")) as started:
        yield started


@pytest.fixture
async def cluster(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[OperatorCluster]:
    """This test's part of it; its objects go with the test."""
    cluster = OperatorCluster(plane, tmp_path)
    plane.create_namespace(cluster.namespace)
    yield cluster
    await cluster.clean()
