"""A status of every kind with every field filled in, as the operator writes it."""

from __future__ import annotations

from support.kinds import DIGEST_A, DIGEST_B, Object

AT = "2026-01-02T03:04:05Z"
EPOCH = {"resetCount": 3, "restartCount": 1, "generation": 2}
POLICY = {"name": "payments", "uid": "6f1c", "generation": 4, "digest": DIGEST_A}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": AT,
    "reason": "AllReady",
    "message": "",
}


def hsm_status() -> Object:
    """An enrolled, trusted Hsm with a claim and keys of one that is gone."""
    return {
        "observedGeneration": 1,
        "identity": {
            "ekDigest": DIGEST_A,
            "akName": "000b" + "ab" * 32,
            "akPublic": "AAEACw==",
            "attestationKey": {"thumbprint": DIGEST_B},
            "attestationKeyPublic": "MFkw",
            "enrolledAt": AT,
        },
        "ekCertificate": "MIIB",
        "token": {
            "manufacturer": "SoftHSM project",
            "model": "SoftHSM v2",
            "serial": "0123abcd",
            "firmware": "2.6",
            "mechanismsDigest": DIGEST_A,
            "keyTypes": ["EcP256"],
        },
        "attestation": {
            "verdict": "Trusted",
            "reason": "AllHold",
            "policy": POLICY,
            "reference": {"name": "fleet", "version": 7, "digest": DIGEST_A},
            "evidenceDigest": DIGEST_B,
            "compared": ["PCR sha256:7"],
            "facts": ["pcr:sha256:7=00"],
            "explanation": ["event 12 of PCR 4 is another boot loader"],
            "epoch": EPOCH,
            "validUntil": AT,
            "suspectSince": AT,
        },
        "allocations": [
            {
                "claimUid": "6f1c",
                "namespace": "payments",
                "name": "checkout",
                "mode": "Shared",
                "sequence": 1,
                "at": AT,
            }
        ],
        "retained": [
            {
                "claimUid": "7a2d",
                "namespace": "payments",
                "namespaceUid": "11aa",
                "name": "old",
                "keys": [{"name": "signing", "version": 1, "state": "Deactivated"}],
                "at": AT,
                "adoptedBy": "8b3e",
            }
        ],
        "conditions": [CONDITION],
    }


def claim_status() -> Object:
    """A bound claim with one key."""
    hsm = {"name": "hsm-a", "uid": "9c3e"}
    version = {
        "version": 1,
        "state": "Active",
        "sequence": 1,
        "hsm": hsm,
        "pkcs11Uri": "pkcs11:serial=0123abcd;object=x",
        "publicKey": "-----BEGIN PUBLIC KEY-----",
        "createdAt": AT,
        "suspectSince": AT,
        "reason": "",
        "madeBy": "7a2d",
    }
    return {
        "observedGeneration": 1,
        "allocation": {
            "sequence": 1,
            "hsm": hsm,
            "at": AT,
            "policies": [POLICY],
            "evidenceDigest": DIGEST_A,
            "epoch": EPOCH,
        },
        "binding": {"name": "checkout-hsm"},
        "keys": [{"name": "signing", "type": "EcP256", "versions": [version]}],
        "networkPolicies": [{"namespace": "hsm-system", "name": "chat-6f1c-in"}],
        "conditions": [CONDITION],
    }


def policy_status() -> Object:
    """A valid policy that somebody leans on."""
    return {
        "observedGeneration": 1,
        "digest": DIGEST_A,
        "usedBy": {"hsms": 3, "claims": 9},
        "referenceValues": {"name": "fleet", "version": 7, "digest": DIGEST_B, "signedBy": ["alice", "bob"]},
        "conditions": [CONDITION],
    }
