"""Names and digests that every room agrees on: API group, labels, annotations, `sha256:` digests."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, NamedTuple

GROUP: Final = "chatelaine.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CA_NAME: Final = "chatelaine-ca"
"""Of the operator's Secret with its CA, and of the ConfigMap that publishes the CA's certificate."""

FINALIZER: Final = f"{GROUP}/cleanup"

ANNOTATION_PAUSED: Final = f"{GROUP}/paused"
ANNOTATION_READMIT: Final = f"{GROUP}/readmit"
ANNOTATION_DESTROY: Final = f"{GROUP}/destroy"
ANNOTATION_ROTATE_CA: Final = f"{GROUP}/rotate-ca"
ANNOTATION_ROTATE_CA_GRACE: Final = f"{GROUP}/rotate-ca-grace-seconds"

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


CLAIM_UID: Final = re.compile(r"(?!service(?![A-Za-z0-9-]))[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
"""A claim's uid as it may stand in a label; `chat/service/…` are the labels of the token's own keys."""


def claim_prefix(claim_uid: str) -> str:
    """What the labels of a claim's keys begin with, and no other label."""
    return f"chat/{claim_uid}/"


def key_label(claim_uid: str, key: str, version: int) -> str:
    """`CKA_LABEL` of both halves of a claim's key version."""
    return f"{claim_prefix(claim_uid)}{key}/{version}"


class ClaimKey(NamedTuple):
    """What a key's label says: whose claim's, which key, which version."""

    claim_uid: str
    key: str
    version: int


_KEY_LABEL: Final = re.compile(
    rf"chat/({CLAIM_UID.pattern})/([a-z0-9](?:[-a-z0-9]{{0,61}}[a-z0-9])?)/([1-9][0-9]{{0,5}}|1000000)",
    re.ASCII,
)


def parse_key_label(label: str) -> ClaimKey | None:
    """The inverse of `key_label`; None for every label that it cannot have made. Labels are hostile input."""
    found = _KEY_LABEL.fullmatch(label)
    return ClaimKey(found[1], found[2], int(found[3])) if found is not None else None


def service_key_label(purpose: str) -> str:
    """`CKA_LABEL` of a key of our own; `purpose` is `attestation` or `token`."""
    return f"chat/service/{purpose}/1"


def key_id(label: str) -> bytes:
    """`CKA_ID` (20 bytes) belonging to a `CKA_LABEL`."""
    return hashlib.sha256(b"chatelaine/key-id/v1" + label.encode()).digest()[:20]
