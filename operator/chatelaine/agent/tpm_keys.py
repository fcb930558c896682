"""Endorsement and attestation key of a TPM: templates, sessions, and the attestation key's blob on disk.

The endorsement key follows the TCG EK Credential Profile (§2.2.1.4 and B.3.3, B.3.4): low-range templates L-1 and
L-2, reserved handle 0x81010001 where the maker has put it. The attestation key is made under it, so a TPM clear,
which changes the endorsement hierarchy's proof, ends it; a reset does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_RC,
    TPM2_SE,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMT_PUBLIC,
    TPMT_SYM_DEF,
    TSS2_Exception,
)

from chatelaine.agent.errors import StateDamaged
from chatelaine.agent.tpm_kinds import EK_POLICY, AkKind, EkKind
from chatelaine.pki.errors import KeyFileRefused
from chatelaine.pki.files import read_private, write_whole
from chatelaine.telemetry.log import logger

log = logger(__name__)

EK_HANDLE: Final = 0x81010001
MAX_BLOB_BYTES: Final = 8192
AK_FILE: Final = "attestation-key.json"

_EK_ATTRIBUTES: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.ADMINWITHPOLICY
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT
)
_AK_ATTRIBUTES: Final = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.SIGN_ENCRYPT
)


_EK_SHAPES: Final = {EkKind.RSA_2048: "rsa2048:aes128cfb", EkKind.ECC_P256: "ecc256:aes128cfb"}
_AK_SHAPES: Final = {AkKind.ECC_P256: "ecc256:ecdsa-sha256:null", AkKind.RSA_2048: "rsa2048:rsassa-sha256:null"}


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """The attestation key as the TPM handed it out: TPM2B_PUBLIC, TPM2B_PRIVATE (encrypted to that TPM)."""

    v: int = 1
    public: bytes
    private: bytes


class TpmKeys:
    """Loads the two keys into an open ESAPI context, and lets go of them.

    Args:
        folder: where the attestation key's blob is kept.
        ek_kind: endorsement key.
        ak_kind: attestation key, where one must be made.
    """

    def __init__(self, folder: Path, ek_kind: EkKind, ak_kind: AkKind) -> None:
        self._path = folder / AK_FILE
        self._ek_kind = ek_kind
        self._ak_kind = ak_kind
        # A saved context loads in half a millisecond where loading under the EK may take a second; a TPM takes it
        # back only until it is reset.
        self._context: Any = None
        self._ak_public = b""

    @property
    def cold(self) -> bool:
        """Whether the next use must derive the endorsement key first."""
        return self._context is None

    @contextmanager
    def ek(self, esys: ESAPI) -> Iterator[tuple[Any, bytes]]:
        """Handle and TPMT_PUBLIC of the endorsement key."""
        persistent = self._persistent_ek(esys)
        if persistent is not None:
            yield persistent
            return
        handle, public, *_ = esys.create_primary(
            TPM2B_SENSITIVE_CREATE(), _ek_template(self._ek_kind), ESYS_TR.RH_ENDORSEMENT
        )
        try:
            yield handle, bytes(public.publicArea.marshal())
        finally:
            esys.flush_context(handle)

    @contextmanager
    def ak(self, esys: ESAPI) -> Iterator[tuple[Any, bytes]]:
        """Handle and TPMT_PUBLIC of the attestation key.

        Raises:
            StateDamaged: the stored blob is not what we wrote.
        """
        handle = self._from_context(esys)
        if handle is None:
            handle = self._from_blob(esys)
        try:
            yield handle, self._ak_public
        finally:
            esys.flush_context(handle)

    def _persistent_ek(self, esys: ESAPI) -> tuple[Any, bytes] | None:
        if self._ek_kind is not EkKind.RSA_2048 or not has_handle(esys, EK_HANDLE):
            return None
        handle = esys.tr_from_tpmpublic(EK_HANDLE)
        public, *_ = esys.read_public(handle)
        area, wanted = public.publicArea, _ek_template(self._ek_kind).publicArea
        fits = area.type == wanted.type and area.objectAttributes == wanted.objectAttributes
        if fits and bytes(area.authPolicy) == EK_POLICY:
            return handle, bytes(area.marshal())
        log.warning("the key at the reserved handle is no endorsement key of the standard template; making one")
        return None

    def _from_context(self, esys: ESAPI) -> Any:
        if self._context is None:
            return None
        try:
            return esys.context_load(self._context)
        except TSS2_Exception:
            # Reset, cleared or replaced: the blob decides which.
            self._context = None
            return None

    def _from_blob(self, esys: ESAPI) -> Any:
        stored = self._read()
        with self.ek(esys) as (ek, _):
            handle = self._load(esys, ek, stored) if stored is not None else None
            if handle is None:
                stored = self._make(esys, ek)
                handle = self._load(esys, ek, stored)
        if handle is None or stored is None:
            raise StateDamaged("the TPM does not take back the attestation key that it has just made")
        try:
            self._ak_public = bytes(TPM2B_PUBLIC.unmarshal(stored.public)[0].publicArea.marshal())
            self._context = esys.context_save(handle)
        except TSS2_Exception:
            esys.flush_context(handle)
            raise
        return handle

    def _load(self, esys: ESAPI, ek: Any, stored: StoredKey) -> Any:
        private, public = TPM2B_PRIVATE.unmarshal(stored.private)[0], TPM2B_PUBLIC.unmarshal(stored.public)[0]
        try:
            with ek_session(esys) as session:
                return esys.load(ek, private, public, session1=session)
        except TSS2_Exception as error:
            if error.error != TPM2_RC.INTEGRITY:
                raise
            log.warning("the TPM does not know its attestation key any more: cleared or replaced; making a new one")
            return None

    def _make(self, esys: ESAPI, ek: Any) -> StoredKey:
        with ek_session(esys) as session:
            private, public, *_ = esys.create(
                ek, TPM2B_SENSITIVE_CREATE(), _ak_template(self._ak_kind), session1=session
            )
        stored = StoredKey(public=bytes(public.marshal()), private=bytes(private.marshal()))
        write_whole(self._path, msgspec.json.encode(stored))
        log.info("made a new attestation key", name=bytes(public.get_name()).hex())
        return stored

    def _read(self) -> StoredKey | None:
        if not self._path.exists():
            return None
        try:
            stored = msgspec.json.decode(read_private(self._path, MAX_BLOB_BYTES), type=StoredKey)
            TPM2B_PUBLIC.unmarshal(stored.public)
            TPM2B_PRIVATE.unmarshal(stored.private)
        except (msgspec.DecodeError, KeyFileRefused, TSS2_Exception) as error:
            raise StateDamaged(
                f"{self._path}: {error}; if it cannot be mended, remove it: the host then enrols anew"
            ) from error
        return stored


@contextmanager
def ek_session(esys: ESAPI) -> Iterator[Any]:
    """A policy session that allows one use of the endorsement key (PolicyA)."""
    session = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        esys.policy_secret(ESYS_TR.RH_ENDORSEMENT, session, b"", b"", b"", 0)
        yield session
    finally:
        esys.flush_context(session)


def has_handle(esys: ESAPI, handle: int) -> bool:
    """Whether the TPM has an object or index at `handle`."""
    _, found = esys.get_capability(TPM2_CAP.HANDLES, handle, 1)
    return handle in list(found.data.handles)


def _ek_template(kind: EkKind) -> TPM2B_PUBLIC:
    area = TPMT_PUBLIC.parse(
        _EK_SHAPES[kind], nameAlg=TPM2_ALG.SHA256, objectAttributes=_EK_ATTRIBUTES, authPolicy=EK_POLICY
    )
    # The templates say zeros here, not nothing: an empty field would give another key.
    if kind is EkKind.RSA_2048:
        area.unique.rsa = bytes(256)
    else:
        area.unique.ecc.x = area.unique.ecc.y = bytes(32)
    return TPM2B_PUBLIC(publicArea=area)


def _ak_template(kind: AkKind) -> TPM2B_PUBLIC:
    area = TPMT_PUBLIC.parse(_AK_SHAPES[kind], nameAlg=TPM2_ALG.SHA256, objectAttributes=_AK_ATTRIBUTES)
    return TPM2B_PUBLIC(publicArea=area)
