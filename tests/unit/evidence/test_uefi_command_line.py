"""Kernel command lines: which measured texts are some, whatever the log calls them, and how the kernel reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import event_log_writer as tcg

from chatelaine.evidence.uefi_command_line import (
    MAX_COMMAND_LINES_BYTES,
    MAX_OBEYED_BYTES,
    CommandLine,
    CommandLines,
)
from support.paper_boot import PaperBoot, facts, lab_log


def measured(*events: tuple[int, bytes, bytes]) -> CommandLines:
    """Command lines of events given as PCR, data in the log, and what was hashed."""
    boot = PaperBoot()
    for pcr, said, hashed in events:
        boot.measure(pcr, tcg.EV_IPL, said, hashed)
    return facts(boot.data).command_lines


def grub(text: str, label: str = "grub_cmd: ") -> tuple[int, bytes, bytes]:
    return 8, f"{label}{text}\0".encode(), text.encode()


def stub(text: str, pcr: int = 12) -> tuple[int, bytes, bytes]:
    wide = text.encode("utf-16-le") + b"\0\0"
    return pcr, wide, wide


def texts(found: CommandLines) -> list[str]:
    assert not found.gap
    return [line.text for line in found.lines]


def test_command_line_of_the_laboratory_is_shown():
    found = facts(lab_log(command_line="/vmlinuz ro")).command_lines
    assert set(texts(found)) == {"/vmlinuz ro"}


@pytest.mark.parametrize("label", ["kernel_cmdline: ", "grub_kernel_cmdline ", "grub_cmd: ", "grub_cmd ", ""])
def test_command_line_under_any_label_is_one(label):
    """The label is not hashed: a host that calls its command line a command hides nothing."""
    assert texts(measured(grub("/vmlinuz init=/bin/sh", label))) == ["/vmlinuz init=/bin/sh"]


def test_command_line_hashed_with_its_nul_is_one():
    assert texts(measured((8, b"grub_kernel_cmdline /vmlinuz ro\0", b"/vmlinuz ro\0"))) == ["/vmlinuz ro"]


def test_harmless_command_called_a_command_line_is_none():
    assert texts(measured(grub("echo lockdown=integrity", "kernel_cmdline: "))) == []


@pytest.mark.parametrize("file", ["/vmlinuz", "(hd0,gpt2)/vmlinuz", "(hd0)1+2000", "1+2000", '"/vmlinuz"'])
def test_every_way_to_name_the_kernels_file_makes_a_command_line(file):
    assert texts(measured(grub(f"{file} quiet"))) == [f"{file} quiet"]


@pytest.mark.parametrize("command", ["multiboot", "multiboot2", "module2", "xen_hypervisor"])
def test_command_that_loads_part_of_a_hypervisor_is_a_command_line(command):
    assert texts(measured(grub(f" {command}  /vmlinuz init=/bin/sh"))) == ["/vmlinuz init=/bin/sh"]


@pytest.mark.parametrize("command", ["chainloader", "! chainloader", "! ! time chainloader", "time multiboot2"])
def test_kernel_that_grub_starts_as_any_other_program_is_told_what_is_judged(command):
    """GRUB hands over the arguments of `chainloader` and measures the command alone, also behind `!` and `time`."""
    assert texts(measured(grub(f"{command} /vmlinuz init=/bin/sh"))) == ["/vmlinuz init=/bin/sh"]


@pytest.mark.parametrize("command", ["linux", "linux16", "linuxefi", "legacy_kernel", "! linux"])
def test_kernel_from_the_network_whose_name_looks_like_a_command_is_told_what_is_judged(command):
    """Over TFTP and HTTP a file's name needs no slash."""
    found = measured(grub(f"{command} echo init=/bin/sh"), grub("echo init=/bin/sh"))
    assert texts(found) == ["echo init=/bin/sh"]


@pytest.mark.parametrize("command", ["rmmod tpm", "! rmmod tpm", "time rmmod tpm", "rmmod tpm\0"])
def test_grub_that_was_told_to_measure_no_more_leaves_open_what_the_kernel_was_told(command):
    """Whatever it starts afterwards is in no PCR; a good command line can be appended after the boot."""
    found = measured(grub(command), grub("/vmlinuz lockdown=integrity"))
    assert found.gap == "event 1 of PCR 8: GRUB unloaded a module and may measure no more"


@pytest.mark.parametrize("argument", ["bootconfig", '"bootconfig"', "bootconfig=x"])
def test_kernel_that_takes_arguments_from_its_initrd_leaves_open_what_it_was_told(argument):
    """Who may write the initrd may append `kernel.lockdown = none` to it."""
    found = measured(grub(f"/vmlinuz lockdown=integrity {argument}"))
    assert found.gap == "event 1 of PCR 8: the kernel takes more from its initrd (bootconfig)"
    assert not measured(grub("/vmlinuz bootconfiguration x=bootconfig")).gap


def test_endless_negations_are_passed_over_once():
    text = "! " * 400_000
    assert texts(measured(grub(text + "chainloader /vmlinuz ro"))) == ["/vmlinuz ro"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "linux",
        "time",
        "set timeout=0",
        "linux /vmlinuz a b",
        "[ -f /boot/grub.cfg ]",
        "menuentry Rescue {\n linux /vmlinuz single\n}",
    ],
)
def test_commands_that_start_nothing_are_no_command_lines(text):
    assert texts(measured(grub(text))) == []


@pytest.mark.parametrize("pcr", [8, 12])
def test_command_line_of_systemds_stub_is_one(pcr):
    assert texts(measured(stub("root=/dev/vda2 ro", pcr))) == ["root=/dev/vda2 ro"]


@pytest.mark.parametrize("pcr", [8, 12])
def test_command_line_that_older_boot_loaders_of_systemd_log_one_byte_short_is_one(pcr):
    wide = "root=/dev/vda2 ro".encode("utf-16-le") + b"\0\0"
    assert texts(measured((pcr, wide[:-1], wide))) == ["root=/dev/vda2 ro"]


def test_anything_readable_in_the_stubs_pcr_is_a_command_line():
    assert texts(measured((12, b"quiet ro", b"quiet ro"))) == ["quiet ro"]


@pytest.mark.parametrize("pcr", [8, 12])
def test_event_that_is_not_what_its_data_says_leaves_open_what_the_kernel_was_told(pcr):
    hidden = (pcr, b"grub_cmd: set a=b\0", b"/vmlinuz init=/bin/sh")
    found = measured(grub("/vmlinuz ro"), hidden, hidden, grub("/vmlinuz single"))
    assert found.gap == f"event 2 of PCR {pcr} is not what its data says"
    assert found.lines == (CommandLine(1, 8, "/vmlinuz ro"), CommandLine(4, 8, "/vmlinuz single"))


@pytest.mark.parametrize("left_out", [8, 12])
def test_pcr_that_was_not_quoted_leaves_open_what_the_kernel_was_told(left_out):
    found = facts(lab_log(), quoted=[pcr for pcr in range(24) if pcr != left_out]).command_lines
    assert found.gap == f"PCR {left_out} was not quoted"


def test_host_that_tells_its_kernels_without_end_leaves_open_what_it_told():
    """Each argument is matched with each glob of a policy: a million of them would stop the verifier."""
    long = "/vmlinuz " + "a " * (MAX_COMMAND_LINES_BYTES // 4)
    assert not measured(grub(long)).gap
    found = measured(grub(long), grub(long), grub("/vmlinuz init=/bin/sh"))
    assert "event 2 of PCR 8" in found.gap
    assert sum(len(line.arguments) for line in found.lines) <= MAX_COMMAND_LINES_BYTES // 2


@pytest.mark.parametrize(
    ("more", "gap"), [("", ""), ("x", "event 3 of PCR 8: more was told to kernels than is looked at")]
)
def test_so_much_is_looked_at_of_all_command_lines_together_and_no_more(more, gap):
    first, second = "/a", "/" + "b" * (MAX_COMMAND_LINES_BYTES - 3)
    found = measured(grub(first), grub("set a=b"), grub(second + more), grub("/c"))
    # What comes after the bound was reached is not looked at either.
    assert found == CommandLines(
        (CommandLine(1, 8, first), *(() if more else (CommandLine(3, 8, second),))),
        gap or "event 4 of PCR 8: more was told to kernels than is looked at",
    )
    assert measured(grub(first), grub(second)).gap == ""


@pytest.mark.parametrize("text", ["/vmlinuz ro\0\0", "/vmlinuz quiet ro\0\0"])
def test_text_that_ends_like_a_wide_one_and_has_an_odd_length_is_none(text):
    assert texts(measured(grub(text, ""))) == [text.removesuffix("\0")]
    assert texts(measured(stub("ro"), stub("r"), stub(""))) == ["ro", "r", ""]


def test_separator_among_the_events_is_none_of_them():
    boot = PaperBoot()
    boot.separate(8, 12)
    assert texts(facts(boot.data).command_lines) == []


def arguments(text: str) -> tuple[str, ...]:
    return CommandLine(1, 8, text).arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  a \t b\n", ("a", "b")),
        ('"init=/bin/sh"', ("init=/bin/sh",)),
        ('init="/bin/sh"', ("init=/bin/sh",)),
        ('a="b c" d', ("a=b c", "d")),
        ('"a b" c', ("a b", "c")),
        ('"a=b c', ("a=b c",)),
        ('a="b c', ("a=b c",)),
        ('dyndbg="func x +p" ro', ("dyndbg=func x +p", "ro")),
        ("a\xa0b\vc\fd\re", ("a", "b", "c", "d", "e")),
        ("a==b", ("a==b",)),
        ('init="x=/bin/sh y"', ("init=x=/bin/sh y",)),
        ('a=b="c"', ('a=b="c"',)),
    ],
)
def test_arguments_are_taken_apart_as_the_kernel_does(text, expected):
    assert arguments(text) == expected


@pytest.mark.parametrize("end", [" -- ", "\0", "\n", " -- a -- ", "\0a\0", "\na\n", "\na\0b\n", "\0a\nb\0", " \n\0"])
def test_what_nobody_obeys_is_not_effective(end):
    line = CommandLine(1, 8, f"/vmlinuz ro{end}lockdown=integrity")
    assert line.effective_arguments == ("/vmlinuz", "ro")


def test_what_stands_behind_the_end_of_the_kernels_buffer_is_not_effective():
    """The kernel keeps 2047 bytes with `BOOT_IMAGE=` in front; what follows is measured, and nobody obeys it."""
    fits = "/vmlinuz " + "a" * (MAX_OBEYED_BYTES - 20) + " lockdown=1"
    assert len(fits) == MAX_OBEYED_BYTES
    assert CommandLine(1, 8, fits).effective_arguments[-1] == "lockdown=1"
    for cut in (fits.replace("lockdown=1", " lockdown=1"), fits + "2", f"{fits} init=/bin/sh"):
        line = CommandLine(1, 8, cut)
        assert not [argument for argument in line.effective_arguments if argument.startswith("lock")]
        assert any(argument.startswith("lockdown=1") for argument in line.arguments)
        assert line.effective_arguments == line.arguments[:2]


def test_blank_of_another_alphabet_is_seen_as_the_kernel_sees_its_bytes():
    """U+00A0 is two bytes in UTF-8; to the kernel the second one is a blank."""
    (line,) = measured(stub("quiet\u00a0ro")).lines
    assert line.arguments == ("quiet\xc2", "ro")


def test_host_whose_stub_measures_broken_utf16_does_not_stop_the_verifier_and_hides_nothing():
    broken = "ro ".encode("utf-16-le") + b"\x00\xd8" + " init=/bin/sh".encode("utf-16-le") + b"\0\0"
    (line,) = measured((12, broken, broken)).lines
    assert line.arguments == ("ro", "\ufffd".encode().decode("latin-1"), "init=/bin/sh")


@given(st.text(max_size=60))
def test_any_text_is_taken_apart(text):
    assert sum(map(len, arguments(text))) <= len(text)
    assert len(CommandLine(1, 8, text).effective_arguments) <= len(arguments(text))
