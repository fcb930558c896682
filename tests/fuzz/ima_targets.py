"""What is fuzzed of IMA: both forms of its list, what judges it, signatures of files, and globs over hostile paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tools.lab import ima as lab

from chatelaine.appraisal.ima_rules import ImaRule, ima_rule
from chatelaine.appraisal.path_globs import PathGlob
from chatelaine.evidence import tpm_algorithms as alg
from chatelaine.evidence.errors import EvidenceError
from chatelaine.evidence.ima import ImaEntry, VerifiedIma, extend, match_ascii_prefix, match_prefix
from chatelaine.evidence.ima_ascii import ascii_records
from chatelaine.evidence.ima_signature import signing_key, verify_file_signature
from chatelaine.model.tpm_policy import ImaRules
from chatelaine.model.verdict import Outcome
from fuzz.target import Target
from support.paper_ima import PaperIma, file_signature, pem, plain, sha256, start
from support.paper_tpm import ecc_key

CONTENT = b"bash 5.2"
KEY = ecc_key(alg.NIST_P256, 230)
KEYS = (signing_key(pem(KEY)),)
RULE: ImaRule = ima_rule(
    ImaRules.model_validate(
        {
            "allow": [{"path": "/usr/bin/bash", "digests": [sha256(CONTENT)]}],
            "unjudgedPaths": ["/var/**", "/tmp/*.log"],
            "signingKeys": [pem(KEY)],
        }
    ),
    None,
    at=0,
)


def paper() -> PaperIma:
    """One entry of each kind."""
    made = PaperIma.booted().ran("/usr/bin/bash", CONTENT).ran("/opt/a b", CONTENT, file_signature(KEY, CONTENT))
    made.violated("/var/log/wtmp").add("ima-buf", plain(".ima", b"key") + lab.field(b"key")).ran("/x", CONTENT, b"")
    typed = lab.digest_field("verity:sha256", bytes(32)) + lab.path_field("/bin/typed")
    return made.add("ima-ngv2", typed).add("ima", lab.old_data(bytes(20), "/bin/old"))


def binary_list(data: bytes) -> None:
    """Whatever is read of it: the same in pieces as at once, found again by its PCR 10, and judged."""
    progress, entries = extend(start(), data)
    if match_prefix(start(), data, progress.pcr10)[1] != entries[: _last_of_pcr(entries)]:
        raise AssertionError("the prefix is not the one that was replayed")
    half, first = extend(start(), data[: len(data) // 2])
    if extend(half, data[half.offset_bytes :]) != (progress, entries[len(first) :]):
        raise AssertionError("two pieces are not what the whole is")
    finding = RULE.judge_ima(VerifiedIma(entries, progress, 0))
    if finding.outcome is Outcome.HOLDS and any(entry.violation or entry.flaw for entry in entries):
        raise AssertionError("excused")


def _last_of_pcr(entries: Sequence[ImaEntry]) -> int:
    """How many entries the shortest prefix with the same PCR 10 has."""
    return max((number for number, entry in enumerate(entries, 1) if entry.pcr == lab.PCR), default=0)


def ascii_list(data: bytes) -> None:
    """What is read of it is what the same entries say in binary."""
    records = list(ascii_records(data))
    binary = b"".join(
        lab.record(
            record.template.decode(),
            record.data,
            pcr=record.pcr,
            listed=lab.VIOLATION if record.violation else None,
        )
        for record in records
    )
    progress, entries = extend(start(), binary)
    if match_ascii_prefix(start(), data, progress.pcr10)[1] != entries[: _last_of_pcr(entries)]:
        raise AssertionError("the two forms say different things")


def glob(data: bytes) -> None:
    """A glob and a path, with a NUL between."""
    text, _, path = data.decode("utf-8", "surrogateescape").partition("\0")
    matches = PathGlob(text).matches(path)
    if not matches and "*" not in text and "?" not in text and text == path:
        raise AssertionError("a path does not match itself")


def _target(parse: Callable[[bytes], object], *seeds: bytes) -> Target:
    return Target(parse, (EvidenceError,), lambda: list(seeds))


TARGETS = {
    "ima-binary": _target(binary_list, paper().data),
    "ima-ascii": _target(ascii_list, paper().lines),
    "ima-file-signature": _target(
        lambda data: verify_file_signature(data, sha256(CONTENT), KEYS), file_signature(KEY, CONTENT)
    ),
    "path-glob": _target(glob, b"/var/**/a?b*c\0/var/log/aXbYc", b"**\0/", b"/var/log/*.log\0/var/log/x.log"),
}
