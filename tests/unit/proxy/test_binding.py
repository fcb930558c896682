"""A binding as the kubelet projects it: read as one state, bounded, and each fault told by the entry's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chatelaine.proxy import binding as bindings
from chatelaine.proxy import files
from chatelaine.proxy.binding import folder_of, read
from chatelaine.proxy.errors import BindingUnusable, SettingsRefused
from support import pki
from support.sidecar import project

AUTHORITY = pki.new_authority()
PIN = "sha256:" + "a" * 64


def entries(**changes: str | bytes) -> dict[str, str | bytes]:
    return {
        "type": "hsm",
        "provider": "chatelaine",
        "host": "gateway-a.hsm-system.svc",
        "port": "8443",
        "endpoint": "https://gateway-a.hsm-system.svc:8443/v1/keys/payments/checkout",
        "ca.crt": AUTHORITY.bundle_pem,
        "gateway-spki": PIN,
        "pkcs11-uri": "pkcs11:token=a",
        **changes,
    }


def test_a_binding_is_read(tmp_path: Path) -> None:
    project(tmp_path, entries(**{"gateway-spki": f"{PIN}\nsha256:{'b' * 64}"}))
    found = read(tmp_path)
    assert (found.name, found.base_url) == ("payments/checkout", "https://gateway-a.hsm-system.svc:8443")
    assert found.pins == {PIN, "sha256:" + "b" * 64}


def test_an_address_of_six_is_written_in_brackets(tmp_path: Path) -> None:
    project(tmp_path, entries(host="2001:db8::7"))
    assert read(tmp_path).base_url == "https://[2001:db8::7]:8443"


def test_plain_files_will_do(tmp_path: Path) -> None:
    for name, content in entries().items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read(tmp_path).claim == "checkout"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("type", "postgresql", "expected a binding of type hsm of chatelaine, found postgresql of chatelaine"),
        ("provider", "somebody", "hsm of somebody"),
        ("host", "evil.example/path", "host: expected a name or an address"),
        ("host", "", "found nothing"),
        ("host", "user@evil.example", "host: expected"),
        ("port", "0", "port: expected a port, found 0"),
        ("port", "65536", "port: expected"),
        ("port", "٨٤٤٣".encode(), "port: expected plain ASCII"),
        ("endpoint", "https://gateway/v1/keys/payments", "endpoint: expected"),
        ("endpoint", "https://gateway/v1/keys/../token", "endpoint: expected"),
        ("ca.crt", "no certificate", "ca.crt: expected PEM certificates"),
        ("ca.crt", "x" * 65537, "over 65536 bytes"),
        ("gateway-spki", "", "gateway-spki: expected"),
        ("gateway-spki", "sha256:" + "A" * 64, "gateway-spki: expected"),
        ("gateway-spki", "\n".join([PIN] * 9), "1 to 8 lines"),
        ("gateway-spki", f"{PIN}\n\n{PIN}", "gateway-spki: expected"),
    ],
)
def test_a_malformed_entry_is_named(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    project(tmp_path, entries(**{name: content}))
    with pytest.raises(BindingUnusable, match=told):
        read(tmp_path)


@pytest.mark.parametrize("name", ["type", "host", "ca.crt", "gateway-spki", "endpoint"])
def test_a_missing_entry_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    project(tmp_path, {key: value for key, value in entries().items() if key != name})
    with pytest.raises(BindingUnusable, match=f"{name} cannot be read .*secretName"):
        read(tmp_path)


def test_binding_without_a_pin_is_no_binding_and_never_one_that_trusts_every_key(tmp_path: Path) -> None:
    project(tmp_path, entries(**{"gateway-spki": "\n"}))
    with pytest.raises(BindingUnusable):
        read(tmp_path)


def test_pipe_among_the_entries_is_not_waited_for(tmp_path: Path) -> None:
    for name, content in entries().items():
        if name != "host":
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    os.mkfifo(tmp_path / "host")
    with pytest.raises(BindingUnusable, match="no regular file"):
        read(tmp_path)


def test_a_swap_in_the_middle_mixes_no_two_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, entries(host="old.example", port="1"))
    real: Callable[..., bytes] = files.read_bounded

    def swapped(name: str, max_bytes: int, *, folder: int | None = None) -> bytes:
        data = real(name, max_bytes, folder=folder)
        if name == "provider":
            before = tmp_path / (tmp_path / "..data").readlink()
            kept = tmp_path / "kept"
            before.rename(kept)  # the kubelet removes it; whoever has it open may still read
            (tmp_path / "..data").unlink()
            before.mkdir()
            project(tmp_path, entries(host="new.example", port="2"))
        return data

    monkeypatch.setattr(bindings, "read_bounded", swapped)
    assert read(tmp_path).base_url == "https://old.example:1"
    monkeypatch.undo()
    assert read(tmp_path).base_url == "https://new.example:2"


# --- which folder


def test_the_only_claims_binding_below_the_root_is_taken(tmp_path: Path) -> None:
    project(tmp_path / "keys", entries())
    project(tmp_path / "database", {"type": "postgresql", "provider": "somebody"})
    assert folder_of(None, str(tmp_path)) == tmp_path / "keys"
    assert folder_of(Path("/given"), str(tmp_path)) == Path("/given")


@pytest.mark.parametrize(("count", "found"), [(0, "found none"), (2, "found keys-0, keys-1")])
def test_none_or_several_are_told_by_name(tmp_path: Path, count: int, found: str) -> None:
    for number in range(count):
        project(tmp_path / f"keys-{number}", entries())
    with pytest.raises(SettingsRefused, match=found):
        folder_of(None, str(tmp_path))


def test_no_root_and_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="--binding is needed"):
        folder_of(None, None)
    with pytest.raises(SettingsRefused, match="cannot be read"):
        folder_of(None, str(tmp_path / "absent"))
