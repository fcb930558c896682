"""One audit line a JSON object, each holding the keyed digest of itself and of the line before it. Pure.

A line is `{"seq":n,"prev":"<mac>", …facts…, "mac":"<mac>"}`; `mac` is HMAC-SHA256 over a domain prefix and everything
before `,"mac"`. Who lacks the key can neither change, drop, reorder nor insert a line unseen; cutting off the end is
seen by whoever holds a later `mac`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.gateway.errors import ChainBroken

DOMAIN: Final = b"chatelaine/audit/v1\x00"
START: Final = "0" * 64
"""`prev` of the first line."""
KEY_BYTES: Final = 32
_MAC_TAIL_BYTES: Final = len(b',"mac":""}') + 64


@dataclass(frozen=True, slots=True)
class Link:
    """Where the chain stands: number and keyed digest of its last line."""

    seq: int
    mac: str


FIRST: Final = Link(0, START)


def seal(key: bytes, last: Link, facts: bytes) -> tuple[bytes, Link]:
    """The next line (with its line feed) for `facts`, a JSON object with at least one member."""
    seq = last.seq + 1
    body = b'{"seq":%d,"prev":"%s",%s' % (seq, last.mac.encode(), facts[1:-1])
    mac = hmac.digest(key, DOMAIN + body, "sha256").hex()
    return b'%s,"mac":"%s"}\n' % (body, mac.encode()), Link(seq, mac)


def open_line(key: bytes, line: bytes) -> tuple[str, Link]:
    """Check one line by itself; returns the digest that it follows, and its own link.

    Raises:
        ChainBroken: not a line of this key.
    """
    body, tail = line[:-_MAC_TAIL_BYTES], line[-_MAC_TAIL_BYTES:]
    mac = hmac.digest(key, DOMAIN + body, "sha256").hex()
    if not hmac.compare_digest(tail, b',"mac":"%s"}' % mac.encode()):
        raise ChainBroken("a line was changed, or sealed with another key")
    said = json.loads(line)
    return str(said["prev"]), Link(int(said["seq"]), mac)


def verify(key: bytes, lines: Iterable[bytes], start: Link = FIRST) -> Link:
    """Check consecutive lines (without line feeds); returns where they end. Empty and torn lines are not for this.

    Raises:
        ChainBroken: naming the number of the line at which it breaks.
    """
    last = start
    for line in lines:
        prev, link = open_line(key, line)
        if prev != last.mac or link.seq != last.seq + 1:
            raise ChainBroken(f"line {link.seq} does not follow line {last.seq}")
        last = link
    return last
