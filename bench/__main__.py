"""Runs the benchmarks named on the command line, or all of them; each is a module with `run()`."""

from __future__ import annotations

import importlib
import sys
import time

NAMES = (
    "quotes",
    "event_logs",
    "ima",
    "reference_values",
    "rounds",
    "pkcs11",
    "claims",
    "tamper",
    "idle",
    "scale",
    "fleet",
)


def main() -> int:
    """Exit status 0 when every benchmark ran; figures that miss their goal are reported, not failed."""
    wanted = tuple(sys.argv[1:]) or NAMES
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 64
    for name in wanted:
        begin = time.monotonic()
        print(f"== {name}", flush=True)
        importlib.import_module(f"bench.{name}").run()
        print(f"== {name}: {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
