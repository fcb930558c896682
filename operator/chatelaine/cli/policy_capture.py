"""`chatelaine policy capture`: a policy, and unsigned reference values, out of what live hosts show.

The manifest goes to standard output, the report of what was taken and left out to standard error. Exit status: 0
captured, 1 whoever answers is not shown to be the host (or shows nothing that could be captured), 2 a host or the
cluster did not answer, 64 usage.
"""

from __future__ import annotations

import datetime
import json as json_text
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from chatelaine.appraisal.capture import Capture, Wish
from chatelaine.appraisal.capture import capture as capture_of
from chatelaine.appraisal.capture_pcrs import selected
from chatelaine.appraisal.errors import NothingToCapture
from chatelaine.appraisal.policy_words import shown
from chatelaine.cli import policy_files, policy_inputs
from chatelaine.cli.policy_ends import (
    DEFAULT_STATE_DIR,
    REFUSED,
    Json,
    Kubeconfig,
    Reach,
    StateDir,
    ended,
    object_name,
    say,
)
from chatelaine.cli.policy_yaml import Comments, manifest_yaml
from chatelaine.evidence.errors import ReferenceValuesError
from chatelaine.evidence.reference_values import read_payload
from chatelaine.evidence.tpm_types import MAX_PCRS
from chatelaine.model.identifiers import API_VERSION
from chatelaine.model.tpm_policy import Bank

if TYPE_CHECKING:
    from chatelaine.cli.captured_hosts import CapturedHosts

MAX_HOSTS: Final = 64
_OUT: Final = policy_inputs.STANDARD_OUTPUT


def capture(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST…", help="Names of Hsm objects.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the policy; default: the base's, else the one that the first Hsm names.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="F", help="Policy, or part of one, whose other rules are kept: release, …")
    ] = None,
    bank: Annotated[Bank, typer.Option(help="PCR bank.")] = Bank.SHA256,
    pcr: Annotated[list[int] | None, typer.Option(help="Take this PCR too. May be given several times.")] = None,
    without_pcr: Annotated[list[int] | None, typer.Option(help="Leave this PCR out. Likewise.")] = None,
    output: Annotated[str, typer.Option(metavar="F", help="Where the policy goes.")] = _OUT,
    bundle: Annotated[
        str | None, typer.Option(metavar="F", help="Write unsigned reference values too; `policy sign` signs them.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="Name of the bundle's series; default: the policy's name.")] = None,
    version: Annotated[int, typer.Option(min=1, help="Version of the bundle.")] = 1,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    kubeconfig: Kubeconfig = None,
    *,
    json: Json = False,
) -> None:
    """Write a policy by which these hosts hold, out of their fresh evidence; nothing else is written.

    What changes by itself is left out; the report says what, and why, and so do comments in the policy. Exit status:
    0 captured, 1 whoever answers is not shown to be the host, 2 it did not answer.
    """
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise typer.BadParameter(f"name one to {MAX_HOSTS} hosts", param_hint="HOST…")
    for host in hosts:
        object_name(host, "HOST…")
    if name is not None:
        object_name(name, "--name")
    if bundle == _OUT and (json or output == _OUT):
        raise typer.BadParameter("only one thing can go to standard output", param_hint="--bundle")
    called, kept = policy_files.fragment(base) if base is not None else ("", {})
    wish = Wish(also=_indices(pcr, "--pcr"), without=_indices(without_pcr, "--without-pcr"), base=kept)
    # The Kubernetes client takes a while to load, and usage errors come without it.
    from chatelaine.cli.captured_hosts import ask_hosts

    found = ask_hosts(list(dict.fromkeys(hosts)), bank, selected(wish.also), Reach(state_dir, kubeconfig))
    title = name or called or found.policy_name
    if bundle is not None:
        wish = replace(wish, series=series or title, version=version, issued_at=_now())
    made = _Made.of(title, found, wish)
    if not json or output != _OUT:
        policy_inputs.write(made.yaml().encode(), output)
    if bundle is not None and made.payload is not None:
        policy_inputs.write(made.payload, bundle)
    if json:
        typer.echo(json_text.dumps(made.as_dict(), indent=2))
    else:
        made.report()


def _indices(given: Sequence[int] | None, hint: str) -> frozenset[int]:
    wrong = [index for index in given or () if not 0 <= index < MAX_PCRS]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is no PCR", param_hint=hint)
    return frozenset(given or ())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unnamed(made: Capture) -> tuple[str, ...]:
    """A policy whose rules for files rest on a bundle that it does not name would refuse every host."""
    if made.bundle is None or not made.bundle.files or "referenceValues" in made.spec:
        return ()
    return ("sign the bundle and name it under referenceValues before you apply this: without it no file is allowed",)


@dataclass(frozen=True, slots=True)
class _Made:
    """All that comes out. `cautions`: what a person must look at before it is applied, a sentence each."""

    title: str
    capture: Capture
    hosts: CapturedHosts
    payload: bytes | None
    cautions: tuple[str, ...]

    @classmethod
    def of(cls, title: str, hosts: CapturedHosts, wish: Wish) -> _Made:
        """Capture, see that it is a policy and a bundle, and judge the hosts by it."""
        try:
            made = capture_of(hosts.evidence, wish)
        except NothingToCapture as error:
            raise ended(str(error), REFUSED) from error
        policy_files.known("the captured policy", made.spec, policy_files.typed("the captured policy", made.spec))
        payload = made.bundle.encode() if made.bundle is not None else None
        try:
            if payload is not None:
                read_payload(payload)
            cautions = (*hosts.refuted(), *_unnamed(made), *hosts.refused_by(title, made))
            return cls(title, made, hosts, payload, cautions)
        except ReferenceValuesError as error:
            raise ended(f"what was captured is no bundle: {error}", REFUSED) from error

    @property
    def manifest(self) -> dict[str, Any]:
        """The object."""
        return {
            "apiVersion": API_VERSION,
            "kind": policy_files.KIND,
            "metadata": {"name": self.title},
            "spec": self.capture.spec,
        }

    def yaml(self) -> str:
        """The manifest with comments."""
        comments: Comments = {("spec", *path): lines for path, lines in self.capture.comments.items()}
        return manifest_yaml(self.manifest, comments, tuple(self._head()))

    def _head(self) -> Iterator[str]:
        yield f"Captured at {_now()} by `chatelaine policy capture` from:"
        for name, whose in self.hosts.whose().items():
            yield f"{name}: {whose}"
        for caution in self.cautions:
            yield f"CAUTION: {caution}"
        if self.payload is not None:
            yield "Its reference values are in a bundle. Sign it (`policy sign`), name it under referenceValues."

    def as_dict(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "policy": self.manifest,
            "hosts": self.hosts.standings(),
            "cautions": list(self.cautions),
            "notes": [note.as_dict() for note in self.capture.notes],
            "bundle": None if self.payload is None else json_text.loads(self.payload),
        }

    def report(self) -> None:
        """For a person, on standard error."""
        for name, whose in self.hosts.whose().items():
            say(f"{name}: {whose}")
        for note in self.capture.notes:
            say(
                f"{'taken   ' if note.taken else 'left out'}  {note.what}"
                + (f": {shown(note.why)}" if note.why else "")
            )
        for caution in self.cautions:
            say(f"CAUTION   {caution}")
