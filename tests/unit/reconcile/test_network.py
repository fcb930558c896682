from __future__ import annotations

from typing import Any

import pytest

from chatelaine.model.hsm import GatewayService
from chatelaine.reconcile.network import (
    claim_egress,
    claim_ingress,
    deny_name,
    egress_managed,
    gateway_policies,
    lets_in,
)
from chatelaine.reconcile.snapshot import OperatorPods
from support.world import World
from support.world_objects import put_claim, put_hsm

OPERATOR = OperatorPods("chatelaine-system", {"app": "chatelaine-operator"})
EXTERNAL = {"external": {"host": "hsm.example.net", "port": 9443, "cidrs": ["192.0.2.10/32", "192.0.2.9/32"]}}


def service() -> GatewayService:
    return GatewayService.model_validate(
        {
            "namespace": "hsm-system",
            "name": "gateway-a",
            "podSelector": {"matchLabels": {"app": "gateway-a"}},
            "podPort": 8443,
        }
    )


def test_the_same_input_gives_the_same_bytes() -> None:
    world = World()
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a")
    first, second = (claim_ingress(claim, hsm.spec.gateway) for _ in range(2))
    assert first is not None
    assert first == second
    assert first.manifest["metadata"]["annotations"]["chatelaine.dev/digest"] == first.digest


def test_gateway_pods_are_closed_both_ways_but_for_dns_and_the_operator() -> None:
    hsm = put_hsm(World(), "hsm-a")
    deny, operator = gateway_policies(hsm, OPERATOR)
    assert deny.manifest["spec"]["ingress"] == []
    assert deny.manifest["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert deny.manifest["spec"]["egress"] == [
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    ]
    rule = operator.manifest["spec"]["ingress"][0]
    assert [port["port"] for port in rule["ports"]] == [8443, 8444]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "chatelaine-system"}


def test_hsms_that_share_gateway_pods_share_the_deny() -> None:
    world = World()
    one, two = put_hsm(world, "hsm-a"), put_hsm(world, "hsm-b", gateway=put_hsm(world, "hsm-c").spec.gateway.dump())
    three = world.hsms["hsm-c"]
    assert gateway_policies(two, OPERATOR)[0] == gateway_policies(three, OPERATOR)[0]
    assert gateway_policies(one, OPERATOR)[0].name != gateway_policies(two, OPERATOR)[0].name
    assert gateway_policies(two, OPERATOR)[1].name != gateway_policies(three, OPERATOR)[1].name


def test_ingress_names_namespace_and_pods_in_one_element() -> None:
    world = World()
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a")
    rendered = claim_ingress(claim, hsm.spec.gateway)
    assert rendered is not None
    peers = rendered.manifest["spec"]["ingress"][0]["from"]
    assert all(set(peer) == {"namespaceSelector", "podSelector"} for peer in peers)
    assert rendered.manifest["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert rendered.manifest["metadata"]["labels"]["chatelaine.dev/claim-uid"] == claim.metadata.uid


def test_claim_without_clients_opens_nothing() -> None:
    world = World()
    claim, hsm = put_claim(world, clients=None), put_hsm(world, "hsm-a")
    assert claim_ingress(claim, hsm.spec.gateway) is None
    assert claim_egress(claim, hsm.spec.gateway) == ()


def test_claims_labels_and_annotations_are_never_copied() -> None:
    world = World()
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a")
    noisy = claim.model_copy(
        update={"metadata": claim.metadata.model_copy(update={"labels": {"argocd": "x"}, "annotations": {"y": "z"}})}
    )
    assert claim_ingress(noisy, hsm.spec.gateway) == claim_ingress(claim, hsm.spec.gateway)


def test_external_gateway_has_only_address_blocks_in_egress() -> None:
    world = World()
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a", gateway=EXTERNAL)
    assert gateway_policies(hsm, OPERATOR) == ()
    assert claim_ingress(claim, hsm.spec.gateway) is None
    (egress,) = claim_egress(claim, hsm.spec.gateway)
    rule = egress.manifest["spec"]["egress"][0]
    assert [peer["ipBlock"]["cidr"] for peer in rule["to"]] == ["192.0.2.10/32", "192.0.2.9/32"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 9443}]


def test_external_gateway_without_addresses_does_not_cut_the_clients_off() -> None:
    world = World()
    gateway = {"external": {"host": "hsm.example.net", "port": 9443}}
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a", gateway=gateway)
    assert claim_egress(claim, hsm.spec.gateway) == ()


@pytest.mark.parametrize(("labels", "managed"), [({}, False), ({"chatelaine.dev/egress": "Managed"}, True)])
def test_egress_only_where_the_namespace_asks(labels: dict[str, str], managed: bool) -> None:
    assert egress_managed(labels) is managed


ALLOW: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ALLOW, True),
        ({"podSelector": {}, "ingress": [{}]}, True),
        ({**ALLOW, "ingress": []}, False),
        ({**ALLOW, "policyTypes": ["Egress"]}, False),
        ({**ALLOW, "podSelector": {"matchLabels": {"app": "gateway-a"}}}, True),
        ({**ALLOW, "podSelector": {"matchLabels": {"app": "other"}}}, False),
        ({**ALLOW, "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}, True),
        ({**ALLOW, "podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, False),
        (
            {**ALLOW, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["gateway-a"]}]}},
            True,
        ),
        (
            {**ALLOW, "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}},
            True,
        ),
        ({**ALLOW, "ingress": [{"ports": [{"port": 9999}]}]}, False),
        ({**ALLOW, "ingress": [{"ports": [{"port": 8443}]}]}, True),
        ({**ALLOW, "ingress": [{"ports": [{"port": 8000, "endPort": 9000}]}]}, True),
        ({**ALLOW, "ingress": [{"ports": [{"port": 8000, "endPort": 8100}]}]}, False),
        ({**ALLOW, "ingress": [{"ports": [{"port": "https"}]}]}, True),
        ({**ALLOW, "ingress": [{"ports": [{"protocol": "UDP", "port": 8443}]}]}, False),
        ({**ALLOW, "ingress": [{"ports": [{"protocol": "TCP"}]}]}, True),
    ],
)
def test_foreign_allow(spec: dict[str, Any], expected: bool) -> None:
    assert lets_in(spec, service()) is expected


def test_foreign_allow_looks_at_the_pods_as_they_run() -> None:
    spec = {**ALLOW, "podSelector": {"matchLabels": {"tier": "backend"}}}
    assert not lets_in(spec, service())
    assert lets_in(spec, service(), [{"app": "gateway-a", "tier": "backend"}])


def test_names_are_valid_and_bounded() -> None:
    world = World()
    claim, hsm = put_claim(world), put_hsm(world, "hsm-a")
    names = [deny_name(service()), *(rendered.name for rendered in gateway_policies(hsm, OPERATOR))]
    names += [rendered.name for rendered in claim_egress(claim, hsm.spec.gateway)]
    assert all(len(name) <= 63 and name == name.lower() for name in names)
