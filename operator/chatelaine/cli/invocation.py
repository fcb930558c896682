"""By which name we were called: `chatelaine`, or `kubectl chatelaine` where kubectl found us as its plugin."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Final

PLUGIN: Final = "kubectl-chatelaine"
"""kubectl runs executables of this name for `kubectl chatelaine …`."""


def command_name() -> str:
    """As a person types it; what we tell them to type begins with it."""
    called = PurePath(sys.argv[0]).name if sys.argv else ""
    return "kubectl chatelaine" if called == PLUGIN else "chatelaine"
