"""Hosts whose TPM a vendor vouches for: at admission, afterwards, and when the vendor is dropped."""

from __future__ import annotations

import base64
import datetime
import functools
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatelaine.model.material import NO_MATERIAL, PolicyMaterial
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.plan import CutHsm, RequestIdentity
from chatelaine.reconcile.standing import judge
from support.paper_tpm import rsa_key
from support.vendors import Vendor
from support.world import START, World
from support.world_hosts import BAD_PCR, GOOD_PCR, WorldHost
from support.world_objects import (
    condition,
    lean,
    message,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
    verdict,
)

ROOTS = {"roots": [{"configMapRef": {"name": "vendors", "key": "all"}}]}
SINCE = datetime.datetime.fromtimestamp(START, datetime.UTC) - datetime.timedelta(days=30)
KEY = rsa_key(2048).public_key()
SPKI = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@functools.cache
def vendor(name: str = "one") -> Vendor:
    return Vendor(name, SINCE)


def made_by(*vendors: Vendor) -> PolicyMaterial:
    return PolicyMaterial(endorsement_roots=tuple(one for maker in vendors for one in maker.der))


MISSING = PolicyMaterial(missing=("ConfigMap vendors does not exist in the operator's namespace",))


def rules(**endorsement: Any) -> dict[str, Any]:
    return {**policy_spec()["tpm"], "endorsement": endorsement or ROOTS}


@functools.cache
def certificate(days: int = 3650) -> bytes:
    return vendor().certify(KEY, days=days)


def world_of(data: bytes | None, material: PolicyMaterial | None = None) -> World:
    """One Hsm whose TPM shows `data`, under a policy that leans on the vendor `one` unless told otherwise."""
    world = stage("hsm-b", tpm=policy_spec()["tpm"])
    put_policy(world, "vendors", tpm=rules(), material=made_by(vendor()) if material is None else material)
    world.hosts["hsm-a"] = WorldHost("hsm-a", ek_spki=SPKI, ek_certificate=data)
    put_hsm(world, "hsm-a", attestation={"policyRef": {"name": "vendors"}, "intervalSeconds": 10})
    world.settle()
    return world


def again(world: World) -> None:
    world.attest()
    world.settle()


def standing(world: World) -> Any:
    return judge(world.hsm_snapshot("hsm-a"))


# --- admission


def test_approved_host_of_the_vendor_is_enrolled_and_its_certificate_kept() -> None:
    world = world_of(certificate())
    assert verdict(world) == ("Trusted", "EvidenceHolds")
    assert message(world.hsms["hsm-a"], "Enrolled").endswith(
        "AttestationPolicy vendors let its EK in by EndorsementChains: id:0001 id:0001, vouched for by CN=one root."
    )
    assert world.hsms["hsm-a"].status.ek_certificate == base64.b64encode(certificate()).decode()


def test_tpm_of_the_vendor_that_nobody_approved_is_not_enrolled() -> None:
    world = world_of(certificate())
    world.hosts["hsm-new"] = WorldHost("hsm-new", ek_spki=SPKI, ek_certificate=certificate())
    put_hsm(world, "hsm-new", approved=False, attestation={"policyRef": {"name": "vendors"}, "intervalSeconds": 10})
    world.settle()
    assert condition(world.hsms["hsm-new"], "Enrolled") == ("False", "AwaitingApproval")
    assert world.hsms["hsm-new"].status.identity is None


def refused(world: World, words: str) -> None:
    item = world.hsms["hsm-a"]
    assert condition(item, "Enrolled") == ("False", "EndorsementRefused")
    assert words in message(item, "Enrolled")
    assert item.status.identity is None
    assert condition(item, "Stalled") == ("True", "EndorsementRefused")


def test_approved_host_of_another_vendor_is_not_enrolled() -> None:
    refused(world_of(Vendor("two", SINCE).certify(KEY)), "ChainIncomplete")


def test_certificate_of_another_tpm_admits_nobody() -> None:
    refused(world_of(vendor().certify(rsa_key(2048, 1).public_key())), "EndorsementKeyMismatch")


def test_expired_certificate_admits_nobody() -> None:
    refused(world_of(certificate(days=29)), "CertificateExpired")


def test_attestation_certificate_admits_nobody() -> None:
    refused(world_of(vendor().certify(KEY, signs=True)), "CertificateKindMismatch")


def test_tpm_without_a_certificate_is_not_enrolled() -> None:
    refused(world_of(None), "CertificateAbsent")


def test_nobody_is_enrolled_by_a_policy_whose_material_is_missing() -> None:
    """Not even one whom the list would let in: half of the rules are not known."""
    world = world_of(certificate(), MISSING)
    item = world.hsms["hsm-a"]
    assert condition(item, "Enrolled") == ("Unknown", "PolicyInvalid")
    assert "ConfigMap vendors does not exist" in message(item, "Enrolled")
    assert item.status.identity is None
    lean(world, made_by(vendor()), "vendors")
    world.settle()
    assert verdict(world) == ("Trusted", "EvidenceHolds")


# --- afterwards


def test_dropped_vendor_cuts_by_policy_and_comes_back() -> None:
    world = world_of(certificate())
    before = world.policies["vendors"].status.digest
    lean(world, made_by(vendor("two")), "vendors")
    world.settle()
    assert verdict(world) == ("Unknown", "PolicyChanged")
    assert "ChainIncomplete" in message(world.hsms["hsm-a"], "Attested")
    assert any(isinstance(cut, CutHsm) and cut.hsm == "hsm-a" for cut in world.cuts)
    assert world.policies["vendors"].status.digest != before
    assert world.hsms["hsm-a"].status.attestation.suspect_since is None
    lean(world, made_by(vendor("two"), vendor()), "vendors")
    again(world)
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_dropped_vendor_is_no_deviation_of_a_host_that_changed_at_the_same_time() -> None:
    """Another good value of a PCR came with the change: what fails is the policy's word on makers alone."""
    world = world_of(certificate())
    values = [{"index": i, "anyOf": [GOOD_PCR, BAD_PCR]} for i in (0, 7)]
    put_policy(
        world, "vendors", tpm={**rules(), "pcrs": {"bank": "Sha256", "values": values}},
        material=made_by(vendor("two")),
    )  # fmt: skip
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    again(world)
    assert verdict(world) == ("Unknown", "PolicyChanged")


def test_deviation_is_no_change_of_policy_though_the_vendor_was_dropped_as_well() -> None:
    world = world_of(certificate())
    lean(world, made_by(vendor("two")), "vendors")
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    again(world)
    assert verdict(world) == ("Untrusted", "EvidenceRefuted")


def test_missing_material_cuts_nobody_before_the_deadline_and_trusts_nobody_anew() -> None:
    world = world_of(certificate())
    lean(world, MISSING, "vendors")
    world.pass_time(20)
    again(world)
    assert standing(world).serves
    world.pass_time(11)
    again(world)
    found = standing(world)
    assert (found.verdict, found.serves, found.sticky) == (Verdict.UNKNOWN, False, False)
    assert condition(world.hsms["hsm-a"], "Attested") == ("False", "PolicyInvalid")
    lean(world, made_by(vendor()), "vendors")
    again(world)
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_certificate_that_expires_ends_trust_at_the_deadline_and_refutes_nobody() -> None:
    world = world_of(certificate(days=31))
    assert verdict(world) == ("Trusted", "EvidenceHolds")
    world.pass_time(86400 - 10)
    again(world)
    assert standing(world).serves
    world.pass_time(20)
    again(world)
    assert standing(world).serves, "the last verdict stands until its deadline"
    world.pass_time(31)
    again(world)
    assert (standing(world).serves, verdict(world)) == (False, ("Unknown", "EvidenceUndecided"))
    assert "CertificateExpired" in message(world.hsms["hsm-a"], "Attested")


def test_restarted_operator_judges_by_the_certificate_that_it_kept() -> None:
    world = world_of(certificate())
    world.restart()
    world.touch("hsm-a")
    found = standing(world)
    assert (found.verdict, found.fresh, found.ask_identity) == (Verdict.TRUSTED, True, False)


def test_certificate_in_the_status_that_is_not_of_this_tpm_is_not_believed() -> None:
    world = world_of(certificate())
    item = world.hsms["hsm-a"]
    other = base64.b64encode(vendor().certify(rsa_key(2048, 1).public_key())).decode()
    world.put_hsm(item, ek_certificate=other)
    world.restart()
    world.touch("hsm-a")
    assert not standing(world).serves
    assert "EndorsementKeyMismatch" in standing(world).message


def test_stranger_with_a_tpm_of_the_vendor_does_not_replace_the_certificate_that_is_kept() -> None:
    world = world_of(certificate())
    kept, host = world.hsms["hsm-a"].status.ek_certificate, world.hosts["hsm-a"]
    other = rsa_key(2048, 1).public_key()
    host.ak = "ak-of-a-stranger"
    host.ek_spki = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    host.ek_certificate = vendor().certify(other)
    world.touch("hsm-a", identity=True)
    world.settle()
    assert condition(world.hsms["hsm-a"], "Enrolled") == ("False", "IdentityConflict")
    assert world.hsms["hsm-a"].status.ek_certificate == kept


def test_host_that_was_let_in_by_the_list_is_asked_for_its_certificate_when_only_vendors_remain() -> None:
    world = world_of(certificate())
    put_policy(world, "vendors", tpm=rules(listed=[{"ekDigest": world.hosts["hsm-b"].ek_digest}]))
    item = world.hsms["hsm-b"]
    world.hosts["hsm-b"].ek_spki = None
    put_policy(world, tpm=rules(listed=[{"ekDigest": world.hosts["hsm-b"].ek_digest}]))
    world.settle()
    world.restart()
    world.touch("hsm-b")
    put_policy(world, tpm=rules(), material=made_by(vendor()))
    found = judge(world.hsm_snapshot("hsm-b"))
    assert found.ask_identity
    assert found.serves, "until its deadline"
    plans = [action for plan in world.plans() for action in plan.actions]
    assert RequestIdentity("hsm-b", item.metadata.uid) in plans
    world.settle()
    assert verdict(world, "hsm-b") == ("Unknown", "PolicyChanged")
    assert "CertificateAbsent" in message(world.hsms["hsm-b"], "Attested")


def test_first_certificate_over_the_key_is_kept_though_nobody_asks_for_it_yet() -> None:
    world = world_of(certificate())
    del world.hsms["hsm-a"]
    put_policy(world, "vendors", tpm=rules(listed=[{"ekDigest": world.hosts["hsm-a"].ek_digest}]))
    put_hsm(world, "hsm-a", attestation={"policyRef": {"name": "vendors"}, "intervalSeconds": 10})
    world.settle()
    assert world.hsms["hsm-a"].status.ek_certificate is not None
    world.restart()
    world.touch("hsm-a")
    put_policy(world, "vendors", tpm=rules(), material=made_by(vendor()))
    assert standing(world).fresh
    assert not standing(world).ask_identity


def test_certificate_over_another_key_is_not_kept() -> None:
    world = world_of(vendor().certify(rsa_key(2048, 1).public_key()))
    put_policy(world, "vendors", tpm=rules(listed=[{"ekDigest": world.hosts["hsm-a"].ek_digest}]))
    world.settle()
    assert verdict(world) == ("Trusted", "EvidenceHolds")
    assert world.hsms["hsm-a"].status.ek_certificate is None


def test_certificate_that_lets_the_host_in_is_not_driven_out_by_one_that_does_not() -> None:
    world = world_of(certificate())
    kept = world.hsms["hsm-a"].status.ek_certificate
    world.hosts["hsm-a"].ek_certificate = vendor("two").certify(KEY)
    world.touch("hsm-a", identity=True)
    world.settle()
    assert world.hsms["hsm-a"].status.ek_certificate == kept


# --- claims with a policy of their own


def claim_under(world: World, **policy: Any) -> tuple[str, str]:
    """A claim whose own policy has endorsement rules, on the host of the vendor `one`."""
    put_policy(world, "strict", **policy)
    put_claim(world, policyRef={"name": "strict"}, hsmRef={"name": "hsm-a"}, selector=None)
    put_policy(world, "vendors", tpm=policy_spec()["tpm"])
    world.settle()
    return condition(world.claims["payments", "checkout"], "Bound")


def test_claim_whose_policy_names_the_vendor_is_bound() -> None:
    assert claim_under(world_of(certificate()), tpm=rules(), material=made_by(vendor())) == ("True", "Bound")


def test_claim_whose_policy_names_another_vendor_is_not_bound() -> None:
    world = world_of(certificate())
    assert claim_under(world, tpm=rules(), material=made_by(vendor("two")))[0] == "False"
    assert "ChainIncomplete" in message(world.claims["payments", "checkout"], "Bound")


def test_claim_whose_policy_does_not_list_the_tpm_is_not_bound() -> None:
    world = world_of(certificate())
    assert claim_under(world, tpm=rules(listed=[{"ekDigest": "sha256:" + "0" * 64}]))[0] == "False"
    assert "does not list the endorsement key" in message(world.claims["payments", "checkout"], "Bound")


def test_claim_is_cut_when_its_policy_drops_the_vendor() -> None:
    world = world_of(certificate())
    claim_under(world, tpm=rules(), material=made_by(vendor()))
    assert world.served("payments", "checkout").serves
    lean(world, made_by(vendor("two")), "strict")
    world.settle()
    assert not world.served("payments", "checkout").serves
    assert verdict(world) == ("Trusted", "EvidenceHolds")
    lean(world, made_by(vendor()), "strict")
    world.settle()
    assert world.served("payments", "checkout").serves


def test_host_whose_certificate_nobody_has_seen_is_asked_for_it_on_behalf_of_a_claim() -> None:
    world = world_of(certificate())
    world.put_hsm(world.hsms["hsm-a"], ek_certificate=None)
    world.restart()
    world.touch("hsm-a")
    assert claim_under(world, tpm=rules(), material=made_by(vendor())) == ("True", "Bound")
    assert world.hsms["hsm-a"].status.ek_certificate is not None


def test_readmission_asks_for_the_vendor_too() -> None:
    world = world_of(certificate())
    world.hosts["hsm-a"].pcrs[7] = BAD_PCR
    again(world)
    assert verdict(world) == ("Untrusted", "EvidenceRefuted")
    world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
    lean(world, made_by(vendor("two")), "vendors")
    readmit(world, "hsm-a")
    again(world)
    assert verdict(world) == ("Untrusted", "EvidenceRefuted")
    lean(world, made_by(vendor()), "vendors")
    world.pass_time(3)
    again(world)
    assert verdict(world) == ("Trusted", "EvidenceHolds")


def test_policy_that_leans_on_nothing_is_untouched_by_material() -> None:
    world = stage("hsm-a")
    lean(world, NO_MATERIAL)
    world.settle()
    assert verdict(world) == ("Trusted", "EvidenceHolds")
