"""What a check found at one site, or at many alike: a value that every report format can show."""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("note", "warning", "error")  # ascending


@dataclass(frozen=True)
class Finding:
    """One row of `findings`. file: the file as it was named; offset: in `section`, of the site; source: `file.c:12`
    where debug information tells; help: what to do; count: sites that it stands for."""

    rule: str
    severity: str
    message: str
    file: str
    function: str | None = None
    row: int | None = None
    section: str | None = None
    offset: int | None = None
    source: str | None = None
    help: str = ""
    count: int = 1
