"""Names and digests that every room agrees on: API group, labels, annotations, `sha256:` digests."""

from __future__ import annotations

import hashlib
import json
from typing import Final

GROUP: Final = "chatelaine.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FINALIZER: Final = f"{GROUP}/cleanup"

ANNOTATION_PAUSED: Final = f"{GROUP}/paused"
ANNOTATION_READMIT: Final = f"{GROUP}/readmit"
ANNOTATION_DESTROY: Final = f"{GROUP}/destroy"

LABEL_CLAIM_UID: Final = f"{GROUP}/claim-uid"
LABEL_CLAIM_NAME: Final = f"{GROUP}/claim-name"
LABEL_CLAIM_NAMESPACE: Final = f"{GROUP}/claim-namespace"
LABEL_HSM: Final = f"{GROUP}/hsm"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
LABEL_EGRESS: Final = f"{GROUP}/egress"
MANAGED_BY: Final = "chatelaine"

TOKEN_AUDIENCE: Final = GROUP
"""Audience of the projected service-account tokens that `POST /v1/token` accepts."""

PKI_DOMAIN: Final = "chatelaine.internal"

DIGEST_PREFIX: Final = "sha256:"


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Sorted keys, no white space, UTF-8: the same value gives the same bytes (no floats occur in our kinds)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def agent_server_name(host: str) -> str:
    """The DNS name in the leaf certificate of `host`'s agent; dialled addresses never count as identity."""
    return f"agent.{host}.{PKI_DOMAIN}"


def gateway_server_name(host: str) -> str:
    """The DNS name in the leaf certificate of `host`'s gateway."""
    return f"gateway.{host}.{PKI_DOMAIN}"


OPERATOR_SERVER_NAME: Final = f"operator.{PKI_DOMAIN}"


def key_label(claim_uid: str, key: str, version: int) -> str:
    """`CKA_LABEL` of both halves of a claim's key version."""
    return f"chat/{claim_uid}/{key}/{version}"


def service_key_label(purpose: str) -> str:
    """`CKA_LABEL` of a key of our own; `purpose` is `attestation` or `token`."""
    return f"chat/service/{purpose}/1"


def key_id(label: str) -> bytes:
    """`CKA_ID` (20 bytes) belonging to a `CKA_LABEL`."""
    return hashlib.sha256(b"chatelaine/key-id/v1" + label.encode()).digest()[:20]
