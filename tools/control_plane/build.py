"""Builds the Kubernetes control plane and other Go tools from pinned modules, into a cache outside the tree.

Runs before any virtual environment exists: standard library only. What is pinned stands in `modules/*/go.mod`, with
the hashes of every source in the `go.sum` beside it; builds are `-mod=readonly`, so nothing else is ever compiled.

Where a binary comes from, in this order:

1. the cache, `<cache>/bin/<group>-<version>/<name>`;
2. `$KUBEBUILDER_ASSETS`, used in place if it holds the name (and its Kubernetes is not too old for our CRDs);
3. a build, renamed into the cache when it is whole.

The description of Kubernetes' own kinds (OpenAPI) is taken from the same pinned sources into the cache, so that
manifests can be checked without a network.

To move to another version: edit the version in `modules/<group>/go.mod` (Kubernetes' staging modules move with it),
run `go mod tidy` there, commit both files.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

MODULES = Path(__file__).resolve().parent / "modules"

OLDEST_KUBERNETES_MINOR = 32
"""Selectable fields of custom resources are stable from 1.32 on; older assets are left alone."""


class BuildError(RuntimeError):
    """A tool could not be had; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """One binary: its name, the Go package it is built from, and the wrapper module that pins it."""

    name: str
    package: str
    group: str
    stamp: tuple[str, ...] = ()
    """Linker variables that get the version; `{version}`, `{major}` and `{minor}` are filled in."""

    everyday: bool = True
    """Is it built by `make setup`? The others are built when they are asked for."""


_KUBERNETES_STAMP = tuple(
    f"k8s.io/component-base/version.{variable}"
    for variable in ("gitVersion=v{version}", "gitMajor={major}", "gitMinor={minor}")
)

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", "go.etcd.io/etcd/server/v3", "kubernetes"),
        Tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "kubernetes", _KUBERNETES_STAMP),
        Tool(
            "kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "kubernetes", _KUBERNETES_STAMP
        ),
        Tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", "kubernetes", _KUBERNETES_STAMP),
        Tool("kubelet", "k8s.io/kubernetes/cmd/kubelet", "kubernetes", _KUBERNETES_STAMP, everyday=False),
        Tool("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "kubernetes", _KUBERNETES_STAMP, everyday=False),
        Tool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "kubernetes", _KUBERNETES_STAMP, everyday=False),
        Tool("pause", "control-plane/pause", "kubernetes", everyday=False),
        Tool("coredns", "coredns", "coredns", everyday=False),
        Tool("helm", "helm.sh/helm/v3/cmd/helm", "helm", ("helm.sh/helm/v3/internal/version.version=v{version}",)),
        Tool(
            "helm-unittest",
            "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
            "helm-unittest",
            everyday=False,
        ),
        Tool("alerts", "alerts", "alerts", everyday=False),
        Tool("flux-health", "flux-health", "flux-health"),
        Tool("cyclonus", "github.com/mattfenwick/cyclonus/cmd/cyclonus", "cyclonus"),
        Tool(
            "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "kubeconform", ("main.version=v{version}",)
        ),
    )
}

EVERYDAY = tuple(tool.name for tool in TOOLS.values() if tool.everyday)
"""What every checkout needs."""

_PINNED = {
    "alerts": "github.com/prometheus/prometheus",
    "coredns": "github.com/coredns/coredns",
    "flux-health": "github.com/fluxcd/pkg/runtime",
    "kubernetes": "k8s.io/kubernetes",
    "helm": "helm.sh/helm/v3",
    "helm-unittest": "github.com/helm-unittest/helm-unittest",
    "cyclonus": "github.com/mattfenwick/cyclonus",
    "kubeconform": "github.com/yannh/kubeconform",
}


def cache_directory() -> Path:
    """`$CHATELAINE_CACHE`, else `$XDG_CACHE_HOME/chatelaine`, else `~/.cache/chatelaine`."""
    if own := os.environ.get("CHATELAINE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatelaine"


def version_of(group: str) -> str:
    """The version that `modules/<group>/go.mod` pins, without its `v`.

    Raises:
        BuildError: the module file pins no version.
    """
    text = (MODULES / group / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s*{re.escape(_PINNED[group])} v(\S+)", text, re.MULTILINE)
    if found is None:
        raise BuildError(f"modules/{group}/go.mod pins no version of {_PINNED[group]}")
    return found.group(1)


def cached(name: str) -> Path:
    """Where the built binary stands, whether it is there or not."""
    tool = TOOLS[name]
    return cache_directory() / "bin" / f"{tool.group}-v{version_of(tool.group)}" / name


def find(name: str) -> Path | None:
    """The binary to use, if there is one already: from the cache, else from `$KUBEBUILDER_ASSETS`."""
    if (built := cached(name)).exists():
        return built
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and TOOLS[name].group == "kubernetes" and _assets_are_recent(Path(assets)):
        given = Path(assets).absolute() / name
        if os.access(given, os.X_OK):
            return given
    return None


def require(name: str) -> Path:
    """The binary to use.

    Raises:
        BuildError: it is not there; `make setup` makes it.
    """
    path = find(name)
    if path is None:
        raise BuildError(f"{name} is not built; run: python3 tools/control_plane/build.py")
    return path


def ensure(names: Iterable[str] = EVERYDAY) -> dict[str, Path]:
    """Paths of `names`; those that are missing are built first.

    Raises:
        BuildError: Go is missing or a build failed.
    """
    paths = {name: path for name in names if (path := find(name)) is not None}
    missing = [name for name in names if name not in paths]
    if missing:
        with _one_builder_at_a_time():
            for name in missing:
                # Another builder may have made it while this one waited for the lock.
                paths[name] = find(name) or _build(TOOLS[name])
    return paths


def openapi() -> Path:
    """Where the OpenAPI description of the pinned Kubernetes stands, whether it is there or not."""
    return cache_directory() / "openapi" / f"kubernetes-v{version_of('kubernetes')}.json"


def ensure_openapi() -> Path:
    """The OpenAPI description of the pinned Kubernetes; taken from its module if it is missing.

    Raises:
        BuildError: Go is missing, or the module cannot be had.
    """
    if (path := openapi()).exists():
        return path
    answer = json.loads(_go("kubernetes", "mod", "download", "-json", _PINNED["kubernetes"], what="the OpenAPI file"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unfinished = Path(scratch) / path.name
        shutil.copyfile(Path(answer["Dir"]) / "api" / "openapi-spec" / "swagger.json", unfinished)
        unfinished.rename(path)
    return path


@functools.cache
def _assets_are_recent(assets: Path) -> bool:
    server = assets / "kube-apiserver"
    if not os.access(server, os.X_OK):
        return True
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"v1\.(\d+)", answer.stdout)
    return found is not None and int(found.group(1)) >= OLDEST_KUBERNETES_MINOR


@contextlib.contextmanager
def _one_builder_at_a_time() -> Iterator[None]:
    folder = cache_directory() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(tool: Tool) -> Path:
    version, target = version_of(tool.group), cached(tool.name)
    major, minor = version.split(".")[:2]
    stamp = " ".join(f"-X {item.format(version=version, major=major, minor=minor)}" for item in tool.stamp)
    target.parent.mkdir(parents=True, exist_ok=True)
    _say(f"building {tool.name} ({tool.group} v{version}); the first time takes minutes")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{tool.name}-") as scratch:
        unfinished = Path(scratch) / tool.name
        command = ["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(unfinished)]
        command += ["-ldflags", f"-s -w {stamp}".strip(), tool.package]
        _go(tool.group, *command, what=tool.name)
        unfinished.rename(target)
    _say(f"built {tool.name} in {time.monotonic() - started:.0f} s: {target}")
    return target


def _go(group: str, *arguments: str, what: str) -> str:
    """Runs go in a wrapper module; what it printed."""
    if shutil.which("go") is None:
        raise BuildError(f"{what} must be built and Go is not installed; install Go 1.26 or later and run this again")
    done = subprocess.run(
        ["go", *arguments],
        cwd=MODULES / group,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"building {what} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def _say(text: str) -> None:
    print(f"control plane: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Command line: builds what is missing, prints one `name path` line a tool."""
    parser = argparse.ArgumentParser(description="Build the control plane and its tools from pinned Go modules.")
    known = f"of {', '.join(TOOLS)}; without any: {', '.join(EVERYDAY)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in TOOLS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    try:
        paths = ensure(arguments.names or EVERYDAY)
        if not arguments.names:
            paths["openapi"] = ensure_openapi()
    except BuildError as error:
        _say(str(error))
        return 1
    for name, path in paths.items():
        print(f"{name} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
