"""Fixtures that every rung of the tests may use."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tools.control_plane.access import ClusterAccess
from tools.control_plane.embedded import ControlPlane

from support.control_plane import shared_control_plane

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


class FactsFormatter(logging.Formatter):
    """Shows the facts of our log lines where pytest shows what a failed test has logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and after it what only our JSON format would print."""
        facts = getattr(record, "facts", {})
        return super().format(record) + "".join(f" {name}={value!r}" for name, value in facts.items())


def pytest_sessionstart(session: pytest.Session) -> None:
    plugin = session.config.pluginmanager.get_plugin("logging-plugin")
    if plugin is not None:
        plugin.formatter = FactsFormatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s", "%H:%M:%S")
        plugin.report_handler.setFormatter(plugin.formatter)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterAccess]:
    """The control plane that all tests of this run share, with our definitions installed."""
    base = tmp_path_factory.getbasetemp()
    # Under xdist each worker has a folder of its own below the folder of the run.
    run = base.parent if base.name.startswith("popen-") else base
    with shared_control_plane(run / "control-plane") as access:
        yield access


@pytest.fixture
def own_control_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane for one test alone, without definitions: for outages, and for operators that see all objects."""
    with ControlPlane(tmp_path / "control-plane") as plane:
        yield plane


@pytest.fixture
def prefix() -> str:
    """Begins the names of this test's cluster-scoped objects, so that tests do not meet."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def namespace(control_plane: ClusterAccess, prefix: str) -> Iterator[str]:
    """A namespace for one test in the shared control plane."""
    name = f"{prefix}-ns"
    control_plane.create_namespace(name)
    yield name
    control_plane.admin.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
