"""Every bound of the sidecar, in one place."""

from __future__ import annotations

from typing import Final

# --- what applications may ask
MAX_BODY_BYTES: Final = 1024 * 1024
"""The gateway's own bound. Bodies are held whole, so that they can be sent again with a fresh token."""
MAX_HEADERS: Final = 64
MAX_LINE_BYTES: Final = 4096
"""Of the request line and of each header."""
MAX_IN_FLIGHT: Final = 32
"""Requests at a time; with the bounds on bodies and answers this bounds memory."""
MAX_CONNECTIONS: Final = 128
BODY_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 75.0
STOP_SECONDS: Final = 10.0
"""How long requests in flight may go on after SIGTERM."""
CLOSE_SECONDS: Final = 1.0
"""How long the last bytes of an answer may take then."""
RETRY_AFTER_SECONDS: Final = 1
"""Told to callers where asking again may help."""

# --- the gateway
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_EXCHANGE_ANSWER_BYTES: Final = 64 * 1024
MAX_GATEWAY_CONNECTIONS: Final = 16
GATEWAY_IDLE_SECONDS: Final = 30.0
"""Less than the gateway's own bound, so that it is we who close, and no request meets a closing door."""
GATEWAY_CONNECT_SECONDS: Final = 5.0
GATEWAY_SECONDS: Final = 30.0
"""One call, from dialling to the last byte of the answer."""
EXCHANGE_SECONDS: Final = 10.0

# --- tokens
ATTEMPT_SPACING_SECONDS: Final = 1.0
"""From the start of one exchange to that of the next, whoever asks for it."""
WAIT_SECONDS: Final = EXCHANGE_SECONDS + ATTEMPT_SPACING_SECONDS
"""How long a request waits for a token: for one exchange that begins after it came."""
RENEW_FROM: Final = 0.5
RENEW_SPREAD: Final = 0.2
"""Renewed after this share of a token's life, and up to so much of it later: pods that began together part."""
EARLY_SECONDS: Final = 2.0
"""A token is not used so shortly before its end: it would end on the way."""
MAX_TOKEN_SECONDS: Final = 300
BACKOFF_FIRST_SECONDS: Final = 1.0
BACKOFF_LONGEST_SECONDS: Final = 15.0

# --- files
BINDING_POLL_SECONDS: Final = 1.0
MAX_ENTRY_BYTES: Final = 64 * 1024
"""Of each file of the binding."""
MAX_PINS: Final = 8
