"""Tokens for these tests: every test has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tools.lab.softhsm import SoftHsmToken

from support.hsm_world import HsmWorld, SimulatedWorld, SoftHsmWorld, soft_hsm_world
from support.pkcs11_fault import FaultModule, build_fault_library


@pytest.fixture
def token(tmp_path: Path) -> SoftHsmToken:
    return SoftHsmToken.create(tmp_path / "token")


@pytest.fixture(scope="session")
def fault_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fault_library(tmp_path_factory.mktemp("fault"))


@pytest.fixture
def faulty(token: SoftHsmToken, fault_library: Path) -> FaultModule:
    return FaultModule(fault_library, token)


@pytest_asyncio.fixture
async def soft(tmp_path: Path) -> AsyncIterator[SoftHsmWorld]:
    async with soft_hsm_world(tmp_path) as world:
        yield world


@pytest_asyncio.fixture(params=["softhsm", "simulated"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HsmWorld]:
    if request.param == "simulated":
        yield SimulatedWorld()
        return
    async with soft_hsm_world(tmp_path) as real:
        yield real
