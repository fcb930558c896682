"""The operator's Prometheus metrics: one instance holds all instruments of one process, in a registry of its own."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FAST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class OperatorMetrics:
    """Names end in their unit; labels are closed sets (kinds, reasons, outcomes), or names of Hsms."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_depth = self._gauge("queue_depth", "Keys in the work queue.", "lane")
        self.queue_oldest = self._gauge("queue_oldest_seconds", "Age of the key that waits longest.")
        self.reconciles = self._counter("reconciles", "Examinations of a key.", "kind", "result")
        self.reconcile_seconds = self._histogram(
            "reconcile_seconds", "One examination, from snapshot to the last action.", FAST_SECONDS, "kind"
        )
        self.actions = self._counter("actions", "Actions of plans.", "action", "result")
        self.watch_silence = self._gauge("watch_silence_seconds", "Since when a watch was not heard.", "resource")
        self.watch_late = self._gauge(
            "watch_late_seconds", "For how long a change that is known of was not told by its watch.", "resource"
        )
        self.leading = self._gauge("leading", "1 while this process leads.")
        self.term = self._gauge("term", "Number of the current (or last) time of leading.")
        self.outranked = self._counter(
            "leader_outranked", "Times that an attested gateway named a later term than the leader's.", "result"
        )
        self.verdicts = self._gauge("hsm_verdict", "1 for the verdict in force.", "hsm", "verdict", "reason")
        self.rounds = self._counter("evidence_rounds", "Rounds of evidence.", "result")
        self.dropped = self._counter(
            "evidence_dropped", "Answers that were dropped because they are not the host's, by reason.", "reason"
        )
        self.attest_seconds = self._histogram(
            "attest_seconds", "One round of evidence, from nonce to verdict.", FAST_SECONDS
        )
        self.shown: set[tuple[str, str, str]] = set()
        """Label sets of `verdicts` that are exposed now."""
        self.freshness = self._gauge("hsm_verdict_seconds_left", "Until the verdict ends; negative after it.", "hsm")
        self.views = self._counter("gateway_views", "Views sent to gateways.", "kind", "result")
        self.revoke_seconds = self._histogram(
            "revoke_seconds", "From a refuting answer to the gateway's acknowledgement of the cut.", FAST_SECONDS
        )
        self.bind_seconds = self._histogram("bind_seconds", "From a claim's creation to Bound.", SLOW_SECONDS)
        self.ready_seconds = self._histogram("ready_seconds", "From a claim's creation to Ready.", SLOW_SECONDS)
        self.writes = self._counter("api_writes", "Writes to the API server.", "verb", "resource", "result")
        self.seats_per_write = self._histogram(
            "seats_per_write", "Seats that one guarded write of an Hsm carried.", (1, 2, 4, 8, 16, 32, 64, 128, 256)
        )
        self.keys = self._counter("key_operations", "Keys asked of gateways.", "operation", "result")
        self.evidence_stored = self._counter("evidence_stored", "Rounds for the evidence store.", "kind", "result")
        self.evidence_bytes = self._gauge("evidence_store_bytes", "Room taken by stored evidence, in whole blocks.")
        self.evidence_files = self._gauge("evidence_store_files", "Files of stored evidence, marks aside.")
        self.evidence_rounds = self._gauge("evidence_store_rounds", "Rounds that are stored.")
        self.evidence_pruned = self._counter("evidence_pruned", "Stored rounds that were removed for want of room.")
        self.evidence_damaged = self._counter("evidence_damaged", "Stored rounds that were found damaged.")
        self.objects = self._gauge("objects", "Objects in the cache.", "kind")

    def render(self) -> bytes:
        """Text exposition format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"chatelaine_{name}", what, labels, registry=self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"chatelaine_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"chatelaine_{name}", what, labels, buckets=buckets, registry=self.registry)
