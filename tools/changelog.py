"""The releases that CHANGELOG.md lists; python -m tools.changelog prints when the newest one was made, in seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
_HEADING = re.compile(r"^## \[([^]]+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


class Release(NamedTuple):
    """A heading of the changelog."""

    version: str
    date: datetime  # its midnight, UTC


def releases(text: str) -> list[Release]:
    """All releases of a changelog, in its order."""
    return [
        Release(version, datetime.fromisoformat(date).replace(tzinfo=UTC)) for version, date in _HEADING.findall(text)
    ]


def source_date() -> int:
    """The seconds since 1970 that files of a distribution carry, whenever and wherever it is built."""
    return int(releases(CHANGELOG.read_text())[0].date.timestamp())


if __name__ == "__main__":
    print(source_date())
