"""The command line of an etcd that keeps nothing beyond a test."""

from __future__ import annotations

from pathlib import Path


def etcd_command(
    binary: Path, data: Path, *, client: str, peer: str, certificate: Path, key: Path, authority: Path
) -> list[str | Path]:
    """One member; whoever speaks to it shows a certificate.

    Args:
        binary: etcd.
        data: folder of its data.
        client: URL where the API server reaches it.
        peer: URL where other members would.
        certificate: its own, for both.
        key: of the certificate.
        authority: the CA of its callers.
    """
    command: list[str | Path] = [
        binary,
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # throw-away data
        "--log-level=warn",
    ]
    for prefix in ("", "peer-"):
        command += [
            f"--{prefix}cert-file={certificate}",
            f"--{prefix}key-file={key}",
            f"--{prefix}trusted-ca-file={authority}",
            f"--{prefix}client-cert-auth",
        ]
    return command
