"""Where a gateway answers: EndpointSlice addresses for a Service in the cluster, the named host outside of it."""

from __future__ import annotations

from collections.abc import Iterable

from chatelaine.controller.summaries import SliceSummary
from chatelaine.kube.watch import Kept
from chatelaine.model.hsm import Hsm


def gateway_addresses(hsm: Hsm, slices: Iterable[Kept[SliceSummary]]) -> tuple[tuple[str, int], ...]:
    """Host and port of every place where the gateway answers. The peer is known by its certificate, not by these."""
    service, external = hsm.spec.gateway.service, hsm.spec.gateway.external
    if external is not None:
        return ((external.host, external.port),)
    if service is None:
        return ()
    found = {
        address
        for kept in slices
        if kept.namespace == service.namespace and kept.summary.service == service.name
        for address in kept.summary.addresses
    }
    return tuple((address, service.pod_port) for address in sorted(found))
