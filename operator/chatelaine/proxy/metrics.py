"""Prometheus metrics of one sidecar, in a registry of its own. No label holds anything that a caller said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FORWARDED: Final = "Forwarded"
ISSUED: Final = "Issued"


class Metrics:
    """What is counted."""

    def __init__(self, seconds_left: Callable[[], float], connections: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "chatelaine_proxy_requests",
            "Requests by operation, result (Forwarded, or the code that was answered here) and class of HTTP status.",
            ["operation", "result", "status"],
            registry=self.registry,
        )
        self.exchanges = Counter(
            "chatelaine_proxy_token_exchanges",
            "Token exchanges by result: Issued, or the code of what went wrong.",
            ["result"],
            registry=self.registry,
        )
        self.repeated = Counter(
            "chatelaine_proxy_repeated",
            "Requests that were sent a second time, with a fresh token.",
            registry=self.registry,
        )
        self.bindings = Counter(
            "chatelaine_proxy_bindings", "Bindings that were followed, the first included.", registry=self.registry
        )
        left = Gauge(
            "chatelaine_proxy_token_seconds_left",
            "Until the trust token in use ends; 0: there is none.",
            registry=self.registry,
        )
        left.set_function(seconds_left)
        open_now = Gauge("chatelaine_proxy_connections", "Open connections of applications.", registry=self.registry)
        open_now.set_function(connections)

    def request(self, operation: str, result: str, status: int) -> None:
        """Count a request."""
        self.requests.labels(operation, result, f"{status // 100}xx").inc()

    def text(self) -> bytes:
        """Text exposition format."""
        return generate_latest(self.registry)
