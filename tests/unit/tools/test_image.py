"""Layers and archives of images: the same content gives the same digest, and what does not belong is not in them."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from tools.image import debian, product
from tools.image.layer import Entry, Layer, content_digests, entries_of, folder_entry, write_layer
from tools.image.locked import read, runtime_requirements
from tools.image.oci import Image, write_archive

ROOT = Path(__file__).resolve().parents[3]
LOCK = """alpha==1.0 \\
    --hash=sha256:aa
    # via
    #   product (pyproject.toml)
    #   beta
beta-two[extra]==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:bc
    # via alpha
linter==3.0 \\
    --hash=sha256:cc
    # via product (pyproject.toml)
of-linter==4.0 \\
    --hash=sha256:dd
    # via linter
"""
PROJECT = """[project]
dependencies = ["Alpha>=1"]
optional-dependencies = { agent = [], dev = ["linter"] }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a file, a link and an empty folder."""
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "file").write_text("content")
    (root / "link").symlink_to("sub/file")
    return root


def layer_of(root: Path, target: Path) -> Layer:
    return write_layer(entries_of(root, "opt/"), target, "a test")


def test_a_layer_does_not_tell_when_it_was_made(tree: Path, tmp_path: Path) -> None:
    first = layer_of(tree, tmp_path / "first.tar")
    os.utime(tree / "sub" / "file", (1, 1))
    second = layer_of(tree, tmp_path / "second.tar")
    assert first.digest == second.digest
    assert first.digest == f"sha256:{hashlib.sha256(first.path.read_bytes()).hexdigest()}"
    assert first.size_bytes == first.path.stat().st_size


@pytest.mark.parametrize("change", ["content", "mode", "link"])
def test_a_layer_of_other_content_has_another_digest(tree: Path, tmp_path: Path, change: str) -> None:
    first = layer_of(tree, tmp_path / "first.tar")
    if change == "content":
        (tree / "sub" / "file").write_text("changed")
    elif change == "mode":
        (tree / "sub" / "file").chmod(0o600)
    else:
        (tree / "link").unlink()
        (tree / "link").symlink_to("elsewhere")
    assert layer_of(tree, tmp_path / "second.tar").digest != first.digest


def test_entries_are_sorted_below_folders_that_are_made(tree: Path, tmp_path: Path) -> None:
    made = layer_of(tree, tmp_path / "layer.tar")
    with tarfile.open(made.path) as archive:
        assert archive.getnames() == ["opt", "opt/link", "opt/sub", "opt/sub/empty", "opt/sub/file"]


def test_of_two_entries_with_one_path_the_later_one_counts(tmp_path: Path) -> None:
    entries = [Entry("file", content=b"first"), folder_entry("tmp", 0o1777), Entry("file", content=b"second")]
    made = write_layer(entries, tmp_path / "layer.tar", "a test")
    with tarfile.open(made.path) as archive:
        file = archive.extractfile("file")
        assert file is not None
        assert file.read() == b"second"
        assert archive.getmember("tmp").mode == 0o1777


def test_what_stands_in_a_layer_is_told_by_digests(tree: Path, tmp_path: Path) -> None:
    first = content_digests(layer_of(tree, tmp_path / "first.tar").path)
    (tree / "sub" / "file").write_text("changed")
    second = content_digests(layer_of(tree, tmp_path / "second.tar").path)
    assert {path for path in first if first[path] != second[path]} == {"opt/sub/file"}


def test_an_archive_holds_what_its_manifest_says(tree: Path, tmp_path: Path) -> None:
    made = layer_of(tree, tmp_path / "layer.tar")
    image = Image((made,), ("/bin/true",), user="65532:65532", labels=(("label", "value"),))
    digest = write_archive(image, "localhost/some:1.0", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (described,) = json.loads(content("index.json"))["manifests"]
        assert described["digest"] == digest
        assert described["annotations"]["io.containerd.image.name"] == "localhost/some:1.0"
        manifest = json.loads(content(f"blobs/{digest.replace(':', '/')}"))
        for blob in (manifest["config"], *manifest["layers"]):
            found = content(f"blobs/{blob['digest'].replace(':', '/')}")
            assert (f"sha256:{hashlib.sha256(found).hexdigest()}", len(found)) == (blob["digest"], blob["size"])
        config = json.loads(content(f"blobs/{manifest['config']['digest'].replace(':', '/')}"))
    assert config["config"]["User"] == "65532:65532"
    assert config["rootfs"]["diff_ids"] == [made.digest]


def test_an_archive_is_the_same_each_time(tree: Path, tmp_path: Path) -> None:
    image = Image((layer_of(tree, tmp_path / "layer.tar"),), ("/bin/true",))
    for name in ("first.tar", "second.tar"):
        write_archive(image, "localhost/some:1.0", tmp_path / name)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_only_what_the_product_needs_is_taken_from_the_lock_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements.lock").write_text(LOCK)
    chosen = runtime_requirements(tmp_path / "pyproject.toml", tmp_path / "requirements.lock")
    assert chosen == (
        "alpha==1.0 \\\n    --hash=sha256:aa\nbeta-two[extra]==2.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:bc\n"
    )


def test_a_requirement_that_is_not_locked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("Alpha", "omega"))
    (tmp_path / "requirements.lock").write_text(LOCK)
    with pytest.raises(ValueError, match=r"not in requirements\.lock: omega"):
        runtime_requirements(tmp_path / "pyproject.toml", tmp_path / "requirements.lock")


def test_every_package_of_our_lock_file_is_read_with_its_hashes_and_who_asks_for_it() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pinned = list(read(ROOT / "requirements.lock"))
    assert len(pinned) == sum("==" in line and line[0].isalnum() for line in text.splitlines())
    assert all("--hash=sha256:" in one.lines and one.asked_by for one in pinned)


def test_the_image_holds_what_gateway_and_agent_need_and_none_of_our_tools() -> None:
    chosen = runtime_requirements(ROOT / "pyproject.toml", ROOT / "requirements.lock")
    names = {line.split("==")[0] for line in chosen.splitlines() if line[0].isalnum()}
    assert {"kopf", "python-pkcs11", "tpm2-pytss", "cffi", "kubernetes", "uvicorn"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "import-linter"}


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/lib/python3.11/ssl.py", True),
        ("usr/share/doc/libssl3/copyright", True),
        ("usr/share/doc/libssl3/changelog.gz", False),
        ("usr/share/man/man1/python3.1.gz", False),
        ("dev/null", False),
        ("usr/lib/systemd/system/some.service", False),
    ],
)
def test_manuals_and_services_are_left_out_and_licences_stay(tmp_path: Path, path: str, kept: bool) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("content")
    assert (path in {entry.path for entry in debian.entries(tmp_path)}) is kept


def test_nothing_is_setuid(tmp_path: Path) -> None:
    (tmp_path / "su").write_text("content")
    (tmp_path / "su").chmod(0o6755)
    (entry,) = debian.entries(tmp_path)
    assert (entry.mode, entry.owner) == (0o755, (0, 0))


def test_the_dockerfile_starts_the_same_process_as_the_archive() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    last = {word: rest for word, rest in lines if word in ("ENV", "USER", "ENTRYPOINT")}
    assert last["ENV"].split() == [f"{name}={value}" for name, value in product.ENVIRONMENT]
    assert last["USER"] == f"{product.USER}:{product.USER}"
    assert tuple(json.loads(last["ENTRYPOINT"])) == product.ENTRYPOINT
    assert f"FROM debian:{debian.SUITE} AS build" in text
