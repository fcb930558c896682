"""`chatelaine verify ima` as people and scripts run it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import Predicate
from support.paper_ima import PaperIma, sha256
from support.vectors import VECTORS, needs_vectors
from support.verify_command import run_here

BASH, EVIL = b"bash 5.2", b"something nobody approved"
PCRS = {"bank": "Sha256", "values": [{"index": 10, "anyOf": ["00" * 32]}]}


def here(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str]:
    done = run_here("ima", *arguments, stdin=stdin)
    return done.exit_code, done.stdout


class Files:
    """A list, its PCR 10, an allow-list and a policy in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paper = PaperIma.booted().ran("/usr/bin/bash", BASH)
        self.list = self.write("list", self.paper.data)
        self.allow = self.write("allow", f"{hashlib.sha256(BASH).hexdigest()}  /usr/bin/bash\n".encode())

    def write(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def policy(self, **ima) -> Path:
        spec = {"freshness": {"maxAgeSeconds": 30}, "tpm": {"pcrs": PCRS} | ima}
        return self.write("policy", json.dumps({"kind": "AttestationPolicy", "spec": spec}).encode())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_list_is_judged_in_a_process_of_its_own(files):
    done = subprocess.run(
        [sys.executable, "-m", "chatelaine.cli.main", "verify", "ima", str(files.list), "--pcr10",
         files.paper.pcr10.hex(), "--allow", str(files.allow), "--json"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "Trusted"
    assert report["facts"]["prefix"] == {"entries": 2, "bytes": len(files.paper.data), "bytesBehind": 0}
    assert report["facts"]["unknown"] == {"count": 0, "files": {}}


def test_unknown_file_ends_with_1_and_is_named_to_people_and_scripts(files):
    paper = files.paper.ran("/tmp/evil\x1b[31m", EVIL)
    arguments = [files.write("list", paper.data), "--pcr10", paper.pcr10.hex(), "--allow", files.allow]
    status, text = here(*arguments)
    assert status == 1
    assert text.startswith("Untrusted")
    assert "/tmp/evil?[31m" in text
    assert "\x1b" not in text
    status, text = here(*arguments, "--json")
    assert json.loads(text)["facts"]["unknown"]["files"] == {"/tmp/evil?[31m": [sha256(EVIL)]}


def test_list_that_leads_elsewhere_ends_with_2(files):
    status, text = here(files.list, "--pcr10", "11" * 32, "--json")
    assert (status, json.loads(text)["verdict"]) == (2, "Unknown")


def test_either_list_may_come_from_standard_input(files):
    pcr10 = files.paper.pcr10.hex()
    assert here("-", "--pcr10", pcr10, stdin=files.paper.lines)[0] == 0
    assert here(files.list, "--pcr10", pcr10, "--allow", "-", stdin=files.allow.read_bytes())[0] == 0


def test_policy_judges_alone_or_with_an_allow_list(files):
    arguments = [files.list, "--pcr10", files.paper.pcr10.hex()]
    allow = {"allow": [{"path": "/usr/bin/bash", "digests": [sha256(BASH)]}]}
    assert here(*arguments, "--policy", files.policy(ima=allow))[0] == 0
    assert here(*arguments, "--policy", files.policy(ima={"violations": "Record"}))[0] == 1
    assert here(*arguments, "--policy", files.policy(ima={}), "--allow", files.allow)[0] == 0


def test_bundle_is_an_allow_list_with_its_graces(files):
    good, arguments = sha256(BASH), [files.list, "--pcr10", files.paper.pcr10.hex(), "--allow"]
    for until, status in ((None, 0), (4_000_000_000, 0), (1_000_000_000, 1)):
        bundle = Predicate("fleet", 1, "2026-01-01T00:00:00Z", files=(GoodFile("/usr/bin/bash", (good,), until),))
        assert here(*arguments, files.write("bundle", bundle.encode()))[0] == status


def test_bank_is_chosen(files):
    sha384 = next(value for bank, value in files.paper.pcrs.items() if bank.value == "Sha384")
    assert here(files.list, "--pcr10", sha384.hex(), "--bank", "sha384")[0] == 0
    assert here(files.list, "--pcr10", "00" * 20, "--bank", "sha1")[0] == 1


@pytest.mark.parametrize(
    "changed",
    [
        ["--pcr10", "zz"],
        ["--pcr10", ""],
        ["--pcr10", "00" * 32, "--allow", "/nonexistent"],
        ["--pcr10", "00" * 32, "--allow", "POLICY"],
        ["--pcr10", "00" * 32, "--policy", "POLICY"],
        ["--pcr10", "00" * 32, "--policy", "-", "--allow", "-"],
        [],
    ],
)
def test_wrong_usage_ends_with_64(files, changed):
    policy = str(files.policy())
    assert here(files.list, *[policy if part == "POLICY" else part for part in changed])[0] == 64


def test_endless_list_is_refused_and_not_read_to_its_end():
    status, text = here("/dev/zero", "--pcr10", "00" * 32, "--json")
    assert status == 1
    assert "Oversized" in text


@needs_vectors
def test_list_of_a_real_machine_is_read(tmp_path):
    path = VECTORS / "tpm" / "ima" / "ascii_runtime_measurements"
    status, text = here(path, "--pcr10", "11" * 32, "--json")
    assert status == 2
    assert "826 entries" in text
