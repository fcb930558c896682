"""Every bound of the gateway, in one place."""

from __future__ import annotations

from typing import Final

from chatelaine.model.common import MAX_CLAIM_KEYS, MAX_KEY_VERSIONS

# --- one request
MAX_BODY_BYTES: Final = 1024 * 1024
"""Read before anything is parsed."""
MAX_URL_BYTES: Final = 2048
MAX_HEADERS_BYTES: Final = 16 * 1024
"""Names and values of all headers together."""
MAX_HEADERS: Final = 64
REQUEST_SECONDS: Final = 30.0
"""From the first byte of a request to the last of its answer: a slow writer or reader is cut off."""

# --- connections
MAX_CONNECTIONS: Final = 2048
MAX_CONNECTIONS_PER_HOLDER: Final = 256
"""By TLS key; without a client certificate by address."""
RESERVED_CONNECTIONS: Final = 64
"""On top, for leaves of our own CA: clients cannot shut the operator out."""
HANDSHAKE_SECONDS: Final = 10.0
TLS_SHUTDOWN_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 75.0
SWEEP_SECONDS: Final = 0.5
CLOSE_GRACE_SECONDS: Final = 0.9
"""An idle connection of a revoked claim is closed this long after the revocation: within a second, but late enough
that a client who asks at once is told why."""
STOP_SECONDS: Final = 5.0
"""How long requests in flight may go on after SIGTERM."""
BACKLOG: Final = 512

# --- caches
MAX_VERIFIED_TOKENS: Final = 16384
MAX_PUBLIC_KEYS: Final = 4096

# --- views
MAX_CLAIMS: Final = 4096
MAX_KEYS_PER_CLAIM: Final = MAX_CLAIM_KEYS
MAX_VERSIONS_PER_KEY: Final = MAX_KEY_VERSIONS
MAX_CLIENTS_PER_CLAIM: Final = 64
MAX_ADOPTED_PER_CLAIM: Final = 16
"""Former claims whose keys one has taken over."""
MAX_POLICIES_PER_CLAIM: Final = 8
"""Their digests stand in each token, which has 4 KiB."""
MAX_DEADLINE_SECONDS: Final = 86400.0
"""A view that says longer is taken as saying this."""

MAX_CLAIMS_LOGGED: Final = 32
"""Named in one line when a host falls; the others are counted."""

# --- token exchange
MAX_FORM_FIELDS: Final = 16
CLIENT_LEAF_SECONDS: Final = 3600
CLIENT_LEAF_BACKDATE_SECONDS: Final = 60
CLIENT_CA_SECONDS: Final = 5 * 365 * 86400
CLIENT_CA_RENEW_SECONDS: Final = 30 * 86400
"""A client CA with less than this left is replaced at the next start."""

# --- changes told to the agent
INVENTORY_POLL_SECONDS: Final = 0.5
INVENTORY_POLL_SHARE: Final = 20
"""Polling takes at most one part in this many of the token's time."""

# --- audit
AUDIT_REOPEN_SECONDS: Final = 1.0
AUDIT_TAIL_BYTES: Final = 64 * 1024

# --- start
PREPARE_FIRST_SECONDS: Final = 0.2
PREPARE_MAX_SECONDS: Final = 5.0
