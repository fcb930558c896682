"""Every exit status of `chatelaine` beside 0. Usage errors: 2, as typer does; of those whose 2 is an answer 64."""

from __future__ import annotations

from typing import Final

from chatelaine.diagnosis.check import State
from chatelaine.model.verdict import Verdict

FAILED: Final = 1
"""It could not start, or not do what was asked; standard error says why."""
UNAVAILABLE: Final = 69
"""This machine lacks what the subcommand needs (`EX_UNAVAILABLE` of sysexits.h)."""
VERDICTS: Final = {Verdict.TRUSTED: 0, Verdict.UNTRUSTED: 1, Verdict.UNKNOWN: 2}
"""How `verify` and `policy` end."""
UNWRITABLE: Final = 74
"""A file that could be opened cannot be read or written, or nobody reads the output (`EX_IOERR`)."""
VERIFY_USAGE: Final = 64
"""Usage errors of `verify`, `evidence`, `policy`, `hsm` and `restore` (`EX_USAGE`): their 2 says *cannot tell*."""
STATES: Final = {State.READY: 0, State.NOT_READY: 1, State.CANNOT_TELL: 2}
"""How `explain`, `doctor` and `check` end. Their usage errors are 64, too."""
