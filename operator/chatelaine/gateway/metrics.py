"""Prometheus metrics of one gateway, in a registry of its own. No name of a tenant is a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from chatelaine.pkcs11.settings import EventKind, HsmEvent

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
ALLOWED: Final = "Allowed"
REFUSED: Final = "Refused"
FAILED: Final = "Failed"


class Metrics:
    """What is counted."""

    def __init__(self, connections: Callable[[], int], deadline_seconds: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter(
            "chatelaine_gateway_operations",
            "Operations by kind, result and reason.",
            ["operation", "result", "reason"],
            registry=self.registry,
        )
        self.exchanges = Counter(
            "chatelaine_gateway_token_exchanges",
            "Token exchanges by result and reason.",
            ["result", "reason"],
            registry=self.registry,
        )
        self.revocations = Counter(
            "chatelaine_gateway_revocations", "Claims whose tokens were made worthless.", registry=self.registry
        )
        self.cut = Counter(
            "chatelaine_gateway_connections_cut", "Connections ended for being too slow.", registry=self.registry
        )
        self.worker_events = Counter(
            "chatelaine_gateway_worker_events", "What happened to PKCS#11 workers.", ["kind"], registry=self.registry
        )
        self.worker_restarts = Counter(
            "chatelaine_gateway_worker_restarts", "PKCS#11 workers started after the first.", registry=self.registry
        )
        self._workers_started = 0
        self._operation_counters: dict[tuple[str, str, str], Counter] = {}
        open_now = Gauge("chatelaine_gateway_connections", "Open connections.", registry=self.registry)
        open_now.set_function(connections)
        left = Gauge(
            "chatelaine_gateway_deadline_seconds",
            "Seconds until this gateway stops serving; 0: it does not serve.",
            registry=self.registry,
        )
        left.set_function(deadline_seconds)

    def operation(self, operation: str, result: str, reason: str) -> None:
        """Count one operation. The labelled counters are kept: finding one costs more than counting."""
        which = (operation, result, reason)
        counter = self._operation_counters.get(which)
        if counter is None:
            counter = self._operation_counters[which] = self.operations.labels(*which)
        counter.inc()

    def worker_event(self, event: HsmEvent) -> None:
        """Count what the PKCS#11 supervisor tells."""
        self.worker_events.labels(event.kind.value).inc()
        if event.kind is EventKind.STARTED:
            self._workers_started += 1
            if self._workers_started > 1:
                self.worker_restarts.inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
