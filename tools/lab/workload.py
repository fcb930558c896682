"""A workload as a pod would be: a service account, a Pod object, a projected token, and a client that signs.

In the embedded control plane nobody runs the pod; the client is a process of this machine that holds the token which
a kubelet would have projected.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatelaine.model.identifiers import gateway_server_name
from tools.control_plane.access import ClusterAccess

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


def create_pod(cluster: ClusterAccess, namespace: str, name: str, service_account: str, labels: dict[str, str]) -> Any:
    """The service account and a Pod object under it; returns the Pod."""
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": service_account, "namespace": namespace},
    }
    cluster.admin.apply(account)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "serviceAccountName": service_account,
            "containers": [{"name": "app", "image": "app"}],
            "terminationGracePeriodSeconds": 0,
        },
    }
    return cluster.admin.create(pod)


@dataclass  # not frozen: Python writes the trace into an exception that passes a `with`
class Refusal(Exception):
    """The gateway said no."""

    status: int
    code: str
    detail: str
    connection_closes: bool

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


class SigningClient:
    """One client with one key and one connection, kept open."""

    def __init__(self, address: str, port: int, ca_pem: str, hsm: str, namespace: str, claim: str) -> None:
        self._address, self._port, self._hsm = address, port, hsm
        self._namespace, self._claim = namespace, claim
        self._ca_pem = ca_pem
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._token = ""
        self._chain_pem = ""
        self._connection: http.client.HTTPSConnection | None = None

    def exchange(self, service_account_token: str) -> dict[str, Any]:
        """Trades the service-account token for a leaf certificate and the first trust token."""
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, hashes.SHA256())
        form = {
            "grant_type": EXCHANGE,
            "subject_token": service_account_token,
            "subject_token_type": JWT_TYPE,
            "resource": f"{self._namespace}/{self._claim}",
        }
        if not self._chain_pem:
            form["csr"] = base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()
        answer = self._request("POST", "/v1/token", urlencode(form).encode(), "application/x-www-form-urlencoded")
        self._token = answer["access_token"]
        if "certificate_chain" in answer:
            self._chain_pem = answer["certificate_chain"]
            self.close()  # the next connection shows the new leaf
        return answer

    def sign(self, key: str, message: bytes) -> bytes:
        """A signature over `message` (DER), on the open connection.

        Raises:
            Refusal: the gateway said no.
        """
        body = json.dumps({"input": base64.b64encode(message).decode()}).encode()
        path = f"/v1/keys/{self._namespace}/{self._claim}/{key}/sign"
        return base64.b64decode(self._request("POST", path, body, "application/json")["signature"])

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def local_port(self) -> int | None:
        """Our end of the open connection: the same number means the same connection."""
        sock = self._connection.sock if self._connection is not None else None
        return None if sock is None else int(sock.getsockname()[1])

    def _request(self, method: str, path: str, body: bytes, content_type: str) -> dict[str, Any]:
        connection = self._open()
        headers = {"Content-Type": content_type}
        if self._token and path != "/v1/token":
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        closes = response.will_close
        if closes:
            self.close()
        if response.status >= 400:
            raise Refusal(response.status, answer.get("code", ""), answer.get("detail", ""), closes)
        return dict(answer)

    def _open(self) -> http.client.HTTPSConnection:
        if self._connection is None:
            self._connection = _NamedConnection(
                self._address, self._port, gateway_server_name(self._hsm), self._context()
            )
            self._connection.connect()
        return self._connection

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self._ca_pem)
        if self._chain_pem:
            with tempfile.TemporaryDirectory() as folder:
                chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
                chain.write_text(self._chain_pem)
                key.touch(mode=0o600)
                key.write_bytes(
                    self._key.private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    )
                )
                context.load_cert_chain(chain, key)
        return context


class _NamedConnection(http.client.HTTPSConnection):
    """Dials an address but expects the certificate of a name."""

    def __init__(self, address: str, port: int, server_name: str, context: ssl.SSLContext) -> None:
        super().__init__(address, port, context=context, timeout=15)
        self._server_name, self._tls = server_name, context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)
