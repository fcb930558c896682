"""Kernel command lines that boot loaders measured.

GRUB hashes into PCR 8 every command that it runs and, last, what it tells the kernel; systemd's boot loader and stub
hash the latter into PCR 12 (older ones into PCR 8) as UTF-16. The label that GRUB logs in front (`grub_cmd: `,
`kernel_cmdline: `) is not hashed: a host could call the real command line a command, and a harmless command the
command line. So the measured text alone decides: what GRUB tells a kernel starts with the file that it loads, whose
name holds `/`, `(` or `+` (a path, a device, a list of blocks); the name of a GRUB command never does. Commands that
load parts of a hypervisor count as well: GRUB leaves out the file when it measures what it tells these. So does
`chainloader`, which hands its arguments to any EFI program, a kernel among them, and of which GRUB measures the command
alone; and `linux` where the name of its file could be that of a command, as it may be over a network. Whoever makes
GRUB run what looks like a command line adds one, and takes none away. `rmmod tpm` ends what GRUB measures, so whatever
follows a `rmmod` is open.

A boot loader that measures nothing here, or measures elsewhere, shows no command line; software can then append one
after the boot. So what is shown is what was *told* only if the images that were started are known (PCR 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatelaine.evidence.event_log import Event
from chatelaine.evidence.uefi_checked import checked_text, separator

GRUB_PCR: Final = 8
STUB_PCR: Final = 12
COMMAND_LINE_PCRS: Final = (GRUB_PCR, STUB_PCR)

MAX_COMMAND_LINES_BYTES: Final = 16 * 1024
"""Of all command lines of a log together; a kernel takes some two thousand. Every argument is matched with every glob
of a policy, so a hostile host must not send a million."""

MAX_OBEYED_BYTES: Final = 2048 - 1 - len("BOOT_IMAGE=")
"""The kernel's buffer on x86 and arm64 (COMMAND_LINE_SIZE), its NUL, and what GRUB puts in front and does not measure.
systemd's stub and newer versions of GRUB measure more than the kernel takes."""

_FILE_CHARACTERS: Final = frozenset("/(+")
_LOADERS: Final = frozenset(
    ("chainloader", "multiboot", "multiboot2", "module", "module2", "xen_hypervisor", "xen_linux", "xen_module")
)
_KERNEL_LOADERS: Final = frozenset(("linux", "linux16", "linuxefi", "legacy_kernel"))
"""GRUB measures what these tell the kernel, with the file in front, besides the command."""

_UNLOADER: Final = "rmmod"
_MORE_IN_INITRD: Final = "bootconfig"
"""By this argument the kernel reads further ones from the end of its initrd."""

_MODIFIERS: Final = re.compile(r"[ \t\n\v\f\r\xa0]*+(?:(?:!|time)[ \t\n\v\f\r\xa0]++)*+")
"""What GRUB runs another command by. It never goes back either."""
_ARGUMENT: Final = re.compile(r'(?:[^ \t\n\v\f\r\xa0"]++|"[^"]*+(?:"|\Z))++')
"""Up to what the kernel's `isspace` holds to be blank, outside of quotes. It never goes back, however long the text."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line that was measured.

    Attributes:
        number: of the event.
        pcr: index of the PCR.
        text: each character is one byte of what the kernel gets.
        arguments: all of them, as the kernel takes them apart: quotes join, and are not part of one (lib/cmdline.c).
        effective_arguments: those that the kernel and the system obey: up to `--`, a NUL, the end of
            the first line or of the kernel's buffer.
    """

    number: int
    pcr: int
    text: str
    arguments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    effective_arguments: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take it apart once: rules look at it in every round."""
        line = self.text.split("\x00", maxsplit=1)[0].split("\n", maxsplit=1)[0]
        obeyed = _split(line[:MAX_OBEYED_BYTES])
        if len(line) > MAX_OBEYED_BYTES:
            obeyed = obeyed[:-1]  # it may have been cut
        object.__setattr__(self, "arguments", _split(self.text))
        object.__setattr__(self, "effective_arguments", obeyed[: obeyed.index("--")] if "--" in obeyed else obeyed)


@dataclass(frozen=True, slots=True)
class CommandLines:
    """All of them; `gap` says why there may be more (empty: there are not)."""

    lines: tuple[CommandLine, ...]
    gap: str = ""


def command_lines(events: Iterable[Event], tpm_id: int, quoted: Sequence[int]) -> CommandLines:
    """What the events of PCR 8 and 12 say, in the bank that was quoted."""
    lines = []
    room = MAX_COMMAND_LINES_BYTES
    gap = next((f"PCR {pcr} was not quoted" for pcr in COMMAND_LINE_PCRS if pcr not in quoted), "")
    for event in events:
        if event.pcr not in COMMAND_LINE_PCRS or separator(event, tpm_id) is not None:
            continue
        content = checked_text(event, tpm_id)
        if content is None:
            gap = gap or f"event {event.number} of PCR {event.pcr} is not what its data says"
            continue
        if event.pcr == GRUB_PCR and _command(content.decode("latin-1"))[0] == _UNLOADER:
            gap = gap or f"event {event.number} of PCR {event.pcr}: GRUB unloaded a module and may measure no more"
        text = _command_line(content, event.pcr)
        if text is None:
            continue
        room -= len(text)
        if room < 0:
            gap = gap or f"event {event.number} of PCR {event.pcr}: more was told to kernels than is looked at"
            break
        line = CommandLine(event.number, event.pcr, text)
        lines.append(line)
        if any(argument.partition("=")[0] == _MORE_IN_INITRD for argument in line.arguments):
            gap = gap or f"event {event.number} of PCR {event.pcr}: the kernel takes more from its initrd (bootconfig)"
    return CommandLines(tuple(lines), gap)


def _command_line(content: bytes, pcr: int) -> str | None:
    if content.endswith(b"\x00\x00") and len(content) % 2 == 0:
        # The kernel's stub turns UTF-16 into UTF-8; blanks are looked for in its bytes.
        wide = content[:-2].decode("utf-16-le", errors="replace")
        return wide.encode("utf-8", errors="replace").decode("latin-1")
    text = content.removesuffix(b"\x00").decode("latin-1")  # old versions of GRUB hash the NUL, too
    if pcr == STUB_PCR:
        return text
    command, rest = _command(text)
    if command in _LOADERS:
        return rest
    if command in _KERNEL_LOADERS:
        file, _ = _first(rest)
        return rest if file and not _FILE_CHARACTERS.intersection(file) else None
    return text if _FILE_CHARACTERS.intersection(command) else None


def _command(text: str) -> tuple[str, str]:
    """The command that GRUB runs, and its arguments."""
    modifiers = _MODIFIERS.match(text)
    return _first(text, modifiers.end() if modifiers else 0)


def _first(text: str, start: int = 0) -> tuple[str, str]:
    """The first argument from `start` on, and what follows it."""
    found = _ARGUMENT.search(text, start)
    return (_unquoted(found.group()), text[found.end() :].lstrip()) if found else ("", "")


def _split(text: str) -> tuple[str, ...]:
    return tuple(map(_unquoted, _ARGUMENT.findall(text)))


def _unquoted(argument: str) -> str:
    """`"name=some value"` and `name="some value"` are both `name=some value`."""
    if argument.startswith('"'):
        return argument[1:].removesuffix('"')
    name, equals, value = argument.partition("=")
    return name + equals + (value[1:].removesuffix('"') if value.startswith('"') else value)
