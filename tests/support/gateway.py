"""A real gateway process, and the two who talk to it: an operator (control API) and clients (REST), over real TLS."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tools.lab.softhsm import SoftHsmToken

from chatelaine.model.identifiers import (
    OPERATOR_SERVER_NAME,
    gateway_server_name,
    key_label,
)
from chatelaine.pki.leaf import ProcessLeaf
from chatelaine.wire.messages import (
    ClaimView,
    ClientView,
    ClusterKeys,
    GatewayHello,
    KeyVersionView,
    KeyView,
    Standing,
    ViewUpdate,
    encode,
)
from support import pki
from support.gateway_line import Line, Reply
from support.tokens import CLUSTER_ISSUER, Cluster
from support.waiting import DEADLINE_SECONDS, eventually

POLICY = "sha256:" + "a" * 64
EVIDENCE = "sha256:" + "b" * 64


class GatewayProcess:
    """`python -m chatelaine.cli.gateway` in a folder of its own."""

    def __init__(self, folder: Path, authority: Any, *, host: str = "hsm-a", hsm: str = "pkcs11") -> None:
        self.folder = folder
        self.authority = authority
        self.host = host
        self.hsm = hsm
        self.token = SoftHsmToken.create(folder / "softhsm") if hsm == "pkcs11" else None
        self.leaf = pki.new_leaf(authority, folder / "tls", gateway_server_name(host))
        self.state = folder / "state"
        self.log = folder / "log"
        self.ready = folder / "ready.json"
        # Unix socket paths are short, pytest's temporary folders are not.
        self.socket_path = Path(f"/tmp/chat-gw-{os.getpid()}-{id(self)}/s")
        self.process: subprocess.Popen[bytes] | None = None
        self.listen = "127.0.0.1:0"
        self.options: list[str] = []
        self.port = 0

    def start(self) -> GatewayProcess:
        self.ready.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "chatelaine.cli.gateway",
            "--host-name", self.host, "--state-dir", str(self.state), "--tls-dir", str(self.folder / "tls"),
            "--listen", self.listen, "--local-socket", str(self.socket_path), "--ready-file", str(self.ready),
            "--hsm", self.hsm, *self.options,
        ]  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("SOFTHSM")}
        if self.token is not None:
            command += ["--module", str(self.token.module), "--token-uri", self.token.uri]
            command += ["--pin-file", str(self.token.pin_file)]
            env.update(self.token.env)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        eventually(lambda: self._ended() or self.ready.exists(), "the gateway listens")
        self.port = json.loads(self.ready.read_text())["port"]
        return self

    def _ended(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the gateway ended: {self.log.read_text()}")
        return False

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def stop(self) -> int:
        """As Kubernetes would; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        with contextlib.suppress(OSError):
            self.socket_path.unlink(missing_ok=True)
            self.socket_path.parent.rmdir()

    def context(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """Trusts our CA, as every client does by the binding Secret's `ca.crt`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.bundle_pem)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    def line(self, context: ssl.SSLContext | None = None) -> Line:
        return Line(self.port, context or self.context(), gateway_server_name(self.host))

    def local(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """A request over the Unix socket."""
        with contextlib.closing(self.local_connection()) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), False)

    def local_connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("local", timeout=DEADLINE_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_SECONDS)
        connection.sock.connect(str(self.socket_path))
        return connection

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / "audit.jsonl").read_text().splitlines() if line]

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Lines of the log with that message, with their facts."""
        rows = [json.loads(row) for row in self.log.read_text().splitlines() if row.startswith("{")]
        return [row for row in rows if row["message"] == message]

    def worker_pid(self) -> int:
        """The worker that was started last."""
        return int([row["pid"] for row in self.logged("PKCS#11 worker") if row["kind"] == "WorkerStarted"][-1])

    def metric(self, name: str) -> float:
        """The sum of all samples of that name."""
        with self.line() as line:
            text = line.ask("GET", "/metrics").body.decode()
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.split("{")[0].split(" ")[0] == name)


@dataclass
class World:
    """What the operator tells the gateway; change it, then `Operator.tell`."""

    verdict: str = "Trusted"
    epoch: str = "3.0.1"
    valid_seconds: float = 300.0
    claims: dict[str, ClaimView] = field(default_factory=dict)


class Operator:
    """The operator's side of the control API. `leaf` may be another process's, to see it refused."""

    def __init__(
        self, gateway: GatewayProcess, cluster: Cluster, folder: Path, name: str = OPERATOR_SERVER_NAME
    ) -> None:
        self.gateway = gateway
        self.cluster = cluster
        self.leaf = pki.new_leaf(gateway.authority, folder, name)
        self._folder = folder
        self.term = 1
        self.number = 0
        self.world = World()

    def line(self) -> Line:
        return self.gateway.line(self.gateway.context(self._folder / "chain.pem", self._folder / "key.pem"))

    def ask(self, method: str, path: str, message: Any = None) -> Reply:
        with self.line() as line:
            return line.ask(method, path, None if message is None else encode(message))

    def hello(self) -> GatewayHello:
        reply = eventually(lambda: self._hello(), "the token's service keys are known")
        return msgspec.json.decode(reply.body, type=GatewayHello)

    def _hello(self) -> Reply | None:
        reply = self.ask("GET", "/control/v1/hello")
        return reply if reply.status == 200 else None

    def update(self, **changes: Any) -> ViewUpdate:
        """A whole view of `world`, numbered above the last one that this operator made."""
        self.number += 1
        world = self.world
        now = int(time.time())
        fields: dict[str, Any] = {
            "instance": self.hello().instance,
            "term": self.term,
            "number": self.number,
            "standing": Standing(
                verdict=world.verdict,
                reason="AllHold",
                epoch=world.epoch,
                policy_digest=POLICY,
                evidence_digest=EVIDENCE,
                valid_for_seconds=world.valid_seconds,
                valid_until=now + int(world.valid_seconds) + 1,
            ),
            "cluster": ClusterKeys(issuer=CLUSTER_ISSUER, jwks=self.cluster.jwks()),
            "claims": tuple(world.claims.values()),
            **changes,
        }
        return ViewUpdate(**fields)

    def tell(self, update: ViewUpdate | None = None) -> Reply:
        reply = self.ask("PUT", "/control/v1/view", update or self.update())
        assert reply.status == 200, reply.body
        return reply

    def bind(self, name: str, uid: str, *, make_keys: bool = True, **changes: Any) -> ClaimView:
        """A claim `payments/<name>` with an EC and an RSA key, made in the token; served after `tell`."""
        self.hello()
        keys = {"signing": "EcP256", "wide": "Rsa3072", "idle": "EcP256"}
        for key, kind in keys.items() if make_keys else ():
            made = self.ask("POST", "/control/v1/keys/ensure", _ensure(key_label(uid, key, 1), kind))
            assert made.status == 200, made.body
        claim = claim_view(name, uid, keys, **changes)
        self.world.claims[uid] = claim
        return claim


def _ensure(label: str, kind: str) -> Any:
    from chatelaine.wire.messages import EnsureKey

    return EnsureKey(label=label, type=kind, may_generate=True)


def claim_view(name: str, uid: str, keys: dict[str, str], **changes: Any) -> ClaimView:
    """A claim whose service account `checkout` may use all keys but `idle`, from the pods pod-1 and pod-2."""
    fields: dict[str, Any] = {
        "uid": uid,
        "namespace": "payments",
        "name": name,
        "sequence": 1,
        "keys": tuple(
            KeyView(
                name=key,
                type=kind,
                usages=("Sign", "Verify"),
                versions=(KeyVersionView(version=1, state="Active", label=key_label(uid, key, 1)),),
            )
            for key, kind in keys.items()
        ),
        "clients": (
            ClientView(
                service_account="checkout",
                pod_uids=("pod-1", "pod-2"),
                keys=tuple(key for key in keys if key != "idle"),
                usages=("Sign", "Verify"),
            ),
        ),
        "policy_digests": (POLICY,),
        "valid_for_seconds": 300.0,
        "valid_until": int(time.time()) + 301,
        **changes,
    }
    return ClaimView(**fields)


class Client:
    """A workload: its own TLS key, a service-account token, a trust token."""

    def __init__(self, gateway: GatewayProcess, cluster: Cluster, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.gateway = gateway
        self.cluster = cluster
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.key_path = folder / "key.pem"
        self.key_path.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.chain_path = folder / "chain.pem"
        self.token = ""

    def csr(self) -> str:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return base64.b64encode(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)).decode()

    def form(self, claim: str, claims: dict[str, Any] | None = None, **changes: str) -> dict[str, str]:
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "subject_token": self.cluster.token(claims or self.cluster.claims(time.time())).decode(),
            "resource": f"payments/{claim}",
            "csr": self.csr(),
            **changes,
        }

    def exchange(self, form: dict[str, str], line: Line | None = None) -> Reply:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        with contextlib.ExitStack() as stack:
            used = line or stack.enter_context(self.gateway.line())
            return used.ask("POST", "/v1/token", urlencode(form).encode(), headers)

    def login(self, claim: str, claims: dict[str, Any] | None = None) -> Client:
        """Get leaf and token."""
        reply = self.exchange(self.form(claim, claims))
        assert reply.status == 200, reply.body
        self.token = reply.json["access_token"]
        self.chain_path.write_text(reply.json["certificate_chain"])
        return self

    def line(self) -> Line:
        return self.gateway.line(self.gateway.context(self.chain_path, self.key_path))

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token if token is None else token}"}

    def sign(self, line: Line, claim: str, key: str = "signing", token: str | None = None, **fields: Any) -> Reply:
        body = {"input": base64.b64encode(b"message").decode(), **fields}
        path = f"/v1/keys/payments/{claim}/{key}/sign"
        return line.ask("POST", path, json.dumps(body).encode(), self.headers(token))


def leaf_of(gateway: GatewayProcess, folder: Path, name: str) -> ProcessLeaf:
    return pki.new_leaf(gateway.authority, folder, name)
