"""Settings of the operator process: each with its unit, its default, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Made by `chatelaine operator` from its options.

    Attributes:
        namespace: where the Lease, the CA and invitations live.
        kubeconfig: None: `$KUBECONFIG`, else the pod's service account.
        state_folder: our own TLS key and leaf; None: a folder that goes with the process (they are made anew).
        evidence_bytes: bound on stored evidence, in `evidence/` of that folder.
        join_listen: host and port of the join endpoint; None: hosts cannot join through this process.
        join_endpoint: `host:port` under which hosts reach it.
        metrics_listen: host and port of probes and metrics; None: none.
        leader_election: off only where exactly one operator runs, or in tests of what happens when two do.
        lease_name: name of the Lease.
        identity: name of this process in the Lease and in Events; unique.
        workers: keys examined at a time; most of them wait for seats and keys, few write (`executor.WRITERS`).
        resync_seconds: every object is examined again at least this often; events are what normally leads to that.
        pod_labels: labels of the operator's own pods, so that NetworkPolicies let them in to gateways.
        reference_values_folder: files that policies name under `referenceValues.file`; None: there are none.
        ready_file: written (with the ports in use) once everything listens; for tests and the laboratory.
    """

    namespace: str
    kubeconfig: Path | None = None
    state_folder: Path | None = None
    evidence_bytes: int = 256 * 1024 * 1024
    join_listen: tuple[str, int] | None = ("0.0.0.0", 8446)  # noqa: S104 - hosts join from outside the pod
    join_endpoint: str = ""
    metrics_listen: tuple[str, int] | None = ("0.0.0.0", 8080)  # noqa: S104 - probes come from the node
    leader_election: bool = True
    lease_name: str = "chatelaine-operator"
    identity: str = "chatelaine-operator"
    workers: int = 128
    resync_seconds: float = 600.0
    pod_labels: tuple[tuple[str, str], ...] = (
        ("app.kubernetes.io/component", "operator"),
        ("app.kubernetes.io/name", "chatelaine"),
    )
    reference_values_folder: Path | None = None
    ready_file: Path | None = None
