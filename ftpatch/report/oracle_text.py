"""What a boot will say and list, as a JSON object and for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftpatch.errors import printable
from ftpatch.kernel.boot import Bug, Oracle

N_SHOWN = 10


def oracle_object(found: Oracle | None) -> dict[str, Any] | None:
    """The oracle of one kernel; None for a file that has none."""
    if found is None:
        return None
    return {
        "allocating": found.allocating, "pages": found.pages, "listed_before": list(found.listed_before),
        "listed_after": list(found.listed_after), "bugs": [_bug(one) for one in found.bugs],
    }  # fmt: skip


def _bug(one: Bug) -> dict[str, Any]:
    return {
        "function": one.function, "offset": f"0x{one.offset:x}", "row": one.row, "place": one.place,
        "ip": f"0x{one.ip:016x}", "va": f"0x{one.va:016x}", "expected": f"0x{one.expected:0{one.digits}x}",
        "found": f"0x{one.found:0{one.digits}x}", "actual": f"0x{one.actual:0{one.digits}x}", "text": str(one),
    }  # fmt: skip


def text(found: dict[str, Any]) -> Iterator[str]:
    """The lines of one oracle object: what the kernel prints, how much it lists, where it stops."""
    pages = "an unknown number of" if found["pages"] is None else found["pages"]
    bugs = found["bugs"]
    if bugs:
        first = bugs[0]
        actual = int(first["actual"], 16).to_bytes(4, "little")
        yield _line("at boot", "ftrace bug: ftrace failed to modify "
                    f"{printable(first['function'])}+{first['offset']}, actual: {actual.hex(':')}")  # fmt: skip
    yield _line("" if bugs else "at boot", f"ftrace: allocating {found['allocating']} entries in {pages} pages")
    if not bugs:
        before, after = len(found["listed_before"]), len(found["listed_after"])
        yield _line("listed", f"{before} functions, {after} once init memory is freed (--format json has their names)")
        return
    yield _line("listed", "none: ftrace is off from the first bug on, and available_filter_functions cannot be opened")
    yield _line("bug", printable(bugs[0]["text"]))
    yield from (_line("not reached", printable(one["text"])) for one in bugs[1:N_SHOWN])
    if len(bugs) > N_SHOWN:
        yield _line("", f"… and {len(bugs) - N_SHOWN} more that the kernel does not come to")


def _line(key: str, what: str) -> str:
    return f"  {key:<10} {what}\n"
