"""Source file and line of a function's entry, from the DWARF of just the units that hold the asked addresses.

    va ─ .debug_aranges, else the ranges of each unit ─> unit ─ its line program ─> fs/read_write.c:550

A vmlinux has 200 MB of .debug_info and 2,500 units. Only the units that hold an asked address are read, each once for
all of its addresses; only where .debug_aranges does not list an address (clang makes none), the first entry of every
unlisted unit is read for its ranges. What contradicts itself, or is of a kind not known here (split units
that are elsewhere), has no line: no answer is better than a wrong one. `debug_info` tells how pyelftools is used.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from ftpatch.arrays import U64, Rows
from ftpatch.elf import tables as t
from ftpatch.elf.debug_info import DebugInfo, Program, Span, Unit, attempt
from ftpatch.elf.debug_paths import in_another_file, relative
from ftpatch.elf.image import Image

NEAR = 24  # bytes from an entry within which its first row begins: landing pad, global entry and NOPs
NO_SPANS: list[Span] = []
NO_ROWS: dict[int, tuple[int, int]] = {}
MAX_LINE = 1 << 32  # no source file has as many lines: a greater number is damage

SPAN = np.dtype([("start", "<u8"), ("size", "<u8"), ("unit", "<i8")])  # code of the unit at a position of .debug_info


def source_lines(image: Image, vas: Iterable[int]) -> list[str | None]:
    """`fs/read_write.c:550` of each va, relative to the top of the source tree; None where the file does not tell.

    vas: of entries or of the sites at them, in the image's address space as Image.va gives them, relocatable files
    included.
    """
    asked = _entries_at(image, np.array([int(va) for va in vas], np.uint64))
    wanted = sorted(set(asked))
    lines: dict[int, str] = {}
    debug = DebugInfo(image)
    for unit, inside in _units_of(debug, wanted) if len(debug.section("debug_line")) else ():
        lines = _lines(unit, inside) | lines
    return [lines.get(va) for va in asked]


def why_no_line(image: Image) -> str:
    """Why a file tells no line of one of its functions; "" where it has no debug information and names none."""
    if image.sections_named(".debug_line", ".zdebug_line"):
        problems = DebugInfo(image).problems
        return f"its debug information cannot be read: {problems[0]}" if problems else "not in its debug information"
    return in_another_file(image)


def _entries_at(image: Image, va: U64) -> list[int]:
    """The entry of the function that begins at most NEAR bytes in front of each va, else the va itself."""
    entry = image.functions.va[image.functions.containing(va)] if len(image.functions.va) else va
    entries: list[int] = np.where(image.functions.inside(va) & (va - entry <= np.uint64(NEAR)), entry, va).tolist()
    return entries


# -- which unit holds an address ----------------------------------------------------------------------------------


def _units_of(debug: DebugInfo, wanted: list[int]) -> Iterator[tuple[Unit, list[int]]]:
    """Units that hold wanted addresses, with these: by .debug_aranges, then by the ranges of units it lacks."""
    listed = _span_rows(debug.aranges())
    unit_of = _holders(listed, wanted, 0)
    if len(unit_of) < len(wanted):
        spans = np.concatenate([listed, _span_rows(_unlisted(debug, set(listed["unit"].tolist())))])
        for near in (0, NEAR):
            unit_of |= _holders(spans, [va for va in wanted if va not in unit_of], near)
    by_unit: dict[int, list[int]] = {}
    for va in wanted:
        if va in unit_of:
            by_unit.setdefault(unit_of[va], []).append(va)
    for pos, inside in sorted(by_unit.items()):
        if unit := debug.unit(pos):
            yield unit, inside


def _span_rows(spans: Iterable[tuple[int, int, int]]) -> Rows:
    """(va, size, unit) as rows; what is no address is left out."""
    return np.array([span for span in spans if span[0] >= 0 < span[1] and span[0] + span[1] <= t.LAST_VA], SPAN)


def _unlisted(debug: DebugInfo, listed: set[int]) -> Iterator[tuple[int, int, int]]:
    """(va, size, unit) of all code of the units that are not listed elsewhere."""
    for pos, _ in debug.extents():
        unit = debug.unit(pos) if pos not in listed else None
        if unit:
            yield from ((low, high - low, pos) for low, high in attempt(unit.spans, NO_SPANS))


def _holders(spans: Rows, wanted: list[int], near: int) -> dict[int, int]:
    """The unit of each wanted address: whose span it is in or, with `near`, at most that many bytes in front of."""
    order = np.argsort(spans["start"], kind="stable")
    start, size, unit = (spans[name][order] for name in ("start", "size", "unit"))
    unit_of = {}
    behind_each = np.searchsorted(start, np.array(wanted, np.uint64), side="right").tolist()
    for va, behind in zip(wanted, behind_each, strict=True):
        if behind and va - int(start[behind - 1]) < int(size[behind - 1]):
            unit_of[va] = int(unit[behind - 1])
        elif near and behind < len(start) and int(start[behind]) - va <= near:  # NOPs in front of the first row
            unit_of[va] = int(unit[behind])
    return unit_of


# -- which line an address has ------------------------------------------------------------------------------------


def _lines(unit: Unit, wanted: list[int]) -> dict[int, str]:
    """`file:line` of the wanted addresses that the unit's line program knows; they are ascending."""
    program = attempt(unit.line_program, None)
    if program is None:
        return {}
    rows = attempt(partial(_rows_near, program, wanted), NO_ROWS)
    files = {file: attempt(partial(_file, unit, program, file), "") for file, _ in rows.values()}
    return {va: f"{files[file]}:{line}" for va, (file, line) in rows.items() if files[file]}


def _rows_near(program: Program, wanted: list[int]) -> dict[int, tuple[int, int]]:
    """(file, line) of the row for each wanted address: the first that begins there, else soon behind, else around it.

    gcc before 13 has no row for the NOPs at an entry: the row around an entry is the last of the function before.
    """
    begins: dict[int, tuple[int, int, int]] = {}
    around: dict[int, tuple[int, int]] = {}
    row: tuple[int, int, int] | None = None
    for state in (step.state for step in program.get_entries() if step.state):
        va = state.address
        if row and row[0] < va and 0 < row[2] < MAX_LINE:
            for entry in wanted[bisect_left(wanted, row[0]) : bisect_left(wanted, va)]:
                around.setdefault(entry, row[1:])
        row = (va, state.file, state.line) if not state.end_sequence else None
        if row and 0 < row[2] < MAX_LINE and wanted[0] <= va <= wanted[-1] + NEAR:
            for entry in wanted[bisect_left(wanted, va - NEAR) : bisect_right(wanted, va)]:
                begins[entry] = min(begins.get(entry, (NEAR + 1, 0, 0)), (va - entry, *row[1:]), key=itemgetter(0))
    return around | {va: (file, line) for va, (_, file, line) in begins.items()}


def _file(unit: Unit, program: Program, number: int) -> str:
    """The path of a file that a line program names by number; empty where it names none."""
    directories, files = list(program["include_directory"]), program["file_entry"]
    if program["version"] < 5:  # files are counted from 1, and the compiler's directory stands in the unit
        directories, number = [unit.compiler_directory(), *directories], number - 1
    if not 0 <= number < len(files):
        return ""
    return relative(_text(files[number].name), files[number].dir_index or 0, [_text(name) for name in directories])


def _text(name: Any) -> str:
    """A name as text; none where pyelftools found no string."""
    return name[: t.MAX_NAME].decode("utf-8", "backslashreplace") if isinstance(name, bytes) else ""
