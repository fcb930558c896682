"""Words for differences between policies: what a change can do, and a sentence that says it.

Two tables by the place in the model (`tpm.pcrs.values.anyOf`). Where a place has no row, the effect is `Either` and
the sentence names the path and both values.
"""

from __future__ import annotations

import enum
import json
from typing import Final

from chatelaine.model.printable import printable


class Effect(enum.StrEnum):
    """What a change can do to a host or a claim: only refuse more, only let in more. `Either` promises nothing."""

    STRICTER = "Stricter"
    LOOSER = "Looser"
    EITHER = "Either"
    NOTHING = "Nothing"


STRICTER, LOOSER, EITHER, NOTHING = Effect.STRICTER, Effect.LOOSER, Effect.EITHER, Effect.NOTHING
_OPPOSITE: Final = {STRICTER: LOOSER, LOOSER: STRICTER, EITHER: EITHER, NOTHING: NOTHING}

SHOWN_CHARACTERS: Final = 200

_MORE_ENTRIES: Final = {
    "tpm.endorsement.listed": LOOSER,
    "tpm.endorsement.roots": LOOSER,
    "tpm.pcrs.values": STRICTER,
    "tpm.pcrs.values.anyOf": LOOSER,
    "tpm.eventLog.authorities.required": STRICTER,
    "tpm.eventLog.authorities.allowed": LOOSER,
    "tpm.eventLog.authorities.forbidden": STRICTER,
    "tpm.eventLog.dbxAtLeast": STRICTER,
    "tpm.eventLog.forbiddenImages": STRICTER,
    "tpm.eventLog.kernelCommandLine.required": STRICTER,
    "tpm.eventLog.kernelCommandLine.forbidden": STRICTER,
    "tpm.ima.allow": LOOSER,
    "tpm.ima.allow.digests": LOOSER,
    "tpm.ima.unjudgedPaths": LOOSER,
    "tpm.ima.signingKeys": LOOSER,
    "hsm.firmware": LOOSER,
    "hsm.firmware.anyOf": LOOSER,
    "hsm.compliance": LOOSER,
    "hsm.compliance.holds": LOOSER,
    "release.anyOf": LOOSER,
    "referenceValues.keys": LOOSER,
}
"""What one entry more in a list can do; one less does the opposite."""

_PRESENT: Final = {
    "tpm.endorsement": STRICTER,
    "tpm.endorsement.listed": LOOSER,
    "tpm.endorsement.roots": LOOSER,
    "tpm.endorsement.listed.note": NOTHING,
    "tpm.eventLog": STRICTER,
    "tpm.eventLog.secureBoot": STRICTER,
    "tpm.eventLog.optionRoms": STRICTER,
    "tpm.eventLog.authorities.required": STRICTER,
    "tpm.eventLog.authorities.allowed": STRICTER,
    "tpm.eventLog.authorities.forbidden": STRICTER,
    "tpm.eventLog.dbxAtLeast": STRICTER,
    "tpm.eventLog.forbiddenImages": STRICTER,
    "tpm.eventLog.kernelCommandLine.required": STRICTER,
    "tpm.eventLog.kernelCommandLine.forbidden": STRICTER,
    "tpm.ima": STRICTER,
    "tpm.ima.allow": LOOSER,
    "tpm.ima.unjudgedPaths": LOOSER,
    "tpm.ima.signingKeys": LOOSER,
    "hsm.firmware": STRICTER,
    "hsm.compliance": LOOSER,
    "release": LOOSER,
}
"""What it can do that something is there at all; that it goes does the opposite."""

_SCALARS: Final = {
    "enforcement": ("Enforce", "Audit"),
    "tpm.ima.violations": ("Refuse", "Record"),
    "hsm.inventory": ("Accounted", "Any"),
    "hsm.statement": ("VendorAttested", "HostAsserted"),
}
"""Values from the strictest to the loosest."""

_NUMBERS: Final = {"freshness.maxAgeSeconds": LOOSER, "referenceValues.threshold": STRICTER}
"""What a larger number can do."""


def effect_of(pattern: str, before: object, after: object, *, item: bool) -> Effect:
    """What this change can do."""
    if pattern in _NUMBERS and isinstance(before, int) and isinstance(after, int):
        return _NUMBERS[pattern] if after > before else _OPPOSITE[_NUMBERS[pattern]]
    if pattern in _SCALARS and before in _SCALARS[pattern] and after in _SCALARS[pattern]:
        order = _SCALARS[pattern]
        return LOOSER if order.index(str(after)) > order.index(str(before)) else STRICTER
    if pattern == "tpm.endorsement.listed.note":
        return NOTHING
    if before is not None and after is not None:
        return EITHER
    more = (_MORE_ENTRIES if item else _PRESENT).get(pattern, EITHER)
    return more if before is None else _OPPOSITE[more]


_ENTRY_SENTENCES: Final = {
    "tpm.endorsement.listed": ("the TPM {0} may enrol too", "the TPM {0} may not enrol any more"),
    "tpm.endorsement.roots": ("TPMs under the roots in {value} may enrol too", "the roots in {value} count no more"),
    "tpm.pcrs.values": ("PCR {0} is judged now: {good} is good", "PCR {0} is not judged any more"),
    "tpm.pcrs.values.anyOf": ("PCR {0}: {value} is good too", "PCR {0}: {value} is not good any more"),
    "tpm.eventLog.authorities.required": ("{value} must have verified something", "{value} need not verify anything"),
    "tpm.eventLog.authorities.allowed": ("{value} may verify what boots", "{value} may not verify what boots any more"),
    "tpm.eventLog.authorities.forbidden": ("{value} must not verify anything", "{value} is not forbidden any more"),
    "tpm.eventLog.dbxAtLeast": ("dbx must hold {value}", "dbx need not hold {value} any more"),
    "tpm.eventLog.forbiddenImages": ("the image {value} must not be measured", "the image {value} may be measured"),
    "tpm.eventLog.kernelCommandLine.required": (
        "the kernel must be told {value}",
        "the kernel need not be told {value} any more",
    ),
    "tpm.eventLog.kernelCommandLine.forbidden": (
        "the kernel must not be told {value}",
        "the kernel may be told {value}",
    ),
    "tpm.ima.allow": ("{0} may run as {digests}", "{0} is not listed any more"),
    "tpm.ima.allow.digests": ("{0}: {value} is good too", "{0}: {value} is not good any more"),
    "tpm.ima.unjudgedPaths": ("files like {value} are not judged any more", "files like {value} are judged now"),
    "tpm.ima.signingKeys": (
        "files signed by one key more are good: {value}",
        "files signed by this key are not good by that any more: {value}",
    ),
    "hsm.firmware": ("model {0} is good with firmware {good}", "model {0} is not listed any more"),
    "hsm.firmware.anyOf": ("model {0}: firmware {value} is good too", "model {0}: firmware {value} is not good"),
    "hsm.compliance": ("model and firmware {0} hold {holds}", "model and firmware {0} hold no certificate any more"),
    "hsm.compliance.holds": ("model and firmware {0} hold {value} too", "model and firmware {0} hold {value} no more"),
    "release.anyOf": (
        "claims may bind by one rule more: {value}",
        "claims may not bind by this rule any more: {value}",
    ),
    "referenceValues.keys": ("the key {0} may sign reference values", "the key {0} may not sign any more"),
}
"""What is said of an entry that came, and of one that went. `{0}` is its key."""

_PRESENT_SENTENCES: Final = {
    "tpm.endorsement": (
        "TPMs must be listed, or have a listed vendor",
        "the approved identity alone decides who enrols",
    ),
    "tpm.eventLog": ("the boot event log is judged now: {value}", "the boot event log is not judged any more"),
    "tpm.eventLog.secureBoot": ("Secure Boot must have been on", "Secure Boot need not have been on"),
    "tpm.eventLog.optionRoms": ("option ROMs are refused", "option ROMs are not looked at any more"),
    "tpm.ima": ("what runs is judged now (IMA): {value}", "what runs is not judged any more (IMA)"),
    "hsm.firmware": ("the token's firmware is judged now: {value}", "the token's firmware is not judged any more"),
    "release": ("claims may bind through this policy: {value}", "no claim may bind through this policy any more"),
    "referenceValues": (
        "signed reference values add to the rules: {value}",
        "no signed reference values add to the rules any more",
    ),
}


def says(pattern: str, path: str, keys: tuple[str, ...], before: object, after: object, *, item: bool) -> str:
    """One sentence on one change; printable, bounded."""
    value = after if after is not None else before
    sentences = (_ENTRY_SENTENCES if item else _PRESENT_SENTENCES).get(pattern)
    if sentences is None or (before is not None and after is not None):
        return f"{shown(path)}: {_or_nothing(before)} becomes {_or_nothing(after)}"
    parts = value if isinstance(value, dict) else {}
    words = {
        "value": shown(value),
        "good": _listed(parts.get("anyOf")),
        "digests": _listed(parts.get("digests")),
        "holds": _listed(parts.get("holds")),
    }
    return sentences[0 if before is None else 1].format(*map(shown, keys), **words)


def _or_nothing(value: object) -> str:
    return "nothing" if value is None else shown(value)


def _listed(value: object) -> str:
    return " or ".join(map(shown, value)) if isinstance(value, list) else shown(value)


def shown(value: object) -> str:
    """A value for a person: one printable line of bounded length. Policies and evidence are written by others."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text, SHOWN_CHARACTERS)
