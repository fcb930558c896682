"""Where the control plane's binaries come from: the cache, the given assets, a build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.control_plane import build

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no assets, and nothing remembered of other assets."""
    monkeypatch.setenv("CHATELAINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    build._assets_are_recent.cache_clear()
    return tmp_path / "cache"


def executable(path: Path, says: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `go` that writes down how it was called and makes the output file; returns its notes."""
    notes = tmp_path / "go-was-called"
    script = executable(tmp_path / "bin" / "go")
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$PWD $*" >> {notes}\n'
        'while [ "$1" != -o ]; do shift; done\n'
        '[ -z "$GO_FAILS" ] || { echo "$GO_FAILS" >&2; echo half > "$2"; exit 1; }\n'
        'echo "#!/bin/sh" > "$2"; chmod +x "$2"\n'
    )
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return notes


def test_versions_are_those_of_the_module_files() -> None:
    assert {group: build.version_of(group) for group in sorted({tool.group for tool in build.TOOLS.values()})} == {
        "alerts": "0.307.3",
        "coredns": "1.14.3",
        "flux-health": "0.110.0",
        "kubernetes": "1.35.4",
        "helm": "3.22.0",
        "helm-unittest": "1.1.2",
        "cyclonus": "0.5.6",
        "kubeconform": "0.8.0",
    }


@pytest.mark.parametrize("group", sorted({tool.group for tool in build.TOOLS.values()}))
def test_every_source_is_pinned_by_hash(group: str) -> None:
    lines = (build.MODULES / group / "go.mod").read_text().splitlines()
    elsewhere = {line.split()[1] for line in lines if line.startswith("replace ") and len(line.split()) > 1}
    required = [
        line.split("//")[0].split()[-2:]
        for line in lines
        if line.startswith(("\t", "require ")) and " v" in line and "=>" not in line
    ]
    hashes = (build.MODULES / group / "go.sum").read_text()
    assert required
    for module, version in required:
        replaced = version == "v0.0.0" or module in elsewhere
        assert replaced or f"{module} {version}" in hashes, module


def test_every_tool_is_named_in_its_module_file() -> None:
    for tool in build.TOOLS.values():
        module = build.MODULES / tool.group
        named = (module / "go.mod").read_text()
        if f"module {tool.package.partition('/')[0]}\n" in named:
            # A program of our own in the wrapper module.
            assert (module / tool.package.partition("/")[2] / "main.go").exists()
        else:
            assert tool.package in named


def test_the_cache_is_outside_the_tree_and_keyed_by_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert build.cached("etcd") == tmp_path / "cache" / "bin" / "kubernetes-v1.35.4" / "etcd"
    monkeypatch.delenv("CHATELAINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert build.cached("helm") == Path("/somewhere/chatelaine/bin/helm-v3.22.0/helm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/of-a-user")
    assert build.cache_directory() == Path("/home/of-a-user/.cache/chatelaine")


def test_what_is_missing_is_built_once(go: Path) -> None:
    first = build.ensure(["etcd", "helm"])
    assert first == {"etcd": build.cached("etcd"), "helm": build.cached("helm")}
    assert len(go.read_text().splitlines()) == 2
    assert build.ensure(["etcd", "helm"]) == first
    assert len(go.read_text().splitlines()) == 2


def test_builds_take_pinned_sources_only_and_are_stamped(go: Path) -> None:
    build.ensure(["kube-apiserver"])
    called = go.read_text()
    assert called.startswith(f"{build.MODULES / 'kubernetes'} build -mod=readonly ")
    assert "gitVersion=v1.35.4" in called
    assert "gitMinor=35" in called


def test_a_failed_build_leaves_nothing_behind(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "no space left on device")
    with pytest.raises(build.BuildError, match="building etcd failed:\nno space left"):
        build.ensure(["etcd"])
    assert list(build.cached("etcd").parent.iterdir()) == []


def test_without_go_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match="install Go"):
        build.ensure(["etcd"])


def test_a_missing_binary_names_the_command_that_makes_it() -> None:
    with pytest.raises(build.BuildError, match=r"etcd is not built; run: python3 tools/control_plane/build\.py"):
        build.require("etcd")


def test_given_assets_are_used_in_place_and_only_the_rest_is_built(
    go: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    for name in ("etcd", "kube-apiserver", "kubectl"):
        executable(assets / name, "Kubernetes v1.34.1")
    executable(assets / "helm", "not ours to take")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    paths = build.ensure()
    assert {name: path.parent == assets for name, path in paths.items()} == {
        "etcd": True,
        "kube-apiserver": True,
        "kubectl": True,
        "kube-controller-manager": False,
        "helm": False,
        "flux-health": False,
        "cyclonus": False,
        "kubeconform": False,
    }
    assert len(go.read_text().splitlines()) == 5


def test_the_description_of_kubernetes_comes_from_the_pinned_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "module"
    described = module / "api" / "openapi-spec" / "swagger.json"
    described.parent.mkdir(parents=True)
    described.write_text("{}")
    script = executable(tmp_path / "bin" / "go", json.dumps({"Dir": str(module)}))
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    assert build.ensure_openapi() == tmp_path / "cache" / "openapi" / "kubernetes-v1.35.4.json"
    script.unlink()
    assert build.ensure_openapi().read_text() == "{}"


def test_assets_too_old_for_our_definitions_are_left_alone(
    go: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    executable(tmp_path / "assets" / "kube-apiserver", "Kubernetes v1.31.9")
    executable(tmp_path / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert build.ensure(["etcd", "kube-apiserver"]) == {
        "etcd": build.cached("etcd"),
        "kube-apiserver": build.cached("kube-apiserver"),
    }
    assert len(go.read_text().splitlines()) == 2


def test_the_command_needs_no_installed_package(cache: Path) -> None:
    for name in build.TOOLS:
        executable(build.cached(name))
    executable(build.openapi())
    command = [sys.executable, "-I", "-S", str(ROOT / "tools/control_plane/build.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tools = [f"{name} {build.cached(name)}" for name in build.EVERYDAY]
    assert done.stdout.splitlines() == [*tools, f"openapi {build.openapi()}"]
    assert done.stderr == ""
