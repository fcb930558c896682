from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from support import pki
from support.gateway import Client, GatewayProcess, Operator
from support.tokens import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One gateway on a real token, shared by the tests of a module; each test tells it a whole new view."""
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), pki.new_authority())
    try:
        yield gateway.start()
    finally:
        gateway.close()


@pytest.fixture(scope="module")
def only_operator(gateway: GatewayProcess, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(gateway, cluster, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def made_uid(only_operator: Operator) -> str:
    """A claim whose keys stand in the token for the whole module."""
    uid = str(uuid.uuid4())
    only_operator.bind("checkout-hsm", uid)
    return uid


@pytest.fixture
def operator(only_operator: Operator, made_uid: str) -> Operator:
    """The operator, having told a view in which `payments/checkout-hsm` is served."""
    only_operator.world = type(only_operator.world)()
    only_operator.bind("checkout-hsm", made_uid, make_keys=False)
    only_operator.tell()
    return only_operator


@pytest.fixture
def new_client(
    gateway: GatewayProcess, operator: Operator, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Client]:
    del operator
    return lambda: Client(gateway, cluster, tmp_path_factory.mktemp("client"))


@pytest.fixture
def client(new_client: Callable[[], Client]) -> Client:
    return new_client().login("checkout-hsm")
