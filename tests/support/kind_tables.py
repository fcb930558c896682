"""What the API server takes and refuses, field by field, with the words that a person then reads.

Every field of a kind's spec has a row. A refusal is a value and a piece of the message; the message must also name the
field, unless the rule belongs to the object around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from support.kinds import ABSENT, DIGEST_A, DIGEST_B

WRONG = "should match"
LONG = "may not be more than"
MANY = "must have at most"
CHOICE = "supported values"
MISSING = "Required value"
TWICE = "Duplicate value"
LOW = "should be greater than or equal to"
HIGH = "should be less than or equal to"
TYPE = "must be of type"
FEW_ITEMS = "should have at least 1 items"
FEW_KEYS = "should have at least 1 properties"
LATER = "is not enforced by this release yet"
KEY_TYPES = "this release makes keys of type EcP256 and Rsa3072 only"
USAGES = "this release serves the usages Sign and Verify only"

Refusal = tuple[Any, str]


@dataclass(frozen=True)
class Row:
    """One field: values that are taken, and values that are refused with a piece of the message."""

    path: str
    accepted: list[Any] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def names(path: str) -> Row:
    """The name of an object."""
    bad = [("Upper", WRONG), ("-a", WRONG), ("a" * 254, LONG), ("", "at least 1"), (ABSENT, MISSING), (7, TYPE)]
    return Row(path, ["a", "a-1.b", "a" * 253], bad)


def short_names(path: str) -> Row:
    """A name that is one DNS label."""
    return Row(path, ["a", "a" * 63], [("a.b", WRONG), ("a" * 64, LONG), (ABSENT, MISSING)])


def selectors(path: str) -> list[Row]:
    """A label selector: empty ones would mean everybody, and expressions come later."""
    labels = f"{path}.matchLabels"
    return [
        Row(path, [{"matchLabels": {"app": "x"}}], [("x", TYPE), ({}, MISSING)]),
        Row(
            labels,
            [{"app": "x"}, {"chatelaine.dev/zone": ""}, {f"k{n}": "v" for n in range(16)}],
            [
                ({}, FEW_KEYS),
                ({f"k{n}": "v" for n in range(17)}, MANY),
                ({"app": "v" * 64}, LONG),
                ({"k" * 318: "v"}, "a label key has at most 317 characters"),
                ({"app": 7}, TYPE),
            ],
        ),
        Row(f"{path}.matchExpressions", [], [([{"key": "app", "operator": "Exists"}], f"matchExpressions {LATER}")]),
    ]


def choices(path: str, *values: str) -> Row:
    """An enum."""
    return Row(path, list(values), [("Nonsense", CHOICE), (values[0].lower(), CHOICE), (7, TYPE), ("", CHOICE)])


def numbers(path: str, low: int, high: int) -> Row:
    """A bounded integer."""
    return Row(path, [low, high], [(low - 1, LOW), (high + 1, HIGH), (1.5, TYPE), ("1", TYPE), (True, TYPE)])


def certificates(path: str) -> Row:
    """A set of compliance certificates."""
    bad: list[Refusal] = [([], FEW_ITEMS), (["lower"], WRONG), (["A"] * 2, TWICE), ([f"A{n}" for n in range(17)], MANY)]
    return Row(path, [["Fips140_3Level3"], [f"A{n}" for n in range(16)]], bad)


def digests(path: str) -> Row:
    """A SHA-256 digest."""
    bad = ["a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha1:" + "a" * 40, ""]
    refused = [(value, "should match '^sha256:[0-9a-f]{64}$'") for value in bad]
    return Row(path, [DIGEST_A, DIGEST_B], [*refused, ("sha256:" + "a" * 65, LONG), (ABSENT, MISSING)])


def hosts(path: str) -> Row:
    """A host name or an address."""
    return Row(
        path,
        ["agent-a.hsm-system.svc", "192.0.2.1", "2001:db8::1"],
        [("", "at least 1"), ("a b", WRONG), ("https://a", WRONG), ("-a", WRONG), ("a" * 254, LONG)],
    )


def later(path: str, value: Any) -> Row:
    """A field that this release does not enforce, and so does not take."""
    return Row(path, [], [(value, f"{path.rsplit('.', 1)[-1]} {LATER}")])


SERVICE = {"namespace": "x", "name": "x", "podSelector": {"matchLabels": {"app": "x"}}, "podPort": 1}
EXTERNAL = {"host": "hsm.example.net", "port": 8443}
GATEWAY = "spec.gateway"

HSM = [
    Row("spec", [], [(ABSENT, MISSING), ([], TYPE)]),
    Row(
        "spec.token",
        ["pkcs11:token=a", "pkcs11:serial=00ff", "pkcs11:token=My%20token;manufacturer=SoftHSM%20project"],
        [
            (ABSENT, MISSING),
            ("token=a", WRONG),
            ("pkcs11:token=a b", WRONG),
            ("pkcs11:token=" + "a" * 500, LONG),
            ("pkcs11:token=a?pin-value=1234", "must not carry a PIN"),
            ("pkcs11:token=a?pin-source=/etc/pin", "must not carry a PIN"),
            ("pkcs11:slot-id=0", "must name its token"),
        ],
    ),
    Row("spec.identity", [ABSENT], [({}, MISSING)]),
    digests("spec.identity.ekDigest"),
    digests("spec.identity.attestationKeyThumbprint"),
    Row(
        GATEWAY,
        [{"service": SERVICE}, {"external": EXTERNAL}],
        [
            (ABSENT, MISSING),
            ({}, "set exactly one of service and external"),
            ({"service": SERVICE, "external": EXTERNAL}, "set exactly one of service and external"),
        ],
    ),
    Row(f"{GATEWAY}.service", [SERVICE], [({}, MISSING), (ABSENT, "set exactly one of service and external")]),
    short_names(f"{GATEWAY}.service.namespace"),
    names(f"{GATEWAY}.service.name"),
    *selectors(f"{GATEWAY}.service.podSelector"),
    numbers(f"{GATEWAY}.service.podPort", 1, 65535),
    Row("spec.agent", [], [(ABSENT, MISSING), ({}, MISSING)]),
    hosts("spec.agent.host"),
    numbers("spec.agent.port", 1, 65535),
    Row("spec.attestation", [], [(ABSENT, MISSING)]),
    Row("spec.attestation.policyRef", [{"name": "x"}], [(ABSENT, MISSING), ({}, MISSING)]),
    names("spec.attestation.policyRef.name"),
    numbers("spec.attestation.intervalSeconds", 1, 3600),
    choices("spec.cordoned", "Enabled", "Disabled"),
    Row("spec.capacity", [ABSENT], [({}, MISSING), (100, TYPE)]),
    numbers("spec.capacity.claims", 0, 256),
    Row("spec.offers", [ABSENT, {}], [([], TYPE)]),
    certificates("spec.offers.compliance"),
    choices("spec.offers.maxSensitivity", "Public", "Internal", "Confidential", "Restricted"),
    Row(
        "spec.offers.keyTypes",
        [["EcP256"], ["EcP256", "Aes256", "Hmac"]],
        [([], FEW_ITEMS), (["Dsa1024"], CHOICE), (["EcP256", "EcP256"], TWICE)],
    ),
    Row("spec.adoptions", [ABSENT, []], [([{}], MISSING), ({}, TYPE)]),
    Row("spec.adoptions[0].claimUid", ["a", "a" * 64], [("a" * 65, LONG), ("", "at least 1"), (ABSENT, MISSING)]),
    short_names("spec.adoptions[0].namespace"),
    names("spec.adoptions[0].name"),
    Row("spec.adoptions[0].suspectSince", [ABSENT, "2026-01-01T00:00:00Z"], [(7, TYPE)]),
]

HSM_EXTERNAL = [
    Row(f"{GATEWAY}.external", [EXTERNAL], [({}, MISSING), (ABSENT, "set exactly one of service and external")]),
    hosts(f"{GATEWAY}.external.host"),
    numbers(f"{GATEWAY}.external.port", 1, 65535),
    Row(
        f"{GATEWAY}.external.cidrs",
        [ABSENT, ["192.0.2.10/32"], ["2001:db8::/64", "192.0.2.0/24"]],
        [
            ([], FEW_ITEMS),
            (["192.0.2.10"], WRONG),
            (["300.0.2.10/32"], "not an address range"),
            (["192.0.2.0/24"] * 2, TWICE),
            ([f"192.0.2.{n}/32" for n in range(17)], MANY),
        ],
    ),
]

KEY = "spec.keys[0]"
CLIENT = "spec.clients[0]"


def key(name: str) -> dict[str, Any]:
    """A key of a claim."""
    return {"name": name, "type": "EcP256", "usages": ["Sign"]}


def usages(path: str) -> Row:
    """Usages of a key or a client."""
    bad: list[Refusal] = [([], FEW_ITEMS), (["Encrypt"], USAGES), (["Whatever"], CHOICE), (["Sign", "Sign"], TWICE)]
    return Row(path, [["Sign"], ["Sign", "Verify"]], [*bad, (ABSENT, MISSING)])


CLAIM = [
    Row("spec", [], [(ABSENT, MISSING)]),
    Row("spec.selector", [], [(ABSENT, "set exactly one of selector and hsmRef")]),
    *selectors("spec.selector"),
    Row("spec.requirements", [ABSENT, {}], [([], TYPE)]),
    certificates("spec.requirements.compliance"),
    choices("spec.requirements.sensitivity", "Public", "Internal", "Confidential", "Restricted"),
    Row("spec.requirements.workloadType", ["PaymentSigning"], [("payment", WRONG), ("P" * 64, LONG), ("A_B", WRONG)]),
    choices("spec.mode", "Shared", "Exclusive"),
    Row("spec.hsmRef", [], [({"name": "hsm-a"}, "set exactly one of selector and hsmRef"), ({}, MISSING)]),
    Row("spec.policyRef", [ABSENT], [({}, MISSING)]),
    names("spec.policyRef.name"),
    choices("spec.failover", "Hold", "Rebind"),
    later("spec.adopt", {"claimUid": "1234"}),
    Row(
        "spec.keys",
        [[key("signing"), key("other")], [key("signing"), *(key(f"k{n}") for n in range(15))]],
        [
            ([key("signing"), key("signing")], TWICE),
            ([key("signing"), *(key(f"k{n}") for n in range(16))], MANY),
            ([], "a client names a key that this claim does not have"),
            (ABSENT, "a client names a key that this claim does not have"),
        ],
    ),
    Row(
        f"{KEY}.name",
        ["signing"],
        [("Signing", WRONG), ("a" * 64, LONG), (ABSENT, MISSING), ("other", "a client names")],
    ),
    Row(
        f"{KEY}.type",
        ["EcP256", "Rsa3072"],
        [
            (value, KEY_TYPES)
            for value in ("EcP384", "EcP521", "Ed25519", "Rsa2048", "Rsa4096", "Aes128", "Aes256", "Hmac")
        ]
        + [("Rsa1024", CHOICE), (ABSENT, MISSING)],
    ),
    usages(f"{KEY}.usages"),
    later(f"{KEY}.rotation", {"intervalSeconds": 2592000, "keep": 2}),
    Row("spec.clients", [ABSENT, []], [([{}], MISSING)]),
    names(f"{CLIENT}.serviceAccount"),
    *selectors(f"{CLIENT}.podSelector"),
    Row(
        f"{CLIENT}.keys",
        [["signing"]],
        [([], FEW_ITEMS), (["signing", "signing"], TWICE), (["other"], "a client names a key"), (["S"], WRONG)],
    ),
    usages(f"{CLIENT}.usages"),
    later(f"{CLIENT}.component", "checkout-server"),
    Row("spec.binding", [ABSENT], [({}, MISSING)]),
    names("spec.binding.secretName"),
    choices("spec.reclaimPolicy", "Retain", "Destroy"),
]

CLAIM_PREBOUND = [Row("spec.hsmRef", [{"name": "hsm-a"}], [(ABSENT, "set exactly one")]), names("spec.hsmRef.name")]
