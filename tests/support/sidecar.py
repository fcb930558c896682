"""A real `chatelaine proxy` process, with the volumes that a kubelet would mount, and curl beside it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from chatelaine.model.identifiers import digest_of
from support import pki
from support.gateway import GatewayProcess, Operator
from support.gateway_line import Reply
from support.tokens import Cluster
from support.waiting import DEADLINE_SECONDS, eventually

CLAIM = "checkout-hsm"


class House:
    """A gateway on a real token whose operator serves `payments/checkout-hsm`, and the cluster that signs for pods."""

    def __init__(
        self, folder: Path, *, host: str = "hsm-a", hsm: str = "pkcs11", cluster: Cluster | None = None
    ) -> None:
        self.cluster = cluster or Cluster()
        self.gateway = GatewayProcess(folder / host, pki.new_authority(), host=host, hsm=hsm).start()
        self.operator = Operator(self.gateway, self.cluster, folder / f"operator-{host}")
        self.uid = str(uuid.uuid4())

    def serve(self, *, make_keys: bool = True) -> None:
        """Tell the gateway a view in which the claim is served, and nothing else."""
        self.operator.world = type(self.operator.world)()
        self.operator.bind(CLAIM, self.uid, make_keys=make_keys)
        self.operator.tell()

    def binding(self, **changes: str) -> dict[str, str]:
        """The claim's binding Secret, as the operator writes it."""
        return {
            "type": "hsm",
            "provider": "chatelaine",
            "host": "127.0.0.1",
            "port": str(self.gateway.port),
            "endpoint": f"https://127.0.0.1:{self.gateway.port}/v1/keys/payments/{CLAIM}",
            "ca.crt": self.gateway.authority.bundle_pem,
            "gateway-spki": digest_of(self.gateway.leaf.spki),
            "pkcs11-uri": "pkcs11:token=hsm-a;object=x",
            **changes,
        }

    def account_token(self, **changes: Any) -> bytes:
        """What the kubelet would project into the pod `pod-1`."""
        return self.cluster.token(self.cluster.claims(time.time(), **changes))


def project(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Files as the kubelet projects them: links into a folder that is swapped as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"..{secrets.token_hex(6)}"
    state.mkdir()
    for name, content in files.items():
        (state / name).write_bytes(content.encode() if isinstance(content, str) else content)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    swapped, before = folder / "..data", None
    if swapped.is_symlink():
        before = swapped.readlink()
    fresh = folder / "..data_tmp"
    fresh.symlink_to(state.name)
    fresh.replace(swapped)
    if before is not None:
        shutil.rmtree(folder / before)


class Sidecar:
    """One process, with its volumes in `folder`; `run` is the one of its socket."""

    program = (sys.executable, "-m", "chatelaine.cli.main")

    def __init__(self, folder: Path, *options: str, listen: str = "") -> None:
        self.folder = folder
        self.binding = folder / "binding"
        self.token_file = folder / "account" / "token"
        # Unix socket paths are short, pytest's temporary folders are not.
        self.run = Path(tempfile.mkdtemp(prefix="chat-proxy-", dir="/tmp"))
        self.socket_path = self.run / "keys.sock"
        self.listen = listen or f"unix:{self.socket_path}"
        self.options = options
        self.environment: dict[str, str] = {}
        self.log = folder / "log"
        self.ready = self.run / "ready.json"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_SECONDS)
        shutil.rmtree(self.run, ignore_errors=True)

    def mount(self, binding: Mapping[str, str | bytes]) -> None:
        """The claim's Secret, now with this content."""
        project(self.binding, binding)

    def mount_token(self, token: str | bytes) -> None:
        """The projected service-account token, now this one."""
        project(self.token_file.parent, {self.token_file.name: token})

    @property
    def command(self) -> list[str]:
        """How it is started; with an environment that leads to the binding, without its folder."""
        binding = [] if self.environment else ["--binding", str(self.binding)]
        return [
            *self.program, "proxy", *binding, "--token-file", str(self.token_file),
            "--listen", self.listen, "--ready-file", str(self.ready), *self.options,
        ]  # fmt: skip

    def start(self) -> Self:
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self._ended() or self.ready.exists(), "the sidecar listens")
        return self

    def _ended(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the sidecar ended: {self.log.read_text()}")
        return False

    def stop(self) -> int:
        """As Kubernetes would; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    @property
    def said(self) -> dict[str, Any]:
        """What it wrote when it listened."""
        return dict(json.loads(self.ready.read_text()))

    def curl(self, path: str, body: Any = None, *options: str, url: str = "") -> Reply:
        """What curl gets where this sidecar listens; `url` is another name for that."""
        unix = self.listen.startswith("unix:")
        place = ["--unix-socket", str(self.socket_path)] if unix else []
        url = url or ("http://localhost" if unix else f"http://{self.said['listen']}")
        data = [] if body is None else ["--data-binary", body if isinstance(body, str) else json.dumps(body)]
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}", *place, *data,
             *options, f"{url}{path}"],
            capture_output=True, check=False, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == 0, (done.stderr, self.log.read_text())
        said, _, status = done.stdout.rpartition(b"\n")
        return Reply(int(status), said, False)

    def sign(self, key: str, message: bytes) -> bytes:
        """A signature, by curl; it must succeed."""
        reply = self.curl(f"/v1/keys/{key}/sign", {"input": base64.b64encode(message).decode()})
        assert reply.status == 200, (reply.body, self.log.read_text())
        return base64.b64decode(reply.json["signature"])

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Lines of the log with that message, with their facts."""
        rows = [json.loads(row) for row in self.log.read_text().splitlines() if row.startswith("{")]
        return [row for row in rows if row["message"] == message]


def verifies(pem: str, message: bytes, signature: bytes) -> bool:
    """Does the signature hold, by another library than the one that made it?"""
    public = load_pem_public_key(pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    try:
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
