"""What a check found at one site, or at many alike: a value that every report format can show.

One type for the linter (`check`), the proof (`verify`) and the comparison (`diff`). What a rule means and what to do
about it is said once, in the register of rules, and not in every finding.
"""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("note", "warning", "error")  # ascending


@dataclass(frozen=True)
class Finding:
    """One row of `findings`. What is not known of the place is None: a table has no function, a new file no source."""

    rule: str  # its name in the register
    severity: str  # of SEVERITIES
    message: str  # one line, with the numbers
    file: str  # as it was named by who asked
    function: str | None = None
    row: int | None = None  # slot of the record table
    section: str | None = None
    offset: int | None = None  # bytes in `section`
    source: str | None = None  # `file.c:12`, where debug information tells
    count: int = 1  # sites that this one stands for
    pos: int | None = None  # position in the ELF file: a changed byte need not lie in a section
