"""Credentials made here are opened by a real TPM that holds both keys, and by no other."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.lab.swtpm import Swtpm, SwtpmError
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_ECC, TPMA_OBJECT
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMT_PUBLIC,
)

from chatelaine.evidence.credential import ENTROPY_BYTES, make_credential
from chatelaine.evidence.tpm_public import PublicArea, parse_public

CREDENTIAL_HEAD = struct.pack(">II", 0xBADCC0DE, 1)
"""What tpm2-tools put before a credential in a file."""


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    with Swtpm() as found:
        yield found


def endorsement_key(tpm: Swtpm, kind: str, folder: Path) -> PublicArea:
    """A key of the standard template: its use needs the endorsement hierarchy's policy."""
    tpm.tool("tpm2_createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub", cwd=folder)
    tpm.tool("tpm2_flushcontext", "-t")
    return parse_public((folder / "ek.pub").read_bytes())


def attestation_key(tpm: Swtpm, folder: Path, name: str = "ak") -> PublicArea:
    tpm.tool(
        "tpm2_createak", "-C", "ek.ctx", "-c", f"{name}.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa",
        "-u", f"{name}.pub", "-n", f"{name}.name",
        cwd=folder,
    )  # fmt: skip
    tpm.tool("tpm2_flushcontext", "-t")
    public = parse_public((folder / f"{name}.pub").read_bytes())
    assert public.name == (folder / f"{name}.name").read_bytes()
    return public


def activate(tpm: Swtpm, folder: Path, credential: tuple[bytes, bytes], ak: str = "ak") -> bytes:
    (folder / "credential").write_bytes(CREDENTIAL_HEAD + b"".join(credential))
    tpm.tool("tpm2_startauthsession", "--policy-session", "-S", "session", cwd=folder)
    try:
        tpm.tool("tpm2_policysecret", "-S", "session", "-c", "e", cwd=folder)
        tpm.tool(
            "tpm2_activatecredential", "-c", f"{ak}.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "secret",
            "-P", "session:session",
            cwd=folder,
        )  # fmt: skip
    finally:
        tpm.tool("tpm2_flushcontext", "session", cwd=folder)
        tpm.tool("tpm2_flushcontext", "-t")
    return (folder / "secret").read_bytes()


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_tpm_with_both_keys_opens_the_credential(tpm, tmp_path, kind):
    ek = endorsement_key(tpm, kind, tmp_path)
    ak = attestation_key(tpm, tmp_path)
    secret = secrets.token_bytes(32)
    credential = make_credential(ek, ak.name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
    assert activate(tpm, tmp_path, credential) == secret


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_credential_made_for_another_attestation_key_is_not_opened(tpm, tmp_path, kind):
    ek = endorsement_key(tpm, kind, tmp_path)
    ak = attestation_key(tpm, tmp_path)
    attestation_key(tpm, tmp_path, "other")
    credential = make_credential(ek, ak.name, secrets.token_bytes(32), entropy=secrets.token_bytes(ENTROPY_BYTES))
    with pytest.raises(SwtpmError, match="integrity"):
        activate(tpm, tmp_path, credential, "other")


@pytest.mark.parametrize("kind", ["rsa", "ecc"])
def test_credential_made_for_another_tpm_is_not_opened(tpm, tmp_path, kind):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.mkdir()
    foreign.mkdir()
    endorsement_key(tpm, kind, own)
    ak = attestation_key(tpm, own)
    with Swtpm() as other:
        ek = endorsement_key(other, kind, foreign)
    credential = make_credential(ek, ak.name, secrets.token_bytes(32), entropy=secrets.token_bytes(ENTROPY_BYTES))
    with pytest.raises(SwtpmError):
        activate(tpm, own, credential)


LARGE = {
    "rsa3072": ("rsa3072:aes256cfb", TPM2_ALG.SHA384),
    "ecc384": ("ecc384:aes256cfb", TPM2_ALG.SHA384),
    "ecc256-sha384-name": ("ecc256:aes128cfb", TPM2_ALG.SHA384),
}


@pytest.mark.parametrize("kind", LARGE)
def test_larger_endorsement_keys_open_their_credentials(tpm, kind):
    algorithm, name_hash = LARGE[kind]
    storage = (
        TPMA_OBJECT.FIXEDTPM
        | TPMA_OBJECT.FIXEDPARENT
        | TPMA_OBJECT.SENSITIVEDATAORIGIN
        | TPMA_OBJECT.USERWITHAUTH
        | TPMA_OBJECT.RESTRICTED
    )
    ek_template = TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC.parse(algorithm, nameAlg=name_hash, objectAttributes=storage | TPMA_OBJECT.DECRYPT)
    )
    ak_template = TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC.parse("ecc:ecdsa-sha256:null", objectAttributes=storage | TPMA_OBJECT.SIGN_ENCRYPT)
    )
    assert ak_template.publicArea.parameters.eccDetail.curveID == TPM2_ECC.NIST_P256
    secret = secrets.token_bytes(48)
    with ESAPI(tpm.tcti) as esapi:
        nothing = TPM2B_SENSITIVE_CREATE()
        ek_handle, ek_public, *_ = esapi.create_primary(nothing, ek_template, ESYS_TR.ENDORSEMENT)
        ak_handle, ak_public, *_ = esapi.create_primary(nothing, ak_template, ESYS_TR.ENDORSEMENT)
        try:
            ek, ak = (parse_public(public.publicArea.marshal()) for public in (ek_public, ak_public))
            assert ek.name_hash.tpm_id == name_hash
            blob, encrypted = make_credential(ek, ak.name, secret, entropy=secrets.token_bytes(ENTROPY_BYTES))
            opened = esapi.activate_credential(
                ak_handle, ek_handle, TPM2B_ID_OBJECT(blob[2:]), TPM2B_ENCRYPTED_SECRET(encrypted[2:])
            )
            assert bytes(opened) == secret
            changed = bytearray(blob)
            changed[-1] ^= 1
            with pytest.raises(TSS2_Exception):
                esapi.activate_credential(
                    ak_handle, ek_handle, TPM2B_ID_OBJECT(bytes(changed[2:])), TPM2B_ENCRYPTED_SECRET(encrypted[2:])
                )
        finally:
            esapi.flush_context(ek_handle)
            esapi.flush_context(ak_handle)
