"""The caller's key: EC P-256, made at the start, in this process's memory alone, and never handed out."""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import ssl
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chatelaine.pki.chain import load_bundle, pem_of, spki_of, spki_of_key
from chatelaine.pki.errors import CertificateRefused
from chatelaine.proxy.errors import GatewayMalformed

_PR_SET_DUMPABLE: Final = 4


class CallerKey:
    """One key for the life of a process; a pod that starts anew has another."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._spki = spki_of_key(self._key.public_key())

    def request(self) -> str:
        """A certificate request (PKCS#10, DER) in base64, as the token exchange takes it."""
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, hashes.SHA256())
        return base64.b64encode(request.public_bytes(Encoding.DER)).decode()

    def checked(self, chain_pem: str) -> x509.Certificate:
        """The leaf of a chain, if it is over this key.

        Raises:
            GatewayMalformed: no certificates, or another's.
        """
        try:
            leaf = load_bundle(chain_pem)[0]
            ours = spki_of(leaf) == self._spki
        except CertificateRefused as error:
            raise GatewayMalformed(f"the certificate that the gateway issued cannot be read: {error}") from error
        if not ours:
            raise GatewayMalformed("the certificate that the gateway issued is over another key than this caller's")
        return leaf

    def show(self, context: ssl.SSLContext, chain_pem: str) -> None:
        """Let `context` show that chain, which `checked` has passed.

        Python's ssl takes a key from a file only. This one is an anonymous file in memory, gone when this returns.
        """
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        descriptor = os.memfd_create("caller", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(private + pem_of(load_bundle(chain_pem)).encode())
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def keep_memory_private() -> None:
    """No dump of this process is written, and no other process of its user reads its memory.

    Containers of one pod often run as one user, and may share their process namespace.

    Raises:
        OSError: the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    # prctl(2): undumpable processes are closed to ptrace(2) and to /proc/<pid>/mem for all but root.
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
