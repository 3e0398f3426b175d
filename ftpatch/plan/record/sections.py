"""Record sections as compilers make them.

    __patchable_function_entries   WRITE ALLOC LINK_ORDER, one for each section of code, linked to it, so that a linker
                                   that drops the code drops its records; a member of the code's group
    __mcount_loc                   ALLOC, one for the whole file, as recordmcount makes it; of a group, its own

In a module there is one section: the kernel's loader reads the first of that name, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arrays import I64, Rows
from ftpatch.elf import tables as t
from ftpatch.elf.editor import SHF_INFO_LINK, Editor
from ftpatch.elf.image import Image
from ftpatch.kernel.recorded import is_loaded
from ftpatch.plan.record.existing import REASONS, RecordSection
from ftpatch.plan.record.groups import WORD, read_groups
from ftpatch.plan.record.places import Places, joined
from ftpatch.sites.records import PADDING, SLOT

LINKED_FLAGS = t.SHF_WRITE | t.SHF_ALLOC | t.SHF_LINK_ORDER
ALIGN = 8
FIRST_ALONE = "the kernel reads the first section of that name alone"
WITH_CODE = "a linker is to keep or drop them with their code"
SINGLE = -1  # a new section that takes the records of all code; −1 − n: one for the code of section n


@dataclass
class SectionWriter:
    """One run over an editor."""

    editor: Editor
    name: str  # of new sections
    repairs: list[str] = field(default_factory=list)  # what was wrong with sections that are there, for people
    dropped: list[str] = field(default_factory=list)  # records that leave, for people
    made: list[int] = field(default_factory=list)  # new sections of records

    def __post_init__(self) -> None:
        self.groups = read_groups(self.image)
        self.in_module = is_loaded(self.image.names)
        self._symbols = base_symbols(self.image)
        self._pieces: dict[int, list[tuple[Rows, bytes]]] = {}  # relocations and slots, by where they go
        self._codes: dict[int, list[I64]] = {}  # sections of code that they name, likewise

    @property
    def image(self) -> Image:
        return self.editor.image

    def write(self, existing: Sequence[RecordSection], added: Places) -> None:
        """Give every added place a record; mend the sections that are there, and take out records that name nothing."""
        for section in existing:
            if self.image.names[section.sec] == self.name:
                self._keep(section, existing)
            else:  # asked for: the kernel reads one of the names alone
                added = joined(added, section.kept)
                self._say_moved(section, len(section.kept.sec), f"{self.name} was asked for")
            self._say_dropped(section)
        homes = self._homes(existing)
        for code, off in added.by_section():
            if code in homes:
                home = homes[code]
            elif self.in_module or (self.name != PADDING and code not in self.groups):
                home = homes.get(0, SINGLE)
            else:
                home = -1 - code
            self._put(home, self._relocations(code, off), bytes(SLOT * len(off)), np.full(len(off), code))
        for section in existing:
            self._rewrite(section)
        for home in sorted((home for home in self._pieces if home < 0), reverse=True):
            self._make(home)

    # -- which record goes where -------------------------------------------------------------------------------

    def _put(self, home: int, rows: Rows, slots: bytes, codes: I64) -> None:
        self._pieces.setdefault(home, []).append((rows, slots))
        self._codes.setdefault(home, []).append(codes)

    def _keep(self, section: RecordSection, existing: Sequence[RecordSection]) -> None:
        """The records of a section that stay, in it or, where it is not theirs, in another."""
        name = self.image.names[section.sec]
        home = np.full(len(section.rows), section.sec, dtype=np.int64)
        if self.in_module:
            home[:] = next(other.sec for other in existing if self.image.names[other.sec] == name)
        else:
            for code in self._strangers(section):
                home[section.places.sec == code] = -1 - code if code in self.groups or name == PADDING else SINGLE
        words = np.frombuffer(section.words, "<u8")
        for to in np.unique(home[section.sound]).tolist():
            mine = section.sound & (home == to)
            self._put(to, section.rows[mine], words[mine].tobytes(), section.places.sec[mine])
        n = int((section.sound & (home != section.sec)).sum())
        self._say_moved(section, n, FIRST_ALONE if self.in_module else WITH_CODE)

    def _say_moved(self, section: RecordSection, n: int, why: str) -> None:
        if n:
            name, records = self.image.names[section.sec], "1 record" if n == 1 else f"{n} records"
            self.repairs.append(f"{records} of section {section.sec} {name} moved: {why}")

    def _say_dropped(self, section: RecordSection) -> None:
        for number, why in enumerate(REASONS):
            slots = np.flatnonzero(section.why == number)
            if number and len(slots):
                first = ", ".join(map(str, slots[:3].tolist())) + (" …" if len(slots) > 3 else "")
                self.dropped.append(
                    f"section {section.sec} {self.image.names[section.sec]}, slot {first} ({len(slots)}): {why}"
                )

    def _strangers(self, section: RecordSection) -> list[int]:
        """Sections of code whose records a linker would keep or drop apart from the code, as long as they are in this
        section: code of another group, and where sections are linked to code, of another section."""
        group, link = self.groups.get(section.sec), int(self.image.shdr["sh_link"][section.sec])
        codes: list[int] = np.unique(section.kept.sec).tolist()
        mine = [code for code in codes if self.groups.get(code) == group]
        if self.image.names[section.sec] == PADDING:
            mine = [link] if link in mine else mine[:1]
        return [code for code in codes if code not in mine]

    def _homes(self, existing: Sequence[RecordSection]) -> dict[int, int]:
        """Section of code → the section of the wanted name that takes its records; 0: that of all other code."""
        homes: dict[int, int] = {}
        for section in (one for one in existing if self.image.names[one.sec] == self.name):
            codes = np.unique(np.concatenate([np.zeros(0, np.int64), *self._codes.get(section.sec, [])])).tolist()
            if self.in_module:
                homes.setdefault(0, section.sec)
            elif self.name == PADDING:
                link = self._link(section.sec, codes)
                if codes and self.groups.get(link) == self.groups.get(section.sec):
                    homes.setdefault(link, section.sec)
            elif section.sec in self.groups:
                homes.update((code, section.sec) for code in codes)
            else:
                homes.setdefault(0, section.sec)
        return homes

    def _link(self, sec: int, codes: Sequence[int]) -> int:
        """The section of code that a section of records has to be linked to. codes: those that it names."""
        link = int(self.image.shdr["sh_link"][sec])
        good = link in codes or (self.in_module and 0 < link < len(self.image.shdr) and self.image.executable[link])
        return link if good or not codes else codes[0]

    # -- sections that are there -------------------------------------------------------------------------------

    def _rewrite(self, section: RecordSection) -> None:
        """One record section with the records that are to be in it, and the header that it needs."""
        sec, pieces = section.sec, self._pieces.get(section.sec, [])
        rows = np.concatenate([np.zeros(0, t.RELA), *(part for part, _ in pieces)])
        slots = b"".join(part for _, part in pieces)
        codes = np.concatenate([np.zeros(0, np.int64), *self._codes.get(sec, [])])
        self._mend_header(section, list(dict.fromkeys(codes.tolist())))
        rows["r_offset"] = SLOT * np.arange(len(rows), dtype=np.uint64)
        if slots == section.words and np.array_equal(rows, section.rows):
            return
        self.editor.replace(sec, slots)
        if section.table is not None:
            self.editor.replace(section.table, rows.tobytes())
        elif len(rows):
            self._relocate(sec, rows, self.groups.get(sec))

    def _mend_header(self, section: RecordSection, codes: Sequence[int]) -> None:
        """Flags, link, alignment and entry size as a linker and a loader need them."""
        sec, name, head = section.sec, self.image.names[section.sec], self.editor.shdr[section.sec]
        if not codes:
            return
        flags = int(head["sh_flags"])
        wanted = flags | (LINKED_FLAGS if name == PADDING else t.SHF_ALLOC)
        ordered = bool(wanted & t.SHF_LINK_ORDER)
        changes = {"sh_flags": wanted, "sh_link": self._link(sec, codes) if ordered else int(head["sh_link"])}
        if int(head["sh_entsize"]) not in (0, SLOT):
            changes["sh_entsize"] = 0
        align = int(head["sh_addralign"])
        if align & (align - 1) or (name == PADDING and align < ALIGN):
            changes["sh_addralign"] = ALIGN
            self.editor.replace(sec, section.words)
        for field_name, value in changes.items():
            if int(head[field_name]) != value:
                self.repairs.append(f"section {sec} {name}: {field_name} {int(head[field_name]):#x} is {value:#x} now")
                head[field_name] = value

    # -- new sections ------------------------------------------------------------------------------------------

    def _make(self, home: int) -> None:
        """A new section of records."""
        rows = np.concatenate([part for part, _ in self._pieces[home]])
        slots = b"".join(part for _, part in self._pieces[home])
        codes = np.concatenate(self._codes[home])
        order = np.lexsort((rows["r_addend"], codes))  # what moved here, and what is new
        rows, slots = rows[order], np.frombuffer(slots, "<u8")[order].tobytes()
        code = int(codes.min()) if home == SINGLE else -1 - home
        group = None if home == SINGLE else self.groups.get(code)
        linked = self.name == PADDING
        flags = (LINKED_FLAGS if linked else t.SHF_ALLOC) | (t.SHF_GROUP if group is not None else 0)
        sec = self.editor.section(self.name, t.SHT_PROGBITS, flags, slots, ALIGN, link=code if linked else 0)
        self.made.append(sec)
        if group is not None:
            self.editor.append(group, sec.to_bytes(WORD, "little"))
        self._relocate(sec, rows, group)

    def _relocate(self, sec: int, rows: Rows, group: int | None) -> None:
        """A table of relocations for a section of records that has none."""
        rows = rows.copy()
        rows["r_offset"] = SLOT * np.arange(len(rows), dtype=np.uint64)
        table = self.editor.table_of(sec, SHF_INFO_LINK | (t.SHF_GROUP if group is not None else 0))
        self.editor.append(table, rows.tobytes())
        if group is not None:
            self.editor.append(group, table.to_bytes(WORD, "little"))

    def _relocations(self, code: int, off: I64) -> Rows:
        """The relocations of records of one section of code."""
        symbol = self._symbols[code]
        rows = np.zeros(len(off), t.RELA)
        rows["r_info"] = np.uint64(symbol << 32 | self.image.arch.abs64)
        rows["r_addend"] = off - self.image.symbols.rows["st_value"][symbol].astype(np.int64)
        return rows


def base_symbols(image: Image) -> dict[int, int]:
    """Section → the symbol by which records name its places: its own, else the first that no other file can override,
    as the kernel's recordmcount takes it."""
    symbols = image.symbols
    rows = np.flatnonzero((symbols.shndx > 0) & (symbols.bind <= t.STB_GLOBAL))
    own = symbols.type[rows] == t.STT_SECTION
    rows = np.concatenate([rows[own & (symbols.rows["st_value"][rows] == 0)], rows])
    secs = symbols.shndx[rows]
    _, first = np.unique(secs, return_index=True)
    return dict(zip(secs[first].tolist(), rows[first].tolist(), strict=True))
