"""What a boot will say and list, as a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftpatch.kernel.boot import Bug, Oracle

if TYPE_CHECKING:
    from ftpatch.document.types import BugRow, OracleObject


def oracle_object(oracle: Oracle | None) -> OracleObject | None:
    """The oracle of one kernel; None for a file that has none."""
    if oracle is None:
        return None
    return {
        "allocating": oracle.allocating, "pages": oracle.pages, "listed_before": list(oracle.listed_before),
        "listed_after": list(oracle.listed_after), "bugs": [_bug(bug) for bug in oracle.bugs],
    }  # fmt: skip


def _bug(bug: Bug) -> BugRow:
    return {
        "function": bug.function, "offset": f"0x{bug.offset:x}", "row": bug.row, "place": bug.place,
        "ip": f"0x{bug.ip:016x}", "va": f"0x{bug.va:016x}", "expected": f"0x{bug.expected:0{bug.digits}x}",
        "found": f"0x{bug.found:0{bug.digits}x}", "actual": f"0x{bug.actual:0{bug.digits}x}", "text": str(bug),
    }  # fmt: skip
