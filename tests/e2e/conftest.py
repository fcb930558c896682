"""One cluster with a node for all of these tests, with the image of this very tree in it. They run one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.cluster.cluster import Cluster
from tools.image.product import Built, build

from support.cluster_pods import Pods

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The product's image."""
    return build(tmp_path_factory.mktemp("image") / "chatelaine.tar", "e2e")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, image: Built) -> Iterator[Cluster]:
    """The cluster that these tests share."""
    with Cluster(tmp_path_factory.mktemp("cluster"), archives=(image.archive,)) as running:
        yield running


@pytest.fixture
def pods(cluster: Cluster, image: Built, prefix: str) -> Iterator[Pods]:
    """Pods in a namespace for one test, which takes restricted ones only."""
    cluster.create_namespace(prefix, RESTRICTED)
    yield Pods(cluster, prefix, image.name)
    cluster.admin.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": prefix}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test may start a sandbox or a cluster of its own."""
    return tmp_path / "own"
