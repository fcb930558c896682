"""What operator, agent and gateway say to each other: JSON over HTTP/1.1 with mutual TLS.

Compatibility: fields are only added, each with a default; a receiver ignores what it does not know. Every request
carries `v`; a receiver reads it first, and answers `Problem(code="VersionNotSupported")` to versions outside
`SUPPORTED_VERSIONS` whatever else the message holds.
Bytes travel as base64. Times are whole seconds since the epoch (UTC) unless a name says otherwise.

Agent (server name `agent.<host>.chatelaine.internal`, only the operator's certificate is let in):

    GET  /v1/identity                 -> HostIdentity
    POST /v1/activate    Activation   -> Activated
    POST /v1/evidence    EvidenceRequest -> EvidenceResponse
    POST /v1/ima         ImaRequest   -> ImaResponse
    GET  /v1/changes                  -> lines of Change, one JSON object a line
    POST /v1/leaf/request             -> LeafRequest
    PUT  /v1/leaf        Leaf         -> empty

Gateway (server name `gateway.<host>.chatelaine.internal`, same port as its clients, only the operator's certificate):

    GET  /control/v1/hello            -> GatewayHello
    PUT  /control/v1/view   ViewUpdate  -> ViewAck (200), or GatewayHello (409: send a full view)
    POST /control/v1/keys/ensure  EnsureKey  -> KeyMade
    POST /control/v1/keys/destroy DestroyKey -> KeyGone
    GET  /control/v1/inventory        -> Inventory
    POST /control/v1/leaf/request     -> LeafRequest
    PUT  /control/v1/leaf   Leaf      -> empty

Gateway, local Unix socket (only the same user): what the agent needs for its evidence.

    GET  /local/v1/identity           -> GatewayIdentity
    POST /local/v1/statement StatementRequest -> StatementResponse
    GET  /local/v1/changes            -> lines of Change (`Inventory` and `Alive`)

Operator's join endpoint (server-authenticated TLS, pinned by the CA digest in the invitation):

    GET  /v1/ca                       -> CaBundle (believed by nobody but whoever finds a pinned digest in it)
    POST /v1/join        JoinRequest  -> JoinResponse
"""

from __future__ import annotations

import enum
from typing import Final

from chatelaine.wire.message import SUPPORTED_VERSIONS as SUPPORTED_VERSIONS
from chatelaine.wire.message import VERSION as VERSION
from chatelaine.wire.message import Message as Message
from chatelaine.wire.message import Problem as Problem
from chatelaine.wire.message import decode as decode
from chatelaine.wire.message import encode as encode

MAX_CONTROL_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_EVIDENCE_BODY_BYTES: Final = 8 * 1024 * 1024
"""An inventory of four mebibytes, or a log and a piece of an IMA list of one mebibyte each, in base64."""
MAX_JOIN_BODY_BYTES: Final = 64 * 1024
NONCE_BYTES: Final = 32
LINES_MEDIA_TYPE: Final = "application/jsonl"
ALIVE_SECONDS: Final = 5.0
"""A change stream says something at least this often."""
SILENCE_SECONDS: Final = 3 * ALIVE_SECONDS
"""Whoever hears nothing of a change stream for so long asks anew."""


# --- identity and evidence ------------------------------------------------------------------------------------


class TokenFacts(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What PKCS#11 says of the token."""

    serial: str
    manufacturer: str
    model: str
    firmware: str
    hardware_version: str
    mechanisms_digest: str
    key_types: tuple[str, ...] = ()


class GatewayIdentity(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the gateway is: its TLS key, its HSM attestation key (both SubjectPublicKeyInfo, DER), its token."""

    gateway_spki: bytes
    attestation_key_spki: bytes
    token: TokenFacts


class HostIdentity(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a host shows before it is enrolled. Nothing of it is believed before credential activation.

    `ek_public` and `ak_public` are TPMT_PUBLIC; `ek_certificate` is DER.
    """

    ek_public: bytes
    ak_public: bytes
    ek_certificate: bytes | None = None
    gateway: GatewayIdentity | None = None


class Activation(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Credential made for this host's EK and AK: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET."""

    v: int = VERSION
    credential_blob: bytes
    encrypted_secret: bytes


class Activated(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The secret that only that TPM could open."""

    secret: bytes


class EvidenceRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A fresh nonce and the PCRs to quote. `bank` is `Sha256` or `Sha384`.

    `want_log`: send the boot event log too, unless its SHA-256 is `known_log`.
    `ima_from`: send the IMA list from this byte on, as far as one piece reaches; None: no list. An offset counts in
    `ima_epoch` (`<resets>.<restarts>` of the TPM's clock); in any other epoch the list is sent from its beginning.
    """

    v: int = VERSION
    nonce: bytes
    subject_uid: str
    bank: str
    indices: tuple[int, ...]
    want_log: bool = False
    known_log: bytes | None = None
    ima_from: int | None = None
    ima_epoch: str = ""


class EvidenceResponse(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One round of evidence. `attest` TPMS_ATTEST, `signature` TPMT_SIGNATURE, `pcrs` by index, in the asked bank.

    `statement` is the HSM statement's CBOR, `inventory` the CBOR whose digest stands in it.
    `log_digest`: SHA-256 of the boot event log of this round, which stands in the statement too; None: not asked for,
    or none there. `event_log` is None where it is the known one.
    `ima_list` begins at byte `ima_offset` of the list and was read after the quote; None: not asked for, or none
    there. `ima_more`: the list goes on behind it.
    """

    attest: bytes
    signature: bytes
    ak_public: bytes
    bank: str
    pcrs: dict[str, bytes]
    statement: bytes
    statement_signature: bytes
    inventory: bytes
    event_log: bytes | None = None
    log_digest: bytes | None = None
    ima_list: bytes | None = None
    ima_offset: int = 0
    ima_more: bool = False


class ImaRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A piece of the IMA list, from this byte on: what a list that is longer than one piece is fetched with."""

    v: int = VERSION
    offset: int


class ImaResponse(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The piece, empty at or behind the list's end. It may end in the middle of an entry. `more`: the list goes on."""

    offset: int
    piece: bytes
    more: bool = False


class StatementRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the agent asks the gateway to have signed by the HSM. `pcr_digest` is the raw digest to be quoted."""

    v: int = VERSION
    pcr_digest: bytes
    nonce: bytes
    log_digest: bytes | None = None


class StatementResponse(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The statement (CBOR), its signature by the HSM attestation key, the inventory (CBOR), and both public keys."""

    statement: bytes
    signature: bytes
    inventory: bytes
    attestation_key_spki: bytes
    gateway_spki: bytes


class ChangeKind(enum.StrEnum):
    """Why a host speaks up unasked."""

    ALIVE = "Alive"
    PCR = "Pcr"
    INVENTORY = "Inventory"
    GATEWAY = "Gateway"


class Change(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One line of a change stream. `counter` rises with each change; `Alive` repeats the last one.

    `only_ima`: of all PCRs none but number 10 has moved, so a file was measured; such lines come at a bounded rate.
    """

    kind: ChangeKind
    counter: int
    only_ima: bool = False


# --- what a gateway may serve ---------------------------------------------------------------------------------


class Standing(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The verdict over this gateway's HSM. The deadline is the earlier of the two below.

    `valid_for_seconds` counts from receipt on the gateway's monotonic clock, `valid_until` is wall-clock time.
    """

    verdict: str
    reason: str
    epoch: str
    policy_digest: str
    evidence_digest: str
    valid_for_seconds: float
    valid_until: int


class KeyVersionView(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One version of a key: which state, which label in the token."""

    version: int
    state: str
    label: str


class KeyView(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A key that the gateway may serve."""

    name: str
    type: str
    usages: tuple[str, ...]
    versions: tuple[KeyVersionView, ...]


class ClientView(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who may use which keys for what. `pod_uids` are alive: they exist and are not being deleted.

    `epoch` is the subject's: another value makes the tokens of these pods worthless.
    """

    service_account: str
    pod_uids: tuple[str, ...]
    keys: tuple[str, ...]
    usages: tuple[str, ...]
    epoch: str = ""


class ClaimView(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A claim that is bound here and may be served. A claim that may not is absent.

    `adopted`: uids of former claims whose keys it has taken over; labels of its keys may carry those, and no others.
    """

    uid: str
    namespace: str
    name: str
    sequence: int
    keys: tuple[KeyView, ...]
    clients: tuple[ClientView, ...]
    policy_digests: tuple[str, ...]
    valid_for_seconds: float
    valid_until: int
    adopted: tuple[str, ...] = ()


class ClusterKeys(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How to check service-account tokens without the API server. `jwks` is the JSON text of RFC 7517."""

    issuer: str
    jwks: str


class ViewUpdate(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the gateway may do from now on; a whole view, or a change of the view numbered `base`.

    A gateway takes an update only if `instance` is its own, `(term, number)` is above the last one taken, and
    `base` is the number it holds. `gone` claims are revoked at once: tokens refused, connections closed.
    """

    v: int = VERSION
    instance: str
    term: int
    number: int
    base: int | None = None
    standing: Standing | None = None
    cluster: ClusterKeys | None = None
    claims: tuple[ClaimView, ...] = ()
    gone: tuple[str, ...] = ()


class ViewAck(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The view is in force."""

    instance: str
    term: int
    number: int


class GatewayHello(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who answers, and what it holds. `instance` changes with every start."""

    instance: str
    term: int
    number: int
    identity: GatewayIdentity


class EnsureKey(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Make sure that this key version exists, whole. Only an intent that stands in the claim's status allows making."""

    v: int = VERSION
    label: str
    type: str
    may_generate: bool


class KeyMade(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The key exists."""

    label: str
    spki: bytes
    pkcs11_uri: str
    created: bool


class DestroyKey(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Destroy both halves of this key version."""

    v: int = VERSION
    label: str


class KeyGone(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Proven absent. `existed` tells whether there was anything to destroy."""

    label: str
    existed: bool


class Inventory(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All keys in the token, as the CBOR of `evidence.inventory`."""

    inventory: bytes


# --- certificates ---------------------------------------------------------------------------------------------


class LeafRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A certificate request (PKCS#10, DER) over the key that the process keeps, and when its leaf ends."""

    csr: bytes
    not_after: int


class Leaf(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A leaf certificate with its chain, and the CA bundle to trust from now on (PEM)."""

    v: int = VERSION
    chain_pem: str
    ca_bundle_pem: str


class CaBundle(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Our CAs (PEM), the signing one first."""

    ca_bundle_pem: str


class JoinRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A host's first word. `invitation` is the single-use secret; CSRs are PKCS#10, DER."""

    v: int = VERSION
    host: str
    invitation: bytes
    agent_csr: bytes
    gateway_csr: bytes


class JoinResponse(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """First leaves and the CA bundle (PEM)."""

    agent_chain_pem: str
    gateway_chain_pem: str
    ca_bundle_pem: str
