"""The table of `scan --units`: what most units were told, and of each its figures and what is otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.fitting import fitted
from ftpatch.report.text.lines import line, number

if TYPE_CHECKING:
    from ftpatch.document.units import UnitRow, UnitsObject

N_MAKERS = 4  # compilers that one line names


def unit_lines(units: UnitsObject, document: Document) -> Iterator[str]:
    """The units of one file."""
    rows = units["units"]
    if units["unknown"]:
        yield line("units", f"what the compiler was told is not known: {units['unknown']}")
        return
    makers = Counter(row["producer"] for row in rows).most_common()
    named = [f"{maker} {n}" for maker, n in makers[:N_MAKERS]]
    more = [f"and {len(makers) - N_MAKERS} more"] if len(makers) > N_MAKERS else []
    yield line("units", f"{len(rows)} ({', '.join([*named, *more])})")
    if units["unread"]:
        yield line("", f"{number(units['unread'], 'unit')} cannot be read")
    if units["outside"]:
        yield line("", f"{number(units['outside'], 'function')} in none of them")
    usual = _usual(rows)
    if usual is not None:
        yield line("told", " ".join(usual) or "nothing that matters for sites")
    yield f"{'functions':>9} {'sites':>6}  unit\n"
    for row in rows:
        remark = _remark(row, usual)
        text = printable(f"{row['name']}  ! {remark}" if remark else row["name"])
        figures = f"{row['functions']:>9} {row['sites']:>6}  "
        yield f"{figures}{fitted(text, len(figures), document)}\n"


def _usual(rows: list[UnitRow]) -> list[str] | None:
    """The switches that most functions were compiled with; None where they are not known."""
    known: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if row["switches"] is not None and row["functions"]:
            known[tuple(row["switches"])] += row["functions"]
    return list(max(known.items(), key=lambda item: (item[1], item[0]))[0]) if known else None


def _remark(row: UnitRow, usual: list[str] | None) -> str:
    """What is otherwise in a unit."""
    if row["language"] == "assembly":
        return "assembly"
    if row["switches"] is None:
        known = not row["producer"].startswith("not known")
        return f"{row['producer']}, whose switches are not recorded" if known else row["producer"]
    others = [switch for switch in row["switches"] if switch not in (usual or ())]
    missing = [switch for switch in usual or () if _kind(switch) not in map(_kind, row["switches"])]
    return " ".join([*others, *(f"without {switch}" for switch in missing)])


def _kind(switch: str) -> str:
    """What a switch is about, whatever its value."""
    return "-O" if switch.startswith("-O") else switch.partition("=")[0].replace("-fno-", "-f").replace("-mno-", "-m")
