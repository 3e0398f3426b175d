"""Lays out what a patch brings along: symbols, relocations, stubs and ops in new sections of a module.

    site        mov x9, lr; bl ─────────► symbol at the loader's jump, or
    .text.ftpatch     new code ◄─────── R_AARCH64_CALL26 / R_PPC64_REL24; a user's stub that names its site: one each
                      [ops] mflr; bl; mtlr; b ─► behind the site, one per site where sites are out of line
    .data.ftpatch     ops object: its first word points to a function that returns
    .init.text.ftpatch  the same code again for sites of init text, which is freed with them

A branch to another section of the same module is an ordinary relocation for the loaders of both machines.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import Code
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U32
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.errors import PolicyError
from ftpatch.kernel.module import Module
from ftpatch.plan.module.callee import existing_symbol, require_usable
from ftpatch.plan.module.imports import add_import, find_import
from ftpatch.plan.plan import Callee
from ftpatch.plan.request import Against
from ftpatch.plan.stubasm.text import SITE, TARGET
from ftpatch.sites.table import SiteTable

TEXT, INIT_TEXT, DATA = ".text.ftpatch", ".init.text.ftpatch", ".data.ftpatch"
CALL, OPS, OPS_FUNCTION = "ftpatch_call", "ftpatch_ops", "ftpatch_ops_function"
STUBS, GOES_ON = "ftpatch_stubs", "ftpatch_target"
Place = tuple[int, int]  # symbol row, addend
TEXT_FLAGS, DATA_FLAGS = t.SHF_ALLOC | t.SHF_EXECINSTR, t.SHF_ALLOC | t.SHF_WRITE
ALIGN = 16


@dataclass(frozen=True)
class Call:
    """Where one site's branch goes."""

    symbol: int  # its row
    addend: int
    stub: str  # that place for people: section+offset
    why: str  # why it goes through there


@dataclass
class _Region:
    """Init or core text of the module: the section that is being filled, and the symbol that sites call."""

    init: bool  # freed once the module runs, so that it serves init text alone
    section: int = 0  # the section being filled
    text: bytearray = field(default_factory=bytearray)  # its contents so far
    relocations: list[tuple[int, int, int, int]] = field(default_factory=list)  # offset, type, symbol, addend

    @property
    def name(self) -> str:
        return INIT_TEXT if self.init else TEXT

    @property
    def suffix(self) -> str:
        return "_init" if self.init else ""


@dataclass
class Builder:
    """One run over an editor."""

    editor: Editor
    module: Module
    shape: Shape
    wanted: Callee
    against: Against
    notes: list[str] = field(default_factory=list)  # what the new symbols cost their user
    _ops: int = 0  # symbol row of the ops object; 0 for none
    _section_symbols: dict[int, int] = field(default_factory=dict)  # section → row of a symbol at its start
    _relocations: dict[int, Relocations] = field(default_factory=dict)  # section → what it had

    @property
    def arch(self) -> Arch:
        return self.module.arch

    @property
    def sites(self) -> SiteTable:
        return self.module.scan.sites

    def build(self, index: I64, words: U32) -> tuple[Call, ...]:
        """Make all that the sites `index` need and patch them with `words`; where each one's branch goes."""
        self._require_near()
        image = self.editor.image
        init = np.array([image.names[sec].startswith(".init") for sec in self.sites.sec[index].tolist()], dtype=bool)
        names = {role: (row, 0) for role, row in self._code_symbols(index, bool(init.all())).items()}
        if self.wanted.ops_size:
            self._ops = self._make_ops()
        calls: list[Call | None] = [None] * len(index)
        for freed in (False, True):
            mine = np.flatnonzero(init == freed)
            if len(mine):
                for at, call in zip(mine.tolist(), self._region(freed, index[mine], names), strict=True):
                    calls[at] = call
        made = tuple(call for call in calls if call is not None)
        for at, (site, call) in enumerate(zip(index.tolist(), made, strict=True)):
            self._patch_site(site, words[at], call)
        return made

    def _require_near(self) -> None:
        """All text of a module lies side by side; a branch must span it."""
        image = self.editor.image
        size = int(np.minimum(image.shdr["sh_size"], 1 << 40)[image.executable].sum())
        if size >= self.arch.call.high // 2:
            raise PolicyError("the module's text is too large for a branch to span", image.path, found=f"{size} bytes",
                              expected=f"less than {self.arch.call.high // 2}")  # fmt: skip

    def _code_symbols(self, index: I64, init_only: bool) -> dict[str, int]:
        """Symbol row for every name that the code uses."""
        image, rows = self.editor.image, {}
        toc = self.arch.modules.toc if self.arch.modules else ""
        for role, name in self.wanted.names:
            option = "--hook" if role == TARGET else self.wanted.option
            existing = existing_symbol(image, name)
            if existing is None and name == toc:
                rows[role] = self.editor.symbol(name, 0)  # the loader's own; nobody exports it
                continue
            if existing is None:
                wanted = find_import(name, self.module, self.against.kernel, self.against.others, option)
                rows[role], notes = add_import(self.editor, wanted)
                self.notes += notes
                continue
            rows[role], sec = existing
            if sec and name != toc:
                require_usable(image, existing[0], name, init_only, option, role not in self.wanted.data)
                at = image.base[sec] + image.symbols.rows["st_value"][existing[0]]
                if np.any((self.sites.entry_va[index] == at) | (self.sites.local_va[index] == at)):
                    what = "hook" if option == "--hook" else "symbol"
                    raise PolicyError(f"the {what} is itself among the chosen sites", f"{option} {name}",
                                      found="a call that leads back to itself", expected="another function",
                                      todo=f"--func '!{name}' leaves it out")  # fmt: skip
        return rows

    def _make_ops(self) -> int:
        """Symbol row of an ops object whose function returns at once."""
        editor, modules = self.editor, self.arch.modules
        assert modules is not None
        code = np.array(modules.ops_function.words, dtype="<u4").tobytes()
        text = editor.section(TEXT + ".ops", t.SHT_PROGBITS, TEXT_FLAGS, code, ALIGN)
        function = editor.symbol(OPS_FUNCTION, text, 0, len(code), t.STT_FUNC)
        size = (self.wanted.ops_size + 7) & ~7
        data = editor.section(DATA, t.SHT_PROGBITS, DATA_FLAGS, bytes(size), 8)
        editor.relocate(data, 0, self.arch.abs64, function)
        return editor.symbol(OPS, data, 0, size, t.STT_OBJECT)

    def _region(self, init: bool, index: I64, names: dict[str, Place]) -> list[Call]:
        """The code of one region, and where each of its sites branches."""
        if self.wanted.code is None and not self.shape.out_of_line:
            return [self._jump(self.wanted, init)] * len(index)
        section = self.editor.section(INIT_TEXT if init else TEXT, t.SHT_PROGBITS, TEXT_FLAGS, b"", ALIGN)
        region = _Region(init, section)
        if self.wanted.target is not None:
            names = {**names, TARGET: self._goes_on(region, self.wanted.target)}
        calls = self._entries(region, index, names)
        if self.shape.out_of_line:
            calls = self._stubs(region, index, calls)
        self.editor.replace(region.section, bytes(region.text))
        for off, kind, symbol, addend in region.relocations:
            self.editor.relocate(region.section, off, kind, symbol, addend)
        return calls

    def _jump(self, wanted: Callee, init: bool) -> Call:
        """A symbol in the section that the loader fills with its jumps."""
        modules, image = self.arch.modules, self.editor.image
        assert modules is not None
        there = [modules.trampolines[1]] if init and image.sections_named(modules.trampolines[1]) else []
        name = [*there, modules.trampolines[0]][0]
        sec = image.sections_named(name)[0]
        row = self.editor.symbol(f"ftpatch_{wanted.name}" + ("_init" if init else ""), sec, wanted.jump)
        return Call(row, 0, f"{name}+{wanted.jump:#x}", "the loader's jump, filled when the module is loaded")

    def _goes_on(self, region: _Region, target: Callee) -> Place:
        """Where a stub of the user's own goes on to: the loader's jump, or a trampoline in front of the stub."""
        if target.code is None:
            call = self._jump(target, region.init)
            return call.symbol, call.addend
        entry = self._add_code(region, target.code, {})
        size = len(region.text) - entry
        return self.editor.symbol(GOES_ON + region.suffix, region.section, entry, size, t.STT_FUNC), 0

    def _entries(self, region: _Region, index: I64, names: dict[str, Place]) -> list[Call]:
        """Where each site's call goes: one piece of code for all of them, or one for each."""
        code = self.wanted.code
        if code is None:
            return [self._jump(self.wanted, region.init)] * len(index)
        each = index.tolist() if self.wanted.per_site else index[:1].tolist()
        starts = [self._add_code(region, code, {**names, SITE: self._branch_place(site)}) for site in each]
        size = len(region.text) - starts[0]
        row = self.editor.symbol(CALL + region.suffix, region.section, starts[0], size, t.STT_FUNC)
        why = "a copy of the stub for this site alone" if self.wanted.per_site else "code that the patch brings along"
        calls = [Call(row, start - starts[0], f"{region.name}+{start:#x}", why) for start in starts]
        return calls if self.wanted.per_site else calls * len(index)

    def _add_code(self, region: _Region, code: Code, names: dict[str, Place]) -> int:
        """Append code to a region; the offset of its first instruction."""
        start = _aligned(region.text)
        region.text += np.array(code.words, dtype="<u4").tobytes()
        for fixup in code.fixups:
            symbol, addend = names[fixup.symbol]
            region.relocations.append((start + fixup.off, fixup.kind, symbol, addend + fixup.addend))
        return start + code.entry

    def _stubs(self, region: _Region, index: I64, calls: list[Call]) -> list[Call]:
        """One stub per site, which saves and restores the caller's return address around the site's call."""
        stub, modules = self.arch.site_stub, self.arch.modules
        assert modules is not None and stub is not None
        first, made = _aligned(region.text), []
        literal = stub.literal if self._ops else 0
        words = stub.code(np.full(1, 0, np.int64), np.full(1, 0, np.int64))[0].astype("<u4").tobytes()
        size = (literal + stub.size) * len(index)
        symbol = self.editor.symbol(STUBS + region.suffix, region.section, first, size, t.STT_FUNC)
        for site, call in zip(index.tolist(), calls, strict=True):  # a relocation or two per stub
            start = len(region.text)
            region.text += bytes(literal) + words
            if literal:
                region.relocations.append((start, self.arch.abs64, self._ops, 0))
            call_at = start + literal + stub.call_at
            region.relocations.append((call_at, modules.branch, call.symbol, call.addend))
            place, addend = self._branch_place(site)
            region.relocations.append((start + literal + stub.back_at, modules.branch, place, addend + 4))
            why = "a stub of the site's own"
            made.append(Call(symbol, start + literal - first, f"{region.name}+{start + literal:#x}", why))
        return made

    def _branch_place(self, site: int) -> Place:
        """(symbol, addend) of a site's branch, by the symbol that its section has."""
        image, sec = self.editor.image, int(self.sites.sec[site])
        if sec not in self._section_symbols:
            symbols = image.symbols
            rows = np.flatnonzero(
                (symbols.type == t.STT_SECTION) & (symbols.shndx == sec) & (symbols.rows["st_value"] == 0)
            )
            self._section_symbols[sec] = int(rows[0]) if len(rows) else self.editor.symbol(f"ftpatch_home_{sec}", sec)
        return self._section_symbols[sec], int(self.sites.branch_va[site] - image.base[sec])

    def _patch_site(self, site: int, words: U32, call: Call) -> None:
        """The site's words, the relocation of its branch, and its ops pointer."""
        modules, image = self.arch.modules, self.editor.image
        assert modules is not None
        sec = int(self.sites.sec[site])
        start = int(self.sites.off[site] + self.sites.site[site])
        branch = int(self.sites.branch_va[site] - image.base[sec])
        self.editor.patch(sec, start, words.astype("<u4").tobytes(), "site", site)
        if self.shape.called:
            self._retarget(sec, branch, call)
        else:
            self.editor.relocate(sec, branch, modules.branch, call.symbol, call.addend)
        if self._ops and self.shape.literal is not None:
            self.editor.relocate(sec, int(self.sites.off[site]) + self.shape.literal, self.arch.abs64, self._ops)

    def _retarget(self, sec: int, branch: int, call: Call) -> None:
        """The relocation that the site's call has already names another symbol."""
        if sec not in self._relocations:
            self._relocations[sec] = relocations_of(self.editor.image, sec)
        old = self._relocations[sec]
        at = int(np.flatnonzero(old.off == branch)[0])
        row = self.editor.image.rows(int(old.table[at]), t.RELA)[int(old.row[at])].copy()
        row["r_info"] = call.symbol << 32 | int(old.kind[at])
        row["r_addend"] = call.addend
        off = int(old.row[at]) * t.RELA.itemsize
        self.editor.patch(int(old.table[at]), off, row.tobytes(), "relocation", int(old.row[at]))


def _aligned(text: bytearray) -> int:
    """Fill up to the next multiple of eight; the length then."""
    text += bytes(-len(text) % 8)
    return len(text)
