"""What the API server takes and refuses of an AttestationPolicy, field by field; see `kind_tables`."""

from __future__ import annotations

from typing import Any

from support.kind_tables import (
    CHOICE,
    FEW_ITEMS,
    HIGH,
    KEY_TYPES,
    LATER,
    LONG,
    LOW,
    MANY,
    MISSING,
    TWICE,
    TYPE,
    USAGES,
    WRONG,
    Refusal,
    Row,
    certificates,
    choices,
    digests,
    later,
    names,
    numbers,
    selectors,
)
from support.kinds import ABSENT, DIGEST_A, DIGEST_B
from support.log_tables import EVENT_LOG, WHAT_RAN

LISTED = "spec.tpm.endorsement.listed"
PCRS = "spec.tpm.pcrs"
RULE = "spec.release.anyOf[0]"


def texts(path: str) -> Row:
    """A model name or a firmware version, as a token states it."""
    return Row(path, ["2.6", "x" * 63], [("", "at least 1"), ("x" * 64, LONG), (ABSENT, MISSING)])


def config_map_key(name: str) -> dict[str, str]:
    """A reference to one entry of a ConfigMap."""
    return {"name": name, "key": "all.pem"}


def config_map_keys(path: str) -> list[Row]:
    """Its two fields."""
    bad: list[Refusal] = [("", "at least 1"), ("a b", WRONG), ("../a", WRONG), ("a" * 254, LONG), (ABSENT, MISSING)]
    return [names(f"{path}.name"), Row(f"{path}.key", ["all.pem", "A_b-1", "k" * 253], bad)]


REFERENCE = "spec.referenceValues"
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


def reference_values(*keys: str, **source: Any) -> dict[str, Any]:
    """Signed by `keys`, all of them."""
    listed = [{"name": key, "publicKey": PEM} for key in keys or ("alice",)]
    return {"series": "fleet", "keys": listed, "threshold": len(listed), **source}


ONE_SOURCE = "give exactly one of configMapRefs and file"
PIECES = [config_map_key(f"p{n}") for n in range(17)]
REFERENCE_VALUES = [
    Row(
        REFERENCE,
        [ABSENT, reference_values(file="fleet.dsse.json"), reference_values("a", "b", configMapRefs=PIECES[:2])],
        [
            ({}, MISSING),
            (reference_values(), ONE_SOURCE),
            (reference_values(file="f", configMapRefs=PIECES[:1]), ONE_SOURCE),
            ({**reference_values(file="f"), "threshold": 2}, "threshold is above the number of keys"),
        ],
    ),
    names(f"{REFERENCE}.series"),
    Row(
        f"{REFERENCE}.configMapRefs",
        [PIECES[:16]],
        [([], FEW_ITEMS), (PIECES, MANY), (ABSENT, ONE_SOURCE), ([{}], MISSING)],
    ),
    *config_map_keys(f"{REFERENCE}.configMapRefs[0]"),
    Row(f"{REFERENCE}.file", [], [("f", ONE_SOURCE), ("a/b", WRONG), ("", "at least 1"), ("f" * 254, LONG)]),
    Row(
        f"{REFERENCE}.keys",
        [reference_values(*(f"k{n}" for n in range(16)))["keys"]],
        [
            ([], FEW_ITEMS),
            (ABSENT, MISSING),
            (reference_values("a", "a")["keys"], TWICE),
            (reference_values(*(f"k{n}" for n in range(17)))["keys"], MANY),
        ],
    ),
    names(f"{REFERENCE}.keys[0].name"),
    Row(
        f"{REFERENCE}.keys[0].publicKey",
        [PEM, PEM.strip()],
        [
            ("", WRONG),
            (PEM.replace("PUBLIC", "PRIVATE"), WRONG),
            (" " + PEM, WRONG),
            (PEM + "x" * 2048, LONG),
            (ABSENT, MISSING),
        ],
    ),
    Row(
        f"{REFERENCE}.threshold",
        [1],
        [(0, LOW), (17, HIGH), (2, "threshold is above the number of keys"), ("1", TYPE), (ABSENT, MISSING)],
    ),
]

POLICY = [
    Row("spec", [], [(ABSENT, MISSING), ({}, MISSING)]),
    choices("spec.enforcement", "Enforce", "Audit"),
    Row("spec.freshness", [], [(ABSENT, MISSING), ({}, MISSING)]),
    numbers("spec.freshness.maxAgeSeconds", 2, 86400),
    Row("spec.tpm", [], [(ABSENT, MISSING), ({}, MISSING)]),
    Row("spec.tpm.endorsement", [ABSENT, {}], [([], TYPE)]),
    Row(
        LISTED,
        [ABSENT, [{"ekDigest": DIGEST_A}, {"ekDigest": DIGEST_B}]],
        [
            ([], FEW_ITEMS),
            ([{"ekDigest": DIGEST_A}] * 2, TWICE),
            ([{"ekDigest": f"sha256:{n:064x}"} for n in range(257)], MANY),
        ],
    ),
    digests(f"{LISTED}[0].ekDigest"),
    Row(f"{LISTED}[0].note", [ABSENT, "", "n" * 1024], [("n" * 1025, LONG)]),
    Row(
        "spec.tpm.endorsement.roots",
        [ABSENT, [{"configMapRef": config_map_key(f"v{n}")} for n in range(16)]],
        [
            ([], FEW_ITEMS),
            ([{}], MISSING),
            ([{"configMapRef": config_map_key("v")}] * 17, MANY),
            ("vendors", TYPE),
        ],
    ),
    Row("spec.tpm.endorsement.roots[0].configMapRef", [config_map_key("v")], [({}, MISSING), (ABSENT, MISSING)]),
    *config_map_keys("spec.tpm.endorsement.roots[0].configMapRef"),
    Row(PCRS, [], [(ABSENT, MISSING), ({}, MISSING)]),
    Row(f"{PCRS}.bank", ["Sha256", "Sha384"], [("Sha1", CHOICE), (ABSENT, MISSING)]),
    Row(
        f"{PCRS}.values",
        [[{"index": n, "anyOf": ["00" * 32]} for n in range(24)]],
        [([], FEW_ITEMS), (ABSENT, MISSING), ([{"index": 1, "anyOf": ["00" * 32]}] * 2, TWICE)],
    ),
    Row(f"{PCRS}.values[0].index", [1, 23], [(-1, LOW), (24, HIGH), (ABSENT, MISSING)]),
    Row(
        f"{PCRS}.values[0].anyOf",
        [["ab" * 32], ["ab" * 48, "cd" * 48]],
        [([], FEW_ITEMS), (["AB" * 32], WRONG), (["ab" * 20], WRONG), (["ab" * 33], WRONG), (["ab" * 32] * 2, TWICE)],
    ),
    *EVENT_LOG,
    *WHAT_RAN,
    Row("spec.hsm", [ABSENT, {}], [([], TYPE)]),
    Row("spec.hsm.firmware", [ABSENT], [([], FEW_ITEMS), ([{"model": "m", "anyOf": ["1"]}] * 2, TWICE)]),
    texts("spec.hsm.firmware[0].model"),
    Row(
        "spec.hsm.firmware[0].anyOf",
        [["2.6", "2.7"]],
        [([], FEW_ITEMS), (["1", "1"], TWICE), ([str(n) for n in range(33)], MANY), (ABSENT, MISSING)],
    ),
    choices("spec.hsm.inventory", "Accounted", "Any"),
    Row(
        "spec.hsm.statement",
        ["HostAsserted"],
        [("VendorAttested", f"statement: VendorAttested {LATER}"), ("Nobody", CHOICE)],
    ),
    Row(
        "spec.hsm.compliance",
        [ABSENT],
        [([], FEW_ITEMS), ([{"model": "m", "firmware": "1", "holds": ["A"]}] * 2, TWICE)],
    ),
    texts("spec.hsm.compliance[0].model"),
    texts("spec.hsm.compliance[0].firmware"),
    certificates("spec.hsm.compliance[0].holds"),
    Row("spec.release", [ABSENT], [({}, MISSING)]),
    Row("spec.release.anyOf", [], [([], FEW_ITEMS), ([{}], MISSING)]),
    *selectors(f"{RULE}.namespaces"),
    numbers(f"{RULE}.maxClaims", 0, 10000),
    Row(
        f"{RULE}.keyTypes",
        [ABSENT, ["EcP256", "Rsa3072"]],
        [([], FEW_ITEMS), (["Aes256"], KEY_TYPES), (["Rsa1024"], CHOICE), (["EcP256"] * 2, TWICE)],
    ),
    Row(
        f"{RULE}.usages",
        [ABSENT, ["Sign", "Verify"]],
        [([], FEW_ITEMS), (["Decrypt"], USAGES), (["Whatever"], CHOICE), (["Sign"] * 2, TWICE)],
    ),
    choices(f"{RULE}.maxSensitivity", "Public", "Internal", "Confidential", "Restricted"),
    Row(f"{RULE}.workloadTypes", [ABSENT, ["A", "B"]], [([], FEW_ITEMS), (["a"], WRONG), (["A", "A"], TWICE)]),
    certificates(f"{RULE}.compliance"),
    later("spec.components", [{"name": "checkout-server"}]),
    later("spec.tee", [{"type": "SevSnp"}]),
    later("spec.grants", [{"operations": ["Sign"]}]),
    *REFERENCE_VALUES,
]
