"""What we render, judged by somebody else's reading of NetworkPolicy: cyclonus, offline, against tables of our own.

Each table says who may reach whom on the gateway's port; whatever it does not name must be closed, in both parts of
the answer (ingress and egress combined).
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.control_plane.build import require

from chatelaine.model.identifiers import LABEL_EGRESS, LABEL_NAMESPACE_NAME
from support.world import World
from support.world_hosts import BAD_PCR
from support.world_objects import delete_claim, put_claim, stage

GATEWAY_PORT, AGENT_PORT, OTHER_PORT, DNS_PORT = 8443, 8444, 9000, 53

PODS: dict[str, dict[str, str]] = {
    "hsm-system/gateway-hsm-a": {"app": "gateway-hsm-a"},
    "hsm-system/gateway-hsm-b": {"app": "gateway-hsm-b"},
    "chatelaine-system/operator": {"app": "chatelaine-operator"},
    "chatelaine-system/stranger": {"app": "stranger"},
    "payments/one": {"app": "one"},
    "payments/two": {"app": "two"},
    "payments/stranger": {"app": "stranger"},
    "other/one": {"app": "one"},
    "kube-system/dns": {"k8s-app": "kube-dns"},
}
GATEWAYS = ("hsm-system/gateway-hsm-a", "hsm-system/gateway-hsm-b")
OPERATOR = "chatelaine-system/operator"
DNS = "kube-system/dns"


@dataclass(frozen=True)
class Answer:
    """Pairs (from, to) that cyclonus finds open, without a pod's way to itself."""

    open: frozenset[tuple[str, str]]

    def to(self, pod: str) -> set[str]:
        """Who reaches `pod`."""
        return {source for source, target in self.open if target == pod}

    def of(self, pod: str) -> set[str]:
        """Whom `pod` reaches."""
        return {target for source, target in self.open if source == pod}


def ask(world: World, folder: Path, port: int, protocol: str = "TCP") -> Answer:
    """Have cyclonus judge every pair of pods on one port."""
    policies = folder / f"policies-{len(list(folder.iterdir()))}"
    policies.mkdir()
    for (namespace, name), action in sorted(world.network.items()):
        # One policy a file: of a stream of documents, cyclonus reads the first and drops the rest without a word.
        (policies / f"{namespace}-{name}.yaml").write_text(yaml.safe_dump(dict(action.manifest)))
    namespaces = sorted({name.split("/")[0] for name in PODS})
    pods: list[dict[str, Any]] = [
        {
            "Namespace": name.split("/")[0],
            "Name": name.split("/")[1],
            "Labels": labels,
            "IP": f"10.1.0.{number}",
            "Containers": [{"Name": "c", "Port": port, "Protocol": protocol, "PortName": "p"}],
        }
        for number, (name, labels) in enumerate(PODS.items(), 1)
    ]
    model = {
        "Resources": {"Namespaces": {name: {LABEL_NAMESPACE_NAME: name} for name in namespaces}, "Pods": pods},
        "Probes": [{"Protocol": protocol, "Port": port}],
    }
    (folder / "probe.json").write_text(json.dumps(model))
    command = [
        str(require("cyclonus")), "analyze", "--mode", "probe",
        "--policy-path", str(policies), "--probe-path", str(folder / "probe.json"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return Answer(_parsed(done.stdout))


def _parsed(text: str) -> frozenset[tuple[str, str]]:
    """The first table after `Combined:`: a header of targets, then one row a source; `.` is open, `X` closed."""
    table = text.split("Combined:", 1)[1]
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.splitlines()
        if line.strip().startswith("|")
    ]
    targets = [name.lower() for name in rows[0][1:]]
    assert sorted(targets) == sorted(PODS), text
    found = set()
    body = rows[1 : 1 + len(PODS)]
    assert len(body) == len(PODS), text
    for source, *cells in body:
        for target, cell in zip(targets, cells, strict=True):
            assert re.fullmatch(r"[.X]", cell), text
            if cell == "." and source != target:
                found.add((source, target))
    return frozenset(found)


@pytest.fixture
def world() -> World:
    made = stage("hsm-a", "hsm-b")
    for name in ("hsm-a", "hsm-b"):
        assert made.hsms[name].status.identity is not None
    return made


def bind(world: World, name: str, hsm: str, namespace: str = "payments") -> None:
    """A claim whose client pods carry `app: <name>`."""
    put_claim(world, name, namespace, selector=None, hsmRef={"name": hsm})
    world.settle()
    assert world.served(namespace, name).serves


def test_default_deny_lets_only_the_operator_in(world: World, tmp_path: Path) -> None:
    for port in (GATEWAY_PORT, AGENT_PORT):
        answer = ask(world, tmp_path, port)
        for gateway in GATEWAYS:
            assert answer.to(gateway) == {OPERATOR}
            assert answer.of(gateway) == set()
    answer = ask(world, tmp_path, OTHER_PORT)
    assert all(answer.to(gateway) == set() for gateway in GATEWAYS)


def test_gateways_reach_dns_and_nothing_else(world: World, tmp_path: Path) -> None:
    for protocol in ("UDP", "TCP"):
        answer = ask(world, tmp_path, DNS_PORT, protocol)
        assert all(DNS in answer.of(gateway) for gateway in GATEWAYS)
        assert all(answer.to(gateway) == set() for gateway in GATEWAYS)


def test_everybody_else_is_left_alone(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    answer = ask(world, tmp_path, OTHER_PORT)
    others = set(PODS) - set(GATEWAYS)
    for pod in others:
        assert answer.of(pod) >= others - {pod}


def test_bound_claim_opens_one_gateway_to_its_pods_of_its_namespace(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    answer = ask(world, tmp_path, GATEWAY_PORT)
    assert answer.to(GATEWAYS[0]) == {OPERATOR, "payments/one"}
    assert answer.to(GATEWAYS[1]) == {OPERATOR}
    assert ask(world, tmp_path, AGENT_PORT).to(GATEWAYS[0]) == {OPERATOR}


def test_pods_with_the_same_labels_in_another_namespace_stay_out(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    assert "other/one" not in ask(world, tmp_path, GATEWAY_PORT).to(GATEWAYS[0])


def test_two_claims_do_not_open_each_others_gateway(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    bind(world, "two", "hsm-b")
    answer = ask(world, tmp_path, GATEWAY_PORT)
    assert answer.to(GATEWAYS[0]) == {OPERATOR, "payments/one"}
    assert answer.to(GATEWAYS[1]) == {OPERATOR, "payments/two"}


def test_two_claims_on_one_gateway_and_one_of_them_goes(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    bind(world, "two", "hsm-a")
    assert ask(world, tmp_path, GATEWAY_PORT).to(GATEWAYS[0]) == {OPERATOR, "payments/one", "payments/two"}
    delete_claim(world, "one")
    world.settle()
    assert ask(world, tmp_path, GATEWAY_PORT).to(GATEWAYS[0]) == {OPERATOR, "payments/two"}


def test_cut_hsm_is_closed_to_its_claims_and_open_to_the_operator(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    bind(world, "two", "hsm-b")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    answer = ask(world, tmp_path, GATEWAY_PORT)
    assert answer.to(GATEWAYS[0]) == {OPERATOR}
    assert answer.to(GATEWAYS[1]) == {OPERATOR, "payments/two"}


def test_managed_egress_leaves_the_gateway_and_dns(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    labels = {"team": "payments", LABEL_EGRESS: "Managed"}
    world.namespaces["payments"] = replace(world.namespaces["payments"], labels=labels)
    world.settle()
    assert ask(world, tmp_path, GATEWAY_PORT).of("payments/one") == {GATEWAYS[0]}
    assert DNS in ask(world, tmp_path, DNS_PORT, "UDP").of("payments/one")
    assert ask(world, tmp_path, OTHER_PORT).of("payments/one") == set()
    assert len(ask(world, tmp_path, OTHER_PORT).of("payments/two")) == len(PODS) - 1 - len(GATEWAYS)


def test_managed_egress_stays_closed_while_the_hsm_is_cut(world: World, tmp_path: Path) -> None:
    bind(world, "one", "hsm-a")
    labels = {"team": "payments", LABEL_EGRESS: "Managed"}
    world.namespaces["payments"] = replace(world.namespaces["payments"], labels=labels)
    world.settle()
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    world.attest()
    world.settle()
    assert ask(world, tmp_path, GATEWAY_PORT).of("payments/one") == set()
