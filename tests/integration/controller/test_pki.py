"""The CA of a cluster in a real API server: several operators at once, years passed by moving the wall clock on."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tools.control_plane.access import ClusterAccess

from chatelaine.controller.pki import ENDPOINT_KEY, ROTATION_KEY, ClusterPki
from chatelaine.controller.rotation import BUNDLE_KEY
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.model.identifiers import CA_NAME, OPERATOR_SERVER_NAME
from chatelaine.pki.authority import LEAF_LIFETIME_SECONDS, Authority
from chatelaine.pki.chain import load_bundle
from chatelaine.pki.errors import AuthorityMalformed, CertificateRefused, Flaw
from chatelaine.pki.roots import BACKDATE_SECONDS, CA_LIFETIME_SECONDS
from support.pki import handshake, now

ENDPOINT = "operator.example:8443"
SETTLED_SECONDS = LEAF_LIFETIME_SECONDS + BACKDATE_SECONDS
"""After this every process has renewed its leaf, and has got the bundle of the step before with it."""


class Together:
    """An API server where calls of one kind wait until `parties` operators are about to make one."""

    def __init__(self, kube: KubeAdapter, verb: str, parties: int) -> None:
        self._kube = kube
        self._verb = verb
        self._barrier = asyncio.Barrier(parties)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._kube, name)
        if name != self._verb:
            return call

        async def meeting(*arguments: Any, **options: Any) -> Any:
            async with asyncio.timeout(30):
                await self._barrier.wait()
            return await call(*arguments, **options)

        return meeting


@dataclass(frozen=True)
class Instance:
    """One operator's view of the CA, and where it keeps its leaf."""

    pki: ClusterPki
    folder: Path
    changes: list[str]

    def certificate(self) -> bytes:
        """What it shows, DER."""
        return load_bundle((self.folder / "chain.pem").read_bytes())[0].public_bytes(Encoding.DER)


class Cluster:
    """A namespace, a clock, and operators in it."""

    def __init__(self, kube: KubeAdapter, admin: Any, namespace: str, folder: Path) -> None:
        self.kube = kube
        self.admin = admin
        self.namespace = namespace
        self.folder = folder
        self.wall = float(now())

    def operator(self, kube: Any = None, *, leads: bool = True) -> Instance:
        folder = self.folder / secrets.token_hex(4)
        changes: list[str] = []
        pki = ClusterPki(
            kube or self.kube,
            self.namespace,
            folder,
            ENDPOINT,
            leads=lambda: leads,
            wall=lambda: self.wall,
            changed=lambda: changes.append(pki.bundle_pem),
        )
        return Instance(pki, folder, changes)

    def path(self, kind: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{kind}/{CA_NAME}"

    def stored(self) -> Authority:
        data = self.admin.request("GET", self.path("secrets"))["data"]
        return Authority.from_secret({key: base64.b64decode(value) for key, value in data.items()})

    def published(self) -> dict[str, str]:
        found: dict[str, str] = self.admin.request("GET", self.path("configmaps"))["data"]
        return found

    def assert_one_mind(self, *instances: Instance) -> None:
        """All go by the CA that is stored, people are told of it, and everybody is believed by everybody."""
        stored = self.stored()
        published = self.published()
        assert published.pop(ROTATION_KEY)
        assert published == {BUNDLE_KEY: stored.bundle_pem, ENDPOINT_KEY: ENDPOINT}
        for one in instances:
            assert one.pki.authority().to_secret() == stored.to_secret()
            assert one.pki.leaf.bundle == stored.bundle
            for other in instances:
                one.pki.leaf.check_peer(other.certificate(), OPERATOR_SERVER_NAME, int(self.wall))


@pytest.fixture
async def cluster(control_plane: ClusterAccess, namespace: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with await KubeAdapter.connect(control_plane.kubeconfig) as kube:
        yield Cluster(kube, control_plane.admin, namespace, tmp_path)


async def look(*instances: Instance) -> None:
    await asyncio.gather(*(one.pki.look() for one in instances))


async def test_of_operators_that_start_at_once_one_makes_the_ca_and_all_use_it(cluster: Cluster) -> None:
    racing = Together(cluster.kube, "create", 3)
    instances = [cluster.operator(racing) for _ in range(3)]
    await look(*instances)
    cluster.assert_one_mind(*instances)
    assert all(one.pki.ready.is_set() for one in instances)
    digest = cluster.stored().digest
    await look(*instances, later := cluster.operator())
    cluster.assert_one_mind(*instances, later)
    assert cluster.stored().digest == digest


async def test_rotation_by_two_leaders_at_once_loses_no_step_and_no_root(cluster: Cluster) -> None:
    cluster.wall -= CA_LIFETIME_SECONDS * 2 // 3 + 3 * SETTLED_SECONDS
    racing = Together(cluster.kube, "replace", 2)
    leaders = [cluster.operator(racing) for _ in range(2)]
    follower = cluster.operator(leads=False)
    await leaders[0].pki.look()
    everybody = (*leaders, follower)
    await look(*everybody)
    first = cluster.stored()

    cluster.wall += CA_LIFETIME_SECONDS * 2 // 3
    await follower.pki.look()
    assert cluster.stored().to_secret() == first.to_secret(), "only a leader rotates"
    await look(*leaders)
    await look(*everybody)
    published = cluster.stored()
    assert published.upcoming is not None
    assert published.bundle == (first.signing.certificate, published.upcoming.certificate)
    await look(*everybody)
    await look(*everybody)
    cluster.assert_one_mind(*everybody)

    cluster.wall += SETTLED_SECONDS
    await look(*leaders)
    await look(*everybody)
    switched = cluster.stored()
    assert switched.bundle == (published.upcoming.certificate, first.signing.certificate)
    await look(*everybody)
    await look(*everybody)
    cluster.assert_one_mind(*everybody)

    of_the_former = leaders[0].certificate()
    cluster.wall += SETTLED_SECONDS
    await look(*leaders)
    await look(*everybody)
    assert cluster.stored().bundle == (published.upcoming.certificate,)
    cluster.assert_one_mind(*everybody)
    assert leaders[0].certificate() != of_the_former

    await look(*everybody)
    assert cluster.stored().bundle == (published.upcoming.certificate,), "and no further step is due"
    for one in everybody:
        told = [load_bundle(bundle) for bundle in one.changes]
        assert told == [first.bundle, published.bundle, switched.bundle, cluster.stored().bundle]


async def test_leaf_of_the_root_before_is_refused_once_the_rotation_is_over(cluster: Cluster) -> None:
    cluster.wall -= CA_LIFETIME_SECONDS * 2 // 3
    operator = cluster.operator()
    await look(operator)
    former = operator.certificate()
    for seconds in (CA_LIFETIME_SECONDS * 2 // 3, SETTLED_SECONDS, SETTLED_SECONDS):
        cluster.wall += seconds
        await look(operator)
    with pytest.raises(CertificateRefused) as refused:
        operator.pki.leaf.check_peer(former, OPERATOR_SERVER_NAME, int(cluster.wall))
    assert refused.value.flaw is Flaw.UNKNOWN_ISSUER


async def test_own_leaf_is_renewed_into_the_living_contexts(cluster: Cluster) -> None:
    real = cluster.wall
    cluster.wall = real - LEAF_LIFETIME_SECONDS * 2 // 3
    operator = cluster.operator()
    await look(operator)
    server = operator.pki.leaf.server_context(client_certificates=True)
    client = operator.pki.context()
    assert client is not None
    before = handshake(client, server, OPERATOR_SERVER_NAME)
    await look(operator)
    assert handshake(client, server, OPERATOR_SERVER_NAME) == before, "not before it is due"

    cluster.wall = real
    await look(operator)
    assert operator.pki.context() is client
    shown, _ = handshake(client, server, OPERATOR_SERVER_NAME)
    assert shown == operator.certificate() != before[0]
    assert operator.pki.leaf.not_after == int(real) + LEAF_LIFETIME_SECONDS
    assert operator.changes == [cluster.stored().bundle_pem], "the CA has not changed"


async def test_what_people_need_is_published_again(cluster: Cluster) -> None:
    operator = cluster.operator()
    await look(operator)
    told = cluster.published()
    cluster.admin.request("DELETE", cluster.path("configmaps"))
    await look(operator)
    assert cluster.published() == told
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CA_NAME, "namespace": cluster.namespace}}
    cluster.admin.merge(theirs, {"data": {BUNDLE_KEY: "another", ENDPOINT_KEY: "attacker.example:1", "more": "x"}})
    await look(operator)
    assert {name: cluster.published()[name] for name in told} == told


async def test_secret_that_holds_no_ca_is_not_taken_and_the_one_known_goes_on(cluster: Cluster) -> None:
    operator = cluster.operator()
    await look(operator)
    before = operator.pki.authority()
    kind = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CA_NAME, "namespace": cluster.namespace}}
    cluster.admin.merge(kind, {"data": {"tls.key": base64.b64encode(b"nonsense").decode()}})
    with pytest.raises(AuthorityMalformed):
        await look(operator)
    assert operator.pki.authority() is before
    with pytest.raises(AuthorityMalformed):
        await look(stranger := cluster.operator())
    assert stranger.pki.context() is None
    assert not stranger.pki.ready.is_set()
