"""A TPM 2.0 behind any TCTI: `/dev/tpmrm0`, a software TPM, a TPM over the network.

The TCTI is opened for each operation and closed after it: a software TPM serves one client at a time, and a resource
manager cleans up after each. Nothing stays loaded in the TPM in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_CAP,
    TPM2_RC,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPML_PCR_SELECTION,
    TCTILdr,
    TSS2_Exception,
)

from chatelaine.agent.attester import Quote, TpmIdentity, TpmMarker
from chatelaine.agent.errors import ActivationRefused, AttesterRefused, AttesterUnavailable, BankAbsent
from chatelaine.agent.thread import DeviceThread
from chatelaine.agent.tpm_keys import TpmKeys, ek_session, has_handle
from chatelaine.agent.tpm_kinds import AkKind, EkKind
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.tpm_public import parse_public
from chatelaine.evidence.tpm_types import Selection, parse_pcr_selection
from chatelaine.pki.chain import spki_of
from chatelaine.pki.errors import CertificateRefused
from chatelaine.pki.files import make_private_folder
from chatelaine.telemetry.log import logger

log = logger(__name__)
T = TypeVar("T")

READ_SECONDS: Final = 5.0
QUOTE_SECONDS: Final = 15.0
KEY_SECONDS: Final = 60.0
"""A discrete TPM may take half a minute to derive an RSA key."""

MAX_EXTRA_DATA_BYTES: Final = 64
MAX_CREDENTIAL_BYTES: Final = 1024
MAX_EK_CERTIFICATE_BYTES: Final = 8192
_NV_CHUNK_BYTES: Final = 512
_EK_CERTIFICATE_INDEX: Final = {EkKind.RSA_2048: 0x01C00002, EkKind.ECC_P256: 0x01C0000A}
_PCR_READS: Final = 8

# Error layers of the TPM software stack (TSS 2.0 Overview, §3.12): the transport, and the resource manager.
_LAYER_MASK: Final = 0x00FF0000
_TRANSPORT_LAYERS: Final = (10 << 16, 11 << 16)
_AGAIN: Final = (TPM2_RC.RETRY, TPM2_RC.YIELDED, TPM2_RC.TESTING, TPM2_RC.LOCKOUT, TPM2_RC.INITIALIZE)
_FULL: Final = (TPM2_RC.OBJECT_MEMORY, TPM2_RC.SESSION_MEMORY, TPM2_RC.OBJECT_HANDLES, TPM2_RC.SESSION_HANDLES)
_TRANSIENT_FIRST: Final = 0x80000000
_LOADED_SESSION_FIRST: Final = 0x02000000
_MAX_FLUSHED: Final = 64


class TpmAttester:
    """`Attester` over a real TPM.

    Args:
        tcti: for example `device:/dev/tpmrm0` or `swtpm:path=/run/tpm.sock`.
        state: folder for the attestation key's blob; made when absent.
        ek_kind: endorsement key to use.
        ak_kind: attestation key to make, if none is stored.
    """

    def __init__(
        self,
        tcti: str,
        state: Path,
        *,
        ek_kind: EkKind = EkKind.RSA_2048,
        ak_kind: AkKind = AkKind.ECC_P256,
    ) -> None:
        make_private_folder(state)
        self._tcti = tcti
        self._ek_kind = ek_kind
        self._keys = TpmKeys(state, ek_kind, ak_kind)
        self._thread = DeviceThread("tpm")
        self._certificate: tuple[bytes, bytes | None] | None = None

    async def identity(self) -> TpmIdentity:
        """See `Attester`."""
        return await self._thread.run(lambda: self._attempt(self._identity), deadline_seconds=KEY_SECONDS)

    async def read_pcrs(self, selection: Selection) -> dict[int, bytes]:
        """See `Attester`."""
        return await self._thread.run(
            lambda: self._attempt(lambda esys: _read_pcrs(esys, selection)), deadline_seconds=READ_SECONDS
        )

    async def quote(self, extra_data: bytes, selection: Selection) -> Quote:
        """See `Attester`."""
        if len(extra_data) > MAX_EXTRA_DATA_BYTES:
            raise AttesterRefused(f"a quote carries at most {MAX_EXTRA_DATA_BYTES} bytes of ours")
        return await self._thread.run(
            lambda: self._attempt(lambda esys: self._quote(esys, extra_data, selection)),
            # The key may have to be loaded anew after a reset.
            deadline_seconds=KEY_SECONDS if self._keys.cold else QUOTE_SECONDS,
        )

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """See `Attester`."""
        if max(len(credential_blob), len(encrypted_secret)) > MAX_CREDENTIAL_BYTES:
            raise ActivationRefused(f"a credential is at most {MAX_CREDENTIAL_BYTES} bytes long")
        return await self._thread.run(
            lambda: self._attempt(lambda esys: self._activate(esys, credential_blob, encrypted_secret)),
            deadline_seconds=KEY_SECONDS,
        )

    async def marker(self) -> TpmMarker:
        """See `Attester`."""
        return await self._thread.run(lambda: self._attempt(_marker), deadline_seconds=READ_SECONDS)

    async def close(self) -> None:
        """See `Attester`."""
        self._thread.close()

    def _attempt(self, operation: Callable[[ESAPI], T]) -> T:
        """Run one operation; once more after making room, if a former process has left the TPM full."""
        try:
            with self._opened() as esys:
                try:
                    return operation(esys)
                except TSS2_Exception as error:
                    if error.rc not in _FULL:
                        raise
                    _flush_all(esys)
                    return operation(esys)
        except TSS2_Exception as error:
            raise _mapped(error) from error

    @contextmanager
    def _opened(self) -> Iterator[ESAPI]:
        tcti = TCTILdr.parse(self._tcti)
        try:
            with ESAPI(tcti) as esys:
                yield esys
        finally:
            tcti.close()

    def _identity(self, esys: ESAPI) -> TpmIdentity:
        with self._keys.ek(esys) as (_, ek_public):
            pass
        with self._keys.ak(esys) as (_, ak_public):
            pass
        if self._certificate is None or self._certificate[0] != ek_public:
            self._certificate = ek_public, _ek_certificate(esys, _EK_CERTIFICATE_INDEX[self._ek_kind], ek_public)
        return TpmIdentity(ek_public, ak_public, self._certificate[1])

    def _quote(self, esys: ESAPI, extra_data: bytes, selection: Selection) -> Quote:
        with self._keys.ak(esys) as (ak, ak_public):
            attest, signature = esys.quote(ak, _pcr_list(selection), extra_data)
        return Quote(bytes(attest), bytes(signature.marshal()), ak_public)

    def _activate(self, esys: ESAPI, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        blob = _unmarshalled(TPM2B_ID_OBJECT, credential_blob)
        secret = _unmarshalled(TPM2B_ENCRYPTED_SECRET, encrypted_secret)
        with self._keys.ak(esys) as (ak, _), self._keys.ek(esys) as (ek, _), ek_session(esys) as session:
            try:
                return bytes(
                    esys.activate_credential(ak, ek, blob, secret, session1=ESYS_TR.PASSWORD, session2=session)
                )
            except TSS2_Exception as error:
                if error.rc in (*_FULL, *_AGAIN) or error.rc & _LAYER_MASK:
                    raise
                raise ActivationRefused(f"the TPM does not open this credential: {error}") from error


def _unmarshalled(kind: Any, data: bytes) -> Any:
    try:
        value, used = kind.unmarshal(data)
    except TSS2_Exception as error:
        raise ActivationRefused(f"no {kind.__name__}") from error
    if used != len(data):
        raise ActivationRefused(f"{kind.__name__} is followed by more bytes")
    return value


def _pcr_list(selection: Selection) -> Any:
    return TPML_PCR_SELECTION.parse(f"{selection.bank.value.lower()}:{','.join(map(str, selection.indices))}")


def _read_pcrs(esys: ESAPI, selection: Selection) -> dict[int, bytes]:
    """All values; a TPM returns at most eight at a time (Part 3 §22.4)."""
    values: dict[int, bytes] = {}
    for _ in range(_PCR_READS):
        missing = tuple(index for index in selection.indices if index not in values)
        if not missing:
            return values
        _, read, digests = esys.pcr_read(_pcr_list(Selection(selection.bank, missing)))
        indices = [index for _, found in parse_pcr_selection(bytes(read.marshal())) for index in found]
        values |= zip(indices, (bytes(digest) for digest in digests), strict=True)
        if not indices:
            break
    absent = [index for index in selection.indices if index not in values]
    raise BankAbsent(f"this TPM has no {selection.bank.value} PCR {absent}")


def _marker(esys: ESAPI) -> TpmMarker:
    counter, *_ = esys.pcr_read(TPML_PCR_SELECTION())
    clock = esys.read_clock().clockInfo
    return TpmMarker(int(counter), int(clock.resetCount), int(clock.restartCount))


def _ek_certificate(esys: ESAPI, index: int, ek_public: bytes) -> bytes | None:
    """The maker's certificate over this EK; None where the TPM keeps none that fits."""
    if not has_handle(esys, index):
        return None
    handle = esys.tr_from_tpmpublic(index)
    public, _ = esys.nv_read_public(handle)
    size = int(public.nvPublic.dataSize)
    if size > MAX_EK_CERTIFICATE_BYTES:
        log.warning("the endorsement certificate is over its bound", size_bytes=size)
        return None
    data = b""
    while len(data) < size:
        chunk = min(_NV_CHUNK_BYTES, size - len(data))
        data += bytes(esys.nv_read(handle, chunk, len(data), auth_handle=handle))
    try:
        certificate = x509.load_der_x509_certificate(_without_padding(data))
        if spki_of(certificate) == parse_public(ek_public).spki:
            return certificate.public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion, EvidenceError, CertificateRefused) as error:
        log.warning("the endorsement certificate cannot be read", error=type(error).__name__)
        return None
    log.warning("the endorsement certificate is over another key", sha256=hashlib.sha256(data).hexdigest())
    return None


def _without_padding(data: bytes) -> bytes:
    """The first DER element: NV indices are often longer than the certificate in them."""
    if len(data) < 4 or data[0] != 0x30 or data[1] != 0x82:
        return data
    return data[: 4 + int.from_bytes(data[2:4], "big")]


def _flush_all(esys: ESAPI) -> None:
    """Remove what a killed process has left behind. A resource manager shows us only what is ours."""
    for first in (_TRANSIENT_FIRST, _LOADED_SESSION_FIRST):
        _, found = esys.get_capability(TPM2_CAP.HANDLES, first, _MAX_FLUSHED)
        for handle in list(found.data.handles):
            esys.flush_context(esys.tr_from_tpmpublic(handle))


def _mapped(error: TSS2_Exception) -> AttesterUnavailable | AttesterRefused:
    if error.rc & _LAYER_MASK in _TRANSPORT_LAYERS or error.rc in _AGAIN:
        return AttesterUnavailable(f"the TPM cannot be reached: {error}")
    return AttesterRefused(f"the TPM refused: {error}")
