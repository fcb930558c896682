"""`chatelaine host invite` and `host join` as people run them, against a real API server."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tools.control_plane.access import ClusterAccess

from chatelaine.controller.join import JoinEndpoint
from chatelaine.controller.pki import KubeInvitations
from chatelaine.kube.adapter import KubeAdapter
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name
from chatelaine.pki.invitation import Invitation, secret_digest
from chatelaine.pki.leaf import ProcessLeaf
from support.invitations import InvitationStoreContract
from support.pki import as_it_stands, new_authority, new_leaf

HOST = "hsm-a"


def chatelaine(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.main", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "KUBECONFIG": ""},
    )


@pytest.fixture
async def kube(control_plane: ClusterAccess) -> AsyncIterator[KubeAdapter]:
    async with await KubeAdapter.connect(control_plane.kubeconfig) as adapter:
        yield adapter


@pytest.fixture
async def operator(
    control_plane: ClusterAccess, namespace: str, kube: KubeAdapter, tmp_path: Path
) -> AsyncIterator[JoinEndpoint]:
    """An operator's join endpoint, with what it publishes."""
    authority = new_authority()
    leaf = new_leaf(authority, tmp_path / "operator", OPERATOR_SERVER_NAME)
    endpoint = JoinEndpoint(
        lambda: authority,
        KubeInvitations(kube, namespace),
        wall_clock=time.time,
        monotonic=time.monotonic,
        random_bytes=secrets.token_bytes,
        refresh=as_it_stands,
    )
    port = await endpoint.start(leaf.server_context(client_certificates=False), "127.0.0.1", 0)
    published = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "chatelaine-ca", "namespace": namespace},
        "data": {"ca.crt": authority.bundle_pem, "join-endpoint": f"127.0.0.1:{port}"},
    }
    control_plane.admin.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", published)
    yield endpoint
    await endpoint.stop()


async def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    import asyncio

    return await asyncio.to_thread(chatelaine, *arguments, typed=typed)


async def test_a_host_is_invited_and_joins_once(
    control_plane: ClusterAccess, namespace: str, operator: JoinEndpoint, tmp_path: Path
) -> None:
    invited = await run("host", "invite", HOST, "--namespace", namespace, "--kubeconfig", str(control_plane.kubeconfig))
    assert invited.returncode == 0, invited.stderr
    assert invited.stdout.startswith("chat1.")
    assert len(invited.stdout.splitlines()) == 1
    invitation = Invitation.decode(invited.stdout)

    path = f"/api/v1/namespaces/{namespace}/secrets/chatelaine-invitation-{HOST}"
    stored = control_plane.admin.request("GET", path)
    assert stored["type"] == "chatelaine.dev/invitation"
    assert stored["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "chatelaine"}
    data = {key: base64.b64decode(value).decode() for key, value in stored["data"].items()}
    assert data == {"digest": secret_digest(invitation.secret_bytes()), "expires": str(invitation.expires)}
    assert invitation.secret not in json.dumps(stored)

    joined = await run("host", "join", "--state-dir", str(tmp_path / "host"), typed=invited.stdout)
    assert joined.returncode == 0, joined.stderr
    assert ProcessLeaf(tmp_path / "host" / "agent" / "tls", agent_server_name(HOST)).not_after > time.time()
    assert (tmp_path / "host" / "gateway" / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600

    (tmp_path / "token").write_text(invited.stdout)
    again = await run("host", "join", "--state-dir", str(tmp_path / "other"), "--token-file", str(tmp_path / "token"))
    assert again.returncode == 1
    assert "used" in again.stderr
    for output in (joined.stdout, joined.stderr, again.stdout, again.stderr, invited.stderr):
        assert invitation.secret not in output


async def test_without_an_operator_the_command_says_so(control_plane: ClusterAccess, namespace: str) -> None:
    invited = await run("host", "invite", HOST, "--namespace", namespace, "--kubeconfig", str(control_plane.kubeconfig))
    assert invited.returncode == 1
    assert invited.stdout == ""
    assert "is the operator there" in invited.stderr


async def test_a_token_in_an_argument_is_not_taken(tmp_path: Path) -> None:
    joined = await run("host", "join", "chat1.secret", "--state-dir", str(tmp_path))
    assert joined.returncode != 0
    assert not (tmp_path / "agent").exists()


async def test_what_is_no_token_is_refused_without_repeating_it(tmp_path: Path) -> None:
    joined = await run("host", "join", "--state-dir", str(tmp_path), typed="chat1.hunter2" * 1000)
    assert joined.returncode == 1
    assert "hunter2" not in joined.stdout + joined.stderr


async def test_a_host_that_may_invite_itself_joins_and_keeps_certificates_that_are_good(
    control_plane: ClusterAccess, namespace: str, operator: JoinEndpoint, tmp_path: Path
) -> None:
    reach = ("--namespace", namespace, "--kubeconfig", str(control_plane.kubeconfig))
    enter = ("host", "enter", HOST, *reach, "--state-dir", str(tmp_path))
    # What an earlier try left behind is no hindrance.
    await run("host", "invite", HOST, *reach)
    entered = await run(*enter)
    assert (entered.returncode, entered.stdout) == (0, f"{HOST} has joined\n"), entered.stderr
    chain = (tmp_path / "gateway" / "tls" / "chain.pem").read_bytes()

    await operator.stop()
    again = await run(*enter)
    assert (again.returncode, again.stdout) == (0, f"{HOST} keeps the certificates that it has\n"), again.stderr
    assert (tmp_path / "gateway" / "tls" / "chain.pem").read_bytes() == chain
    assert "chat1." not in entered.stdout + entered.stderr


async def test_a_host_that_may_invite_itself_waits_for_its_operator_no_longer_than_told(
    control_plane: ClusterAccess, namespace: str, tmp_path: Path
) -> None:
    reach = ("--namespace", namespace, "--kubeconfig", str(control_plane.kubeconfig))
    entered = await run("host", "enter", HOST, *reach, "--state-dir", str(tmp_path), "--patience-seconds", "0")
    assert entered.returncode == 1
    assert "is the operator there" in entered.stderr


class TestKubeInvitations(InvitationStoreContract):
    @pytest.fixture(autouse=True)
    def _world(self, namespace: str, kube: KubeAdapter) -> None:
        self.namespace, self.kube = namespace, kube

    def open_store(self) -> KubeInvitations:
        return KubeInvitations(self.kube, self.namespace)
