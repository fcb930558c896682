"""Text that others have written, for people: hosts, tokens, logs and bundles name things as they like."""

from __future__ import annotations


def printable(text: str, most_characters: int | None = None) -> str:
    """`text` on one line: `?` for each character that steers a terminal or cannot be seen, `…` for what was cut off.

    Args:
        text: what somebody else wrote.
        most_characters: how many of it are shown; None: its length is bounded where it was read.
    """
    shown = text[:most_characters]
    cut = "…" if len(shown) < len(text) else ""
    return "".join(character if character.isprintable() else "?" for character in shown) + cut
