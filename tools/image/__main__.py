"""Builds an image: `python -m tools.image --tag 1.0`, with `--evaluation` the one with software tokens and TPMs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.image.debian import DebianError
from tools.image.product import NAME, ROOT, build, unpack
from tools.image.python import PythonError


def main() -> int:
    """Command line: prints archive, name and digest."""
    parser = argparse.ArgumentParser(description="Build the product's image as an OCI archive, without an engine.")
    parser.add_argument("--tag", default="dev", help="tag of the image (dev)")
    parser.add_argument("--evaluation", action="store_true", help="with SoftHSM, swtpm and their tools")
    parser.add_argument("--archive", type=Path, help="where to write it (build/image/NAME.tar)")
    parser.add_argument("--root", type=Path, help="write the image's files into this new folder instead")
    arguments = parser.parse_args()
    name = f"{NAME}-evaluation" if arguments.evaluation else NAME
    target = arguments.archive or ROOT / "build" / "image" / f"{name}.tar"
    try:
        if arguments.root is not None:
            unpack(arguments.root, evaluation=arguments.evaluation)
            return 0
        built = build(target, arguments.tag, evaluation=arguments.evaluation)
    except (DebianError, PythonError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(f"{built.archive} {built.name} {built.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
