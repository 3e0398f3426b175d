"""What planting a defect takes: a file that was read, and the bytes that a change of its parts comes to."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ftpatch.arch.shape import MATCH_NONE
from ftpatch.arrays import I64, U64, Rows
from ftpatch.elf import tables as t
from ftpatch.sites.records import SECTIONS
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import READY

Edits = list[tuple[int, bytes]]
PREL32 = {"arm64": 261, "ppc64le": 26, "x86_64": 2}


@dataclass(frozen=True)
class Plant:
    """One planted defect: bytes to write at positions, or to cut off the end; or what stands beside the file.

    against: `other`, a kernel of the same machine and another layout, or `foreign`, one of another machine.
    also: rules that cannot but fire with it.
    """

    edits: Edits = field(default_factory=list)
    cut: int = 0
    kconfig: Mapping[str, str] = field(default_factory=dict)
    must: tuple[str, ...] = ()
    before: int | None = None
    against: str = "own"
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A sound file to plant in."""

    scan: Scan
    stock: str = ""

    @property
    def linked(self) -> bool:
        return self.scan.image.linked

    @property
    def vmlinux(self) -> bool:
        return self.scan.image.kind == "vmlinux"

    @property
    def arch(self) -> str:
        return self.scan.arch.name

    @property
    def layout(self) -> str:
        return self.scan.sites.shape.name if self.scan.sites.shape else "none"

    @cached_property
    def plain(self) -> list[int]:
        """Ready sites with one name and eight words of their own, from the middle on; of .text where it has some."""
        image, table = self.scan.image, self.scan.sites
        index = np.flatnonzero((table.status == READY) & (table.func_end - table.func == 1))
        inner = index[np.isin(table.sec[index], image.sections_named(".text"))]
        index = inner if len(inner) else index
        row = table.func[index]
        functions = image.functions
        alone = np.append(functions.va[1:], functions.va[-1:])[row] >= functions.end[row]
        index = index[alone & (functions.end[row] - functions.va[row] >= 32)]
        index = index[np.argsort(table.va[index], kind="stable")]
        half = len(index) // 2
        return [*index[half:].tolist(), *index[:half].tolist()]

    def pos(self, va: int) -> int:
        """File position of a va."""
        sec, off = self.scan.image.place(np.array([va], dtype=np.uint64))
        return int(self.scan.image.pos(sec, off)[0])

    def words(self, va: int, *words: int) -> Edits:
        """Units of code at a va: instruction words, or bytes."""
        return [(self.pos(va), struct.pack(f"<{len(words)}{'B' if self.scan.arch.unit == 1 else 'I'}", *words))]

    @property
    def calls(self) -> bool:
        """Whether the sites are calls of the profiling function in the file."""
        return self.scan.sites.shape is not None and bool(self.scan.sites.shape.called)

    def site(self, row: int) -> int:
        """va of the first word that enabling rewrites."""
        return int(self.scan.sites.body_va[row])

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the sections of records in a relocatable file."""
        padded = self.scan.arch.padded and self.section("__mcount_loc") is not None
        return ("__mcount_loc",) if padded else ("__patchable_function_entries", "__mcount_loc")

    # -- records ---------------------------------------------------------------------------------------------------

    def rela_pos(self, row: int) -> int:
        """Position of the relocation of a slot; −1 without."""
        image, records = self.scan.image, self.scan.records
        number = int(records.rela[row])
        if number < 0:
            return -1
        if image.linked:
            return int(image.rela[1][number])
        kinds, targets = image.shdr["sh_type"], image.shdr["sh_info"]
        slot = int(records.slot[row])
        for sec in image.sections_named(*self.tables):
            low = int(image.shdr["sh_offset"][sec])
            if low <= slot < low + int(image.shdr["sh_size"][sec]):
                table = int(np.flatnonzero((kinds == t.SHT_RELA) & (targets == sec))[0])
                return int(image.shdr["sh_offset"][table]) + 24 * number
        return -1

    def record(self, row: int, by: int) -> Edits:
        """A record that points so many bytes further on."""
        records, found = self.scan.records, []
        if (at := self.rela_pos(row)) >= 0:
            (addend,) = struct.unpack("<q", self.scan.image.data[at + 16 : at + 24].tobytes())
            found.append((at + 16, struct.pack("<q", addend + by)))
        if self.linked and (at < 0 or self.scan.arch.echoes):
            found.append((int(records.slot[row]), struct.pack("<Q", int(records.value[row]) + by & (1 << 64) - 1)))
        return found

    def emptied(self, row: int) -> Edits:
        """A slot that is 0 and has no RELATIVE relocation."""
        at = self.rela_pos(row)
        return [(int(self.scan.records.slot[row]), bytes(8)), *([(at, bytes(24))] if at >= 0 else [])]

    # -- symbols, sections and strings ------------------------------------------------------------------------------

    def symbol(self, row: int) -> int:
        """Position of a symbol."""
        image = self.scan.image
        (tab,) = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)[:1]
        return int(image.shdr["sh_offset"][tab]) + 24 * row

    def value(self, name: str, value: int) -> Edits:
        """Every defined symbol of a name with another value."""
        rows = self.scan.image.symbols.rows_named(name)
        return [(self.symbol(int(row)) + 8, struct.pack("<Q", value & (1 << 64) - 1)) for row in rows
                if self.scan.image.symbols.shndx[row] != 0]  # fmt: skip

    def function(self, site: int) -> int:
        """Row of `image.functions` of the function of a site."""
        return int(self.scan.sites.func[site])

    def function_symbol(self, site: int) -> int:
        """Position of the symbol of the function of a site."""
        return self.symbol(int(self.scan.image.functions.row[self.function(site)]))

    def no_function(self, site: int) -> Edits:
        """The symbol of the function of a site as one of data."""
        at = self.function_symbol(site)
        return [(at + 4, bytes([int(self.scan.image.data[at + 4 : at + 5][0]) & 0xF0 | t.STT_OBJECT]))]

    @cached_property
    def unused(self) -> list[int]:
        """Of `plain`, the sites of functions that no call, no pointer and no relocation names."""
        image, arch, functions = self.scan.image, self.scan.arch, self.scan.image.functions
        used = [image.rela[0]["r_addend"].view(np.uint64)] if self.linked else []
        for sec in np.flatnonzero(image.executable).tolist():
            code = image.code(int(image.base[sec]), int(image.shdr["sh_size"][sec]) // arch.unit)
            for branch in (arch.call, arch.jump):
                assert branch is not None
                at, distance = branch.find(code)
                used.append(image.base[sec] + (at + distance)[distance != 0].view(np.uint64))
        for table in np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (not self.linked)).tolist():
            rows = image.rows(table, t.RELA)
            if image.names[int(image.shdr["sh_info"][table])] not in SECTIONS:
                of = image.symbols.rows[(rows["r_info"] >> np.uint64(32)).astype(np.int64)]
                start = image.base[of["st_shndx"] % len(image.shdr)] + of["st_value"]
                used.append(start + rows["r_addend"].view(np.uint64))
        sites = np.array(self.plain, dtype=np.int64)
        row = self.scan.sites.func[sites]
        va, local = functions.va[row], functions.local[row]
        targets = np.concatenate(used) if used else np.zeros(0, np.uint64)
        named = np.isin(va, targets) | np.isin(local, targets)
        # in its record, and in its symbol: a third word that holds its address is a pointer
        alone: list[int] = sites[~named & (self._times_held(va) <= 2)].tolist()
        return alone

    def _times_held(self, va: U64) -> I64:
        """How many aligned words of a linked file hold each address; 0 in a relocatable one."""
        if not self.linked or not len(va):
            return np.zeros(len(va), np.int64)
        words = self.scan.image.data[: len(self.scan.image.data) & ~7].view("<u8")
        held = np.sort(words[(words >= va.min()) & (words <= va.max())])  # few of hundreds of megabytes
        return np.searchsorted(held, va, "right") - np.searchsorted(held, va, "left")

    def header(self, name: str, field_: int, value: int, size: int = 8) -> Edits:
        """A field of a section's header with another value."""
        image = self.scan.image
        shoff = int(image.ehdr["e_shoff"])
        return [(shoff + 64 * sec + field_, value.to_bytes(size, "little")) for sec in image.sections_named(name)[:1]]

    def renamed(self, old: str, new: str) -> Edits:
        """A section's name in the table of names, no longer than before. Empty where there is none."""
        image = self.scan.image
        head = image.shdr[int(image.ehdr["e_shstrndx"])]
        low, size = int(head["sh_offset"]), int(head["sh_size"])
        at = image.data[low : low + size].tobytes().find(old.encode() + b"\0")
        return [(low + at, new.encode().ljust(len(old), b"\0"))] if at >= 0 else []

    def section(self, name: str) -> int | None:
        """Number of the first section of a name."""
        return next(iter(self.scan.image.sections_named(name)), None)

    def section_symbol(self, sec: int) -> int | None:
        """Symbol of a section."""
        symbols = self.scan.image.symbols
        rows = np.flatnonzero((symbols.type == t.STT_SECTION) & (symbols.shndx == sec))
        return int(rows[0]) if len(rows) else None

    def relocations(self, sec: int) -> tuple[int, Rows]:
        """Position and rows of the relocations of a section of a module."""
        image = self.scan.image
        tables = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec))
        if not len(tables):
            return -1, np.zeros(0, t.RELA)
        return int(image.shdr["sh_offset"][tables[0]]), image.rows(int(tables[0]), t.RELA)

    # -- places ----------------------------------------------------------------------------------------------------

    def strange(self, site: int, by: int) -> bool:
        """Whether no layout fits so many bytes behind a site's record."""
        image, table = self.scan.image, self.scan.sites
        window = image.window(table.sec[[site]], table.off[[site]] + by)
        return all(shape.match(window)[0] == MATCH_NONE for shape in self.scan.arch.shapes)

    def gap(self, least: int) -> tuple[int, int] | None:
        """(site, va) of a function with so many bytes of nothing behind it, in its own section."""
        functions, table = self.scan.image.functions, self.scan.sites
        for site in self.plain:
            row = self.function(site)
            end = int(functions.reach[row])
            if row + 1 < len(functions.va) and int(functions.va[row + 1]) - end >= least + 16:
                va = end + 15 & ~7
                sec, _ = self.scan.image.place(np.array([va], dtype=np.uint64))
                near = (table.va >= np.uint64(va - 8)) & (table.va < np.uint64(va + least))
                inside = functions.inside(np.array([va], np.uint64))[0]
                if sec[0] == table.sec[site] and not inside and not near.any():
                    return site, va
        return None


CONFIGS = {  # what a kernel of each layout is configured with
    ("arm64", "callops"): {"DYNAMIC_FTRACE_WITH_CALL_OPS": "y", "DYNAMIC_FTRACE_WITH_ARGS": "y"},
    ("arm64", "pfe2"): {"DYNAMIC_FTRACE_WITH_REGS": "y"},
    ("ppc64le", "mprofile"): {"MPROFILE_KERNEL": "y", "DYNAMIC_FTRACE_WITH_REGS": "y"},
    ("ppc64le", "pfe2"): {"ARCH_USING_PATCHABLE_FUNCTION_ENTRY": "y", "MPROFILE_KERNEL": "y"},
    ("ppc64le", "ool"): {"PPC_FTRACE_OUT_OF_LINE": "y", "ARCH_USING_PATCHABLE_FUNCTION_ENTRY": "y"},
    ("x86_64", "fentry"): {"HAVE_FENTRY": "y", "DYNAMIC_FTRACE_WITH_REGS": "y"},
    ("x86_64", "mcount"): {"DYNAMIC_FTRACE_WITH_REGS": "y"},
}


def config(subject: Subject) -> dict[str, str]:
    """A configuration that fits the file."""
    return {"DYNAMIC_FTRACE": "y", **CONFIGS.get((subject.arch, subject.layout), {})}


def lost_record(subject: Subject) -> Plant | None:
    """A kernel's table that lost the record of one site."""
    records = subject.scan.records
    if not subject.vmlinux:
        return None
    row = int(np.argmax(records.live)) if records.zero[0] else subject.plain[0]
    edits = subject.emptied(row)
    if subject.layout == "pfe2" and not records.zero[0]:
        edits[0] = (edits[0][0], struct.pack("<q", -4))
    return Plant(edits, against="self", also=("call-without-record",) if subject.calls else ())
