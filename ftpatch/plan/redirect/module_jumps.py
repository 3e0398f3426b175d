"""The jumps of a module's redirected functions: their words and relocations, and the stubs that some need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch.parts import Code, Modules
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U32
from ftpatch.elf import tables as t
from ftpatch.plan.module.addition import Addition, Call
from ftpatch.plan.redirect.in_module import ModuleReplacement
from ftpatch.sites.jumps import MARK

STUB = "ftpatch_redirect_"  # in front of the name of a stub's replacement
ENTERS = "{name} computes its TOC from r12, which the function is not called with"
CALLS = "{name} is in another file, with another TOC: it is called in a frame that keeps this one"


@dataclass
class Jumps:
    """What redirects add to one module."""

    addition: Addition
    modules: Modules  # how modules of this machine are patched
    goals: Mapping[int, ModuleReplacement]  # by site
    carried: Mapping[int, int] = field(default_factory=dict)  # row in the module, by row in the object that came along
    _text: dict[bool, int] = field(default_factory=dict)  # whether it is init text → section of the stubs
    _symbols: dict[str, int] = field(default_factory=dict)  # name → row of a symbol of another file
    _stubs: dict[tuple[int, int, bool], Call] = field(default_factory=dict)

    def make(self, shape: Shape, index: I64, words: U32) -> tuple[Call, ...]:
        """Redirect the sites `index`, which get these words; where each one's jump goes."""
        self.addition.require_near()
        calls = []
        for site, site_words in zip(index.tolist(), words, strict=True):
            calls.append(self._call(site))
            self._redirect(shape, site, site_words, calls[-1])
        return tuple(calls)

    def _call(self, site: int) -> Call:
        """Where a site's jump goes."""
        goal, sites, entries = self.goals[site], self.addition.module.scan.sites, self.modules.entries
        row = self._row(goal)
        one_entry = bool(sites.local_va[site] == sites.entry_va[site])
        if entries is None or not (goal.outside or (one_entry and goal.two_entries)):
            return Call(row, 0, "", "")
        init = self.addition.editor.names[int(sites.sec[site])].startswith(".init")
        if not goal.outside:
            return self._stub(entries.enter, "", goal, row, init, ENTERS)
        if one_entry:
            return self._stub(entries.call_with_toc, "toc_", goal, row, init, CALLS)
        return self._stub(entries.call, "", goal, row, init, CALLS)

    def name(self, goal: ModuleReplacement) -> str:
        """The name that a replacement has in the module: static functions of an object get one of their own there."""
        return self.addition.editor.symbol_name(self._row(goal))

    def _row(self, goal: ModuleReplacement) -> int:
        """Row of the replacement's symbol, which may be new."""
        if goal.row is not None:
            return goal.row
        if goal.carried:
            return self.carried[goal.substitute.row]
        assert goal.wanted is not None  # found in another file
        if goal.name not in self._symbols:
            self._symbols[goal.name] = self.addition.imported(goal.wanted)
        return self._symbols[goal.name]

    def _stub(self, code: Code, kind: str, goal: ModuleReplacement, row: int, init: bool, why: str) -> Call:
        """The stub of that code for a replacement; one serves every function of init text, or of the other."""
        key = (id(code), row, init)
        if key not in self._stubs:
            addition, editor = self.addition, self.addition.editor
            if init not in self._text:
                self._text[init] = addition.text(init)
            section = self._text[init]
            places = {"replacement": (row, 0)}
            if any(fixup.symbol == "toc" for fixup in code.fixups):
                places["toc"] = (addition.toc(), 0)
            start = addition.add_code(section, code, places)
            bar = editor.symbol_name(row)
            name = f"{STUB}{kind}{bar}{'_init' if init else ''}"
            symbol = editor.symbol(name, section, start, 4 * len(code.words), t.STT_FUNC)
            where = f"{editor.names[section]}+{start:#x}"
            self._stubs[key] = Call(symbol, 0, where, why.format(name=bar))
        return self._stubs[key]

    def _redirect(self, shape: Shape, site: int, words: U32, call: Call) -> None:
        """The site's words, the relocation of its jump, and the symbol that marks its function."""
        editor, sites = self.addition.editor, self.addition.module.scan.sites
        sec, kind = int(sites.sec[site]), self.modules.jump_type
        off = int(sites.off[site] + sites.site[site])
        editor.patch(sec, off, np.ascontiguousarray(words, dtype="<u4").tobytes(), "site", site)
        if shape.called:
            self.addition.retarget(sec, off, kind, call)
        else:
            editor.relocate(sec, off, kind, call.symbol, call.addend)
        entry = int(sites.entry_va[site] - editor.image.base[sec])
        editor.symbol(MARK + (sites.name(site) or f"{off:#x}"), sec, entry)
