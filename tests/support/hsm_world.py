"""The same mishaps for a real token and for a simulated one, so that one contract test serves both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from tools.lab.softhsm import SoftHsmToken

from chatelaine.model.identifiers import key_id
from chatelaine.pkcs11.port import HsmPort
from chatelaine.pkcs11.settings import HsmEvent, Pkcs11Settings
from chatelaine.pkcs11.simulated import SimulatedHsm
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor


def settings_for(token: SoftHsmToken, **changes: object) -> Pkcs11Settings:
    """Settings for `token` with short waits."""
    values: dict[str, object] = {
        "module": token.module,
        "token_uri": token.uri,
        "pin_file": token.pin_file,
        "state_directory": token.state_directory,
        "environment": token.env,
        "restart_first_seconds": 0.05,
        "restart_max_seconds": 1.0,
        "pin_file_poll_seconds": 0.05,
        "call_timeout_seconds": 60.0,
        "slow_call_timeout_seconds": 60.0,
    }
    return Pkcs11Settings(**{**values, **changes})  # type: ignore[arg-type]  # the tests name the fields


class HsmWorld(Protocol):
    """An HSM and what may befall it."""

    port: HsmPort

    async def lose_half(self, label: str, half: str) -> None:
        """Remove the `private` or `public` object behind the port's back."""
        ...


class SimulatedWorld:
    def __init__(self) -> None:
        self.hsm = SimulatedHsm()
        self.port: HsmPort = self.hsm

    async def lose_half(self, label: str, half: str) -> None:
        setattr(self.hsm.pairs[label], half, None)


class SoftHsmWorld:
    def __init__(self, token: SoftHsmToken, port: Pkcs11Supervisor, events: list[HsmEvent]) -> None:
        self.token = token
        self.port: HsmPort = port
        self.supervisor = port
        self.events = events

    async def lose_half(self, label: str, half: str) -> None:
        self.token.delete_half(key_id(label), f"{half.upper()}_KEY")


@asynccontextmanager
async def soft_hsm_world(directory: Path, **changes: object) -> AsyncIterator[SoftHsmWorld]:
    """A new SoftHSM token behind a running supervisor."""
    token = SoftHsmToken.create(directory / "hsm")
    events: list[HsmEvent] = []
    async with Pkcs11Supervisor(settings_for(token, **changes), events.append) as port:
        yield SoftHsmWorld(token, port, events)
