from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.sidecar import House, Sidecar


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    try:
        house.serve()
        yield house
    finally:
        house.gateway.close()


@pytest.fixture
def house(built: House) -> House:
    built.serve(make_keys=False)
    return built


@pytest.fixture
def new_sidecar(house: House, tmp_path: Path) -> Iterator[Callable[..., Sidecar]]:
    """Sidecars with the claim's binding and the pod's token mounted; not started."""
    with ExitStack() as stack:

        def make(*options: str, **settings: object) -> Sidecar:
            folder = tmp_path / f"pod-{len(list(tmp_path.iterdir()))}"
            folder.mkdir(mode=0o755)
            made = stack.enter_context(Sidecar(folder, *options, **settings))  # type: ignore[arg-type]  # as Sidecar has them
            made.mount(house.binding())
            made.mount_token(house.account_token())
            return made

        yield make


@pytest.fixture
def sidecar(new_sidecar: Callable[..., Sidecar]) -> Sidecar:
    return new_sidecar().start()
