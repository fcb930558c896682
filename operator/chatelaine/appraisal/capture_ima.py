"""What ran on a host, as rules that allow exactly that again.

Files are listed by path and content. Logs and caches are not: their names and contents change by themselves, and
nothing should run from there. A list that could never be judged (weak hashes, entries that cannot be read, entries of
another PCR) is left out as a whole and the reason said, instead of writing rules that refuse the host they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatelaine.appraisal.ima_rules import STRONG_DIGESTS
from chatelaine.appraisal.path_globs import PathGlob
from chatelaine.appraisal.policy_words import shown
from chatelaine.evidence.ima import BOOT_AGGREGATE, IMA_PCR, ImaEntry
from chatelaine.evidence.reference_files import MAX_DIGESTS_OF_A_ROW, GoodFile
from chatelaine.model.tpm_policy import MAX_ALLOWED_FILES, MAX_DIGESTS_OF_A_FILE, MAX_PATH_CHARACTERS

CHANGING_FOLDERS: Final = ("/var/log/**", "/var/cache/**")
"""Data that changes by itself; nothing is executed from there on a host that is looked after."""
TEMPORARY_FOLDERS: Final = ("/tmp/", "/var/tmp/", "/run/", "/dev/shm/")  # noqa: S108 - paths that others used


@dataclass(frozen=True, slots=True)
class CapturedIma:
    """Rules for what ran.

    Attributes:
        rules: `tpm.ima` as a manifest has it; None where it was left out.
        files: the allow-list, where it belongs into a bundle.
        why: why it was left out; empty where it was not.
        cautions: what a person should know about the rules, a sentence each.
    """

    rules: Mapping[str, object] | None
    files: tuple[GoodFile, ...] = ()
    why: str = ""
    cautions: tuple[str, ...] = ()


def capture_ima(entries: Sequence[ImaEntry], *, into_bundle: bool) -> CapturedIma:
    """Rules by which these entries, of one or several hosts, hold.

    Args:
        entries: whole lists, verified against their quotes.
        into_bundle: the allow-list goes into signed reference values, which hold more than a policy does.
    """
    if why := _unusable(entries):
        return CapturedIma(None, why=why)
    sorting = _Sorting()
    for entry in entries:
        sorting.take(entry)
    rows = [(path, tuple(sorted(digests))) for path, digests in sorted(sorting.files.items())]
    if why := "" if into_bundle else _too_much(rows):
        return CapturedIma(None, why=why)
    rules: dict[str, object] = {}
    if not into_bundle and rows:
        rules["allow"] = [{"path": path, "digests": list(digests)} for path, digests in rows]
    if sorting.unjudged:
        rules["unjudgedPaths"] = sorted(sorting.unjudged)
    if sorting.violations:
        rules["violations"] = "Record"
    files = tuple(_in_rows(rows)) if into_bundle else ()
    return CapturedIma(rules, files, cautions=tuple(sorting.cautions()))


def _unusable(entries: Iterable[ImaEntry]) -> str:
    """Why no rules could make these entries hold; empty if some could.

    A manifest lists no name that is no text. A glob for it would fit other names as well, and any user can make one.
    """
    for entry in entries:
        if entry.violation:
            continue
        name = shown(entry.path) or f"number {entry.number}"
        if entry.pcr != IMA_PCR:
            return f"entry {name} was measured into another PCR; take pcr= out of the host's IMA policy"
        if entry.flaw:
            return f"entry {name} cannot be judged: {entry.flaw}"
        if entry.path != BOOT_AGGREGATE and not entry.digest.startswith(STRONG_DIGESTS):
            return (
                f"{name} was measured as {shown(entry.digest.partition(':')[0])}; start the kernel with ima_hash=sha256"
            )
        if not _is_text(entry.path) and _changing(entry.path) is None:
            return f"{name} ran under a name that is no text, which no rule can list: find out what it is, and reboot"
    return ""


def _too_much(rows: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    if len(rows) > MAX_ALLOWED_FILES:
        return f"{len(rows)} files were measured; a policy lists at most {MAX_ALLOWED_FILES}: ask for a bundle"
    for path, digests in rows:
        if len(digests) > MAX_DIGESTS_OF_A_FILE or len(path) > MAX_PATH_CHARACTERS:
            return f"{shown(path)} has a long name, or too many contents, for a policy: ask for a bundle"
    return ""


def _in_rows(rows: Iterable[tuple[str, tuple[str, ...]]]) -> Iterable[GoodFile]:
    for path, digests in rows:
        for begin in range(0, len(digests), MAX_DIGESTS_OF_A_ROW):
            yield GoodFile(path, digests[begin : begin + MAX_DIGESTS_OF_A_ROW])


@dataclass(slots=True)
class _Sorting:
    """Where each entry goes."""

    files: dict[str, set[str]] = field(default_factory=dict)
    unjudged: set[str] = field(default_factory=set)
    violations: int = 0

    def take(self, entry: ImaEntry) -> None:
        if entry.violation:
            self.violations += 1
            return
        if entry.path == BOOT_AGGREGATE:
            return
        changing = _changing(entry.path)
        if changing is not None:
            self.unjudged.add(changing)
        else:
            self.files.setdefault(entry.path, set()).add(entry.digest)

    def cautions(self) -> Iterable[str]:
        """What a person should know."""
        if self.violations:
            yield (
                f"violations: Record, because the list already holds {self.violations}: a file was open for writing"
                " while it was measured. Find out which, then take this line out"
            )
        if self.unjudged:
            names = ", ".join(map(shown, sorted(self.unjudged)))
            yield f"not judged, since it changes by itself: {names}"
        temporary = [path for path in self.files if path.startswith(TEMPORARY_FOLDERS)]
        if temporary:
            yield (
                f"{len(temporary)} files ran from folders for temporary files (the first is {shown(min(temporary))}):"
                " what runs from there tomorrow will be refused"
            )
        several = [path for path, digests in self.files.items() if len(digests) > 1]
        if several:
            yield (
                f"{len(several)} files were measured with more than one content (the first is {shown(min(several))}):"
                " all of them are listed; take old ones out"
            )


_GLOBS: Final = tuple(map(PathGlob, CHANGING_FOLDERS))


def _changing(path: str) -> str | None:
    """The glob of a folder that changes by itself, if the path lies there."""
    return next((glob.text for glob in _GLOBS if glob.matches(path)), None)


def _is_text(path: str) -> bool:
    """Can a manifest hold it? Bytes that are no UTF-8 are surrogates here."""
    return "\0" not in path and not any("\ud800" <= c <= "\udfff" for c in path)
