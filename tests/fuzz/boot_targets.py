"""What is fuzzed of boot logs: their form, UEFI's structures inside, and what is concluded from events that hash."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from tools.lab import event_log_writer as tcg
from tools.lab.firmware import OWNER, authority

from chatelaine.appraisal.argument_globs import ArgumentPattern
from chatelaine.appraisal.boot_rules import boot_rules
from chatelaine.appraisal.event_words import words_of
from chatelaine.evidence.boot_log import match_boot_log
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.event_log import parse_event_log, replay, replay_steps
from chatelaine.evidence.uefi import parse_variable
from chatelaine.evidence.uefi_command_line import CommandLine
from chatelaine.evidence.uefi_gpt import parse_partition_table
from chatelaine.evidence.uefi_signatures import parse_authority, parse_signature_lists
from chatelaine.model.tpm_policy import Bank, TpmRules
from fuzz.target import Target

SMALL = b"certificate"
"""Stands for a certificate where its content does not matter: inputs are short."""

RULES = boot_rules(
    TpmRules.model_validate(
        {
            "pcrs": {"bank": "Sha256", "values": [{"index": 0, "anyOf": ["00" * 32]}]},
            "eventLog": {
                "replay": "Required",
                "secureBoot": "Enabled",
                "authorities": {"allowed": ["sha256:" + "00" * 32]},
                "dbxAtLeast": ["00" * 32],
                "optionRoms": "Refuse",
                "forbiddenImages": ["00" * 32],
                "kernelCommandLine": {"required": ["lockdown=*"], "forbidden": ["*init=*"]},
            },
        }
    ),
    None,
)


def log(data: bytes) -> None:
    """A log as it comes; its steps lead to its values."""
    read = parse_event_log(data)
    for bank in read.banks:
        values = replay(read, bank)
        for pcr in read.touched():
            if replay_steps(read, bank, pcr)[-1][1] != values[pcr]:
                raise AssertionError("steps lead elsewhere")
        for event in read.events:
            words_of(event, bank)


def measured(data: bytes) -> None:
    """Events whose digests are right: facts are taken, rules are judged, words are found."""
    writer = tcg.EventLogWriter((tcg.SHA256,))
    for pcr, content in _events(data):
        writer.measure(pcr, tcg.EV_EFI_ACTION, content)
    values = replay(parse_event_log(writer.data), tcg.SHA256)
    verified = match_boot_log(writer.data, Bank.SHA256, values)
    for rule in RULES:
        rule.judge_log(verified)
    for event in verified.log.events:
        words_of(event, tcg.SHA256)


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """PCR, length, content, and so on."""
    while len(data) >= 2:
        pcr, size = data[0] % 16, data[1]
        yield pcr, data[2 : 2 + size]
        data = data[2 + size :]


def packed(*events: tuple[int, bytes]) -> bytes:
    """The other way round, for seeds."""
    return b"".join(struct.pack("BB", pcr, len(content)) + content for pcr, content in events)


def command_line(data: bytes) -> None:
    """Any bytes that a kernel may be told; no argument grows, and what is effective is some of them."""
    line = CommandLine(1, 8, data.decode("latin-1"))
    if sum(map(len, line.arguments)) > len(data) or len(line.effective_arguments) > len(line.arguments):
        raise AssertionError("arguments out of nothing")


def glob(data: bytes) -> None:
    """A glob and an argument, a NUL between them."""
    pattern, _, argument = data.decode("latin-1").partition("\0")
    ArgumentPattern(pattern).matches(argument)


def _target(parse: Callable[[bytes], object], *seeds: bytes) -> Target:
    return Target(parse, (EvidenceError,), lambda: list(seeds))


def _small_log() -> bytes:
    writer = tcg.EventLogWriter((tcg.SHA256, tcg.SHA384))
    writer.note(b"StartupLocality\0\x03")
    writer.measure(0, tcg.EV_S_CRTM_VERSION, b"1\0")
    writer.measure(4, tcg.EV_EFI_BOOT_SERVICES_APPLICATION, tcg.load_event("\\a.efi"), b"MZ")
    return writer.data


LISTS = tcg.signature_list(tcg.CERT_X509, OWNER, [SMALL]) + tcg.signature_list(tcg.CERT_SHA256, OWNER, [bytes(32)] * 2)
SECURE_BOOT = packed(
    (7, tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")),
    (7, tcg.variable(tcg.IMAGE_SECURITY, "dbx", tcg.signature_list(tcg.CERT_SHA256, OWNER, [bytes(32)]))),
    (7, bytes(4)),
    (7, tcg.variable(tcg.IMAGE_SECURITY, "db", OWNER.bytes_le + bytes(32))),
    (8, b"/vmlinuz lockdown=integrity"),
    (12, "ro quiet\0".encode("utf-16-le")),
    (4, b"Calling EFI Application from Boot Option"),
    (2, bytes(4)),
)

TARGETS = {
    "event-log": _target(log, _small_log(), tcg.sha1_record(4, 1, bytes(20), b"x")),
    "measured-boot": _target(measured, SECURE_BOOT),
    "uefi-variable": _target(parse_variable, tcg.variable(tcg.GLOBAL_VARIABLE, "SecureBoot", b"\x01")),
    "signature-lists": _target(parse_signature_lists, LISTS),
    "signature-entry": _target(parse_authority, OWNER.bytes_le + bytes(32), authority("Laboratory db")),
    "partition-table": _target(
        parse_partition_table, tcg.partition_table(OWNER, [(tcg.PARTITION_LINUX, OWNER, "root")])
    ),
    "kernel-command-line": _target(command_line, b'/vmlinuz a="b c" "d e" -- init=/bin/sh\n'),
    "argument-glob": _target(glob, b"a*b?c\0axxbyc"),
}
