"""The memory of refused PINs survives restarts and crashes, and never holds a PIN."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatelaine.pkcs11.errors import PinBudgetSpent, PinFileRefused, PinRejected
from chatelaine.pkcs11.pin import MAX_PIN_BYTES, MAX_REFUSED_PINS, MAX_UNDECIDED_TRIES, PinAttempts, read_pin


def refuse(directory: Path, pin: str, serial: str = "1") -> None:
    attempts = PinAttempts(directory)
    attempts.begin(serial, pin)
    attempts.refused(serial, pin)


def test_refused_pin_is_not_tried_again_after_a_restart(tmp_path: Path) -> None:
    refuse(tmp_path, "wrong")
    with pytest.raises(PinRejected):
        PinAttempts(tmp_path).begin("1", "wrong")


def test_another_pin_and_another_token_are_free(tmp_path: Path) -> None:
    refuse(tmp_path, "wrong")
    PinAttempts(tmp_path).begin("1", "right")
    PinAttempts(tmp_path).begin("2", "wrong")


def test_refused_pin_stays_refused_after_another_was_accepted(tmp_path: Path) -> None:
    refuse(tmp_path, "wrong")
    attempts = PinAttempts(tmp_path)
    attempts.begin("1", "right")
    attempts.accepted("1", "right")
    with pytest.raises(PinRejected):
        PinAttempts(tmp_path).begin("1", "wrong")


def test_login_that_never_ends_is_tried_a_bounded_number_of_times(tmp_path: Path) -> None:
    for _ in range(MAX_UNDECIDED_TRIES):
        PinAttempts(tmp_path).begin("1", "pin")  # and the process dies
    with pytest.raises(PinBudgetSpent):
        PinAttempts(tmp_path).begin("1", "pin")


def test_an_accepted_pin_gives_the_budget_back(tmp_path: Path) -> None:
    for _ in range(3 * MAX_UNDECIDED_TRIES):
        attempts = PinAttempts(tmp_path)
        attempts.begin("1", "pin")
        attempts.accepted("1", "pin")


def test_guessing_pins_through_the_file_is_bounded(tmp_path: Path) -> None:
    for number in range(MAX_REFUSED_PINS):
        refuse(tmp_path, f"wrong-{number}")
    with pytest.raises(PinBudgetSpent):
        PinAttempts(tmp_path).begin("1", "one more")


def test_a_low_count_is_ours_only_between_our_refusal_and_the_next_login(tmp_path: Path) -> None:
    assert not PinAttempts(tmp_path).explain_low_count("1")
    refuse(tmp_path, "wrong")
    attempts = PinAttempts(tmp_path)
    assert attempts.explain_low_count("1")
    assert not attempts.explain_low_count("2")
    attempts.begin("1", "right")
    attempts.accepted("1", "right")
    assert not PinAttempts(tmp_path).explain_low_count("1")


def test_memory_that_cannot_be_read_stops_all_logins(tmp_path: Path) -> None:
    refuse(tmp_path, "wrong")
    (tmp_path / "pin-attempts.json").write_text("{")
    with pytest.raises(PinBudgetSpent):
        PinAttempts(tmp_path)
    (tmp_path / "pin-attempts.json").unlink()
    (tmp_path / "pin-attempts.key").write_bytes(b"short")
    with pytest.raises(PinBudgetSpent):
        PinAttempts(tmp_path)


def test_no_pin_stands_in_the_memory_and_nobody_else_reads_it(tmp_path: Path) -> None:
    refuse(tmp_path, "wrong-pin")
    for file in tmp_path.iterdir():
        assert b"wrong-pin" not in file.read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff\xfe\n", b"x" * (MAX_PIN_BYTES + 1)], ids=["empty", "line end", "not text", "long"]
)
def test_pin_file_with_no_pin_in_it_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_bytes(content)
    with pytest.raises(PinFileRefused) as caught:
        read_pin(file)
    assert caught.value.__cause__ is None
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_end_is_not_part_of_the_pin(tmp_path: Path, end: str) -> None:
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_bytes((" 12 34 " + end).encode())
    assert read_pin(file) == " 12 34 "
