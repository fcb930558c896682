"""`python -m tools.docs --check` looks through the pages; `python -m tools.docs` builds the site after that."""

from __future__ import annotations

import argparse
import sys

from tools.docs.check import problems
from tools.docs.site import build


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description="The site of docs/.")
    parser.add_argument("--check", action="store_true", help="only look through the pages; needs nothing installed")
    asked = parser.parse_args()
    found = problems()
    for problem in found:
        print(problem, file=sys.stderr)
    if found or asked.check:
        return 1 if found else 0
    return build()


if __name__ == "__main__":
    sys.exit(main())
