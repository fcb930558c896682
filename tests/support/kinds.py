"""Manifests of every kind with every field filled in, and the means to change one field of them."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

API_VERSION = "chatelaine.dev/v1alpha1"
DIGEST_A = "sha256:" + "a" * 64
DIGEST_B = "sha256:" + "b" * 64

Object = dict[str, Any]


class _Absent:
    """Stands for a field that is taken away."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


def hsm(name: str) -> Object:
    """An Hsm behind a gateway in the cluster."""
    spec: Object = {
        "token": "pkcs11:token=hsm-a;serial=0123abcd",
        "identity": {"ekDigest": DIGEST_A, "attestationKeyThumbprint": DIGEST_B},
        "gateway": {
            "service": {
                "namespace": "hsm-system",
                "name": "gateway-a",
                "podSelector": {"matchLabels": {"app": "gateway-a"}},
                "podPort": 8443,
            }
        },
        "agent": {"host": "agent-a.hsm-system.svc", "port": 8444},
        "attestation": {"policyRef": {"name": "hsm-baseline"}, "intervalSeconds": 10},
        "cordoned": "Disabled",
        "capacity": {"claims": 100},
        "offers": {
            "compliance": ["Fips140_3Level3"],
            "maxSensitivity": "Restricted",
            "keyTypes": ["EcP256", "EcP384", "Rsa3072", "Aes256", "Ed25519"],
        },
        "adoptions": [
            {
                "claimUid": "7a2d",
                "namespace": "payments",
                "name": "checkout",
                "suspectSince": "2026-01-01T00:00:00Z",
            }
        ],
    }
    return _object("Hsm", name, spec)


def claim(name: str, namespace: str) -> Object:
    """A claim with a key and a client."""
    spec: Object = {
        "selector": {"matchLabels": {"chatelaine.dev/zone": "eu-1"}},
        "requirements": {
            "compliance": ["Fips140_3Level3"],
            "sensitivity": "Confidential",
            "workloadType": "PaymentSigning",
        },
        "mode": "Shared",
        "policyRef": {"name": "payments"},
        "failover": "Hold",
        "keys": [{"name": "signing", "type": "EcP256", "usages": ["Sign", "Verify"]}],
        "clients": [
            {
                "serviceAccount": "checkout",
                "podSelector": {"matchLabels": {"app": "checkout"}},
                "keys": ["signing"],
                "usages": ["Sign"],
            }
        ],
        "binding": {"secretName": "checkout-hsm"},
        "reclaimPolicy": "Retain",
    }
    made = _object("HsmClaim", name, spec)
    made["metadata"]["namespace"] = namespace
    return made


def policy(name: str) -> Object:
    """A policy with every rule that this release enforces."""
    spec: Object = {
        "enforcement": "Enforce",
        "freshness": {"maxAgeSeconds": 30},
        "tpm": {
            "endorsement": {
                "listed": [{"ekDigest": DIGEST_A, "note": "lab swtpm"}],
                "roots": [{"configMapRef": {"name": "tpm-vendors", "key": "all.pem"}}],
            },
            "pcrs": {
                "bank": "Sha256",
                "values": [{"index": 0, "anyOf": ["3d" * 32]}, {"index": 7, "anyOf": ["65" * 32]}],
            },
            "eventLog": {
                "replay": "Required",
                "secureBoot": "Enabled",
                "authorities": {"required": [DIGEST_A], "allowed": [DIGEST_A], "forbidden": [DIGEST_B]},
                "dbxAtLeast": ["ab" * 32],
                "optionRoms": "Refuse",
                "forbiddenImages": ["cd" * 32],
                "kernelCommandLine": {"required": ["lockdown=*"], "forbidden": ["init=*"]},
            },
            "ima": {
                "allow": [{"path": "/usr/bin/sh", "digests": [DIGEST_A]}],
                "unjudgedPaths": ["/var/log/**"],
                "signingKeys": ["-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"],
                "violations": "Refuse",
            },
        },
        "hsm": {
            "firmware": [{"model": "softhsm v2", "anyOf": ["2.6"]}],
            "inventory": "Accounted",
            "statement": "HostAsserted",
            "compliance": [{"model": "softhsm v2", "firmware": "2.6", "holds": ["Fips140_3Level3"]}],
        },
        "release": {
            "anyOf": [
                {
                    "namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "payments"}},
                    "maxClaims": 50,
                    "keyTypes": ["EcP256"],
                    "usages": ["Sign"],
                    "maxSensitivity": "Confidential",
                    "workloadTypes": ["PaymentSigning"],
                    "compliance": ["Fips140_3Level3"],
                }
            ]
        },
        "referenceValues": {
            "series": "fleet",
            "configMapRefs": [{"name": "fleet-values", "key": "bundle"}],
            "keys": [
                {
                    "name": "alice",
                    "publicKey": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
                }
            ],
            "threshold": 1,
        },
    }
    return _object("AttestationPolicy", name, spec)


def changed(obj: Object, path: str, value: Any) -> Object:
    """A copy of `obj` with the field at `path` set, or taken away by ABSENT.

    `path` is written `spec.keys[0].name`; parents that are missing are made, `{key}` names a key with dots in it.
    """
    result = copy.deepcopy(obj)
    steps: list[str | int] = [
        int(index) if index else quoted or name
        for name, index, quoted in re.findall(r"\.?([A-Za-z]\w*)|\[(\d+)\]|\{([^}]*)\}", path)
    ]
    node: Any = result
    for step, following in itertools.pairwise(steps):
        if isinstance(step, str) and step not in node:
            node[step] = [] if isinstance(following, int) else {}
        if isinstance(step, int) and step == len(node):
            node.append({})
        node = node[step]
    last = steps[-1]
    if value is ABSENT:
        del node[last]
    elif isinstance(last, int) and last == len(node):
        node.append(value)
    else:
        node[last] = value
    return result


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
