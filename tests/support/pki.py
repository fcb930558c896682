"""A CA and leaves for tests, made with the product's own code."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.pki.authority import Authority, CaPair
from chatelaine.pki.leaf import ProcessLeaf


def now() -> int:
    """This second, since the epoch."""
    return int(time.time())


def new_pair(at: int | None = None) -> CaPair:
    """A root with a key of its own."""
    moment = now() if at is None else at
    return CaPair.make(ec.generate_private_key(ec.SECP256R1()), now=moment, serial=secrets.token_bytes(16))


def new_authority(at: int | None = None) -> Authority:
    """A CA that has just begun."""
    return Authority(new_pair(at), now() if at is None else at)


def renew(authority: Authority, leaf: ProcessLeaf, *, at: int | None = None, lifetime_seconds: int = 3600) -> None:
    """Give `leaf` a certificate of `authority` for its own name."""
    moment = now() if at is None else at
    issued = authority.issue_leaf(
        leaf.request(), leaf.server_name, moment, serial=secrets.token_bytes(16), lifetime_seconds=lifetime_seconds
    )
    leaf.install(issued.chain_pem, authority.bundle_pem, moment)


def new_leaf(authority: Authority, folder: Path, server_name: str) -> ProcessLeaf:
    """A process's identity, ready for use."""
    leaf = ProcessLeaf(folder, server_name)
    renew(authority, leaf)
    return leaf
