"""Names that the commands of an advice are made of, and how a command is written out."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Final

RAW: Final = frozenset({"chatelaine", "in_namespace"})
"""Made by ourselves, and written as they are."""


@dataclass(frozen=True, slots=True)
class Names:
    """What stands in commands; None: not known here.

    Attributes:
        chatelaine: how our command was called.
        system: the operator's namespace.
        kind, name, namespace: the object asked about, as kubectl names it.
        in_namespace: ` --namespace …` or nothing, quoted already.
        claim, hsm, policy, evidence, ek, thumbprint: of what the advice is about.
    """

    chatelaine: str = "chatelaine"
    system: str = "chatelaine-system"
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    claim: str | None = None
    hsm: str | None = None
    policy: str | None = None
    evidence: str | None = None
    in_namespace: str = ""
    ek: str | None = None
    thumbprint: str | None = None

    def fill(self, template: str) -> str | None:
        """`template` with its fields filled in and quoted for a shell; None if one of them is not known.

        Names come out of the cluster: whoever pastes a command must run this command and no other.
        """
        values = asdict(self)
        asked = [name for _, name, _, _ in Formatter().parse(template) if name]
        if any(values[name] is None for name in asked):
            return None
        quoted = {name: values[name] if name in RAW else shlex.quote(values[name]) for name in asked}
        return template.format_map(quoted)
