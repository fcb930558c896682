"""The rule for what a kernel was told: what it refuses, and that nothing holds which the log leaves open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.lab import event_log_writer as tcg

from chatelaine.appraisal.argument_globs import ArgumentPattern
from support.boot_judging import holds, reason
from support.paper_boot import PaperBoot, lab_log, secure_boot


def test_command_line_with_what_is_asked_for_holds():
    holds(lab_log(), kernelCommandLine={"required": ["lockdown=*", "ro"], "forbidden": ["init=*", "systemd.debug*"]})


def test_command_line_without_a_required_argument_is_refused():
    log = lab_log(command_line="/vmlinuz ro")
    assert reason(log, kernelCommandLine={"required": ["lockdown=integrity"]}) == "ArgumentMissing"


def test_required_argument_that_nobody_obeys_is_missing():
    log = lab_log(command_line="/vmlinuz ro -- lockdown=integrity")
    assert reason(log, kernelCommandLine={"required": ["lockdown=integrity"]}) == "ArgumentMissing"


@pytest.mark.parametrize("argument", ["init=/bin/sh", '"init=/bin/sh"', 'init="/bin/sh"', "-- init=/bin/sh"])
def test_forbidden_argument_is_refused_however_it_is_written(argument):
    log = lab_log(command_line=f"/vmlinuz ro {argument}")
    assert reason(log, kernelCommandLine={"forbidden": ["init=*"]}) == "ArgumentForbidden"


def test_value_that_a_star_reaches_is_compared_as_it_is():
    """`-` and `_` are one in names only: a forbidden value was missed where no `=` in the glob parted the two."""
    log = lab_log(command_line="/vmlinuz dm=no-verify")
    assert reason(log, kernelCommandLine={"forbidden": ["*no-verify*"]}) == "ArgumentForbidden"


@pytest.mark.parametrize("command", ["chainloader /vmlinuz", "linux vmlinuz", "! chainloader (hd0,gpt1)/vmlinuz"])
def test_good_command_line_appended_after_the_boot_does_not_hide_what_grub_told_the_kernel(command):
    boot = PaperBoot()
    for text in (f"{command} init=/bin/sh", "/vmlinuz lockdown=integrity"):
        boot.measure(8, tcg.EV_IPL, f"grub_cmd: {text}\0".encode(), text.encode())
    assert reason(boot.data, kernelCommandLine={"forbidden": ["init=*"]}) == "ArgumentForbidden"
    assert reason(boot.data, kernelCommandLine={"required": ["lockdown=*"]}) == "ArgumentMissing"


def test_required_argument_that_the_kernel_cuts_off_is_missing():
    log = lab_log(command_line=f"/vmlinuz {'a=b ' * 600}lockdown=integrity")
    assert reason(log, kernelCommandLine={"required": ["lockdown=*"]}) == "ArgumentMissing"


def test_command_line_called_a_command_is_judged():
    boot = PaperBoot()
    good, bad = b"/vmlinuz lockdown=integrity", b"/vmlinuz lockdown=integrity init=/bin/sh"
    boot.measure(8, tcg.EV_IPL, b"kernel_cmdline: " + good + b"\0", good)
    boot.measure(8, tcg.EV_IPL, b"grub_cmd: " + bad + b"\0", bad)
    assert reason(boot.data, kernelCommandLine={"forbidden": ["init=*"]}) == "ArgumentForbidden"


def test_every_command_line_needs_the_required_arguments():
    boot = PaperBoot()
    for text in (b"/bogus lockdown=integrity", b"/vmlinuz ro"):
        boot.measure(8, tcg.EV_IPL, b"kernel_cmdline: " + text + b"\0", text)
    assert reason(boot.data, kernelCommandLine={"required": ["lockdown=*"]}) == "ArgumentMissing"


def test_command_line_that_is_not_shown_is_refused():
    line = {"forbidden": ["init=*"]}
    assert reason(secure_boot().data, kernelCommandLine=line) == "CommandLineNotShown"
    assert reason(lab_log(), quoted=(8,), kernelCommandLine=line) == "CommandLineNotShown"
    boot = PaperBoot()
    boot.measure(8, tcg.EV_IPL, b"kernel_cmdline: /vmlinuz ro\0", b"/vmlinuz init=/bin/sh")
    assert reason(boot.data, kernelCommandLine=line) == "CommandLineNotShown"


@pytest.mark.parametrize(
    ("glob", "argument", "fits"),
    [
        ("init=*", "init=/bin/sh", True),
        ("init=*", "rdinit=/bin/sh", False),
        ("*init=*", "rdinit=/bin/sh", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a*b*c", "a1b2b3c", True),
        ("a*b*c", "a1c", False),
        ("a*b*c*d", "a1b2d", False),
        ("a*b*c*d", "a1b2c3d", True),
        ("a*c", "a\nc", True),
        ("x=a-b=c", "x=a_b=c", False),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("[ab]", "a", False),
        ("module.sig_enforce=1", "module.sig-enforce=1", True),
        ("module.sig-enforce=1", "module.sig_enforce=1", True),
        ("root=a_b", "root=a-b", False),
        ("*no-verify*", "x=no-verify", True),
        ("*no-verify*", "x=no_verify", False),
        ("*no-verify*", "no_verify=x", True),
        ("root=a-b", "ro-ot=a-b", False),
    ],
)
def test_globs_over_arguments(glob, argument, fits):
    assert ArgumentPattern(glob).matches(argument) is fits


@given(st.lists(st.sampled_from(["a", "b", "*", "?"]), min_size=1, max_size=8).map("".join), st.text("ab", max_size=8))
def test_globs_agree_with_a_plain_search(glob, argument):
    def search(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(search(pattern[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and pattern[0] in ("?", text[0]) and search(pattern[1:], text[1:])

    assert ArgumentPattern(glob).matches(argument) is search(glob, argument)
