"""What the API server takes and refuses of the rules for boot logs and for what ran; see `kind_tables`."""

from __future__ import annotations

from typing import Any

from support.kind_tables import FEW_ITEMS, LONG, MANY, MISSING, TWICE, TYPE, WRONG, Row, choices
from support.kinds import ABSENT, DIGEST_A, DIGEST_B

LOG = "spec.tpm.eventLog"
IMA = "spec.tpm.ima"
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"
HEX = "ab" * 32


def optional_choice(path: str, *values: str) -> Row:
    """One of a few words, or nothing."""
    row = choices(path, *values)
    return Row(path, [ABSENT, *row.accepted], [refusal for refusal in row.refused if refusal[0] is not ABSENT])


def many(path: str, one: Any, other: Any, limit: int, wrong: Any) -> list[Row]:
    """A set of texts, and its items."""
    return [
        Row(path, [ABSENT, [one], [one, other]], [([], FEW_ITEMS), ([one, one], TWICE), (one, TYPE)]),
        Row(f"{path}[0]", [one], [(wrong, WRONG), (7, TYPE)]),
        Row(path, [], [([one] * (limit + 1), MANY)]),
    ]


def globs(path: str) -> list[Row]:
    """A set of globs over arguments."""
    return [
        Row(path, [ABSENT, ["lockdown=*"], ["ro", "quiet?"]], [([], FEW_ITEMS), (["ro", "ro"], TWICE), ("ro", TYPE)]),
        Row(f"{path}[0]", ["root=/dev/*"], [("a b", WRONG), ("é", WRONG), ("x" * 256, LONG)]),
    ]


EVENT_LOG = [
    Row(LOG, [ABSENT, {"replay": "Required"}], [({}, MISSING), ("Required", TYPE)]),
    choices(f"{LOG}.replay", "Required"),
    optional_choice(f"{LOG}.secureBoot", "Enabled"),
    optional_choice(f"{LOG}.optionRoms", "Refuse"),
    Row(f"{LOG}.authorities", [ABSENT, {}], [([], TYPE)]),
    *(
        row
        for name in ("required", "allowed", "forbidden")
        for row in many(f"{LOG}.authorities.{name}", DIGEST_A, DIGEST_B, 32, HEX)
    ),
    *many(f"{LOG}.dbxAtLeast", HEX, "cd" * 32, 512, DIGEST_A),
    *many(f"{LOG}.forbiddenImages", HEX, "cd" * 32, 256, DIGEST_A),
    Row(f"{LOG}.kernelCommandLine", [ABSENT, {}], [("ro", TYPE)]),
    *globs(f"{LOG}.kernelCommandLine.required"),
    *globs(f"{LOG}.kernelCommandLine.forbidden"),
]

FILE = {"path": "/usr/bin/sh", "digests": [DIGEST_A]}
FILES = [{"path": f"/bin/{n}", "digests": [DIGEST_A]} for n in range(65)]

WHAT_RAN = [
    Row(IMA, [ABSENT, {}, {"violations": "Refuse"}], [([], TYPE)]),
    optional_choice(f"{IMA}.violations", "Refuse", "Record"),
    Row(
        f"{IMA}.allow",
        [ABSENT, [FILE], FILES[:64]],
        [([], FEW_ITEMS), ([FILE, FILE], TWICE), (FILES, MANY), ([{}], MISSING)],
    ),
    Row(
        f"{IMA}.allow[0].path",
        ["/bin/sh", "boot_aggregate"],
        [("", "at least 1"), ("x" * 1025, LONG), (ABSENT, MISSING)],
    ),
    Row(
        f"{IMA}.allow[0].digests",
        [[DIGEST_A], [f"sha384:{'ab' * 48}", f"sha512:{'ab' * 64}"]],
        [([], FEW_ITEMS), ([DIGEST_A] * 2, TWICE), ([f"sha1:{'ab' * 20}"], WRONG), (ABSENT, MISSING)],
    ),
    Row(f"{IMA}.allow[0].digests[0]", [DIGEST_A], [(HEX, WRONG), (f"sha256:{'AB' * 32}", WRONG)]),
    Row(f"{IMA}.unjudgedPaths", [ABSENT, ["/var/log/**"]], [([], FEW_ITEMS), (["/a"] * 2, TWICE), ("/a", TYPE)]),
    Row(f"{IMA}.unjudgedPaths[0]", ["/var/*"], [("", "at least 1"), ("x" * 1025, LONG)]),
    Row(f"{IMA}.signingKeys", [ABSENT, [PEM]], [([], FEW_ITEMS), ([PEM] * 17, MANY), (PEM, TYPE)]),
    Row(f"{IMA}.signingKeys[0]", [PEM], [("", WRONG), (PEM.replace("PUBLIC", "PRIVATE"), WRONG)]),
]
