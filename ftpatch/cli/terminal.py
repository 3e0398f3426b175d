"""What stdout is: whether a terminal, of which size, and whether it is to be coloured."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from ftpatch.report import WIDTH

ROWS = 24  # of a terminal that does not tell


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at a standard stream."""
    return stream is not None and stream.isatty()


def is_dumb() -> bool:
    """Whether the terminal can neither move its cursor nor show colours."""
    return os.environ.get("TERM") == "dumb"


def is_colored(option: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stdout gets colours. option: of --color; `auto` asks the environment, and then what stdout is.

    NO_COLOR, not empty, is a no (no-color.org); FORCE_COLOR and CLICOLOR_FORCE, neither empty nor 0, are a yes.
    """
    if option != "auto":
        return option == "always"
    if environment.get("NO_COLOR"):
        return False
    if any(environment.get(name, "") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return is_terminal(sys.stdout) and not is_dumb() and environment.get("CLICOLOR") != "0"


def size() -> tuple[int, int]:
    """(columns, rows) of stdout: of COLUMNS and LINES where they are set, else of the terminal; (WIDTH, ROWS) where
    there is none."""
    columns, rows = _number("COLUMNS"), _number("LINES")
    if not (columns and rows):
        try:
            told = os.get_terminal_size(sys.__stdout__.fileno()) if sys.__stdout__ else None
        except (OSError, ValueError):  # no terminal; closed
            told = None
        columns = columns or (told.columns if told else 0) or WIDTH
        rows = rows or (told.lines if told else 0) or ROWS
    return columns, rows


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
