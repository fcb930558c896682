"""What the pods of `check network` do."""

from __future__ import annotations

import socket
import threading

import pytest
from typer.testing import CliRunner

from chatelaine.cli.check import app
from chatelaine.cli.check_probe import accept, reached


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_server_is_reached_once_it_listens(free_port: int) -> None:
    server = threading.Thread(target=accept, args=(free_port,), kwargs={"connections": 1})
    server.start()
    assert reached("127.0.0.1", free_port, True, 30)
    server.join(30)


def test_a_port_on_which_nobody_listens_counts_as_cut_after_several_attempts(free_port: int) -> None:
    assert reached("127.0.0.1", free_port, False, 30)


def test_a_server_that_answers_is_not_cut(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        assert not reached("127.0.0.1", free_port, False, 0.1)


def test_nobody_is_not_reached(free_port: int) -> None:
    assert not reached("127.0.0.1", free_port, True, 0.1)


def test_the_commands_of_pods_are_not_shown_to_people(free_port: int) -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "network" in shown
    assert "listen" not in shown
    done = CliRunner().invoke(
        app, ["connect", "127.0.0.1", "--port", str(free_port), "--expect", "open", "--seconds", "0.1"]
    )
    assert done.exit_code == 1
    wrong = CliRunner().invoke(app, ["connect", "a", "--port", "1", "--expect", "x", "--seconds", "1"])
    assert wrong.exit_code == 64
