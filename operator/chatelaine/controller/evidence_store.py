"""Stored rounds of evidence, bounded: which ones there are, and which of them go when there is no room.

What is written, in this order: the round's parts (event log, IMA list), the round, its mark. What is removed, in the
other order. So a process that is killed between any two steps leaves parts that no mark leads to, and the next one that
opens the store removes them; a mark leads to all that its round needs, or damage is told.

Room is made from what is worth least: rounds of Hsms that are gone; then the oldest round of the living Hsm whose
rounds take most, so that none drives out those of others by long lists of its own; but never the newest trusted one of
a living Hsm (what its next boot is compared with) nor its refutations (what a person must look at before re-admitting
it). Where only those are left, the store is full, and says so.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from chatelaine.appraisal.stored import MAX_ROUND_BYTES, RoundKind
from chatelaine.controller.evidence_folder import (
    MAX_OBJECT_BYTES,
    EvidenceFolder,
    ObjectDamaged,
    ObjectMissing,
    StoreError,
    StoreUnusable,
)

BLOCK_BYTES: Final = 4096
"""Files take room in blocks; a mark takes one for its name."""
MAX_ROUNDS: Final = 65536
MAX_ROUNDS_OF_HSM: Final = 64
"""Rounds of one Hsm that may go at all. One host that changes with every round must not drive out those of others."""

_MARK: Final = re.compile(
    rf"([0-9]{{15}})-({'|'.join(kind.value for kind in RoundKind)})-([0-9a-f]{{16}})-([0-9a-f]{{64}})", re.ASCII
)


class StoreFull(StoreError):
    """Everything that is stored must stay, and there is no room for more."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One stored round. Entries sort by time.

    Attributes:
        received_ms: when the evidence came, milliseconds since the epoch.
        hsm_uid: whose.
        kind: what the verdict was.
        group: 16 hexadecimal digits, the same for rounds of one boot under one policy.
        digest: SHA-256 of the stored round.
    """

    received_ms: int
    hsm_uid: str
    kind: RoundKind
    group: str
    digest: bytes

    @property
    def mark(self) -> str:
        """Name of its mark."""
        return f"{self.received_ms:015d}-{self.kind.value}-{self.group}-{self.digest.hex()}"


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found when the store was opened.

    `damaged`: a sentence for each round that was given up, because it or one of its parts is missing or changed.
    """

    rounds: int
    damaged: tuple[str, ...]


def entry_of(uid: str, mark: str) -> Entry | None:
    """What a mark says; None for a name that is no mark."""
    found = _MARK.fullmatch(mark)
    if found is None:
        return None
    return Entry(int(found[1]), uid, RoundKind(found[2]), found[3], bytes.fromhex(found[4]))


class EvidenceStore:
    """All stored rounds of one folder. One thread at a time.

    Args:
        folder: where they lie.
        max_bytes: room for all of it, in whole blocks.
        parts_of: digests of the parts of a stored round; raises ValueError for what is none.
    """

    def __init__(
        self,
        folder: EvidenceFolder,
        max_bytes: int,
        *,
        parts_of: Callable[[bytes], Collection[bytes]],
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._parts_of = parts_of
        self._entries: dict[str, list[Entry]] = {}
        self._parts: dict[bytes, frozenset[bytes]] = {}
        """Parts of each stored round, by its digest."""
        self._held: Counter[bytes] = Counter()
        """How many marks lead to an object."""
        self._sizes: dict[bytes, int] = {}
        self._used_bytes = 0
        self.pruned = 0
        """Rounds that were removed for want of room since the start."""

    # --- looking

    @property
    def used_bytes(self) -> int:
        """Room taken, in whole blocks."""
        return self._used_bytes

    @property
    def objects(self) -> int:
        """How many files with content there are."""
        return len(self._sizes)

    def __len__(self) -> int:
        """How many rounds are stored."""
        return sum(map(len, self._entries.values()))

    def entries(self, hsm_uid: str | None = None) -> tuple[Entry, ...]:
        """Stored rounds, of one Hsm or of all, oldest first."""
        found = self._entries.values() if hsm_uid is None else (self._entries.get(hsm_uid, ()),)
        return tuple(sorted(entry for entries in found for entry in entries))

    def newest(self, hsm_uid: str, kind: RoundKind) -> Entry | None:
        """The last one of a kind."""
        return max((entry for entry in self._entries.get(hsm_uid, ()) if entry.kind is kind), default=None)

    def read(self, digest: bytes, limit_bytes: int = MAX_OBJECT_BYTES) -> bytes:
        """A round or a part.

        Raises:
            ObjectMissing, ObjectDamaged, StoreUnusable: it is not to be had.
        """
        return self._folder.read(digest, limit_bytes)

    # --- opening

    def open(self) -> Opened:
        """Take the folder, look through it, and remove what no mark leads to.

        Raises:
            StoreUnusable: the folder cannot be used.
        """
        self._folder.take()
        self._entries, self._parts, self._sizes, self._used_bytes = {}, {}, {}, 0
        self._held.clear()
        self._folder.clear_unfinished()
        there, damaged = dict(self._folder.objects()), []
        for uid, mark in list(self._folder.marks()):
            entry = entry_of(uid, mark)
            parts = self._whole(entry, there) if entry is not None else "a name that no round has"
            if entry is None or isinstance(parts, str):
                damaged.append(f"{uid}/{mark}: {parts}")
                self._folder.unmark(uid, mark)
            else:
                self._took(entry, parts, there)
        for digest in there.keys() - self._sizes.keys():
            self._folder.remove(digest)
        return Opened(len(self), tuple(damaged))

    def _whole(self, entry: Entry, there: dict[bytes, int]) -> frozenset[bytes] | str:
        """The parts of a round that is as it was written, or what is wrong. Parts are read when they are needed."""
        try:
            parts = frozenset(self._parts_of(self._folder.read(entry.digest, MAX_ROUND_BYTES)))
        except (ObjectMissing, ObjectDamaged, ValueError) as error:
            return str(error)
        missing = parts - there.keys()
        return f"a part is missing: sha256:{min(missing).hex()}" if missing else parts

    def close(self) -> None:
        """Let another process write the folder."""
        self._folder.release()

    # --- keeping

    def keep(
        self, entry: Entry, round_: bytes, parts: Iterable[bytes], *, living: Collection[str] | None = None
    ) -> None:
        """Store a round. Of one boot under one policy only the first trusted round and the newest stay.

        Args:
            entry: what it is; its digest is that of `round_`.
            round_: the encoded round.
            parts: what it names by digest.
            living: UIDs of the Hsms that are there; None while that is not known, so that all count as living.

        Raises:
            StoreFull: only what must stay is left.
            StoreUnusable: the folder cannot be written.
        """
        if entry in self._entries.get(entry.hsm_uid, ()):
            return
        contents = [*dict.fromkeys(parts), round_]
        self._make_room(contents, entry, living)
        written: dict[bytes, int] = {}
        try:
            for content in contents:
                written[self._folder.write(content)] = len(content)
            self._folder.mark(entry.hsm_uid, entry.mark)
        except StoreUnusable:
            self._take_back(written)
            raise
        self._took(entry, frozenset(written) - {entry.digest}, written)
        self._replace_within_group(entry)
        self._keep_share(entry.hsm_uid)

    def _take_back(self, written: Iterable[bytes]) -> None:
        """No room on the disk, perhaps: leave nothing behind that no mark leads to."""
        with contextlib.suppress(StoreUnusable):
            for digest in written:
                if digest not in self._held:
                    self._folder.remove(digest)

    def _took(self, entry: Entry, parts: frozenset[bytes], sizes_bytes: dict[bytes, int]) -> None:
        self._entries.setdefault(entry.hsm_uid, []).append(entry)
        self._parts[entry.digest] = parts
        self._used_bytes += BLOCK_BYTES
        for digest in (entry.digest, *parts):
            self._held[digest] += 1
            if digest not in self._sizes:
                self._sizes[digest] = sizes_bytes[digest]
                self._used_bytes += _blocks(sizes_bytes[digest])

    def _replace_within_group(self, new: Entry) -> None:
        if new.kind is not RoundKind.TRUSTED:
            return
        alike = [e for e in self.entries(new.hsm_uid) if e.kind is RoundKind.TRUSTED and e.group == new.group]
        for between in alike[1:-1]:
            self.forget(between)

    def _keep_share(self, hsm_uid: str) -> None:
        may_go = [entry for entry in self.entries(hsm_uid) if not self._stays(entry)]
        for entry in may_go[: max(0, len(may_go) - MAX_ROUNDS_OF_HSM)]:
            self.forget(entry)
            self.pruned += 1

    def _make_room(self, contents: Iterable[bytes], new: Entry, living: Collection[str] | None) -> None:
        # What is there already in other rounds may go while room is made: all of it is counted as new.
        needed = sum(_blocks(len(content)) for content in contents) + BLOCK_BYTES
        if needed > self._max_bytes:
            raise StoreFull(f"a round of {needed} bytes does not fit into {self._max_bytes} bytes")
        staying = [entry for entry in self.entries() if self._is_alive(entry, living) and self._stays(entry)]
        objects = {digest for entry in staying for digest in (entry.digest, *self._parts[entry.digest])}
        taken = BLOCK_BYTES * len(staying) + sum(_blocks(self._sizes[digest]) for digest in objects)
        # Told before anything is forgotten for it.
        if taken + needed > self._max_bytes or len(staying) >= MAX_ROUNDS:
            raise StoreFull(
                f"the evidence store is full: {taken} of {self._max_bytes} bytes are the newest trusted rounds and the"
                f" refutations of living Hsms, and {new.kind.value} evidence needs {needed} more"
            )
        while self.used_bytes + needed > self._max_bytes or len(self) >= MAX_ROUNDS:
            victim = self._least(living)
            if victim is None:
                raise StoreFull(f"the evidence store is full: {self.used_bytes} of {self._max_bytes} bytes")
            self.forget(victim)
            self.pruned += 1

    @staticmethod
    def _is_alive(entry: Entry, living: Collection[str] | None) -> bool:
        return living is None or entry.hsm_uid in living

    def _least(self, living: Collection[str] | None) -> Entry | None:
        """What goes next; None where all must stay."""
        gone = [e for e in self.entries() if not self._is_alive(e, living)]
        if gone:
            return gone[0]
        may_go = [e for e in self.entries() if not self._stays(e)]
        room = Counter[str]()
        for entry in may_go:
            objects = (entry.digest, *self._parts[entry.digest])
            room[entry.hsm_uid] += BLOCK_BYTES + sum(_blocks(self._sizes[digest]) for digest in objects)
        most = max(room.values(), default=0)
        return next((e for e in may_go if room[e.hsm_uid] == most), None)

    def _stays(self, entry: Entry) -> bool:
        """Of a living Hsm: its refutations, and its newest trusted round."""
        if entry.kind is RoundKind.REFUTED:
            return True
        return entry == self.newest(entry.hsm_uid, RoundKind.TRUSTED)

    # --- forgetting

    def forget(self, entry: Entry) -> None:
        """Remove a round, and the parts that no other one needs.

        Raises:
            StoreUnusable: the folder cannot be written.
        """
        self._folder.unmark(entry.hsm_uid, entry.mark)
        left = self._entries[entry.hsm_uid]
        left.remove(entry)
        if not left:
            del self._entries[entry.hsm_uid]
        self._used_bytes -= BLOCK_BYTES
        for digest in (entry.digest, *self._parts[entry.digest]):
            self._held[digest] -= 1
            if not self._held[digest]:
                self._used_bytes -= _blocks(self._sizes.pop(digest))
                del self._held[digest]
                self._folder.remove(digest)
        if entry.digest not in self._held:
            del self._parts[entry.digest]


def _blocks(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
