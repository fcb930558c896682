"""Ports and paths of all processes, with the defaults of their settings."""

from __future__ import annotations

import inspect

from chatelaine.agent.settings import AgentSettings
from chatelaine.cli.gateway import gateway
from chatelaine.cli.listen import parse_listen
from chatelaine.controller.settings import OperatorSettings
from tools.reference.markdown import page, table


def text() -> str:
    """The page.

    Raises:
        LookupError: the operator's defaults name no port.
    """
    operator = OperatorSettings("")
    if operator.join_listen is None or operator.metrics_listen is None:
        raise LookupError("the operator has no default ports any more")
    listen = inspect.signature(gateway).parameters["listen"].default
    agent = inspect.signature(AgentSettings).parameters["listen_port"].default
    rows = (
        (
            "`operator`", f"{operator.metrics_listen[1]}", "`--metrics-listen`", "plain HTTP", "kubelet, Prometheus",
            "`/healthz`, `/readyz`, `/metrics`",
        ),
        (
            "`operator`", f"{operator.join_listen[1]}", "`--join-listen`", "TLS; the host pins the CA's digest",
            "hosts that hold an invitation", "`/v1/ca`, `/v1/join`",
        ),
        (
            "`gateway`", f"{parse_listen(listen)[1]}", "`--listen`", "TLS; for most paths mutual",
            "clients; the operator", "`/v1/…`; `/control/v1/…` (operator only); `/healthz`, `/readyz`, `/metrics`",
        ),
        (
            "`gateway`", "Unix socket", "`--local-socket`", "HTTP; the same user only", "the agent of this host",
            "`/local/v1/…`, `/healthz`, `/metrics`",
        ),
        ("`agent`", f"{agent}", "`--listen`", "mutual TLS", "the operator's certificate alone", "`/v1/…`"),
        (
            "`proxy`", "Unix socket", "`--listen`", "HTTP; the pod alone, by the socket's mode or by loopback",
            "the application", "`/v1/keys/…`, `/v1/random`; `/healthz`, `/readyz`",
        ),
        (
            "`proxy`", "none", "`--metrics-listen`", "plain HTTP", "kubelet, Prometheus",
            "`/healthz`, `/readyz`, `/metrics`",
        ),
    )  # fmt: skip
    return page(
        "the settings of operator, gateway, agent and proxy",
        "# Ports",
        "The operator dials agents and gateways; neither dials the cluster. A host dials the operator once, to join.\n"
        "An application's sidecar (`proxy`) dials the gateway of its binding.",
        table(("process", "port", "option", "protocol", "who connects", "paths"), rows),
    )
