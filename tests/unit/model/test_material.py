"""What a policy leans on: it judges, so it enters the digest; it never comes with the object itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chatelaine.model.material import NO_MATERIAL, PolicyMaterial, ReferenceValues
from chatelaine.model.policy import AttestationPolicy
from chatelaine.model.tpm_policy import Bank

BODY: dict[str, Any] = {
    "metadata": {"name": "hsm-baseline", "uid": "u-1"},
    "spec": {
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {"pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]}},
    },
}


class _NoFiles:
    def allows(self, path: str, digest: str, *, at: int) -> bool:
        return False

    def ended(self, *, after: int, until: int) -> bool:
        return False

    def __len__(self) -> int:
        return 0


BUNDLE = ReferenceValues("fleet", 3, "sha256:" + "ab" * 32, ("a", "b"), {Bank.SHA256: {}}, frozenset(), _NoFiles())
ROOTS = PolicyMaterial(endorsement_roots=(b"vendor one", b"vendor two"))


def policy() -> AttestationPolicy:
    return AttestationPolicy.model_validate(BODY)


def test_material_that_comes_with_the_object_is_not_believed() -> None:
    forged = {**BODY, "material": {"endorsement_roots": ["x"]}, "_material": {"endorsement_roots": ["x"]}}
    assert AttestationPolicy.model_validate(forged).material == NO_MATERIAL


def test_a_policy_that_leans_on_nothing_keeps_the_digest_of_its_rules() -> None:
    assert policy().digest() == policy().spec.digest()


def test_material_changes_the_digest_and_nothing_that_is_written() -> None:
    leaning = policy().with_material(ROOTS)
    assert leaning.digest() != policy().digest()
    assert leaning.dump() == policy().dump()
    assert policy().material == NO_MATERIAL


def test_order_and_repetition_of_certificates_change_no_digest() -> None:
    turned = PolicyMaterial(endorsement_roots=(b"vendor two", b"vendor one", b"vendor two"))
    assert policy().with_material(turned).digest() == policy().with_material(ROOTS).digest()


def test_every_difference_of_a_bundle_changes_the_digest() -> None:
    bundles = (
        BUNDLE,
        replace(BUNDLE, name="other"),
        replace(BUNDLE, version=4),
        replace(BUNDLE, digest="sha256:" + "cd" * 32),
        replace(BUNDLE, signed_by=("a",)),
    )
    found = {policy().with_material(PolicyMaterial(reference=bundle)).digest() for bundle in bundles}
    found.add(policy().with_material(replace(ROOTS, reference=BUNDLE)).digest())
    assert len(found) == len(bundles) + 1
