"""The socket's place: whoever was there first stays, and no link leads us anywhere."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chatelaine.proxy import places
from chatelaine.proxy.errors import PlaceTaken, SettingsRefused
from chatelaine.proxy.places import Taken, take
from chatelaine.proxy.settings import LoopbackPlace, UnixPlace, parse_mode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Path(f"/tmp/chat-pl-{os.getpid()}-{abs(hash(tmp_path.name)) % 10**8}")
    made.mkdir()
    return made


@pytest.fixture
def taking(folder: Path) -> object:
    held: list[Taken] = []

    def one(mode: int = 0o660, path: Path | None = None) -> Taken:
        held.append(take(UnixPlace(path or folder / "keys.sock", mode)))
        return held[-1]

    yield one
    for taken in held:
        taken.leave()
    for path in (*folder.rglob("*"), folder):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


Taking = Callable[..., Taken]


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_is_open_to_whom_the_mode_says(folder: Path, taking: Taking, mode: int) -> None:
    taking(mode)
    assert stat.S_IMODE((folder / "keys.sock").stat().st_mode) == mode
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(folder / "keys.sock"))
    assert sorted(path.name for path in folder.iterdir()) == [".keys.sock.lock", "keys.sock"]


def test_the_umask_is_left_as_it_was(taking: Taking) -> None:
    before = os.umask(0o022)
    os.umask(before)
    taking()
    assert os.umask(before) == before


def test_second_process_is_refused_and_the_socket_stays(folder: Path, taking: Taking) -> None:
    taking()
    inode = (folder / "keys.sock").stat().st_ino
    with pytest.raises(PlaceTaken, match="another sidecar serves"):
        taking()
    assert (folder / "keys.sock").stat().st_ino == inode


def test_socket_of_another_program_is_not_taken_from_it(folder: Path, taking: Taking) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "keys.sock"))
        other.listen(1)
        with pytest.raises(PlaceTaken, match="another program serves"):
            taking()
        assert (folder / "keys.sock").exists()


def test_what_a_killed_process_left_behind_is_replaced(folder: Path, taking: Taking) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "keys.sock"))
    before = (folder / "keys.sock").stat().st_ino
    taking()
    assert (folder / "keys.sock").stat().st_ino != before


@pytest.mark.parametrize("kind", ["link to a file", "link to a socket", "dangling link", "file", "folder"])
def test_link_or_file_at_the_place_is_refused_and_left_alone(folder: Path, taking: Taking, kind: str) -> None:
    place, victim = folder / "keys.sock", folder / "victim"
    if kind == "link to a socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(victim))
    elif kind == "link to a file":
        victim.write_text("precious")
    if kind.endswith("link") or kind.startswith("link"):
        place.symlink_to(victim)
    elif kind == "file":
        place.write_text("precious")
    else:
        place.mkdir()
    before = sorted((path.name, path.lstat().st_ino) for path in folder.iterdir())
    with pytest.raises(PlaceTaken, match="it is left alone"):
        taking()
    after = sorted((path.name, path.lstat().st_ino) for path in folder.iterdir() if path.suffix != ".lock")
    assert after == before


def test_link_that_appears_in_the_last_moment_is_replaced_and_not_followed(
    folder: Path, taking: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, victim = folder / "keys.sock", folder / "victim"
    victim.write_text("precious")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))

    def swapped(_: int, name: str) -> bool:
        (folder / name).unlink()
        (folder / name).symlink_to(victim)
        return False

    monkeypatch.setattr(places, "_answers", swapped)
    taking()
    assert victim.read_text() == "precious"
    assert not place.is_symlink()
    assert place.is_socket()


def test_link_in_place_of_the_folder_is_refused(folder: Path, taking: Taking) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    with pytest.raises(PlaceTaken, match="not a link"):
        taking(path=folder / "link" / "keys.sock")
    assert list((folder / "real").iterdir()) == []


def test_link_in_place_of_the_lock_is_refused_and_its_file_is_not_made(folder: Path, taking: Taking) -> None:
    (folder / ".keys.sock.lock").symlink_to(folder / "victim")
    with pytest.raises(PlaceTaken, match="cannot be opened"):
        taking()
    assert not (folder / "victim").exists()


def test_the_socket_of_a_successor_is_not_removed(folder: Path, taking: Taking) -> None:
    taken = taking()
    (folder / "keys.sock").unlink()
    (folder / "keys.sock").write_text("somebody else's")
    taken.leave()
    assert (folder / "keys.sock").read_text() == "somebody else's"


def test_a_port_that_is_taken_is_told() -> None:
    first = take(LoopbackPlace("127.0.0.1", 0))
    try:
        with pytest.raises(PlaceTaken, match="choose another port"):
            take(LoopbackPlace("127.0.0.1", first.socket.getsockname()[1]))
    finally:
        first.leave()


# --- settings


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "localhost", "::ffff:127.0.0.1", "127.0.0.1.evil.example"]
)
def test_address_that_others_could_reach_is_refused(host: str) -> None:
    with pytest.raises(SettingsRefused, match="opened to this pod alone"):
        LoopbackPlace(host, 8200)


@pytest.mark.parametrize(
    ("path", "mode"), [("relative.sock", 0o660), ("/" + "s" * 100, 0o660), ("/s", 0o777), ("/s", 0o066), ("/s", 0o4660)]
)
def test_places_that_cannot_be_meant_are_refused(path: str, mode: int) -> None:
    with pytest.raises(SettingsRefused):
        UnixPlace(Path(path), mode)


def test_modes_are_octal() -> None:
    assert parse_mode("0660") == 0o660
    for text in ("", "888", "0o660", "-1", "00660", "rw", "٦٦٠"):
        with pytest.raises(SettingsRefused):
            parse_mode(text)
