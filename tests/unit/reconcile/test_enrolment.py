"""Who is enrolled, and what becomes of one who shows another identity."""

from __future__ import annotations

from chatelaine.model.reasons import Reason
from chatelaine.model.verdict import Verdict
from chatelaine.reconcile.snapshot import HostObservation
from chatelaine.reconcile.standing import judge
from support.world_hosts import GOOD_PCR
from support.world_objects import (
    change_hsm,
    condition,
    message,
    policy_spec,
    put_claim,
    put_hsm,
    put_policy,
    readmit,
    stage,
    verdict,
)


class TestEnrolment:
    def test_an_unapproved_host_waits_and_both_digests_are_named(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new", approved=False)
        world.settle()
        host, item = world.hosts["hsm-new"], world.hsms["hsm-new"]
        assert condition(item, "Enrolled") == ("False", "AwaitingApproval")
        assert host.ek_digest in message(item, "Enrolled")
        assert host.thumbprint in message(item, "Enrolled")
        assert item.status.identity is None
        assert condition(item, "Attested") == ("Unknown", "NotEnrolled")

    def test_approval_enrols_once(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new", approved=False)
        world.settle()
        host = world.hosts["hsm-new"]
        approved = {"ekDigest": host.ek_digest, "attestationKeyThumbprint": host.thumbprint}
        change_hsm(world, "hsm-new", identity=approved)
        world.settle()
        item = world.hsms["hsm-new"]
        assert item.status.identity is not None
        assert item.status.identity.ak_name == host.ak_name.hex()
        assert item.status.attestation is not None
        assert item.status.attestation.epoch.generation == 1
        assert condition(item, "Ready") == ("True", "AllReady")

    def test_host_without_credential_activation_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        item = put_hsm(world, "hsm-new")
        uid = item.metadata.uid
        world.inventories[uid] = frozenset()
        world.memory[uid] = HostObservation(presented=world.hosts["hsm-new"].presents(activated=False))
        standing = judge(world.hsm_snapshot("hsm-new"))
        assert standing.identity is None
        assert standing.ask_identity
        world.memory[uid] = HostObservation(
            presented=world.hosts["hsm-new"].presents(activated=False), activation_failed="the secret was wrong"
        )
        assert judge(world.hsm_snapshot("hsm-new")).enrolment.reason is Reason.ACTIVATION_FAILED

    def test_another_tpm_than_the_approved_one_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        put_hsm(world, "hsm-new")
        world.hosts["hsm-new"].ek = "ek-of-somebody-else"
        world.settle()
        item = world.hsms["hsm-new"]
        assert item.status.identity is None
        assert condition(item, "Enrolled") == ("False", "IdentityConflict")
        assert condition(item, "Stalled") == ("True", "IdentityConflict")

    def test_tpm_that_the_policy_does_not_list_is_not_enrolled(self) -> None:
        world = stage("hsm-a")
        tpm = policy_spec()["tpm"]
        listed = [{"ekDigest": world.hosts["hsm-a"].ek_digest}]
        put_policy(world, tpm={**tpm, "endorsement": {"listed": listed}})
        put_hsm(world, "hsm-new")
        world.settle()
        assert world.hsms["hsm-new"].status.identity is None
        assert condition(world.hsms["hsm-new"], "Enrolled") == ("False", "EndorsementRefused")
        assert verdict(world) == ("Trusted", "EvidenceHolds")

    def test_status_says_which_rule_let_the_ek_in(self) -> None:
        world = stage("hsm-a")
        decided = message(world.hsms["hsm-a"], "Enrolled")
        assert "AttestationPolicy baseline let its EK in by ApprovedIdentityDecides: the policy has no" in decided
        put_hsm(world, "hsm-new")
        listed = [{"ekDigest": world.hosts[name].ek_digest} for name in ("hsm-a", "hsm-new")]
        put_policy(world, tpm={**policy_spec()["tpm"], "endorsement": {"listed": listed}})
        world.settle()
        said = message(world.hsms["hsm-new"], "Enrolled")
        assert said.endswith("AttestationPolicy baseline let its EK in by EndorsementListed.")
        # How the other one was admitted does not change with the policy.
        assert message(world.hsms["hsm-a"], "Enrolled") == decided
        put_policy(world)
        world.settle()
        assert message(world.hsms["hsm-new"], "Enrolled") == said

    def test_readmission_says_which_rule_let_the_ek_in(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].pcrs[7] = "f" * 64
        world.attest()
        world.settle()
        assert verdict(world)[0] == "Untrusted"
        listed = [{"ekDigest": world.hosts["hsm-a"].ek_digest}]
        put_policy(world, tpm={**policy_spec()["tpm"], "endorsement": {"listed": listed}})
        world.hosts["hsm-a"].pcrs[7] = GOOD_PCR
        readmit(world, "hsm-a")
        world.settle()
        world.attest()
        world.settle()
        assert verdict(world) == ("Trusted", "EvidenceHolds")
        assert message(world.hsms["hsm-a"], "Enrolled").endswith("let its EK in by EndorsementListed.")

    def test_endorsement_dropped_from_the_policy_cuts_an_enrolled_host(self) -> None:
        world = stage("hsm-a")
        tpm = policy_spec()["tpm"]
        put_policy(world, tpm={**tpm, "endorsement": {"listed": [{"ekDigest": "sha256:" + "9" * 64}]}})
        world.settle()
        assert verdict(world) == ("Unknown", "PolicyChanged")
        assert not judge(world.hsm_snapshot("hsm-a")).serves

    def test_replaced_attestation_key_is_a_conflict_and_never_an_overwrite(self) -> None:
        world = stage("hsm-a")
        before = world.hsms["hsm-a"].status.identity
        world.hosts["hsm-a"].ak = "ak-2"
        world.touch("hsm-a", identity=True)
        world.settle()
        item = world.hsms["hsm-a"]
        assert item.status.identity == before
        assert condition(item, "Enrolled") == ("False", "IdentityConflict")

    def test_a_stranger_who_presents_another_identity_does_not_make_it_untrusted(self) -> None:
        world = stage("hsm-a")
        world.hosts["hsm-a"].ek, world.hosts["hsm-a"].ak = "ek-2", "ak-2"
        world.touch("hsm-a", identity=True)
        world.settle()
        assert judge(world.hsm_snapshot("hsm-a")).serves
        world.pass_time(31)
        world.settle()
        standing = judge(world.hsm_snapshot("hsm-a"))
        assert (standing.verdict, standing.serves, standing.sticky) == (Verdict.UNKNOWN, False, False)

    def test_changed_approval_holds_everything_until_readmission(self) -> None:
        world = stage("hsm-a")
        put_claim(world)
        world.settle()
        host = world.hosts["hsm-a"]
        host.ek, host.ak = "ek-2", "ak-2"
        change_hsm(world, "hsm-a", identity={"ekDigest": host.ek_digest, "attestationKeyThumbprint": host.thumbprint})
        world.settle()
        world.attest()
        world.settle()
        item = world.hsms["hsm-a"]
        assert condition(item, "Enrolled") == ("False", "AwaitingReadmission")
        assert len(item.status.allocations) == 1
        assert not world.served("payments", "checkout").serves
        readmit(world, "hsm-a")
        world.settle()
        item = world.hsms["hsm-a"]
        assert item.status.identity is not None
        assert item.status.identity.ek_digest == host.ek_digest
        assert item.status.attestation is not None
        assert item.status.attestation.epoch.generation == 2
        assert world.served("payments", "checkout").serves
