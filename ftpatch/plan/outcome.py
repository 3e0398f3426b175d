"""What a plan says of itself to a report: the same few facts, whatever kind of file it is for."""

from __future__ import annotations

from dataclasses import dataclass

FATES = {"null": "null", "minus4": "minus4", "shrink": "cut", "keep": "kept", "return": "returned"}


@dataclass(frozen=True)
class Settled:
    """What the request came to: the target, the ops and the way in which records leave, with the reason for it."""

    target: str
    target_va: int | None
    ops: str | None
    ops_via: str
    records: str
    records_why: str


@dataclass(frozen=True)
class Fate:
    """What happens to one patched site. distance: bytes from its branch to where it goes, None where a loader decides;
    stub: where the stub lies that the call goes through."""

    action: str
    reason: str | None
    target: str | None
    distance: int | None
    literal: str | None
    stub: str | None
    record: str = ""  # what becomes of its record, where that differs from site to site
