"""Tokens that are ambiguous, changed behind our back, planted with foreign keys, or cannot store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest
from tools.lab.softhsm import SoftHsmToken, full_disk

from chatelaine.model.identifiers import key_id, key_label
from chatelaine.model.keys import KeyType
from chatelaine.pkcs11.errors import (
    HsmUnavailable,
    KeyAbsent,
    KeyMismatched,
    ModuleUnusable,
    StoreUnwritable,
    TokenAmbiguous,
    TokenNotFound,
)
from chatelaine.pkcs11.port import DestroyOutcome, SignMechanism
from chatelaine.pkcs11.settings import EventKind
from chatelaine.pkcs11.supervisor import Pkcs11Supervisor
from support.hsm_world import SoftHsmWorld, settings_for

LABEL = key_label("claim", "signing", 1)
OTHER = key_label("claim", "signing", 2)
DIGEST = hashlib.sha256(b"x").digest()
DEADLINE_SECONDS = 60

PLANT = """
from pkcs11 import Attribute as A, KeyType, MechanismFlag
from pkcs11.util.ec import encode_named_curve_parameters
parameters = session.create_domain_parameters(
    KeyType.EC, {A.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True)
parameters.generate_keypair(
    id=bytes.fromhex("%(id)s"), label="%(label)s", store=True,
    capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
    public_template=dict(%(public)s), private_template=dict(%(private)s))
"""


def plant(token: SoftHsmToken, label: str, *, private: str = "{}", public: str = "{}") -> None:
    """Put a pair with other attributes under our identifier, as somebody with the PIN could."""
    token.run_pkcs11(PLANT % {"id": key_id(label).hex(), "label": label, "private": private, "public": public})


async def test_two_tokens_of_one_label_are_refused_unless_the_serial_is_given(token: SoftHsmToken) -> None:
    (serial,) = token.serials()
    token.add_token(token.label)
    supervisor = Pkcs11Supervisor(settings_for(token))
    with pytest.raises(TokenAmbiguous):
        await supervisor.start()
    await supervisor.close()
    for named in ({"serial": serial}, {"token_uri": f"pkcs11:token={token.label};serial={serial}"}):
        async with Pkcs11Supervisor(settings_for(token, **named)) as port:
            assert (await port.token_info()).serial == serial


async def test_another_token_in_place_of_the_pinned_one_is_refused(token: SoftHsmToken) -> None:
    supervisor = Pkcs11Supervisor(settings_for(token, serial="0123456789abcdef"))
    with pytest.raises(TokenNotFound):
        await supervisor.start()
    await supervisor.close()


async def test_a_library_that_is_none_is_refused(token: SoftHsmToken) -> None:
    for module in (token.directory / "absent.so", token.pin_file):
        supervisor = Pkcs11Supervisor(settings_for(token, module=module))
        with pytest.raises(ModuleUnusable):
            await supervisor.start()
        await supervisor.close()


@pytest.mark.parametrize(
    "private",
    [
        "{A.EXTRACTABLE: True}",
        "{A.SENSITIVE: False}",
        "{A.DECRYPT: True}",
        "{A.UNWRAP: True}",
        "{A.DERIVE: True}",
        "{A.SIGN_RECOVER: True}",
        "{A.PRIVATE: False, A.SENSITIVE: False}",
    ],
)
async def test_planted_key_that_could_leave_or_do_more_is_refused(soft: SoftHsmWorld, private: str) -> None:
    plant(soft.token, LABEL, private=private)
    for may_generate in (True, False):
        with pytest.raises(KeyMismatched):
            await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=may_generate)
    with pytest.raises(KeyMismatched):
        await soft.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)


@pytest.mark.parametrize("public", ["{A.WRAP: True}", "{A.ENCRYPT: True}", "{A.VERIFY_RECOVER: True}"])
async def test_planted_public_half_that_could_wrap_is_refused(soft: SoftHsmWorld, public: str) -> None:
    plant(soft.token, LABEL, private="{A.SIGN_RECOVER: False}", public=public)
    with pytest.raises(KeyMismatched):
        await soft.port.public_key(LABEL)


async def test_swapped_public_half_is_refused(soft: SoftHsmWorld) -> None:
    """Somebody who replaces the public half would have us publish a key that is not the token's."""
    await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    await soft.port.ensure_key_pair(OTHER, KeyType.EC_P256, may_generate=True)
    soft.token.run_pkcs11(
        "from pkcs11 import Attribute as A, ObjectClass as C\n"
        f"mine, other = bytes.fromhex('{key_id(LABEL).hex()}'), bytes.fromhex('{key_id(OTHER).hex()}')\n"
        "(old,) = list(session.get_objects({A.ID: mine, A.CLASS: C.PUBLIC_KEY}))\n"
        "(new,) = list(session.get_objects({A.ID: other, A.CLASS: C.PUBLIC_KEY}))\n"
        "template = {k: new[k] for k in (A.CLASS, A.KEY_TYPE, A.EC_PARAMS, A.EC_POINT, A.VERIFY)}\n"
        "old.destroy()\n"
        "more = {A.ENCRYPT: False, A.WRAP: False, A.DERIVE: False, A.VERIFY_RECOVER: False}\n"
        f"named = {{A.TOKEN: True, A.PRIVATE: False, A.ID: mine, A.LABEL: {LABEL!r}}}\n"
        "session.create_object({**template, **more, **named})\n"
    )
    with pytest.raises(KeyMismatched) as caught:
        await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert "belong together" in caught.value.found


async def test_imported_key_is_refused(soft: SoftHsmWorld) -> None:
    """A private key that was made outside and put in carries CKA_LOCAL=false; somebody may hold a copy."""
    soft.token.run_pkcs11(
        "from pkcs11 import Attribute as A, KeyType, MechanismFlag\n"
        "from pkcs11 import ObjectClass as C\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat\n"
        "key = ec.generate_private_key(ec.SECP256R1())\n"
        "point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)\n"
        "params = bytes.fromhex('06082a8648ce3d030107')\n"
        f"named = {{A.ID: bytes.fromhex('{key_id(LABEL).hex()}'), A.LABEL: {LABEL!r}, A.TOKEN: True,\n"
        "         A.KEY_TYPE: KeyType.EC, A.EC_PARAMS: params}\n"
        "session.create_object({**named, A.CLASS: C.PUBLIC_KEY, A.EC_POINT: b'\\x04\\x41' + point, A.VERIFY: True,\n"
        "    A.PRIVATE: False, A.ENCRYPT: False, A.WRAP: False, A.DERIVE: False, A.VERIFY_RECOVER: False})\n"
        "session.create_object({**named, A.CLASS: C.PRIVATE_KEY,\n"
        "    A.VALUE: key.private_numbers().private_value.to_bytes(32), A.SIGN: True, A.SENSITIVE: True,\n"
        "    A.PRIVATE: True, A.EXTRACTABLE: False, A.DECRYPT: False, A.UNWRAP: False, A.DERIVE: False,\n"
        "    A.SIGN_RECOVER: False})\n"
    )
    with pytest.raises(KeyMismatched) as caught:
        await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert "CKA_LOCAL=False" in caught.value.found


async def test_second_pair_under_the_same_identifier_is_refused(soft: SoftHsmWorld) -> None:
    await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    plant(soft.token, LABEL)
    with pytest.raises(KeyMismatched):
        await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert await soft.port.destroy_key(LABEL) is DestroyOutcome.DESTROYED
    assert soft.token.objects() == []


async def test_the_inventory_shows_what_somebody_else_put_there(soft: SoftHsmWorld) -> None:
    soft.token.run_pkcs11(
        "import pkcs11\n"
        "session.generate_key(pkcs11.KeyType.AES, 256, store=True, label='foreign', id=b'\\1',\n"
        "    template={pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False})\n"
    )
    (key,) = await soft.port.inventory()
    assert (key.label, key.object_class, key.key_type) == ("foreign", "secret", "AES")
    assert key.extractable
    assert not key.sensitive
    assert {"CKA_DECRYPT", "CKA_WRAP"} <= set(key.usages)


async def test_key_deleted_behind_our_back_is_absent_at_the_next_call(soft: SoftHsmWorld) -> None:
    await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    await soft.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)  # the handle is cached now
    for half in ("PRIVATE_KEY", "PUBLIC_KEY"):
        soft.token.delete_half(key_id(LABEL), half)
    with pytest.raises(KeyAbsent):
        await soft.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)


async def test_read_only_store_is_a_typed_error_and_mends_by_itself(soft: SoftHsmWorld) -> None:
    await soft.port.ensure_key_pair(OTHER, KeyType.EC_P256, may_generate=True)
    with soft.token.read_only_store():
        with pytest.raises(StoreUnwritable):
            await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
        # What is there goes on working, and what could not be deleted is not called deleted.
        assert len(await soft.port.sign(OTHER, SignMechanism.ECDSA_SHA256, DIGEST)) == 64
        for _ in range(3):
            with pytest.raises((StoreUnwritable, HsmUnavailable)):
                await soft.port.destroy_key(OTHER)
    await served(soft, OTHER)
    assert (await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)).created
    assert await soft.port.destroy_key(OTHER) is DestroyOutcome.DESTROYED
    assert {label for _, label, _ in soft.token.objects()} == {LABEL}
    assert EventKind.REPLACED in [event.kind for event in soft.events]


async def test_full_disk_is_a_typed_error_and_leaves_no_half_pair(soft: SoftHsmWorld) -> None:
    await soft.port.ensure_key_pair(OTHER, KeyType.EC_P256, may_generate=True)
    pid = soft.supervisor.worker_pid
    assert pid is not None
    with full_disk(pid), pytest.raises(StoreUnwritable):
        await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert len(await served(soft, OTHER)) == 64
    await soft.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert sorted(label for _, label, _ in soft.token.objects()) == sorted([LABEL, LABEL, OTHER, OTHER])


async def served(world: SoftHsmWorld, label: str) -> bytes:
    """Sign as soon as a worker is there again."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(HsmUnavailable, StoreUnwritable):
                return await world.port.sign(label, SignMechanism.ECDSA_SHA256, DIGEST)
