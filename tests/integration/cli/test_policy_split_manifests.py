"""The manifests of `policy split`, as a real API server takes them and gives them back."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from tools.control_plane.access import ClusterAccess
from typer.testing import CliRunner

from chatelaine.cli.policy import app
from chatelaine.evidence.reference_files import GoodFile
from chatelaine.evidence.reference_values import verify_bundle
from support.reference_bundles import bundle, source


def test_pieces_of_900_kib_are_applied_by_kubectl_and_put_together_again(
    control_plane: ClusterAccess, namespace: str, tmp_path: Path
) -> None:
    files = tuple(GoodFile(f"/usr/lib/{n}", (f"sha256:{secrets.token_hex(32)}",)) for n in range(10_000))
    (tmp_path / "envelope").write_bytes(bundle(files=files))
    split = CliRunner().invoke(app, ["split", str(tmp_path / "envelope"), "--namespace", namespace])
    control_plane.kubectl("apply", "--server-side", "--filename", "-", stdin=split.stdout)
    names = [f"baseline-v7-{number}" for number in range(2)]
    found = [
        json.loads(control_plane.kubectl("get", "configmap", name, "--namespace", namespace, "--output", "json"))
        for name in names
    ]
    envelope = "".join(each["data"]["envelope"] for each in found).encode()
    assert envelope == (tmp_path / "envelope").read_bytes()
    assert len(verify_bundle(envelope, source(), not_below=7).files) == len(files)
