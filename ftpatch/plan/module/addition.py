"""What a patch adds to a module, whatever its sites become: sections for new code, symbols of other files, relocations.

    .text.ftpatch       new code, with its relocations
    .init.text.ftpatch  the same for sites of init text, which is freed with them

A branch to another section of the same module is an ordinary relocation for the loaders of both machines.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch.parts import Code, Modules
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.errors import PolicyError
from ftpatch.kernel.module import Module
from ftpatch.plan.module.imports import Import, add_import
from ftpatch.plan.module.records import start_symbol, toc_symbol

TEXT, INIT_TEXT = ".text.ftpatch", ".init.text.ftpatch"
TEXT_FLAGS = t.SHF_ALLOC | t.SHF_EXECINSTR
ALIGN = 16  # bytes, of new text
Place = tuple[int, int]  # symbol row, addend


@dataclass(frozen=True)
class Call:
    """Where one site's branch goes."""

    symbol: int  # its row
    addend: int  # bytes from the symbol
    stub: str  # that place for people: section+offset
    why: str  # why it goes through there


@dataclass
class Addition:
    """One run over an editor."""

    editor: Editor
    module: Module
    modules: Modules  # how modules of this machine are patched
    notes: list[str] = field(default_factory=list)  # what the new symbols cost their user
    _section_symbols: dict[int, int] = field(default_factory=dict)  # section → row of a symbol at its start
    _relocations: dict[int, Relocations] = field(default_factory=dict)  # section → what it had

    def require_near(self) -> None:
        """All text of a module lies side by side; a branch must span it."""
        image, call = self.editor.image, self.module.arch.call
        size = int(np.minimum(image.shdr["sh_size"], 1 << 40)[image.executable].sum())
        if size >= call.high // 2:
            raise PolicyError("the module's text is too large for a branch to span", image.path, found=f"{size} bytes",
                              expected=f"less than {call.high // 2}")  # fmt: skip

    def text(self, init: bool) -> int:
        """A new section for code: of init text, or of text that stays."""
        return self.editor.section(
            self.editor.free_name(INIT_TEXT if init else TEXT), t.SHT_PROGBITS, TEXT_FLAGS, b"", ALIGN
        )

    def imported(self, wanted: Import) -> int:
        """Row of a new undefined symbol."""
        row, notes = add_import(self.editor, wanted)
        self.notes += notes
        return row

    def toc(self) -> int:
        """Row of the symbol that stands for the module's TOC: the loader's own, which nobody exports."""
        return toc_symbol(self.editor, self.modules.toc)

    def add_code(self, section: int, code: Code, places: dict[str, Place]) -> int:
        """Append code to a section, its relocations included; the offset of its first instruction."""
        start = self.align(section)
        self.editor.append(section, code.content)
        for fixup in code.fixups:
            symbol, addend = places[fixup.symbol]
            self.editor.relocate(section, start + fixup.off, fixup.kind, symbol, addend + fixup.addend)
        return start + code.entry

    def align(self, section: int) -> int:
        """Fill a section up to the next multiple of eight; its length then."""
        self.editor.append(section, bytes(-self.editor.append(section, b"") % 8))
        return self.editor.append(section, b"")

    def branch_of(self, site: int) -> Place:
        """(symbol, addend) of a site's branch, by the symbol that its section has."""
        sites = self.module.scan.sites
        sec = int(sites.sec[site])
        if sec not in self._section_symbols:  # looked up once for many sites
            self._section_symbols[sec] = start_symbol(self.editor, sec)
        return self._section_symbols[sec], int(sites.branch_va[site] - self.editor.image.base[sec])

    def retarget(self, sec: int, off: int, kind: int, call: Call) -> None:
        """The one relocation that an instruction has already names another symbol; made where it has none."""
        if sec not in self._relocations:
            self._relocations[sec] = relocations_of(self.editor.image, sec)
        old, branch = self._relocations[sec], self.module.arch.call
        off, addend = off + branch.relocated_at, call.addend + branch.relocated_by
        rows = np.flatnonzero((old.off == off) & (old.kind != self.module.arch.none))
        if not len(rows):  # a NOP, with no relocation or with one that does nothing, which stays to tell of it
            self.editor.relocate(sec, off, kind, call.symbol, addend)
            return
        table, number = int(old.table[rows[0]]), int(old.row[rows[0]])
        row = self.editor.image.rows(table, t.RELA)[number].copy()
        row["r_info"], row["r_addend"] = call.symbol << 32 | kind, addend
        self.editor.patch(table, number * t.RELA.itemsize, row.tobytes(), "relocation", number)
