"""What came along in an object file, as the second file tells it by the names of its sections.

    HEAD.ftpatch.with.NAME      code and data of the object; HEAD tells what kind of memory it is
    .text.ftpatch.original      entries to the old bodies of redirected functions
    __ex_table, .data..percpu … tables that the module's loader walks: new, or longer than they were

What is in them is the object's, which neither file holds: the journal tells whether each byte is right, or the object
(`linked_objects`). What is held here is that a loader can take them, and that they mean nothing else to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.module_sections import APPENDED, INIT_EH_FRAME, treatment

CODE, DATA, CONSTANT = t.SHF_ALLOC | t.SHF_EXECINSTR, t.SHF_ALLOC | t.SHF_WRITE, t.SHF_ALLOC
KINDS = {".text": (t.SHT_PROGBITS, CODE), ".data": (t.SHT_PROGBITS, DATA), ".bss": (t.SHT_NOBITS, DATA),
         ".rodata": (t.SHT_PROGBITS, CONSTANT)}  # fmt: skip
NAMED = re.compile(r"(?:\.init)?(\.text|\.data|\.bss|\.rodata)\.ftpatch\.with\..+")
ORIGINALS = re.compile(r"(?:\.init)?\.text\.ftpatch\.original(?:\.\d+)?")
ALIGNMENTS = tuple(1 << n for n in range(13))  # a module's memory is aligned to pages of 4 KiB at least
MEMORY = t.SHF_ALLOC | t.SHF_WRITE | t.SHF_EXECINSTR


@dataclass(frozen=True)
class Linked:
    """Where it is."""

    sections: frozenset[int] = frozenset()  # new sections that came along
    # tables of the module that are longer: bytes that it had itself
    grown: Mapping[int, int] = field(default_factory=dict)
    functions: frozenset[int] = frozenset()  # of `sections`, those with code of the object

    def holds(self, sec: int, off: int) -> bool:
        """Whether a place is in what came along."""
        return sec in self.sections or off >= self.grown.get(sec, 1 << 64)

    def wrong_symbol(self, image: Image, row: int) -> str:
        """Why a new symbol at such a place is none of an object; empty where it may be one."""
        symbols = image.symbols
        head = image.shdr[int(symbols.shndx[row])]
        fields = symbols.rows[row]
        kind, end = int(symbols.type[row]), int(fields["st_value"]) + int(fields["st_size"])
        raw = int(symbols.shndx[row])
        if symbols.bind[row] != t.STB_GLOBAL or int(fields["st_other"]) & 3 or (fields["st_other"] and kind == 1):
            return "is not simply global"
        if int(fields["st_shndx"]) != (raw if raw < t.SHN_LORESERVE else t.SHN_XINDEX):
            return "lies in no section of the file"
        if kind not in (0, t.STT_OBJECT, t.STT_FUNC):
            return f"has type {kind}, expected a function or data"
        if end > int(head["sh_size"]):
            return f"ends at {end:#x}, behind its section"
        name = symbols.name(row)
        return "has the name of another symbol" if not name or len(symbols.rows_named(name)) > 1 else ""


def read_linked(before: Image, after: Image) -> Linked:
    """What came along; nothing where no section says so."""
    n, names = len(before.shdr), after.names
    linking = after.arch.modules.linking if after.arch.modules is not None else None
    if after.linked or linking is None or len(after.shdr) < n:
        return Linked()
    own = {sec for sec in range(n, len(names)) if NAMED.fullmatch(names[sec])}
    if not own:
        return Linked(frozenset(sec for sec in range(n, len(names)) if ORIGINALS.fullmatch(names[sec])))
    tables = {sec for sec, name in enumerate(names) if _is_table(name, after) and int(after.shdr["sh_type"][sec]) == 1}
    grown = {sec: int(before.shdr["sh_size"][sec]) for sec in tables if sec < n and not _records(names[sec])
             and after.shdr["sh_size"][sec] > before.shdr["sh_size"][sec]}  # fmt: skip
    new = {sec for sec in range(n, len(names)) if sec in tables or ORIGINALS.fullmatch(names[sec])}
    code = {sec for sec in own | new if int(after.shdr["sh_flags"][sec]) & t.SHF_EXECINSTR}
    return Linked(frozenset(own | new), grown, frozenset(sec for sec in code if not ORIGINALS.fullmatch(names[sec])))


def _is_table(name: str, image: Image) -> bool:
    assert image.arch.modules is not None and image.arch.modules.linking is not None
    return name == INIT_EH_FRAME or treatment(name, image.arch.modules.linking).what == APPENDED


def _records(name: str) -> bool:
    """Tables of patch sites, which are looked at slot by slot."""
    return name in ("__patchable_function_entries", "__mcount_loc")


def is_right(image: Image, sec: int) -> bool:
    """Whether the header of a section that came along is one that a loader takes for what its name says."""
    head, name = image.shdr[sec], image.names[sec]
    kind, flags, align = (int(head[field]) for field in ("sh_type", "sh_flags", "sh_addralign"))
    if align not in ALIGNMENTS or not int(head["sh_size"]):
        return False
    match = NAMED.fullmatch(name)
    if match is not None:
        return (kind, flags) == KINDS[match[1]]
    if ORIGINALS.fullmatch(name):
        return (kind, flags, align) == (t.SHT_PROGBITS, CODE, 16)
    return kind == t.SHT_PROGBITS and flags & ~np.uint64(MEMORY) == 0 and flags & MEMORY != MEMORY


def summary(image: Image, linked: Linked) -> str:
    """What the verdict says of it; empty where nothing came along."""
    came = [sec for sec in linked.sections if not ORIGINALS.fullmatch(image.names[sec])]
    if not came:
        return ""
    n, size = len(came), sum(int(image.shdr["sh_size"][sec]) for sec in came)
    size += sum(int(image.shdr["sh_size"][sec]) - was for sec, was in linked.grown.items())
    return (f"{n} section{'s' * (n != 1)} came along in an object, {size} bytes: whether they are the object's is told "
            "by the journal alone")  # fmt: skip
