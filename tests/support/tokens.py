"""Keys, trust tokens and service-account tokens for tests. Signed by software keys of the test's own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, RSAKey

from chatelaine.model.identifiers import TOKEN_AUDIENCE
from chatelaine.tokens.compact import encode

CLUSTER_ISSUER = "https://kubernetes.default.svc"


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign_es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Raw `r ‖ s`, as a PKCS#11 token returns it."""
    der = key.sign(hashlib.sha256(data).digest(), ec.ECDSA(Prehashed(hashes.SHA256())))
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def compact(header: object, payload: object, sign: Any) -> bytes:
    """A compact JWS from anything; bytes are taken as they are."""
    parts = [encode(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    signed = b".".join(parts)
    return signed + b"." + encode(sign(signed))


class Cluster:
    """Stands for the API server's token signer: its keys, its JWKS, and the tokens it would project."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        keys = []
        for kid, alg, private in (("rsa-1", "RS256", self.rsa), ("ec-1", "ES256", self.ec)):
            kind = RSAKey if alg == "RS256" else ECKey
            pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            keys.append({**kind.import_key(pem).as_dict(private=False), "kid": kid, "alg": alg, "use": "sig"})
        return json.dumps({"keys": keys})

    def claims(
        self,
        now: float,
        *,
        namespace: str = "payments",
        account: str = "checkout",
        pod_uid: str = "pod-1",
        **changes: Any,
    ) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": CLUSTER_ISSUER,
            "aud": [TOKEN_AUDIENCE],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + 3600,
            "jti": "j",
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "n", "uid": "u"},
                "pod": {"name": "checkout-0", "uid": pod_uid},
                "serviceaccount": {"name": account, "uid": "sa-uid"},
                "warnafter": int(now) + 3000,
            },
        }
        return {**claims, **changes}

    def token(self, claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> bytes:
        """Signed by the RSA key, or by the EC key when the header says ES256."""
        said = {"alg": "RS256", "kid": "rsa-1", **(header or {})}
        if said["alg"] == "ES256":
            return compact(
                {"kid": "ec-1", **said} if header and "kid" in header else {**said, "kid": "ec-1"},
                claims,
                lambda data: sign_es256(self.ec, data),
            )
        return compact(said, claims, lambda data: self.rsa.sign(data, padding.PKCS1v15(), hashes.SHA256()))
