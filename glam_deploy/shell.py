"""Names of files and other texts from outside, as words of a shell command that a message prints."""

import os
import shlex
from pathlib import Path


def quoted(word: str | Path) -> str:
    """One word for bash, zsh or ksh that stands for `word` and nothing else, on one line and printable.

    A path that could be taken for an option (-x.pt) gets ./ before it.
    Source: POSIX.1-2024 Shell Command Language, 2.2 "Quoting" (single quotes and dollar-single-quotes).
    """
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, os.fsencode(text)))}'"


def _escaped(byte: int) -> str:
    """A byte between dollar-single-quotes; in octal, of which a shell takes three digits and no more."""
    return chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in " ./_-") else f"\\{byte:03o}"
