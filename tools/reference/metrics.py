"""All metrics, from the registries of the processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry

from chatelaine.gateway.metrics import Metrics
from chatelaine.proxy.metrics import Metrics as ProxyMetrics
from chatelaine.telemetry.metrics import OperatorMetrics
from tools.reference.markdown import page, table

# Gauges of functions and counters without a suffix are exposed under these names.
_SUFFIX = {"counter": "_total"}


def text() -> str:
    """The page."""
    head = ("metric", "type", "labels", "what")
    return page(
        "telemetry/metrics.py, gateway/metrics.py and proxy/metrics.py in operator/chatelaine/",
        "# Metrics",
        "Prometheus text format, at `/metrics` of the ports in [ports.md](ports.md). Labels are closed sets, or names\n"
        "of `Hsm`s; no tenant's name is one.",
        "## Operator",
        table(head, _rows(OperatorMetrics().registry)),
        "## Gateway",
        table(head, _rows(Metrics(lambda: 0, lambda: 0.0).registry)),
        "## Sidecar",
        table(head, _rows(ProxyMetrics(lambda: 0.0, lambda: 0).registry)),
    )


def _rows(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    instruments: set[Any] = set(registry._collector_to_names)  # noqa: SLF001 -- there is no public list of labels
    for item in sorted(instruments, key=lambda one: str(one._name)):  # noqa: SLF001 -- the same
        labels = ", ".join(f"`{label}`" for label in item._labelnames)  # noqa: SLF001 -- the same
        yield f"`{item._name}{_SUFFIX.get(item._type, '')}`", item._type, labels, item._documentation  # noqa: SLF001 -- the same
