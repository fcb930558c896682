from __future__ import annotations

import pytest

from chatelaine.gateway.app import GatewayApp
from chatelaine.gateway.audit import AuditLog
from chatelaine.gateway.authorize import Asked
from chatelaine.gateway.client_ca import ClientCa
from chatelaine.gateway.connections import Connection, Connections
from chatelaine.gateway.inventory_watch import InventoryWatch
from chatelaine.gateway.metrics import Metrics
from chatelaine.gateway.operations import KeyOperations
from chatelaine.gateway.peer import Peer, Role
from chatelaine.gateway.problems import Refusal
from chatelaine.gateway.runtime import Runtime
from chatelaine.gateway.tls import GatewayTls
from chatelaine.gateway.view import LiveView
from chatelaine.model.identifiers import gateway_server_name
from chatelaine.pkcs11.simulated import SimulatedHsm
from support import pki


class _Line:
    def close_when_idle(self) -> None: ...

    def cut(self) -> None: ...


@pytest.fixture
def runtime(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    authority = pki.new_authority()
    pki.new_leaf(authority, tmp_path / "tls", gateway_server_name("a"))
    hsm = SimulatedHsm()
    client_ca = ClientCa(tmp_path / "state", "a", pki.now())
    return Runtime(
        hsm=hsm,
        tls=GatewayTls(tmp_path / "tls", "a", client_ca, pki.now),
        client_ca=client_ca,
        view=LiveView("i"),
        audit=AuditLog(tmp_path / "state", pki.now),
        connections=Connections(),
        metrics=Metrics(lambda: 0, lambda: 0.0),
        inventory=InventoryWatch(hsm),
        keys=KeyOperations(hsm),
    )


async def test_operation_is_not_even_begun_when_it_cannot_be_recorded(runtime):
    runtime.audit.path.mkdir()
    begun: list[str] = []

    async def doing() -> bytes:
        begun.append("begun")
        return b"{}"

    async def send(event) -> None:
        raise AssertionError(event)

    asked = Asked("Sign", Connection(_Line(), Peer(Role.CLIENT), 0.0))
    with pytest.raises(Refusal) as refused:
        await GatewayApp(runtime)._recorded(send, asked, doing)
    assert refused.value.code == "ERROR_AUDIT_UNAVAILABLE"
    assert begun == []


async def test_before_the_token_has_answered_nothing_is_served(runtime):
    with pytest.raises(Refusal) as refused:
        runtime.require_service()
    assert (refused.value.code, refused.value.status) == ("ERROR_HSM_UNAVAILABLE", 503)
