"""Tests in this folder run operators, some of them behind a proxy that can fail."""

from collections.abc import AsyncIterator

import pytest

from support.api_proxy import ApiProxy
from support.operator_cluster import OperatorCluster
from support.operator_fixtures import cluster, plane

__all__ = ["cluster", "plane", "proxy"]


@pytest.fixture
async def proxy(cluster: OperatorCluster) -> AsyncIterator[ApiProxy]:
    pki = cluster.plane.pki
    proxy = ApiProxy(cluster.kubeconfig, cluster.folder, pki / "apiserver.crt", pki / "apiserver.key")
    await proxy.start()
    yield proxy
    await proxy.stop()
