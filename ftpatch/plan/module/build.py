"""Lays out what a patch brings along: symbols, relocations, stubs and ops in new sections of a module.

    site        mov x9, lr; bl ─────────► symbol at the loader's jump, or
    .text.ftpatch     new code ◄─────── R_AARCH64_CALL26 / R_PPC64_REL24; a user's stub that names its site: one each
                      [ops] mflr; bl; mtlr; b ─► behind the site, one per site where sites are out of line
    .data.ftpatch     ops object: its first word points to a function that returns
    .init.text.ftpatch  the same code again for sites of init text, which is freed with them

A branch to another section of the same module is an ordinary relocation for the loaders of both machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.parts import Code, Modules
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U32
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.module import Module
from ftpatch.plan.edits import code_bytes
from ftpatch.plan.module.addition import ALIGN, TEXT, TEXT_FLAGS, Addition, Call, Place
from ftpatch.plan.module.callable import why_no_function
from ftpatch.plan.module.callee import existing_symbol
from ftpatch.plan.module.code_tables import list_code
from ftpatch.plan.module.imports import find_import, require_function
from ftpatch.plan.plan import Callee
from ftpatch.plan.request import Against
from ftpatch.plan.stubasm.text import SITE, TARGET
from ftpatch.sites.table import ENABLED, SiteTable

DATA, DATA_FLAGS = ".data.ftpatch", t.SHF_ALLOC | t.SHF_WRITE
CALL, STUBS, TAIL_TARGET = "ftpatch_call", "ftpatch_stubs", "ftpatch_target"
OPS, OPS_FUNCTION = "ftpatch_ops", "ftpatch_ops_function"


@dataclass
class Builder:
    """One run over an editor."""

    addition: Addition
    modules: Modules  # how modules of this machine are patched
    callee: Callee  # what the sites call
    against: Against
    _ops: int = 0  # symbol row of the ops object; 0 for none

    @property
    def editor(self) -> Editor:
        return self.addition.editor

    @property
    def module(self) -> Module:
        return self.addition.module

    @property
    def sites(self) -> SiteTable:
        return self.module.scan.sites

    def build(self, shape: Shape, index: I64, words: U32) -> tuple[Call, ...]:
        """Make all that the sites `index` need and patch them with `words`; where each one's branch goes."""
        self.addition.require_near()
        names = self.editor.names
        init = np.array([names[sec].startswith(".init") for sec in self.sites.sec[index].tolist()], dtype=bool)
        places = self._code_symbols(index, bool(init.all()))
        if self.callee.ops_size:
            self._ops = self._make_ops()
        calls: dict[int, Call] = {}  # by site
        for freed in (False, True):  # init text is freed once the module runs: it has code of its own
            some = index[init == freed]
            if len(some):
                calls.update(zip(some.tolist(), self._region_calls(shape, freed, some, places), strict=True))
        for site, site_words in zip(index.tolist(), words, strict=True):
            self._patch_site(shape, site, site_words, calls[site])
        return tuple(calls[site] for site in index.tolist())

    def _code_symbols(self, index: I64, init_only: bool) -> dict[str, Place]:
        """Symbols for every name that the code uses. init_only: whether all sites `index` are init text."""
        places, toc = {}, self.modules.toc
        for role, name in self.callee.names:
            option = "--hook" if role == TARGET else self.callee.option
            existing = existing_symbol(self.editor.image, name)
            if name == toc:
                row = self.addition.toc()
            elif existing is not None:
                row, sec = existing
                if sec:
                    what = "hook" if option == "--hook" else "symbol"
                    self._require_usable(row, what, f"{option} {name}", role not in self.callee.data, init_only)
                    self._require_not_chosen(row, what, f"{option} {name}", index)
                elif role not in self.callee.data:
                    require_function(name, self.against, f"{option} {name}")
            else:
                if role not in self.callee.data:
                    require_function(name, self.against, f"{option} {name}")
                row = self.addition.imported(find_import(name, self.module, self.against, option))
            places[role] = (row, 0)
        return places

    def _require_usable(self, row: int, what: str, where: str, called: bool, init_only: bool) -> None:
        """Refuse a symbol of this module that is called and no function, or that is freed while it is still used."""
        image, symbols = self.editor.image, self.editor.image.symbols
        sec = int(symbols.shndx[row])
        if called and (why := why_no_function(image, row)):
            raise SelectionError(f"the {what} is no function", where, found=why, expected="code")
        if 0 < sec < len(image.names) and image.names[sec].startswith(".init") and not init_only:
            raise PolicyError(f"the {what} is init text, which is freed once the module runs", where,
                              found="chosen sites outside init text", expected=f"a {what} that stays")  # fmt: skip

    def _require_not_chosen(self, row: int, what: str, where: str, index: I64) -> None:
        """Refuse a function that is itself among the chosen sites."""
        symbols = self.editor.image.symbols
        own = int(self.editor.image.base[symbols.shndx[row]] + symbols.rows["st_value"][row])
        name, va = symbols.name(row), self._led_to(own)
        leaves_out = f"--func '!{name}' leaves it out"
        if va != own:
            leaves_out = f"ftpatch disable --func {name}, which became that function, gives it its own code back"
        if np.any((self.sites.entry_va[index] == va) | (self.sites.local_va[index] == va)):
            raise PolicyError(f"the {what} is itself among the chosen sites", where,
                              found="a call that leads back to itself", expected="another function",
                              todo=leaves_out)  # fmt: skip
        enabled = (self.sites.status == ENABLED) & ~self.sites.redirected  # those call nothing there
        if np.any(enabled & ((self.sites.entry_va == va) | (self.sites.local_va == va))):
            raise PolicyError(f"the {what} is itself enabled", where, found="a call at its own entry",
                              expected="a function that calls nothing there",
                              todo=f"ftpatch disable --func {symbols.name(row)} gives its entry back")  # fmt: skip

    def _led_to(self, va: int) -> np.uint64:
        """The function in whose place another one's callers come in the end, where functions were redirected."""
        leads = {int(self.sites.entry_va[site]): to.start for site, to in self.sites.redirects.items()}
        seen = set[int]()
        while (to := leads.get(va)) is not None and va not in seen:
            seen.add(va)
            va = to
        return np.uint64(va)

    def _make_ops(self) -> int:
        """Symbol row of an ops object whose function returns at once."""
        editor, code = self.editor, self.modules.ops_function.content
        text = editor.section(editor.free_name(TEXT + ".ops"), t.SHT_PROGBITS, TEXT_FLAGS, code, ALIGN)
        function = editor.symbol(OPS_FUNCTION, text, 0, len(code), t.STT_FUNC)
        size = (self.callee.ops_size + 7) & ~7
        data = editor.section(editor.free_name(DATA), t.SHT_PROGBITS, DATA_FLAGS, bytes(size), 8)
        editor.relocate(data, 0, self.module.arch.abs64, function)
        return editor.symbol(OPS, data, 0, size, t.STT_OBJECT)

    def _region_calls(self, shape: Shape, init: bool, index: I64, places: dict[str, Place]) -> list[Call]:
        """The code of init text, or of the other text, and where each of its sites branches."""
        code, target, suffix = self.callee.code, self.callee.target, "_init" if init else ""
        if code is None and not shape.out_of_line:
            return [self._jump(self.callee, suffix)] * len(index)
        section = self.addition.text(init)
        if target is not None:
            places = {**places, TARGET: self._tail_target(section, target, suffix)}
        if code is None:
            calls = [self._jump(self.callee, suffix)] * len(index)
        else:
            calls = self._entries(section, code, suffix, index, places)
        return self._stubs(section, suffix, index, calls) if shape.out_of_line else calls

    def _jump(self, callee: Callee, suffix: str) -> Call:
        """A symbol in the section that the loader fills with its jumps."""
        name, init_name = self.modules.trampolines
        if suffix and self.editor.image.sections_named(init_name):
            name = init_name
        sec = self.editor.image.sections_named(name)[0]
        row = self.editor.symbol(f"ftpatch_{callee.name}{suffix}", sec, callee.jump)
        return Call(row, 0, f"{name}+{callee.jump:#x}", "the loader's jump, filled when the module is loaded")

    def _tail_target(self, section: int, target: Callee, suffix: str) -> Place:
        """Where a user's stub branches on to: the loader's jump, or a trampoline in front of the stub."""
        if target.code is None:
            call = self._jump(target, suffix)
            return call.symbol, call.addend
        entry = self.addition.add_code(section, target.code, {})
        size = self.editor.append(section, b"") - entry
        return self.editor.symbol(TAIL_TARGET + suffix, section, entry, size, t.STT_FUNC), 0

    def _entries(self, section: int, code: Code, suffix: str, index: I64, places: dict[str, Place]) -> list[Call]:
        """Where each site's call goes: one piece of code for all of them, or one for each."""
        if self.callee.per_site:
            why = "a copy of the stub for this site alone"
            starts = [
                self.addition.add_code(section, code, {**places, SITE: self.addition.branch_of(site)})
                for site in index.tolist()
            ]
        else:
            why = "code that the patch brings along"
            starts = [self.addition.add_code(section, code, places)] * len(index)
        size = self.editor.append(section, b"") - starts[0]
        row = self.editor.symbol(CALL + suffix, section, starts[0], size, t.STT_FUNC)
        if code.listed or code.frames:
            self.addition.notes += list_code(self.addition, code, row, int(index[0]))
        return [Call(row, start - starts[0], f"{self.editor.names[section]}+{start:#x}", why) for start in starts]

    def _stubs(self, section: int, suffix: str, index: I64, calls: list[Call]) -> list[Call]:
        """One stub per site, which saves and restores the caller's return address around the site's call."""
        editor, stub, branch, own_calls = self.editor, self.module.arch.site_stub, self.modules.branch, []
        assert stub is not None  # the layout has stubs
        first, literal = self.addition.align(section), stub.literal if self._ops else 0
        words = stub.code(np.zeros(1, np.int64), np.zeros(1, np.int64))[0].astype("<u4").tobytes()
        symbol = editor.symbol(STUBS + suffix, section, first, (literal + stub.size) * len(index), t.STT_FUNC)
        for site, call in zip(index.tolist(), calls, strict=True):  # a relocation or two per stub
            start = editor.append(section, bytes(literal) + words)
            if literal:
                editor.relocate(section, start, self.module.arch.abs64, self._ops)
            start += literal
            editor.relocate(section, start + stub.call_at, branch, call.symbol, call.addend)
            place, addend = self.addition.branch_of(site)
            editor.relocate(section, start + stub.back_at, branch, place, addend + self.module.arch.call.size)
            where = f"{editor.names[section]}+{start:#x}"
            own_calls.append(Call(symbol, start - first, where, "a stub of the site's own"))
        return own_calls

    def _patch_site(self, shape: Shape, site: int, words: U32, call: Call) -> None:
        """The site's words, the relocation of its branch, and its ops pointer."""
        editor, sec, off = self.editor, int(self.sites.sec[site]), int(self.sites.off[site])
        branch = int(self.sites.branch_va[site] - editor.image.base[sec])
        editor.patch(sec, off + int(self.sites.site[site]), code_bytes(words, shape.unit).tobytes(), "site", site)
        if shape.called:
            self.addition.retarget(sec, branch, self.modules.branch, call)
        else:
            branch, by = branch + shape.branch.relocated_at, shape.branch.relocated_by
            editor.relocate(sec, branch, self.modules.branch, call.symbol, call.addend + by)
        if self._ops and shape.literal is not None:
            editor.relocate(sec, off + shape.literal, self.module.arch.abs64, self._ops)
