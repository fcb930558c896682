"""The bundle before: what it lists becomes good again in the next one, so it matters who signed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chatelaine.cli.policy import app
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import read_payload
from support.reference_bundles import ALICE, BOB, MALLORY, PREDICATE, Signer, signed

EVIL = GoodFile("/usr/bin/sh", ("sha256:" + "e" * 64,))


def made(folder: Path, *signers: Signer, keys: tuple[Signer, ...] = (), grace: bool = True) -> Result:
    """The next bundle after one that `signers` have signed; it must have been signed by `keys`."""
    (folder / "before").write_bytes(signed(replace(PREDICATE, files=(EVIL,)).encode(), *signers).encode())
    told = []
    for signer in keys:
        (folder / f"{signer.name}.pub").write_text(signer.listed().public_key)
        told += ["--previous-key", str(folder / f"{signer.name}.pub")]
    more = ["--grace-seconds", "600"] if grace else []
    return CliRunner().invoke(app, ["bundle", "--previous", str(folder / "before"), *more, *told])


def test_files_of_a_bundle_that_its_keys_signed_become_a_grace(tmp_path: Path) -> None:
    done = made(tmp_path, ALICE, BOB, keys=(ALICE, BOB))
    assert done.exit_code == 0, done.stderr
    assert read_payload(done.stdout_bytes).files[0].path == EVIL.path
    assert "not checked" not in done.stderr


@pytest.mark.parametrize("grace", [True, False])
@pytest.mark.parametrize("signers", [(), (MALLORY,), (ALICE,)], ids=["nobody", "a stranger", "one of two"])
def test_files_of_a_bundle_that_others_signed_are_not_carried_over(
    tmp_path: Path, signers: tuple[Signer, ...], grace: bool
) -> None:
    done = made(tmp_path, *signers, keys=(ALICE, BOB), grace=grace)
    assert (done.exit_code, done.stdout_bytes) == (1, b"")
    assert "ThresholdNotMet" in done.stderr


def test_bundle_before_that_nobody_had_to_sign_is_said_to_be_unchecked(tmp_path: Path) -> None:
    done = made(tmp_path, MALLORY)
    assert done.exit_code == 0
    assert "signatures were not checked" in done.stderr


def test_keys_for_no_bundle_are_wrong_usage(tmp_path: Path) -> None:
    arguments = ["bundle", "--name", "lab", "--version", "1", "--previous-key", str(tmp_path / "x")]
    assert CliRunner().invoke(app, arguments).exit_code == 64
