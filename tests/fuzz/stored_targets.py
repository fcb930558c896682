"""Targets: what is read back from the evidence store, and what is said of boot logs."""

from __future__ import annotations

import zlib
from dataclasses import replace

from tools.lab import event_log_writer as tcg

from chatelaine.appraisal.bundle_form import decode_bundle, encode_bundle
from chatelaine.appraisal.explain import Boot, explain
from chatelaine.appraisal.stored_form import decode_round, encode_round
from chatelaine.evidence.errors import EvidenceError
from chatelaine.model.hsm import MAX_SENTENCE_CHARACTERS, MAX_SENTENCES
from chatelaine.model.tpm_policy import Bank
from fuzz.target import Target, read_back
from support import stored_rounds

GOOD = stored_rounds.stored()
ROUND = replace(
    GOOD.round, evidence=b"\xa0", appraisal=b"{}", parts=(),
    asked=replace(GOOD.round.asked, identity=replace(GOOD.round.asked.identity, ak_public=b"p")),
    case=replace(GOOD.round.case, spec=b"{}", accounted=("chat/a/b/1",)),
)  # fmt: skip
ENCODED = encode_round(ROUND)
PART = b"a part"
WITH_PART = encode_round(replace(ROUND, parts=(stored_rounds.sha(PART),)))
QUOTED = (0, 4, 7)


def short_log() -> bytes:
    """A few events, one of which lies about what it is."""
    writer = tcg.EventLogWriter(banks=(tcg.SHA256,))
    writer.measure(4, tcg.EV_SEPARATOR, bytes(4))
    writer.measure(4, tcg.EV_EFI_BOOT_SERVICES_APPLICATION, tcg.load_event("\\a.efi"), b"image")
    writer.measure(7, tcg.EV_EFI_VARIABLE_DRIVER_CONFIG, tcg.variable(tcg.GLOBAL_VARIABLE, "PK", b"\0"), b"else")
    return writer.data


LOG = short_log()
TRUSTED = Boot(Bank.SHA256, dict.fromkeys(QUOTED, bytes(32)), 1, zlib.compress(LOG))


def explained(data: bytes) -> None:
    """Sentences are few, short and printable, whatever a host has logged."""
    now = Boot(Bank.SHA256, dict.fromkeys(QUOTED, b"\x01" * 32), 2, zlib.compress(data))
    for trusted in (None, TRUSTED):
        told = explain(now, trusted, {4}, log_asked=True)
        if len(told) > MAX_SENTENCES or any(
            len(one) > MAX_SENTENCE_CHARACTERS or not one.isprintable() for one in told
        ):
            raise AssertionError("an explanation that is too long, or not for people")


TARGETS = {
    "stored-round": Target(read_back(decode_round, encode_round), (EvidenceError,), lambda: [ENCODED, WITH_PART]),
    "evidence-bundle": Target(
        decode_bundle, (EvidenceError,), lambda: [encode_bundle(ENCODED, ()), encode_bundle(WITH_PART, (PART,))]
    ),
    "explanation": Target(explained, (), lambda: [LOG]),
}
