"""Which PCRs a captured policy names: those that stay as they are until somebody changes what boots.

The uses of PCRs 0 to 7 are those of the TCG PC Client Platform Firmware Profile (§2.3.4); 8 and 9 are the boot
loader's and the kernel's, 10 is IMA's, 11 to 15 are systemd's (its documentation of TPM2 PCR measurements), 17 to 22
belong to a dynamic launch, 16 and 23 can be reset by any software.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatelaine.evidence.tpm_types import MAX_PCRS
from chatelaine.evidence.uefi_command_line import STUB_PCR

MAX_VALUES: Final = 32
"""Good values of one PCR that a policy can name (model.tpm_policy.PcrValue)."""

_USES: Final = {
    0: "firmware code",
    1: "firmware settings",
    2: "drivers and option ROMs loaded by the firmware",
    3: "settings of option ROMs",
    4: "boot loader, and what it starts",
    5: "partition table and settings of the boot loader",
    6: "of the maker of the machine",
    7: "Secure Boot: its state, keys, and who verified what booted",
    8: "what the boot loader was told: commands, kernel command line",
    9: "files that the boot loader or the kernel loaded: kernel, initial ramdisk",
    10: "IMA: every file that was measured while the machine runs",
    11: "unified kernel image, and the phases of its boot",
    12: "overrides of the kernel command line, credentials",
    13: "system extensions",
    14: "machine owner keys of shim",
    15: "identity of the machine and of its volumes",
    16: "for debugging",
    23: "for applications",
}

_CHANGED_BY: Final = {
    0: "an update of the firmware",
    2: "an update of an adapter's firmware, or another adapter",
    4: "an update of the boot loader",
    7: "an update of Secure Boot's keys or of dbx",
    8: "an update of the kernel, or of what it is told",
    9: "an update of the kernel or of the initial ramdisk",
}
"""What changes a PCR that is taken: new values go into signed reference values before the update goes out."""

_LEFT_OUT: Final = {
    1: "it holds serial numbers and the boot order: no two machines agree, and a plugged-in disk changes it",
    3: "it changes with settings of adapters, and no two machines agree",
    5: "it holds the partition table and boot counters, which change by themselves",
    6: "it holds wake-up events, which change from boot to boot",
    10: "it changes with every file that runs; rules under tpm.ima judge what it stands for",
    16: "any software can reset it, so it shows nothing about the boot",
    23: "any software can reset it, so it shows nothing about the boot",
}
_SYSTEMD: Final = "it moves while the machine boots and runs (phases, credentials, volumes); ask for it by name"
_LAUNCH: Final = "it belongs to a dynamic launch, which this capture does not look at; ask for it by name"
_ALWAYS: Final = frozenset({0, 2, 4, 7})
_IF_USED: Final = frozenset({8, 9})
_UNUSED: Final = "nothing was measured into it"


def use_of(index: int) -> str:
    """What goes into this PCR, in a few words."""
    return _USES.get(index, "of a dynamic launch")


def changed_by(index: int) -> str:
    """Whose doing it is when a PCR that is taken changes; empty where that is not known."""
    return _CHANGED_BY.get(index, "")


@dataclass(frozen=True, slots=True)
class PcrChoice:
    """One PCR: taken with its good values, or left out and why.

    Attributes:
        index: 0 to 23.
        values: good values (hexadecimal), each with the hosts that have it; empty where it was left out.
        why: why it was left out, or a caution about one that was asked for; may be empty.
    """

    index: int
    values: Mapping[str, tuple[str, ...]]
    why: str = ""

    @property
    def taken(self) -> bool:
        """Does the policy name it?"""
        return bool(self.values)


def choose(
    seen: Sequence[tuple[str, Mapping[int, bytes]]], *, also: Collection[int] = (), without: Collection[int] = ()
) -> tuple[PcrChoice, ...]:
    """What to do with each PCR; one that was not quoted on every host is left out.

    Args:
        seen: name of each host, and its quoted values of one bank by index.
        also: PCRs that were asked for by name.
        without: PCRs that must not be taken.
    """
    return tuple(_choice(index, seen, also, without) for index in range(MAX_PCRS))


def _choice(
    index: int, seen: Sequence[tuple[str, Mapping[int, bytes]]], also: Collection[int], without: Collection[int]
) -> PcrChoice:
    if index in without:
        return PcrChoice(index, {}, "you asked for it to be left out")
    if not all(index in pcrs for _, pcrs in seen):
        return PcrChoice(index, {}, _why_not(index, used=True) or "it was not quoted")
    values: dict[str, tuple[str, ...]] = {}
    for host, pcrs in seen:
        value = pcrs[index].hex()
        values[value] = (*values.get(value, ()), host)
    why = _why_not(index, used=any(_is_used(pcrs[index]) for _, pcrs in seen))
    if why and index not in also:
        return PcrChoice(index, {}, why)
    if len(values) <= MAX_VALUES:
        return PcrChoice(index, values, f"you asked for it; {why}" if why else "")
    return PcrChoice(index, {}, f"it has {len(values)} values on these hosts; a policy names at most {MAX_VALUES}")


def _why_not(index: int, *, used: bool) -> str:
    if index in _ALWAYS or (index in _IF_USED and used):
        return ""
    if not used:
        return _UNUSED
    if index in _LEFT_OUT:
        return _LEFT_OUT[index]
    return _LAUNCH if index >= 17 else _SYSTEMD


def _is_used(value: bytes) -> bool:
    return value not in (bytes(len(value)), b"\xff" * len(value))


def selected(also: Collection[int]) -> tuple[int, ...]:
    """Indices that a quote for a capture covers: what a boot log accounts for, IMA's, and those asked for.

    PCR 12 may hold kernel command lines. What systemd extends while the machine runs stands in no log of the firmware:
    a log would not replay to it.
    """
    return tuple(sorted({*range(11), STUB_PCR, *also}))
