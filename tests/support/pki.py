"""A CA and leaves for tests, made with the product's own code."""

from __future__ import annotations

import secrets
import ssl
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.pki.authority import Authority
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.pki.roots import CaPair


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


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> tuple[bytes, bytes]:
    """Both sides' view of the other's certificate (DER), in memory."""
    c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
    here = client.wrap_bio(c_in, c_out, server_hostname=name)
    there = server.wrap_bio(s_in, s_out, server_side=True)
    done = {"here": False, "there": False}
    for _ in range(10):
        for side, end in (("here", here), ("there", there)):
            try:
                end.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                pass
            s_in.write(c_out.read())
            c_in.write(s_out.read())
    assert all(done.values())
    return here.getpeercert(binary_form=True) or b"", there.getpeercert(binary_form=True) or b""


async def as_it_stands() -> None:
    """For `JoinEndpoint`: nobody else changes the CA."""
