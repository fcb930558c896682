"""The CA of a whole running system is rotated while a client signs: no operation is refused, nothing old is left."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from tools.lab.system import TEAM, Lab, claim, running
from tools.lab.workload import SigningClient, create_pod

from chatelaine.model.identifiers import CA_NAME, OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.pki.chain import load_bundle
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import GatewayHello, HostIdentity, Message
from chatelaine.wire.peer import PeerClient, PeerNotAuthenticated, PeerRefused, PeerUnreachable, Target
from support.waiting import eventually

pytestmark = pytest.mark.xdist_group("ca-rotation")

HOST = "real-0"
GRACE_SECONDS = 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running(real=1) as system:
        yield system


class Signing:
    """Pods that sign without a pause: one on an open connection, one that dials anew each time by its Secret."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.signed = 0
        self.dialled = 0
        self.issuers: list[str] = []
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._guarded, args=(run,)) for run in (self._stay, self._dial)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must fail of it
            self.failure = self.failure or error

    def _stay(self) -> None:
        pod = self.lab.pod("load")
        client = self.lab.signing_client("load", pod)
        while not self._over.is_set():
            for _ in range(50):
                client.sign("key-0", b"message")
                self.signed += 1
            client.exchange(self.lab.service_account_token(pod))

    def _dial(self) -> None:
        pod = create_pod(self.lab.control_plane, TEAM, "load-too", "load", {"app": "load"})
        while not self._over.is_set():
            client = self.lab.signing_client("load", pod)
            client.sign("key-0", b"message")
            issuer = issuer_shown(client)
            if issuer not in self.issuers[-1:]:
                self.issuers.append(issuer)
            client.close()
            self.dialled += 1


def issuer_shown(client: SigningClient) -> str:
    """Who has signed the certificate that the gateway shows on the open connection."""
    connection = client._connection
    assert connection is not None
    certificate = ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True) or b"")
    return load_bundle(certificate)[0].issuer.rfc4514_string()


def chatelaine(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    reach = ("--kubeconfig", str(lab.control_plane.kubeconfig), "--namespace", lab.operator.namespace)
    return subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.main", "pki", *arguments, *reach],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


async def told(port: int, address: str, name: str, path: str, kind: type[Message], caller: ProcessLeaf) -> Message:
    target = Target(address, port, name)
    async with PeerClient(target, caller.client_context(), timeout_seconds=10, max_answer_bytes=1 << 20) as line:
        return (await line.call("GET", path, None, kind)).message


async def test_a_client_signs_through_a_whole_rotation_and_the_old_ca_is_worth_nothing_then(
    lab: Lab, tmp_path: Path
) -> None:
    lab.bind(claim("load", clients=True))
    shutil.copytree(lab.operator.state, tmp_path / "stolen", ignore=shutil.ignore_patterns("evidence"))
    stolen = ProcessLeaf(tmp_path / "stolen", OPERATOR_SERVER_NAME)
    ports = lab.pool.hosts[HOST].ports
    doors: tuple[tuple[int, str, str, str, type[Message]], ...] = (
        (ports.agent, ports.agent_host, agent_server_name(HOST), "/v1/identity", HostIdentity),
        (ports.gateway, ports.gateway_host, gateway_server_name(HOST), "/control/v1/hello", GatewayHello),
    )
    for door in doors:
        assert await told(*door, stolen)

    with Signing(lab) as signing:
        eventually(lambda: signing.failure or (signing.signed > 100 and signing.dialled > 2), "pods sign")
        done = chatelaine(lab, "rotate", "--grace-seconds", str(GRACE_SECONDS), "--wait", "--timeout-seconds", "240")
        assert done.returncode == 0, done.stderr + done.stdout
        seen_signed, seen_dialled = signing.signed, signing.dialled
        eventually(
            lambda: signing.failure or (signing.signed > seen_signed + 100 and signing.dialled > seen_dialled + 2),
            "pods go on signing",
        )
    assert signing.failure is None, repr(signing.failure)
    assert len(signing.issuers) == 2, "first the old CA, then the new one, and nothing in between"
    phases = [line.split(" ")[0] for line in done.stdout.splitlines()[1:]]
    assert [one for number, one in enumerate(phases) if phases[number - 1 : number] != [one]][-3:] == [
        "Published",
        "Switched",
        "Settled",
    ]

    shown = chatelaine(lab, "status", "--json")
    assert json.loads(shown.stdout)["phase"] == "Settled"
    now = lab.control_plane.admin.read("v1", "ConfigMap", CA_NAME, lab.operator.namespace)["data"]["ca.crt"]
    assert len(load_bundle(now)) == 1
    folders = [lab.pool.hosts[HOST].directory / role / "tls" / "ca.pem" for role in ("agent", "gateway")]
    eventually(lambda: all(folder.read_text() == now for folder in folders), "hosts have forgotten the old CA")

    # The thief believes whatever is shown; it only wants to be believed. The operator is, at the same doors.
    stolen.client_context().load_verify_locations(cadata=now)
    operator = ProcessLeaf(lab.operator.state, OPERATOR_SERVER_NAME)
    for door in doors:
        with pytest.raises((PeerNotAuthenticated, PeerRefused, PeerUnreachable)):
            await told(*door, stolen)
        assert await told(*door, operator)


def test_a_second_rotation_is_refused_while_one_is_under_way_and_says_what_to_do(lab: Lab) -> None:
    begun = chatelaine(lab, "rotate")
    assert begun.returncode == 0, begun.stderr
    again = chatelaine(lab, "rotate")
    assert again.returncode == 1
    assert "chatelaine pki status" in again.stderr
    status = ""

    def everybody_told() -> bool:
        nonlocal status
        status = chatelaine(lab, "status").stdout
        return "next step at " in status

    eventually(everybody_told, "everybody is told, and clients have their day", seconds=90, pause_seconds=1)
    assert "the old one signs" in status
