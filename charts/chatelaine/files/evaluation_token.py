"""Makes the SoftHSM token of an evaluation host, once: `token.py FOLDER LABEL`.

The folder gets `softhsm2.conf`, `tokens/` and `pin`. softhsm2-util takes PINs from a terminal or from its arguments,
which other processes can read; so it gets a terminal.
"""

import os
import pty
import secrets
import sys
from pathlib import Path


def main(folder: Path, label: str) -> None:
    """Nothing is done where the PIN is there: it is written last."""
    pin_file = folder / "pin"
    if pin_file.exists():
        return
    (folder / "tokens").mkdir(parents=True, mode=0o700, exist_ok=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    pin = secrets.token_hex(8)
    initialise(label, officer_pin=secrets.token_hex(8), user_pin=pin)
    unfinished = pin_file.with_suffix(".new")
    unfinished.touch(mode=0o600)
    unfinished.write_text(pin)
    unfinished.rename(pin_file)


def initialise(label: str, officer_pin: str, user_pin: str) -> None:
    """Answers the four questions: each PIN twice."""
    answers = [officer_pin, officer_pin, user_pin, user_pin]
    child, terminal = pty.fork()
    if child == 0:
        os.execvp("softhsm2-util", ["softhsm2-util", "--init-token", "--free", "--label", label])
    said = b""
    while True:
        try:
            part = os.read(terminal, 1024)
        except OSError:  # so a terminal ends whose last process has gone
            break
        if not part:
            break
        said += part
        if said.rstrip().endswith(b"PIN:") and answers:
            os.write(terminal, answers.pop(0).encode() + b"\n")
            said = b""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"softhsm2-util ended with {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
