"""Starts units as they are written, without systemd: for tests, as root, in a mount namespace that is thrown away.

Usage: python -m support.unit_runner UNIT_FOLDER LOG_FOLDER NAME@INSTANCE.service …

What is done as systemd does it: specifiers, settings of the environment file, state and runtime folders with their
modes and owners, the credential, ExecStartPre, user, groups, no capabilities, no new privileges, UMask, and the refusal
of memory that is written and executed. System call filters, address families and hidden paths are left to systemd.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 65, 1
Settings = dict[str, list[str]]


def settings_of(path: Path) -> Settings:
    """Section [Service]."""
    section, found = "", Settings()
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


class Unit:
    """One instance."""

    def __init__(self, folder: Path, logs: Path, name: str) -> None:
        template, _, instance = name.removesuffix(".service").partition("@")
        self.name, self.instance, self.logs = name, instance, logs
        self.credentials = Path("/run/credentials") / name
        self.settings = settings_of(folder / f"{template}@.service")
        self.user = pwd.getpwnam(self.one("User"))
        self.group = grp.getgrnam(self.one("Group")).gr_gid

    def one(self, name: str) -> str:
        """A setting that stands there once."""
        (value,) = self.settings[name]
        return self.resolved(value)

    def resolved(self, text: str) -> str:
        """With specifiers filled in."""
        for specifier, value in {
            "%i": self.instance, "%S": "/var/lib", "%t": "/run", "%d": str(self.credentials)
        }.items():  # fmt: skip
            text = text.replace(specifier, value)
        return text

    def environment(self) -> dict[str, str]:
        """What the file says, and no more than systemd adds."""
        lines = Path(self.one("EnvironmentFile")).read_text().splitlines()
        pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
        return {"PATH": "/usr/bin:/bin", "CREDENTIALS_DIRECTORY": str(self.credentials), **dict(pairs)}

    def folders(self) -> None:
        """State and runtime folders, and the credential."""
        for kind, root in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
            for name in self.resolved(" ".join(self.settings.get(kind, []))).split():
                path = Path(root) / name
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(int(self.one(f"{kind}Mode"), 8))
                os.chown(path, self.user.pw_uid, self.group)
        for loaded in self.settings.get("LoadCredential", []):
            name, _, source = self.resolved(loaded).partition(":")
            self.credentials.mkdir(parents=True, exist_ok=True)
            kept = self.credentials / name
            kept.write_bytes(Path(source).read_bytes())
            # Newer versions of systemd leave it to root, and let the user in by an access list.
            os.chown(kept, 0, self.group)
            kept.chmod(0o440)

    def command(self, line: str) -> list[str]:
        """Words of a command line: `${A}` is one word, `$A` as many as it has."""
        known, words = self.environment(), []
        for word in shlex.split(self.resolved(line)):
            if word.startswith("${"):
                words.append(known[word.strip("${}")])
            elif word.startswith("$"):
                words += known[word[1:]].split()
            else:
                words.append(word)
        return words

    def spawn(self, line: str) -> subprocess.Popen[bytes]:
        """Run as the unit's user."""
        supplementary = [
            grp.getgrnam(name).gr_gid for name in " ".join(self.settings.get("SupplementaryGroups", [])).split()
        ]
        groups = ",".join(map(str, [self.group, *supplementary]))
        confined = [
            "setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.group}", f"--groups={groups}",
            "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--",
        ]  # fmt: skip
        with (self.logs / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*confined, *self.command(line)],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                umask=int(self.one("UMask"), 8), preexec_fn=self._refuse_written_code, start_new_session=True,
            )  # fmt: skip

    def _refuse_written_code(self) -> None:
        if self.one("MemoryDenyWriteExecute") == "yes":
            ctypes.CDLL(None).prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)

    def start(self) -> int:
        """Everything; gives the number of the process."""
        self.folders()
        for line in self.settings.get("ExecStartPre", []):
            if self.spawn(line).wait(120):
                raise SystemExit(f"{self.name}: {line} failed")
        return self.spawn(self.settings["ExecStart"][0]).pid


if __name__ == "__main__":
    for started in sys.argv[3:]:
        print(Unit(Path(sys.argv[1]), Path(sys.argv[2]), started).start())
