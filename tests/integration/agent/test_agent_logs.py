"""The kernel's logs over real mutual TLS: for the operator, within bounds, and for nobody else."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatelaine.agent.logs import LogFiles
from chatelaine.agent.server import AgentServer
from chatelaine.agent.simulated import SimulatedAttester, SimulatedTpm
from chatelaine.agent.watch import ChangeCounter
from chatelaine.model.identifiers import OPERATOR_SERVER_NAME, agent_server_name, gateway_server_name
from chatelaine.wire.messages import EvidenceRequest, EvidenceResponse, ImaRequest, ImaResponse
from chatelaine.wire.peer import PeerClient, PeerRefused, Target
from chatelaine.wire.serve import Listener
from support.pki import new_authority, new_leaf
from support.simulated_gateway import SimulatedGateway

HOST = "hsm-a"
NAME = agent_server_name(HOST)


class Host:
    """An agent whose kernel shows the files `log` and `list` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = new_authority()
        self.port = 0

    def client(self, name: str) -> PeerClient:
        """Somebody with a leaf of our CA."""
        leaf = new_leaf(self.authority, self.folder / name, name)
        target = Target("127.0.0.1", self.port, NAME)
        return PeerClient(target, leaf.client_context(), timeout_seconds=20.0, max_answer_bytes=1 << 22)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    leaf = new_leaf(made.authority, tmp_path / "agent", NAME)
    logs = LogFiles(tmp_path / "log", tmp_path / "list")
    server = AgentServer(
        SimulatedAttester(SimulatedTpm()), SimulatedGateway(), leaf, ChangeCounter(), time.time, logs=logs
    )
    listener = Listener(server.application(), leaf.server_context())
    made.port = await listener.start("127.0.0.1", 0)
    yield made
    await listener.stop()


@pytest.fixture
async def operator(host: Host) -> AsyncIterator[PeerClient]:
    async with host.client(OPERATOR_SERVER_NAME) as client:
        yield client


def question(*, known_log: bytes | None = None) -> EvidenceRequest:
    return EvidenceRequest(
        nonce=secrets.token_bytes(32), subject_uid="uid", bank="Sha256", indices=(0, 10), want_log=True,
        known_log=known_log, ima_from=0,
    )  # fmt: skip


async def refused(client: PeerClient, path: str, request: EvidenceRequest | ImaRequest) -> str:
    with pytest.raises(PeerRefused) as refusal:
        await client.call("POST", path, request, EvidenceResponse)
    return refusal.value.problem.code


async def test_a_list_is_sent_to_the_operator_piece_by_piece(host: Host, operator: PeerClient) -> None:
    (host.folder / "list").write_bytes(b"0123456789")
    found = (await operator.call("POST", "/v1/ima", ImaRequest(offset=4), ImaResponse)).message
    assert (found.offset, found.piece, found.more) == (4, b"456789", False)


async def test_evidence_brings_both_logs_of_the_kernel(host: Host, operator: PeerClient) -> None:
    (host.folder / "log").write_bytes(b"log")
    (host.folder / "list").write_bytes(b"list")
    found = (await operator.call("POST", "/v1/evidence", question(), EvidenceResponse)).message
    assert (found.event_log, found.ima_list) == (b"log", b"list")


async def test_a_log_that_cannot_be_read_is_an_error_and_not_its_absence(operator: PeerClient) -> None:
    assert await refused(operator, "/v1/evidence", question()) == "LogUnreadable"
    assert await refused(operator, "/v1/ima", ImaRequest(offset=0)) == "LogUnreadable"


@pytest.mark.parametrize("offset", [-1, 2**40])
async def test_an_offset_outside_of_all_bounds_is_a_bad_request(operator: PeerClient, offset: int) -> None:
    assert await refused(operator, "/v1/ima", ImaRequest(offset=offset)) == "BadRequest"


async def test_the_digest_of_a_known_log_of_another_length_is_a_bad_request(operator: PeerClient) -> None:
    assert await refused(operator, "/v1/evidence", question(known_log=b"short")) == "BadRequest"


async def test_nobody_but_the_operator_is_shown_what_ran(host: Host) -> None:
    async with host.client(gateway_server_name(HOST)) as stranger:
        assert await refused(stranger, "/v1/ima", ImaRequest(offset=0)) == "NotTheOperator"
