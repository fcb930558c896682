"""What a node needs of the machine is named, with what to do, before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tools.cluster.requirements import MissingError, ensure_commands, missing_packages, require_root

SOME = {"sh": "shell", "chatelaine-none": "absent", "/chatelaine/none": "absent"}


def test_each_package_is_named_once_and_only_if_it_is_missing() -> None:
    assert missing_packages(SOME) == ["absent"]
    assert missing_packages({"sh": "shell"}) == []


def test_who_may_not_install_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match=r"missing: absent\. Install them \(on Debian: apt-get install .* absent\)"):
        ensure_commands(SOME)


def test_without_apt_the_packages_are_named_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="missing: absent"):
        ensure_commands({"chatelaine-none": "absent"})


def test_a_cluster_needs_root_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match="a cluster needs root"):
        require_root("a cluster")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    require_root("a cluster")
