from __future__ import annotations

from dataclasses import dataclass

from chatelaine.gateway import limits
from chatelaine.gateway.connections import Connection, Connections
from chatelaine.gateway.peer import Peer, Role


@dataclass
class Line:
    closed: int = 0
    cuts: int = 0

    def close_when_idle(self) -> None:
        self.closed += 1

    def cut(self) -> None:
        self.cuts += 1


def _connection(holder: str = "k", role: Role = Role.CLIENT, now: float = 100.0) -> Connection:
    return Connection(Line(), Peer(role, "192.0.2.1", holder), now)


def test_slow_writer_is_cut_off():
    """The time of a request runs from its first byte, so a head or a body in drops does not last."""
    open_now = Connections()
    slow, busy, stream = (_connection() for _ in range(3))
    for connection in (slow, busy, stream):
        assert open_now.admit(connection)
    slow.request_since = 100.0
    busy.request_since = stream.request_since = 100.0
    stream.streams = True
    busy.request_since = 120.0
    assert open_now.sweep(100.0 + limits.REQUEST_SECONDS) == 0
    assert open_now.sweep(100.1 + limits.REQUEST_SECONDS) == 1
    assert (slow.line.cuts, busy.line.cuts, stream.line.cuts) == (1, 0, 0)


def test_idle_connection_is_closed_in_the_end():
    open_now = Connections()
    idle = _connection()
    open_now.admit(idle)
    open_now.sweep(100.0 + limits.IDLE_SECONDS)
    assert idle.line.closed == 0
    open_now.sweep(100.1 + limits.IDLE_SECONDS)
    assert idle.line.closed == 1


def test_one_holder_cannot_take_all_connections():
    open_now = Connections()
    greedy = [_connection("greedy") for _ in range(limits.MAX_CONNECTIONS_PER_HOLDER + 1)]
    assert [open_now.admit(connection) for connection in greedy].count(False) == 1
    assert open_now.admit(_connection("modest"))
    open_now.forget(greedy[0])
    assert open_now.admit(_connection("greedy"))


def test_callers_without_a_certificate_are_counted_by_address():
    open_now = Connections()
    strangers = [_connection("", Role.ANONYMOUS) for _ in range(limits.MAX_CONNECTIONS_PER_HOLDER + 1)]
    assert [open_now.admit(connection) for connection in strangers].count(False) == 1


def test_flood_of_clients_does_not_shut_the_operator_out():
    open_now = Connections()
    for number in range(limits.MAX_CONNECTIONS):
        assert open_now.admit(_connection(f"k{number}"))
    assert not open_now.admit(_connection("late"))
    operator = _connection("operator", Role.PROCESS)
    assert open_now.admit(operator)
    assert len(open_now) == limits.MAX_CONNECTIONS + 1


def test_connections_are_found_by_the_claims_they_used_and_forgotten_when_closed():
    open_now = Connections()
    one, two = _connection(), _connection()
    for connection in (one, two):
        open_now.admit(connection)
    open_now.used(one, "a")
    open_now.used(one, "b")
    open_now.used(two, "b")
    assert open_now.of_claims(["a"]) == {one}
    assert open_now.of_claims(["a", "b", "c"]) == {one, two}
    open_now.forget(one)
    open_now.forget(one)
    assert open_now.of_claims(["a", "b"]) == {two}
    assert open_now.still_open([one, two]) == [two]
    assert len(open_now) == 1


def test_closed_connection_leaves_nothing_behind():
    open_now = Connections()
    gone = _connection()
    open_now.admit(gone)
    open_now.forget(gone)
    open_now.used(gone, "a")
    assert open_now.of_claims(["a"]) == set()


def test_all_are_ended_and_streams_at_once():
    open_now = Connections()
    one, stream = _connection(), _connection()
    stream.streams = True
    for connection in (one, stream):
        open_now.admit(connection)
    open_now.close_all()
    assert (one.line.closed, stream.line.cuts) == (1, 1)
