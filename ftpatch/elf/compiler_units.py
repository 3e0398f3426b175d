"""The units of an image's debug information: what each was made of, by whom, and told what.

Of a unit only its own entry is read, some microseconds for each: a kernel has 2,500 of them. What cannot be read is
left out, and counted (`CompilerUnits.n_unread`).
Source: DWARF 5, 3.1.1 (compilation units) and 3.1.2 (skeletons of split ones, whose producer is in another file).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf import debug_numbers as n
from ftpatch.elf.debug_entries import DAMAGE, DebugSections, Unit
from ftpatch.elf.debug_paths import relative
from ftpatch.elf.debug_spans import UnitSpans, extents
from ftpatch.elf.image import Image
from ftpatch.elf.producers import ASSEMBLER, Producer, parsed
from ftpatch.errors import ChangedError

NEAR = 24  # bytes in front of a unit's first code that still are of it: gcc counts from behind landing pad and NOPs
# What DW_AT_language may say. Source: DWARF 5, table 7.17, and vendors' numbers.
LANGUAGES = {0x01: "C89", 0x02: "C", 0x0C: "C99", 0x1D: "C11", 0x2C: "C17", 0x3E: "C23", 0x04: "C++", 0x1A: "C++11",
             0x21: "C++14", 0x2B: "C++17", 0x1C: "Rust", 0x13: "D", 0x16: "Go", 0x0D: "Ada", 0x08: "Fortran",
             0x22: "Fortran", 0x23: "Fortran", 0x8001: "assembly"}  # fmt: skip
ASSEMBLY = 0x8001


class CompilerUnit(NamedTuple):
    """One unit."""

    pos: int  # in .debug_info
    name: str  # of the source file, as the unit has it
    directory: str  # where the compiler ran
    producer: Producer | None  # None: it has none, or that is in another file
    language: str  # empty where it tells none
    elsewhere: str  # the file that has the unit's contents, where it is split; else empty
    partial: bool  # it has what others import, as LTO makes them, and no code of its own

    @property
    def file(self) -> str:
        """The source file, relative to where the compiler ran."""
        return relative(self.name, 0, [self.directory]) or self.elsewhere or "(no name)"

    @property
    def assembly(self) -> bool:
        """Whether nothing was compiled."""
        return self.language == LANGUAGES[ASSEMBLY] or (
            self.producer is not None and self.producer.compiler == ASSEMBLER
        )

    @property
    def made_by(self) -> str:
        """The producer, for people."""
        if self.producer is None:
            return f"not known: it is in {self.elsewhere}" if self.elsewhere else "not known"
        return self.producer.name

    @property
    def switches_known(self) -> bool:
        return self.producer is not None and self.producer.switches is not None


@dataclass(eq=False)
class CompilerUnits:
    """The units of one image, in the order of .debug_info, and which code is theirs."""

    image: Image

    @cached_property
    def debug(self) -> DebugSections:
        return DebugSections(self.image)

    @cached_property
    def units(self) -> tuple[CompilerUnit, ...]:
        """All that can be read; units of types alone are none."""
        return tuple(unit for unit in self._read if unit is not None)

    @property
    def n_unread(self) -> int:
        """Units that are damaged, or of an unknown kind."""
        return sum(unit is None for unit in self._read)

    @cached_property
    def _read(self) -> list[CompilerUnit | None]:
        return list(_units(self.debug))

    def of(self, va: U64) -> I64:
        """Index in `units` of the unit whose code is at each va, or begins soon behind it; −1: none is known."""
        spans = UnitSpans(self.debug)
        index = {unit.pos: number for number, unit in enumerate(self.units)}
        found = spans.holders(va, NEAR)
        known, of_known = np.unique(found, return_inverse=True)
        return np.array([index.get(pos, -1) for pos in known.tolist()], np.int64)[of_known] if len(va) else found


def debug_info_size(image: Image) -> int:
    """Bytes of a file that hold its units, packed or not."""
    return sum(int(image.shdr["sh_size"][sec]) for sec in image.sections_named(".debug_info", ".zdebug_info"))


def _units(debug: DebugSections) -> Iterator[CompilerUnit | None]:
    """Each unit; None for those that cannot be read."""
    try:
        places = [pos for pos, _ in extents(debug)]
    except ChangedError:
        raise
    except DAMAGE:
        yield None
        return
    for pos in places:
        try:
            unit = Unit(debug, pos)
            yield _unit(unit, unit.texts())
        except ChangedError:  # says nothing of the debug information
            raise
        except DAMAGE:
            if not _has_types_alone(debug, pos):
                yield None


def _has_types_alone(debug: DebugSections, pos: int) -> bool:
    """Whether a unit is one of types, which has no code (DWARF 5)."""
    head = debug.section(".debug_info").peek(pos, pos + 16)
    at = 12 if head[:4] == b"\xff\xff\xff\xff" else 4
    return len(head) > at + 2 and head[at] >= n.FIRST_WITH_KIND and head[at + 2] == n.DW_UT_TYPE


def _unit(unit: Unit, texts: dict[int, str]) -> CompilerUnit:
    language = unit.root.numbers.get(n.DW_AT_LANGUAGE)
    elsewhere = texts.get(n.DW_AT_DWO_NAME, texts.get(n.DW_AT_GNU_DWO_NAME, ""))
    text = texts.get(n.DW_AT_PRODUCER, "")
    known = LANGUAGES.get(language, f"language {language:#x}") if language is not None else ""
    return CompilerUnit(unit.pos, texts.get(n.DW_AT_NAME, ""), texts.get(n.DW_AT_COMP_DIR, ""),
                        parsed(text) if text else None, known, elsewhere,
                        unit.root.tag == n.DW_TAG_PARTIAL_UNIT)  # fmt: skip
