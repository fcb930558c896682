"""The units for hosts outside the cluster, judged by systemd's own tools and by what they must not leave open."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGING = ROOT / "packaging"
UNITS = {part: PACKAGING / "systemd" / f"chatelaine-{part}@.service" for part in ("gateway", "agent")}
MOST_EXPOSED = 1.7
"""systemd's score, 0 to 10. What is left is the network, the socket between the two, and the TPM."""


def service(part: str) -> dict[str, list[str]]:
    """Settings of the unit's section [Service]; one that stands there twice has two values."""
    section, found = "", dict[str, list[str]]()
    for line in UNITS[part].read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("part", UNITS)
def test_systemd_finds_the_unit_little_exposed(part: str) -> None:
    done = run(
        "systemd-analyze", "security", "--offline=true", "--no-pager", "--json=short",
        f"--threshold={round(MOST_EXPOSED * 10)}", UNITS[part],
    )  # fmt: skip
    open_ = [one["json_field"] for one in json.loads(done.stdout) if one["exposure"]]
    assert done.returncode == 0, open_


@pytest.mark.parametrize("part", UNITS)
def test_systemd_understands_every_line(part: str, tmp_path: Path) -> None:
    for name, path in UNITS.items():
        # The command is where it was installed, which is not on this machine.
        text = path.read_text().replace("/opt/chatelaine/bin/chatelaine", sys.executable)
        (tmp_path / f"chatelaine-{name}@.service").write_text(text)
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / f"chatelaine-{part}@.service")
    said = [line for line in done.stderr.splitlines() if "chatelaine-" in line]
    assert not said


def test_the_agent_and_whoever_takes_it_over_can_read_neither_pin_nor_keys_of_the_gateway() -> None:
    """By another user, and by folders that it does not see although its groups would let it."""
    agent, gateway = service("agent"), service("gateway")
    assert agent["User"] != gateway["User"]
    hidden = {path.lstrip("-") for line in agent["InaccessiblePaths"] for path in line.split()}
    assert hidden >= {
        "/etc/chatelaine/pins",
        "/run/credentials",
        "/run/chatelaine-gateway",
        "/var/lib/chatelaine/%i/gateway",
    }
    assert agent["StateDirectory"] == ["chatelaine/%i/agent"]
    assert agent["StateDirectoryMode"] == gateway["StateDirectoryMode"] == ["0700"]


def test_no_pin_stands_in_a_command_an_environment_or_a_file_of_settings() -> None:
    gateway = service("gateway")
    assert gateway["LoadCredential"] == ["pin:/etc/chatelaine/pins/%i"]
    lines = (PACKAGING / "examples" / "host.env").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert not [name for name in names if "PIN" in name]
    assert "Environment" not in gateway
    assert all("/etc/chatelaine/pins" not in line for line in gateway["ExecStart"])


@pytest.mark.parametrize("part", UNITS)
def test_a_crash_leaves_no_memory_of_keys_on_a_disk_and_nothing_gains_rights(part: str) -> None:
    unit = service(part)
    for name, value in {
        "LimitCORE": "0",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "ProtectSystem": "strict",
        "MemoryDenyWriteExecute": "yes",
        "DevicePolicy": "closed",
    }.items():
        assert unit[name] == [value], name
    devices = unit.get("DeviceAllow", [])
    assert devices == (["/dev/tpmrm0 rw"] if part == "agent" else [])


@pytest.mark.parametrize("part", UNITS)
def test_every_setting_that_a_unit_reads_is_in_the_example(part: str) -> None:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string("[host]\n" + (PACKAGING / "examples" / "host.env").read_text())
    words = " ".join(service(part)["ExecStart"]).split()
    asked = {word.strip("${}") for word in words if word.startswith("$")}
    assert asked
    assert asked <= set(parser["host"])


def test_users_and_folders_are_made_as_the_units_want_them(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = run("systemd-sysusers", f"--root={tmp_path}", PACKAGING / "sysusers.d" / "chatelaine.conf")
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    groups = {line.split(":")[0] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    for part in UNITS:
        unit = service(part)
        assert users[unit["User"][0]][6] == "/usr/sbin/nologin"
        assert set(unit["Group"]) <= groups
    made = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", PACKAGING / "tmpfiles.d" / "chatelaine.conf")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "etc" / "chatelaine" / "pins").stat().st_mode & 0o777 == 0o700
