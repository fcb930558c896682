"""What `HsmPort` promises, asked of a real token behind the supervisor and of the simulated one."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chatelaine.model.identifiers import key_id, key_label
from chatelaine.model.keys import KeyType
from chatelaine.model.verdict import Outcome
from chatelaine.pkcs11.errors import BadRequest, KeyAbsent, KeyDamaged, KeyMismatched, MechanismMissing, WorkerDown
from chatelaine.pkcs11.lifecycle import ATTESTATION_KEY, TOKEN_KEY, ensure_service_keys
from chatelaine.pkcs11.port import DestroyOutcome, PublicKey, SignMechanism
from support.hsm_world import HsmWorld

LABEL = key_label("6f1c3f7e-0000-4000-8000-000000000001", "signing", 1)
OTHER = key_label("6f1c3f7e-0000-4000-8000-000000000001", "signing", 2)
MESSAGE = b"a message that somebody wants signed"
DIGEST = hashlib.sha256(MESSAGE).digest()
MECHANISMS = [
    (KeyType.EC_P256, SignMechanism.ECDSA_SHA256),
    (KeyType.RSA_3072, SignMechanism.RSA_PSS_SHA256),
    (KeyType.RSA_3072, SignMechanism.RSA_PKCS1_SHA256),
]


async def test_a_pair_is_made_once_and_found_again(world: HsmWorld) -> None:
    first = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    again = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    found = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=False)
    assert first.created
    assert not again.created
    assert first.spki_der == again.spki_der == found.spki_der == (await world.port.public_key(LABEL)).spki_der
    assert len(await world.port.inventory()) == 2


async def test_an_absent_pair_is_not_made_without_leave(world: HsmWorld) -> None:
    with pytest.raises(KeyAbsent):
        await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=False)
    with pytest.raises(KeyAbsent):
        await world.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)
    with pytest.raises(KeyAbsent):
        await world.port.public_key(LABEL)
    assert await world.port.inventory() == ()


@pytest.mark.parametrize("half", ["private", "public"])
async def test_half_a_pair_is_damage_unless_generation_is_allowed(world: HsmWorld, half: str) -> None:
    lost = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    await world.lose_half(LABEL, half)
    with pytest.raises(KeyDamaged):
        await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=False)
    made = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    assert made.created
    assert made.spki_der != lost.spki_der
    assert sorted(key.object_class for key in await world.port.inventory()) == ["private", "public"]


@pytest.mark.parametrize("half", ["private", "public"])
async def test_half_a_pair_can_be_destroyed(world: HsmWorld, half: str) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    await world.lose_half(LABEL, half)
    assert await world.port.destroy_key(LABEL) is DestroyOutcome.DESTROYED
    assert await world.port.inventory() == ()


async def test_an_existing_pair_of_another_type_is_refused(world: HsmWorld) -> None:
    made = await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    with pytest.raises(KeyMismatched):
        await world.port.ensure_key_pair(LABEL, KeyType.RSA_3072, may_generate=True)
    assert (await world.port.public_key(LABEL)).spki_der == made.spki_der


async def test_a_key_type_without_a_template_is_refused(world: HsmWorld) -> None:
    with pytest.raises(MechanismMissing):
        await world.port.ensure_key_pair(LABEL, KeyType.AES_256, may_generate=True)


async def test_destroying_is_idempotent_and_leaves_the_others(world: HsmWorld) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    other = await world.port.ensure_key_pair(OTHER, KeyType.EC_P256, may_generate=True)
    await world.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)
    assert await world.port.destroy_key(LABEL) is DestroyOutcome.DESTROYED
    assert await world.port.destroy_key(LABEL) is DestroyOutcome.ALREADY_ABSENT
    with pytest.raises(KeyAbsent):
        await world.port.sign(LABEL, SignMechanism.ECDSA_SHA256, DIGEST)
    assert (await world.port.public_key(OTHER)).spki_der == other.spki_der


async def test_the_inventory_shows_keys_as_we_make_them(world: HsmWorld) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    await world.port.ensure_key_pair(OTHER, KeyType.RSA_3072, may_generate=True)
    keys = await world.port.inventory()
    assert keys == tuple(sorted(keys))
    assert {(key.id, key.label) for key in keys} == {(key_id(label), label) for label in (LABEL, OTHER)}
    assert {(key.label, key.key_type) for key in keys} == {(LABEL, "EC"), (OTHER, "RSA")}
    for key in keys:
        assert key.local
        if key.object_class == "private":
            assert key.usages == ("CKA_SIGN",)
            assert (key.sensitive, key.extractable, key.never_extractable) == (True, False, True)
        else:
            assert key.object_class == "public"
            assert key.usages == ("CKA_VERIFY",)


@pytest.mark.parametrize(("key_type", "mechanism"), MECHANISMS)
async def test_openssl_verifies_what_the_token_signs(
    world: HsmWorld, tmp_path: Path, key_type: KeyType, mechanism: SignMechanism
) -> None:
    key = await world.port.ensure_key_pair(LABEL, key_type, may_generate=True)
    signature = await world.port.sign(LABEL, mechanism, DIGEST)
    assert openssl_accepts(tmp_path, key, mechanism, MESSAGE, signature)
    assert not openssl_accepts(tmp_path, key, mechanism, MESSAGE + b"!", signature)


@pytest.mark.parametrize(("key_type", "mechanism"), MECHANISMS)
async def test_the_token_verifies_and_refutes(world: HsmWorld, key_type: KeyType, mechanism: SignMechanism) -> None:
    await world.port.ensure_key_pair(LABEL, key_type, may_generate=True)
    signature = await world.port.sign(LABEL, mechanism, DIGEST)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    assert await world.port.verify(LABEL, mechanism, DIGEST, signature) is Outcome.HOLDS
    assert await world.port.verify(LABEL, mechanism, DIGEST, flipped) is Outcome.REFUTED
    assert await world.port.verify(LABEL, mechanism, DIGEST[::-1], signature) is Outcome.REFUTED
    assert await world.port.verify(LABEL, mechanism, DIGEST, signature[:-1]) is Outcome.REFUTED
    assert await world.port.verify(LABEL, mechanism, DIGEST, signature + b"\0") is Outcome.REFUTED
    assert await world.port.verify(LABEL, mechanism, DIGEST, b"") is Outcome.REFUTED


async def test_a_mechanism_of_another_key_type_is_refused(world: HsmWorld) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    with pytest.raises(MechanismMissing):
        await world.port.sign(LABEL, SignMechanism.RSA_PSS_SHA256, DIGEST)
    with pytest.raises(MechanismMissing):
        await world.port.verify(LABEL, SignMechanism.RSA_PKCS1_SHA256, DIGEST, b"\0" * 384)


@pytest.mark.parametrize("length", [0, 20, 31, 33, 64, 4096])
async def test_only_a_sha256_digest_is_signed(world: HsmWorld, length: int) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    with pytest.raises(BadRequest):
        await world.port.sign(LABEL, SignMechanism.ECDSA_SHA256, b"\1" * length)


async def test_arguments_beyond_their_bounds_are_refused(world: HsmWorld) -> None:
    await world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True)
    for label in ("", "x" * 257):
        with pytest.raises(BadRequest):
            await world.port.ensure_key_pair(label, KeyType.EC_P256, may_generate=True)
        with pytest.raises(BadRequest):
            await world.port.destroy_key(label)
    for length in (0, -1, 1025):
        with pytest.raises(BadRequest):
            await world.port.random(length)
    with pytest.raises(BadRequest):
        await world.port.verify(LABEL, SignMechanism.ECDSA_SHA256, DIGEST, b"\0" * 1025)


async def test_random_bytes_differ(world: HsmWorld) -> None:
    assert len(await world.port.random(1)) == 1
    first, second = await world.port.random(1024), await world.port.random(1024)
    assert len(first) == len(second) == 1024
    assert first != second


async def test_the_token_describes_itself_the_same_way_twice(world: HsmWorld) -> None:
    info = await world.port.token_info()
    assert info.serial
    assert list(info.mechanisms) == sorted(set(info.mechanisms))
    assert info.mechanisms_digest.startswith("sha256:")
    assert set(info.key_types) == {KeyType.EC_P256, KeyType.RSA_3072}
    assert info == await world.port.token_info()


async def test_thirty_two_callers_each_get_their_own_answer(world: HsmWorld, tmp_path: Path) -> None:
    labels = [key_label("claim", "k", version) for version in range(1, 5)]
    keys = dict(
        zip(
            labels,
            await asyncio.gather(
                *(world.port.ensure_key_pair(label, KeyType.EC_P256, may_generate=True) for label in labels)
            ),
            strict=True,
        )
    )

    async def caller(number: int) -> None:
        label = labels[number % len(labels)]
        for turn in range(20):
            digest = hashlib.sha256(f"{number}/{turn}".encode()).digest()
            signature = await world.port.sign(label, SignMechanism.ECDSA_SHA256, digest)
            assert await world.port.verify(label, SignMechanism.ECDSA_SHA256, digest, signature) is Outcome.HOLDS
            other = labels[(number + 1) % len(labels)]
            assert await world.port.verify(other, SignMechanism.ECDSA_SHA256, digest, signature) is Outcome.REFUTED

    await asyncio.gather(*(caller(number) for number in range(32)))
    assert len({key.spki_der for key in keys.values()}) == len(labels)


async def test_many_callers_of_one_label_make_one_pair(world: HsmWorld) -> None:
    made = await asyncio.gather(
        *(world.port.ensure_key_pair(LABEL, KeyType.EC_P256, may_generate=True) for _ in range(32))
    )
    assert sum(key.created for key in made) == 1
    assert len({key.spki_der for key in made}) == 1
    assert len(await world.port.inventory()) == 2


async def test_service_keys_are_not_made_anew_on_an_enrolled_host(world: HsmWorld) -> None:
    keys = await ensure_service_keys(world.port, may_generate=True)
    assert await ensure_service_keys(world.port, may_generate=False)
    assert {keys.attestation.label, keys.token.label} == {ATTESTATION_KEY, TOKEN_KEY}
    await world.port.destroy_key(ATTESTATION_KEY)
    with pytest.raises(KeyAbsent):
        await ensure_service_keys(world.port, may_generate=False)


async def test_a_closed_port_answers_nothing(world: HsmWorld) -> None:
    await world.port.close()
    await world.port.close()
    with pytest.raises(WorkerDown):
        await world.port.token_info()


def openssl_accepts(
    directory: Path, key: PublicKey, mechanism: SignMechanism, message: bytes, signature: bytes
) -> bool:
    """`openssl dgst -verify` says so."""
    if mechanism is SignMechanism.ECDSA_SHA256:
        signature = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    (directory / "key.pem").write_text(key.pem)
    (directory / "message").write_bytes(message)
    (directory / "signature").write_bytes(signature)
    options = []
    if mechanism is SignMechanism.RSA_PSS_SHA256:
        options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sigopt", "rsa_mgf1_md:sha256"]
    files = [str(directory / "message")]
    verify = ["openssl", "dgst", "-sha256", "-verify", str(directory / "key.pem"), *options]
    done = subprocess.run(
        [*verify, "-signature", str(directory / "signature"), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return "Verified OK" in done.stdout
