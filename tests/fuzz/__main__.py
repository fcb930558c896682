"""Fuzzes one target by hand; run from the root of the repository.

    python tests/fuzz NAME [libFuzzer options] [corpus folders]     fuzz it: kept inputs and seeds come by themselves
    python tests/fuzz NAME --keep FOLDER                            keep the inputs of FOLDER, a corpus folder of a run
    python tests/fuzz --list                                        name all targets

Kept inputs stand in `corpus/NAME.txt`, one a line, in base64.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
# The folder itself stands first when it is run; its parent brings the tests' own modules, the root the lab's.
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from fuzz.corpus import GROUPS, MAX_INPUT_BYTES, keep, kept, lay_out, names  # noqa: E402 -- the path is set above


def _fuzz(name: str, options: list[str]) -> None:
    with atheris.instrument_imports(include=["chatelaine"]):
        module = importlib.import_module(f"fuzz.{GROUPS[name]}")
    target = module.TARGETS[name]
    # Libraries warn about odd names and numbers; what matters here is what they raise.
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        with contextlib.suppress(*target.refuses):
            target.parse(data)

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), [*target.seeds(), *kept(name)])
        # New inputs go to the first folder given; these are read only, unless they are the only one.
        atheris.Setup([sys.argv[0], f"-max_len={MAX_INPUT_BYTES}", *options, folder], once)
        atheris.Fuzz()


def main() -> int:
    """Command line."""
    name, *options = sys.argv[1:]
    if name == "--list":
        print("\n".join(names()))
    elif options[:1] == ["--keep"]:
        keep(name, [*kept(name), *(path.read_bytes() for path in Path(options[1]).iterdir())])
    else:
        _fuzz(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
