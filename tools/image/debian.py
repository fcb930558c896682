"""Layers of files from Debian packages, by the machine's own apt: its mirrors, proxies and keys are used as they are.

apt resolves as if nothing were installed, and checks what it downloads. Packages are unpacked, not installed: none of
their scripts run, so what is in a layer depends on the packages alone. What only such scripts need is left out, and so
are manuals, translations and whatever belongs to an init system; licences stay. Nothing is setuid.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.control_plane.build import cache_directory
from tools.image.layer import Entry, entries_of

SUITE = "bookworm"
RUNTIME = (
    "base-files",
    "ca-certificates",
    "libstdc++6",
    "libtss2-esys-3.0.2-0",
    "libtss2-fapi1",
    "libtss2-mu0",
    "libtss2-rc0",
    "libtss2-tctildr0",
    "libtss2-tcti-device0",
    "libtss2-tcti-swtpm0",
    "netbase",
    "python3",
    "tzdata",
)
"""What operator, gateway and agent run on; with what these depend on. No shell is among it."""

EVALUATION = ("coreutils", "dash", "opensc", "softhsm2", "swtpm", "swtpm-tools", "tpm2-tools")
"""Tokens and TPMs in software, and tools to look at them."""

SCRIPTS_ONLY = frozenset(
    ("adduser", "debconf", "dpkg", "init-system-helpers", "mawk", "openssl", "passwd", "tar", "tpm-udev", "udev")
)
"""Packages that others depend on for their maintainers' scripts."""

MERGED = ("bin", "lib", "lib64", "sbin")
"""Folders of the root that are links into /usr, as on every Debian of this suite."""

_LEFT_OUT = re.compile(
    r"dev/.*|run/.*|var/cache/.*|usr/lib/(systemd|udev|init|tmpfiles.d|sysusers.d)/.*"
    r"|usr/share/(man|info|locale|lintian|bug|doc-base|bash-completion|zsh|debconf|initramfs-tools|perl5|pixmaps"
    r"|applications|polkit-1|gdb|gcc|readline|apport|pkgconfig|python3|base-files|dbus-1)/.*"
    r"|usr/share/doc/.*(?<!/copyright)|etc/(init.d|cron.*|pam.*|systemd|udev|init|logrotate.d|apparmor.d)/.*"
)


class DebianError(RuntimeError):
    """Packages could not be had; the message says what apt said."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A downloaded package file."""

    path: Path
    digest: str
    """SHA-256, hexadecimal."""

    @property
    def name(self) -> str:
        """Name of the package."""
        return self.path.name.split("_", 1)[0]

    @property
    def label(self) -> str:
        """Name and version, as in `zlib1g 1:1.2.13`."""
        name, version, _ = self.path.name.split("_", 2)
        return f"{name} {version.replace('%3a', ':')}"


def packages(names: Sequence[str]) -> tuple[Package, ...]:
    """The packages and all they depend on, downloaded into the cache, sorted by name.

    Raises:
        DebianError: this is another system, or apt failed.
    """
    require_suite()
    cache = cache_directory() / "debian"
    archives, nothing = cache / "archives", cache / "nothing"
    for folder in (archives, nothing):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "none-installed").touch()
    options = [
        f"Dir::State::status={cache / 'none-installed'}",
        f"Dir::Cache={cache}",
        "APT::Install-Recommends=false",
        "APT::Sandbox::User=root",
        "Debug::NoLocking=true",
    ]
    install = ["apt-get", *(word for option in options for word in ("-o", option)), "--yes", "install", *names]
    # It lists only what is not in the folder already.
    listed = _run(*install, "--print-uris", "-o", f"Dir::Cache::archives={nothing}")
    files = [archives / line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    if not files:
        raise DebianError(f"apt knows no files of: {', '.join(names)}")
    if not all(file.exists() for file in files):
        _run(*install, "--quiet", "--download-only", "-o", f"Dir::Cache::archives={archives}")
    found = (Package(file, hashlib.sha256(file.read_bytes()).hexdigest()) for file in sorted(files))
    return tuple(package for package in found if package.name not in SCRIPTS_ONLY)


def require_suite() -> None:
    """Returns if packages of this machine are of the suite that the image is made of.

    Raises:
        DebianError: they are not.
    """
    release = Path("/etc/os-release").read_text()
    if f"VERSION_CODENAME={SUITE}" not in release.splitlines():
        raise DebianError(
            f"the image is made of packages of Debian {SUITE}; build on such a machine, or by the Dockerfile"
        )


def unpack(chosen: Sequence[Package], root: Path) -> None:
    """Unpacks packages into a new folder."""
    root.mkdir(parents=True)
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in chosen:
        contents = subprocess.run(["dpkg-deb", "--fsys-tarfile", package.path], capture_output=True, check=True)
        unpacking = ["tar", "--extract", "--keep-directory-symlink", "--preserve-permissions", f"--directory={root}"]
        subprocess.run(unpacking, input=contents.stdout, check=True)


def entries(root: Path) -> Iterator[Entry]:
    """What of unpacked packages goes into a layer; all of it belongs to root, and nothing is setuid or setgid."""
    for entry in entries_of(root):
        if not _LEFT_OUT.fullmatch(entry.path):
            yield dataclasses.replace(entry, mode=entry.mode & 0o1777)


def authorities(root: Path) -> bytes:
    """The bundle of public CAs, which a script of the package would write."""
    files = sorted((root / "usr" / "share" / "ca-certificates" / "mozilla").glob("*.crt"))
    return b"".join(file.read_bytes().rstrip(b"\n") + b"\n" for file in files)


def _run(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)
    if done.returncode != 0:
        raise DebianError(f"{' '.join(command)} failed; `apt-get update` may help:\n{done.stderr.strip()[-2000:]}")
    return done.stdout
