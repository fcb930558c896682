"""A policy out of what live hosts show: what stays as it is until somebody changes what boots, is named.

What changes by itself is left out, and every part that is left out says why: a policy that refuses its own hosts
tomorrow teaches people to switch it off. The same evidence judged by the captured rules holds (property test), and
every part names what it rests on.

The caller owes the evidence: verified, fresh, and of the hosts that a person means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chatelaine.appraisal.capture_boot import CapturedBoot, capture_boot
from chatelaine.appraisal.capture_ima import CapturedIma, capture_ima
from chatelaine.appraisal.capture_pcrs import PcrChoice, changed_by, choose, use_of
from chatelaine.appraisal.errors import NothingToCapture
from chatelaine.appraisal.policy_words import shown
from chatelaine.appraisal.rules import normal_model
from chatelaine.evidence.bundle import VerifiedEvidence
from chatelaine.evidence.reference_values import Predicate
from chatelaine.model.policy import MAX_TOKEN_TEXT_CHARACTERS, AttestationPolicySpec
from chatelaine.model.tpm_policy import Bank

MAX_AGE_SECONDS: Final = 30
"""Freshness of a policy that is not told anything else."""

Path = tuple[str | int, ...]
"""A place in a manifest's spec."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for.

    Attributes:
        also: PCRs to take that would be left out.
        without: PCRs to leave out.
        base: spec of a policy whose other parts are kept; what is captured replaces its own.
        series, version, issued_at: of the bundle; an empty series means no bundle.
    """

    also: frozenset[int] = frozenset()
    without: frozenset[int] = frozenset()
    base: Mapping[str, Any] = field(default_factory=dict)
    series: str = ""
    version: int = 1
    issued_at: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """One part of what was seen: taken into the policy, or left out. `why` may be empty where it was taken."""

    what: str
    taken: bool
    why: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {"what": self.what, "taken": self.taken, "why": self.why}


@dataclass(frozen=True, slots=True)
class Capture:
    """A captured policy.

    Attributes:
        spec: of the manifest, plain JSON; `AttestationPolicySpec` takes it.
        comments: what stands above each place of it.
        bundle: unsigned reference values, if they were asked for.
        notes: everything that was looked at.
    """

    spec: dict[str, Any]
    comments: Mapping[Path, tuple[str, ...]]
    bundle: Predicate | None
    notes: tuple[Note, ...]

    def typed(self) -> AttestationPolicySpec:
        """The rules as they judge."""
        return AttestationPolicySpec.model_validate(self.spec)


@dataclass(slots=True)
class _Draft:
    """What grows while the parts are gone through."""

    tpm: dict[str, Any]
    hsm: dict[str, Any]
    comments: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def took(self, what: str, why: str = "") -> None:
        self.notes.append(Note(what, taken=True, why=why))

    def left(self, what: str, why: str) -> None:
        self.notes.append(Note(what, taken=False, why=why))


def capture(hosts: Mapping[str, VerifiedEvidence], wish: Wish) -> Capture:
    """A policy by which all of `hosts` hold.

    Args:
        hosts: verified evidence by the name of the host, all of one bank.
        wish: what was asked for.

    Raises:
        NothingToCapture: no host, hosts of several banks, or no PCR is left that a policy could name.
    """
    banks = {evidence.quote.selection.bank for evidence in hosts.values()}
    if len(banks) != 1:
        raise NothingToCapture("evidence of one host or more, all of the same bank, is needed")
    (bank,) = banks
    draft = _Draft(dict(wish.base.get("tpm") or {}), dict(wish.base.get("hsm") or {}))
    pcrs = _pcrs(draft, bank, hosts, wish)
    boot = _boot(draft, hosts, wish)
    ima = _ima(draft, hosts, wish)
    _firmware(draft, hosts)
    spec = {"freshness": {"maxAgeSeconds": MAX_AGE_SECONDS}, **wish.base, "tpm": draft.tpm, "hsm": draft.hsm}
    _others(draft, spec)
    return Capture(spec, draft.comments, _bundle(bank, pcrs, boot, ima, wish), tuple(draft.notes))


# --- the parts ------------------------------------------------------------------------------------------------


def _pcrs(draft: _Draft, bank: Bank, hosts: Mapping[str, VerifiedEvidence], wish: Wish) -> tuple[PcrChoice, ...]:
    seen = [(name, evidence.quote.pcrs) for name, evidence in hosts.items()]
    choices = choose(seen, also=wish.also, without=wish.without)
    taken = tuple(choice for choice in choices if choice.taken)
    if not taken:
        raise NothingToCapture("no PCR is left to be named; a policy names at least one")
    values = [{"index": choice.index, "anyOf": list(choice.values)} for choice in taken]
    draft.tpm["pcrs"] = {"bank": bank.value, "values": values}
    for number, choice in enumerate(taken):
        draft.comments["tpm", "pcrs", "values", number] = tuple(_about(choice, len(hosts)))
    left = dict(_left_out(choices))
    draft.comments["tpm", "pcrs", "values"] = ("left out:", *(f"{what}: {why}" for what, why in left.items()))
    for choice in taken:
        draft.took(f"PCR {choice.index} ({use_of(choice.index)})", choice.why)
    for what, why in left.items():
        draft.left(what, why)
    return taken


def _left_out(choices: Iterable[PcrChoice]) -> Iterator[tuple[str, str]]:
    """Each reason once, with all PCRs that it holds for."""
    by_reason: dict[str, list[int]] = {}
    for choice in choices:
        if not choice.taken:
            by_reason.setdefault(choice.why, []).append(choice.index)
    for why, indices in by_reason.items():
        named = f"PCR {indices[0]} ({use_of(indices[0])})"
        yield named if len(indices) == 1 else f"PCRs {', '.join(map(str, indices))}", why


def _about(choice: PcrChoice, hosts: int) -> Iterator[str]:
    changed = f"; changed by {changed_by(choice.index)}" if changed_by(choice.index) else ""
    yield use_of(choice.index) + (f"; {choice.why}" if choice.why else changed)
    if any(not value.strip("0") for value in choice.values):
        yield "zeros: nothing was measured into it; where something is, the host is refused"
    if len(choice.values) > 1:
        for value, names in choice.values.items():
            yield f"{value[:16]}… of {', '.join(names)}" if len(names) < hosts else value


def _boot(draft: _Draft, hosts: Mapping[str, VerifiedEvidence], wish: Wish) -> CapturedBoot | None:
    what = "what booted (event log)"
    logs = {name: evidence.boot_log.facts for name, evidence in hosts.items() if evidence.boot_log is not None}
    if len(logs) < len(hosts):
        flaws = (
            f"{name}: {evidence.boot_log_flaw.detail}"
            for name, evidence in hosts.items()
            if evidence.boot_log_flaw is not None
        )
        none = "no host showed a log" if not logs else "not every host showed a log"
        draft.left(what, shown(next(flaws, none)))
        return None
    found = capture_boot(logs, into_bundle=bool(wish.series))
    draft.tpm["eventLog"] = {**draft.tpm.get("eventLog", {}), **found.rules}
    draft.took(what, ", ".join(found.rules))
    for name, lines in found.comments.items():
        draft.comments["tpm", "eventLog", name] = lines
    for name, why in found.left.items():
        draft.left(f"{what}: {name}", why)
    if found.left:
        left = (f"{name}: {why}" for name, why in found.left.items())
        draft.comments["tpm", "eventLog"] = ("left out:", *left)
    return found


def _ima(draft: _Draft, hosts: Mapping[str, VerifiedEvidence], wish: Wish) -> CapturedIma | None:
    lists = [evidence.ima for evidence in hosts.values() if evidence.ima is not None and evidence.ima.entries]
    what = "what runs (IMA)"
    if len(lists) < len(hosts):
        draft.left(what, "no list of measurements came along" if not lists else "not every host keeps a list")
        return None
    found = capture_ima([entry for ima in lists for entry in ima.entries], into_bundle=bool(wish.series))
    if found.rules is None:
        draft.left(what, found.why)
        draft.comments["tpm", "pcrs"] = (f"rules for what runs (IMA) were left out: {found.why}",)
        return None
    draft.tpm["ima"] = {**draft.tpm.get("ima", {}), **found.rules}
    draft.comments["tpm", "ima"] = (*found.cautions,)
    draft.took(what, "; ".join(found.cautions))
    return found


def _firmware(draft: _Draft, hosts: Mapping[str, VerifiedEvidence]) -> None:
    models: dict[str, set[str]] = {}
    for evidence in hosts.values():
        models.setdefault(normal_model(evidence.statement.model), set()).add(evidence.statement.firmware.strip())
    draft.hsm.setdefault("statement", "HostAsserted")
    texts = [*models, *(version for found in models.values() for version in found)]
    if not all(0 < len(text) <= MAX_TOKEN_TEXT_CHARACTERS for text in texts):
        draft.left("firmware of the token", "a token does not say its model and firmware in a form that can be listed")
        return
    draft.hsm["firmware"] = [{"model": model, "anyOf": sorted(found)} for model, found in sorted(models.items())]
    draft.took("firmware of the token", ", ".join(shown(model) for model in sorted(models)))


def _others(draft: _Draft, spec: Mapping[str, Any]) -> None:
    """What no host can show, and a person has to decide."""
    if "release" not in spec:
        why = "no host can show who may bind: without release rules, nobody can. Write them yourself"
        draft.left("release", why)
        draft.comments["hsm",] = (f"release is missing: {why}",)
    if "inventory" not in draft.hsm:
        draft.left("hsm.inventory", "add `inventory: Accounted` if no key but those of claims may be in the tokens")


def _bundle(
    bank: Bank, pcrs: Sequence[PcrChoice], boot: CapturedBoot | None, ima: CapturedIma | None, wish: Wish
) -> Predicate | None:
    if not wish.series:
        return None
    return Predicate(
        name=wish.series,
        version=wish.version,
        issued_at=wish.issued_at,
        pcrs={bank: {choice.index: tuple(choice.values) for choice in pcrs}},
        dbx_at_least=boot.dbx if boot is not None else (),
        files=ima.files if ima is not None else (),
    )
