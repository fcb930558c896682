"""What the engine of the cluster for tests makes of NetworkPolicies: for each pod, the lines of what is allowed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tools.cluster.policy.objects import Pod, Policy, World, pod_of, policy_of, selects
from tools.cluster.policy.rules import render

PODS = "10.244.0.0/24"
SERVER = Pod("shop", {"role": "server"}, "10.244.0.10", {("api", "TCP"): 8443})
CLIENT = Pod("shop", {"role": "client"}, "10.244.0.11", {})
STRANGER = Pod("other", {"role": "client"}, "10.244.0.12", {("api", "TCP"): 9443})
NAMESPACES = {"shop": {"team": "red"}, "other": {"team": "blue"}}
SELECTS_SERVER = {"matchLabels": {"role": "server"}}


def rules(*policies: Policy) -> str:
    return render(World((SERVER, CLIENT, STRANGER), NAMESPACES, policies), PODS)


def policy(**spec: Any) -> Policy:
    return policy_of({"metadata": {"namespace": "shop"}, "spec": {"podSelector": SELECTS_SERVER, **spec}})


def allowed(text: str, direction: str, pod: Pod = SERVER) -> list[str] | None:
    """Lines of the pod's chain without that for the pod itself; None: the pod is not selected."""
    jump = re.search(rf"map {direction} {{[^}}]*{re.escape(pod.address)} : jump (\w+)", text)
    if jump is None:
        return None
    chain = re.search(rf"chain {jump[1]} {{\n(.*?)\n }}", text, re.DOTALL)
    assert chain is not None
    itself, *lines, last = (line.strip() for line in chain[1].strip().splitlines())
    assert itself.endswith(f"{pod.address} return")
    assert last == "counter drop"
    return [line.removesuffix("return").strip() for line in lines]


def test_without_policies_every_known_pod_is_open() -> None:
    text = rules()
    assert [allowed(text, direction) for direction in ("ingress", "egress")] == [None, None]
    assert "elements = { 10.244.0.10, 10.244.0.11, 10.244.0.12 }" in text


def test_a_pod_whose_address_is_not_told_yet_is_cut_off_both_ways() -> None:
    text = render(World(), PODS)
    assert text.count(f"ip saddr {PODS} ip saddr != @known counter drop") == 2
    assert text.count(f"ip daddr {PODS} ip daddr != @known counter drop") == 1


def test_the_table_is_replaced_as_a_whole() -> None:
    lines = rules().splitlines()
    assert lines[:3] == [
        "table inet chatelaine_policies {}",
        "delete table inet chatelaine_policies",
        "table inet chatelaine_policies {",
    ]


def test_a_policy_without_rules_allows_nothing() -> None:
    text = rules(policy(policyTypes=["Ingress", "Egress"]))
    assert allowed(text, "ingress") == []
    assert allowed(text, "egress") == []
    assert allowed(text, "ingress", CLIENT) is None


def test_a_policy_without_types_is_about_what_comes_in() -> None:
    text = rules(policy(ingress=[{}]))
    assert allowed(text, "ingress") == [""]
    assert allowed(text, "egress") is None


def test_a_policy_with_rules_for_what_goes_out_is_about_both() -> None:
    text = rules(policy(egress=[{"to": [{"podSelector": {}}]}]))
    assert allowed(text, "ingress") == []
    assert allowed(text, "egress") == ["ip daddr { 10.244.0.10, 10.244.0.11 }"]


def test_policies_add_up() -> None:
    first = policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}])
    second = policy(ingress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])
    assert allowed(rules(first, second), "ingress") == ["ip saddr { 10.244.0.11 }", "udp dport 53"]


def test_peers_of_another_namespace_are_found_by_its_labels_only() -> None:
    named = {"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"role": "client"}}}
    assert allowed(rules(policy(ingress=[{"from": [named]}])), "ingress") == ["ip saddr { 10.244.0.12 }"]
    without = {"podSelector": {"matchLabels": {"role": "client"}}}
    assert allowed(rules(policy(ingress=[{"from": [without]}])), "ingress") == ["ip saddr { 10.244.0.11 }"]
    everywhere = {"namespaceSelector": {}}
    assert allowed(rules(policy(ingress=[{"from": [everywhere]}])), "ingress") == [
        "ip saddr { 10.244.0.10, 10.244.0.11, 10.244.0.12 }"
    ]


def test_a_rule_whose_peers_are_nobody_allows_nobody() -> None:
    nobody = {"podSelector": {"matchLabels": {"role": "nobody"}}}
    assert allowed(rules(policy(ingress=[{"from": [nobody]}])), "ingress") == []


def test_blocks_of_addresses_have_exceptions() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}
    assert allowed(rules(policy(ingress=[{"from": [block]}])), "ingress") == [
        "ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16, 10.2.0.0/16 }"
    ]
    assert allowed(rules(policy(ingress=[{"from": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}])), "ingress") == []


def test_ports_are_numbers_ranges_protocols_and_names_of_the_pod_that_is_called() -> None:
    ports = [{"port": 80}, {"port": 1000, "endPort": 1999, "protocol": "UDP"}, {"protocol": "SCTP"}, {"port": "api"}]
    assert allowed(rules(policy(ingress=[{"ports": ports}])), "ingress") == [
        "tcp dport 80",
        "udp dport 1000-1999",
        "meta l4proto sctp",
        "tcp dport 8443",
    ]
    assert allowed(rules(policy(ingress=[{"ports": [{"port": "unknown"}]}])), "ingress") == []
    out = policy(policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}], "ports": [{"port": "api"}]}])
    assert allowed(rules(out), "egress") == [
        "ip daddr 10.244.0.10 tcp dport 8443",
        "ip daddr 10.244.0.12 tcp dport 9443",
    ]


@pytest.mark.parametrize(
    ("expression", "with_it", "without_it"),
    [
        ({"key": "role", "operator": "In", "values": ["server"]}, True, False),
        ({"key": "role", "operator": "NotIn", "values": ["server"]}, False, True),
        ({"key": "role", "operator": "Exists"}, True, False),
        ({"key": "role", "operator": "DoesNotExist"}, False, True),
    ],
)
def test_expressions_of_selectors(expression: dict[str, Any], with_it: bool, without_it: bool) -> None:
    selector = {"matchExpressions": [expression]}
    assert selects(selector, SERVER.labels) is with_it
    assert selects(selector, {}) is without_it


def test_an_operator_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown operator 'Near'"):
        selects({"matchExpressions": [{"key": "role", "operator": "Near"}]}, {})


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({}, {}),
        ({}, {"podIP": "10.244.0.9", "phase": "Succeeded"}),
        ({}, {"podIP": "2001:db8::9"}),
        ({"hostNetwork": True}, {"podIP": "10.251.0.2"}),
    ],
)
def test_pods_without_an_address_of_their_own_are_none(spec: dict[str, Any], status: dict[str, Any]) -> None:
    assert pod_of({"metadata": {"namespace": "shop"}, "spec": {"containers": [], **spec}, "status": status}) is None


def test_ports_of_sidecars_have_names_too() -> None:
    sidecar = {"ports": [{"name": "proxy", "containerPort": 7}, {"containerPort": 8}]}
    spec = {"containers": [{}], "initContainers": [sidecar]}
    found = pod_of({"metadata": {"namespace": "shop"}, "spec": spec, "status": {"podIP": "10.244.0.9"}})
    assert found == Pod("shop", {}, "10.244.0.9", {("proxy", "TCP"): 7})
