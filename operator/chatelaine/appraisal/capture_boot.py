"""What booted on hosts, as rules that keep on holding when a boot loader or a kernel is updated.

Only facts that every host's log bears out become rules: whatever a log leaves open is named, and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chatelaine.appraisal.boot_rules import authority_name
from chatelaine.appraisal.policy_words import shown
from chatelaine.evidence.boot_facts import BootFacts
from chatelaine.evidence.tpm_algorithms import BANKS
from chatelaine.evidence.uefi_secure_boot import SecureBootState
from chatelaine.model.tpm_policy import MAX_ARGUMENT_CHARACTERS, MAX_AUTHORITIES, MAX_LISTED_DBX_ENTRIES, Bank

DIGEST_NAME_CHARACTERS: Final = len("sha256:") + 64
_DBX_DIGEST_BYTES: Final = BANKS[Bank.SHA256].size_bytes

HARDENING: Final = frozenset(
    (
        "lockdown", "module.sig_enforce", "ima_policy", "ima_appraise", "ima_hash", "ima_template", "fips", "audit",
        "iommu", "intel_iommu", "amd_iommu", "efi", "mitigations", "init_on_alloc", "init_on_free", "slab_nomerge",
        "vsyscall", "debugfs", "randomize_kstack_offset", "page_alloc.shuffle", "kexec_load_disabled",
    )
)  # fmt: skip
"""Arguments (`-` written as `_`) that make a kernel stricter: a host that stops telling them has changed for the worse.
What else a kernel is told (`root=…`) differs from host to host."""


@dataclass(slots=True)
class CapturedBoot:
    """Rules for what booted.

    Attributes:
        rules: `tpm.eventLog` as a manifest has it.
        dbx: image digests (hexadecimal) for a bundle, where the policy cannot hold them.
        comments: for fields of `rules`, by name.
        left: what was left out, and why.
    """

    rules: dict[str, Any] = field(default_factory=lambda: {"replay": "Required"})
    dbx: tuple[str, ...] = ()
    comments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def capture_boot(hosts: Mapping[str, BootFacts], *, into_bundle: bool) -> CapturedBoot:
    """Rules by which these logs hold.

    Args:
        hosts: facts by the name of the host.
        into_bundle: there will be a bundle, which holds larger sets than a policy.
    """
    found = CapturedBoot()
    _secure_boot(found, hosts)
    _authorities(found, hosts)
    _dbx(found, hosts, into_bundle=into_bundle)
    _option_roms(found, hosts)
    _command_line(found, hosts)
    return found


def _secure_boot(found: CapturedBoot, hosts: Mapping[str, BootFacts]) -> None:
    for name, facts in hosts.items():
        state = facts.secure_boot
        if state.state is not SecureBootState.ENABLED:
            found.left["secureBoot"] = f"{name}: " + (state.gap or "Secure Boot was off")
            return
        if state.debug_mode or state.validation_off:
            found.left["secureBoot"] = f"{name}: the firmware is in debug mode, or shim was told to verify nothing"
            return
    found.rules["secureBoot"] = SecureBootState.ENABLED.value


def _authorities(found: CapturedBoot, hosts: Mapping[str, BootFacts]) -> None:
    names: dict[str, str] = {}
    if "secureBoot" in found.left:
        found.left["authorities"] = found.left["secureBoot"]
        return
    for host, facts in hosts.items():
        if facts.secure_boot.authorities_gap:
            found.left["authorities"] = f"{host}: {facts.secure_boot.authorities_gap}"
            return
        for authority in facts.secure_boot.authorities:
            names[authority_name(authority)] = f"from {authority.variable}"
    if not names or len(names) > MAX_AUTHORITIES or any(len(name) != DIGEST_NAME_CHARACTERS for name in names):
        found.left["authorities"] = (
            "no authority verified anything" if not names else "there are too many to list, or one has no SHA-256"
        )
        return
    found.rules["authorities"] = {"allowed": sorted(names)}
    found.comments["authorities"] = (
        "who verified what booted, and nobody else may:",
        *(f"{name[:23]}… {shown(where)}" for name, where in sorted(names.items())),
    )


def _dbx(found: CapturedBoot, hosts: Mapping[str, BootFacts], *, into_bundle: bool) -> None:
    common: set[bytes] | None = None
    for host, facts in hosts.items():
        forbidden = facts.secure_boot.forbidden
        if forbidden is None:
            found.left["dbxAtLeast"] = f"{host}: {facts.secure_boot.gap or 'dbx was not measured, or cannot be read'}"
            return
        digests = {signature.digest for signature in forbidden if len(signature.digest) == _DBX_DIGEST_BYTES}
        common = digests if common is None else common & digests
    listed = sorted(digest.hex() for digest in common or ())
    if not listed:
        found.left["dbxAtLeast"] = "no host has an entry in dbx that all others have"
    elif len(listed) <= MAX_LISTED_DBX_ENTRIES:
        found.rules["dbxAtLeast"] = listed
        found.comments["dbxAtLeast"] = ("a newer dbx holds more, and is as good",)
    elif into_bundle:
        found.dbx = tuple(listed)
    else:
        found.left["dbxAtLeast"] = (
            f"dbx has {len(listed)} entries; a policy lists {MAX_LISTED_DBX_ENTRIES}: ask for a bundle"
        )


def _option_roms(found: CapturedBoot, hosts: Mapping[str, BootFacts]) -> None:
    for host, facts in hosts.items():
        if facts.option_roms is None or facts.option_roms:
            why = "its firmware starts option ROMs or drivers"
            if facts.option_roms is None:
                why = "PCR 2 was not quoted, or has no separator"
            found.left["optionRoms"] = f"{host}: {why}"
            return
    found.rules["optionRoms"] = "Refuse"


def _command_line(found: CapturedBoot, hosts: Mapping[str, BootFacts]) -> None:
    common: set[str] | None = None
    for host, facts in hosts.items():
        lines = facts.command_lines
        if lines.gap or not lines.lines:
            found.left["kernelCommandLine"] = f"{host}: {shown(lines.gap or 'the log shows no kernel command line')}"
            return
        for line in lines.lines:
            told = set(_hardening(line.effective_arguments))
            common = told if common is None else common & told
    if not common:
        found.left["kernelCommandLine"] = "no kernel is told anything that makes it stricter (lockdown=, ima_policy= …)"
        return
    found.rules["kernelCommandLine"] = {"required": sorted(common)}
    found.comments["kernelCommandLine"] = ("what makes the kernel stricter; the rest differs from host to host",)


def _hardening(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        name = argument.partition("=")[0].replace("-", "_")
        usable = len(argument) <= MAX_ARGUMENT_CHARACTERS and all("!" <= c <= "~" for c in argument)
        if name in HARDENING and usable:
            yield argument
