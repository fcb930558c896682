"""`chatelaine policy bundle`: from what a person wrote to what is signed."""

from __future__ import annotations

import json
import subprocess
import time

import cbor2
import pytest
from cbor2 import CBORTag

from chatelaine.cli.policy_description import moment, rfc3339
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import Predicate, read_payload
from chatelaine.model.tpm_policy import Bank
from support.paper_ima import PaperIma, sha256
from support.policy_command import run
from support.reference_bundles import ALICE, DIGEST, NOW, OLD_DIGEST, PREDICATE, bundle

WRITTEN = f"""
name: baseline
version: 7
issuedAt: 2026-11-21T12:00:00Z
pcrs: {{Sha256: {{4: ["{"22" * 32}", "{"11" * 32}"], 7: ["{"77" * 32}"]}}}}
dbxAtLeast: ["{"bb" * 32}", "{"aa" * 32}"]
files:
- {{path: /usr/bin/gateway, digests: ["{DIGEST}"]}}
- {{path: /usr/bin/gateway, digests: ["{OLD_DIGEST}"], until: {rfc3339(NOW + 3600)}}}
- {{path: /usr/lib/libtpm.so, digests: ["sha384:{"cd" * 48}", "sha512:{"ef" * 64}"]}}
"""


def made(*arguments: object, stdin: bytes | None = None) -> Predicate:
    done = run("bundle", *arguments, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return read_payload(done.stdout_bytes)


# --- putting together ------------------------------------------------------------------------------------------


def test_what_a_person_wrote_is_what_is_signed():
    done = run("bundle", "-", stdin=WRITTEN.encode())
    assert done.stdout_bytes == PREDICATE.encode()
    assert "baseline version 7 of 2026-11-21T12:00:00Z: 2 PCRs, 2 dbx entries, 4 file contents" in done.stderr


def test_json_is_as_good_as_yaml():
    written = {"name": "baseline", "version": 7, "pcrs": {"Sha256": {"7": ["77" * 32]}}}
    assert made("-", stdin=json.dumps(written).encode()).pcrs == {Bank.SHA256: {7: ("77" * 32,)}}


def test_without_a_time_it_is_issued_now():
    before = int(time.time())
    issued = made("--name", "baseline", "--version", 1).issued_at
    assert before <= moment(issued, "issuedAt") <= time.time()


def test_list_of_sha256sum_is_read_with_every_name_that_a_file_may_have(tmp_path):
    names = ["plain", "with  two blanks", "*star", "back\\slash", "new\nline", "\\n", "ä"]
    (tmp_path / "usr").mkdir()
    for name in names:
        (tmp_path / "usr" / name).write_text(name)
    paths = [str(tmp_path / "usr" / name) for name in names]
    lines = {
        program: subprocess.run([program, *paths], capture_output=True, check=True).stdout
        for program in ("sha256sum", "sha384sum", "sha512sum")
    }
    (tmp_path / "list").write_bytes(b"".join(lines.values()))
    found = made("--name", "lab", "--version", 1, "--files", tmp_path / "list", "--root", tmp_path)
    assert {file.path for file in found.files} == {f"/usr/{name}" for name in names}
    assert {len(file.digests) for file in found.files} == {3}


@pytest.mark.parametrize(
    "line",
    [
        "ab  /bin/ls",
        f"{'ab' * 20}  /bin/ls",
        f"{'zz' * 32}  /bin/ls",
        f"{'ab' * 32} /bin/ls",
        f"{'ab' * 32}",
        f"{'ab' * 32}  ",
        f"{'ab' * 32}  /bin/ls",
        f"{'ab' * 32}  /rootless/ls",
        f"SHA256 (/bin/ls) = {'ab' * 32}",
        f"{'ab' * 32}  /root/\udc80",
    ],
)
def test_line_that_cannot_be_read_is_a_usage_error(tmp_path, line):
    (tmp_path / "list").write_bytes(f"{'ab' * 32}  /root/ls\n{line}\n".encode("utf-8", "surrogateescape"))
    done = run("bundle", "--name", "lab", "--version", 1, "--files", tmp_path / "list", "--root", "/root")
    assert (done.exit_code, done.stdout_bytes) == (64, b"")


def test_list_may_be_a_grace_as_a_whole(tmp_path):
    (tmp_path / "list").write_text(f"{'ab' * 32}  /bin/ls\n{'cd' * 32} */bin/cat\n")
    found = made(
        "--name", "lab", "--version", 1, "--files", tmp_path / "list", "--until", "2026-12-01T00:00:00+01:00"
    )  # fmt: skip
    assert {file.until for file in found.files} == {moment("2026-11-30T23:00:00Z", "")}


def test_several_lists_add_up_and_what_is_allowed_longer_stays(tmp_path):
    (tmp_path / "old").write_text(f"{'ab' * 32}  /bin/ls\n{'cd' * 32}  /bin/ls\n")
    description = {
        "name": "lab",
        "version": 1,
        "files": [{"path": "/bin/ls", "digests": ["sha256:" + "ab" * 32], "until": "2026-12-01T00:00:00Z"}],
    }
    found = made("-", "--files", tmp_path / "old", "--files", tmp_path / "old", stdin=json.dumps(description).encode())
    assert found.files == (GoodFile("/bin/ls", ("sha256:" + "ab" * 32, "sha256:" + "cd" * 32)),)


# --- what IMA measured -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["data", "lines"])
def test_files_that_ima_measured_are_listed(tmp_path, form):
    paper = PaperIma.booted().ran("/usr/bin/gateway", b"program").ran("/var/log/lastlog", b"changes by itself")
    (tmp_path / "list").write_bytes(getattr(paper, form))
    done = run("bundle", "--name", "lab", "--version", 1, "--ima", tmp_path / "list")
    assert read_payload(done.stdout_bytes).files == (GoodFile("/usr/bin/gateway", (sha256(b"program"),)),)
    assert "/var/log" in done.stderr


@pytest.mark.parametrize("content", [b"", b"\x0a\x00\x00", b"10 00 ima-ng\n", b"\xff" * 64])
def test_list_of_measurements_that_cannot_be_read_is_a_usage_error(tmp_path, content):
    (tmp_path / "list").write_bytes(content)
    done = run("bundle", "--name", "lab", "--version", 1, "--ima", tmp_path / "list")
    assert (done.exit_code, done.stdout_bytes) == (64, b"")


# --- CoRIM -----------------------------------------------------------------------------------------------------


def test_pcr_values_of_a_corim_add_to_what_was_written(tmp_path):
    measured = [{0: 4, 1: {2: [[1, b"\x11" * 32]]}}, {0: "PCR 9", 1: {2: [[7, b"\x99" * 48], ["md5", b"?"]]}}]
    comid = CBORTag(506, cbor2.dumps({1: {0: "id"}, 4: {0: [[{0: {1: "ACME"}}, measured]]}}))
    (tmp_path / "corim").write_bytes(cbor2.dumps(CBORTag(501, {0: "id", 1: [comid]})))
    done = run("bundle", "-", "--corim", tmp_path / "corim", stdin=WRITTEN.encode())
    assert read_payload(done.stdout_bytes).pcrs == {
        Bank.SHA256: {4: ("11" * 32, "22" * 32), 7: ("77" * 32,)},
        Bank.SHA384: {9: ("99" * 48,)},
    }
    assert "not signed; PCR values for ACME" in done.stderr
    assert "left out: PCR 9: a digest of algorithm md5" in done.stderr
    (tmp_path / "key").write_text(ALICE.listed().public_key)
    unsigned = run(
        "bundle", "-", "--corim", tmp_path / "corim", "--corim-key", tmp_path / "key", stdin=WRITTEN.encode()
    )
    assert (unsigned.exit_code, unsigned.stdout_bytes) == (1, b"")
    assert "CorimRefused" in unsigned.stderr


# --- the bundle before -----------------------------------------------------------------------------------------


def test_update_of_packages_leaves_a_grace_to_what_was_good_before(tmp_path):
    libtpm = GoodFile("/usr/lib/libtpm.so", ("sha384:" + "cd" * 48, "sha512:" + "ef" * 64))
    (tmp_path / "before").write_bytes(bundle(files=(GoodFile("/bin/ls", (DIGEST, OLD_DIGEST)), libtpm)))
    (tmp_path / "list").write_text(f"{'99' * 32}  /bin/ls\n{OLD_DIGEST[7:]}  /bin/ls\n")
    begin = int(time.time())
    found = made("--previous", tmp_path / "before", "--grace-seconds", 86400, "--files", tmp_path / "list")
    assert (found.name, found.version) == ("baseline", 8)
    ends = {(file.path, digest): file.until for file in found.files for digest in file.digests}
    assert ends.pop(("/bin/ls", "sha256:" + "99" * 32)) is None
    assert ends.pop(("/bin/ls", OLD_DIGEST)) is None
    assert set(ends) == {("/bin/ls", DIGEST), *((libtpm.path, digest) for digest in libtpm.digests)}
    assert all(end is not None and begin + 86400 <= end <= time.time() + 86400 for end in ends.values())


def test_grace_that_has_ended_is_not_carried_on(tmp_path):
    (tmp_path / "before").write_bytes(bundle(files=(GoodFile("/bin/ls", (DIGEST,), 1_700_000_000),)))
    assert made("--previous", tmp_path / "before", "--grace-seconds", 86400).files == ()


def test_grace_of_a_grace_does_not_grow(tmp_path):
    soon = int(time.time()) + 100
    (tmp_path / "before").write_bytes(bundle(files=(GoodFile("/bin/ls", (DIGEST,), soon),)))
    found = made("--previous", tmp_path / "before", "--grace-seconds", 86400)
    assert found.files == (GoodFile("/bin/ls", (DIGEST,), soon),)


@pytest.mark.parametrize("more", [["--version", 7], ["--version", 6], ["--name", "lab"]])
def test_bundle_that_does_not_come_after_the_one_before_is_not_made(tmp_path, more):
    (tmp_path / "before").write_bytes(bundle())
    assert run("bundle", "--previous", tmp_path / "before", *more).exit_code == 64


# --- what is not made ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "a: [",
        "[]",
        "name: lab\nversion: 1\nmore: 1",
        "name: lab\nname: lab\nversion: 1",
        "name: lab\nversion: 1\npcrs: {Sha256: {4: [], '4': []}}",
        "name: lab\nversion: 1\nissuedAt: 2026-12-01T00:00:00",
        "name: lab\nversion: 1\nissuedAt: 2026-12-01",
        "name: lab\nversion: 1\nfiles: [{path: /bin/ls}]",
        "name: lab\nversion: 1\nfiles: [{path: /bin/ls, digests: [], until: never}]",
        "name: lab",
        "version: 1",
        "? {}\n: 1",
        "&a [*a]",
    ],
)
def test_description_that_is_none_is_a_usage_error(written):
    done = run("bundle", "-", stdin=written.encode())
    assert (done.exit_code, done.stdout_bytes) == (64, b"")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "written",
    [
        "name: Lab\nversion: 1",
        "name: lab\nversion: 0",
        "name: lab\nversion: 1\npcrs: {Sha1: {}}",
        "name: lab\nversion: 1\npcrs: {Sha256: {24: ['" + "00" * 32 + "']}}",
        "name: lab\nversion: 1\ndbxAtLeast: [ab]",
        "name: lab\nversion: 1\nfiles: [{path: /bin/ls, digests: ['sha1:" + "ab" * 20 + "']}]",
    ],
)
def test_description_that_would_be_refused_later_is_refused_here(written):
    done = run("bundle", "-", stdin=written.encode())
    assert (done.exit_code, done.stdout_bytes) == (1, b"")
    assert "ReferencePayloadRefused" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--grace-seconds", "60"],
        ["--name", "lab", "--version", "1", "--corim-key", "/dev/null"],
        ["--name", "lab", "--version", "1", "--corim", "/nonexistent"],
        ["--name", "lab", "--version", "1", "--until", "tomorrow"],
        ["--name", "lab", "--version", "1", "--until", "2026-12-01T00:00:00"],
        ["--name", "lab", "--version", "1", "--files", "/nonexistent"],
        ["--name", "lab", "--version", "1", "--previous", "/nonexistent"],
        ["--name", "lab", "--version", "x"],
        ["/nonexistent"],
    ],
)
def test_usage_errors_of_bundle_end_with_64(arguments):
    done = run("bundle", *arguments)
    assert (done.exit_code, done.stdout_bytes) == (64, b"")
