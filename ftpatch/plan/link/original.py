"""`--keep-original`: an entry that runs a function as it was before it was redirected, for the code that replaces it.

    NAME:  bti c                              arm64
           b   FOO behind the site

           .quad .TOC. - NAME                 ppc64le, where FOO has a global and a local entry
    NAME:  ld  r2,-8(r12); add r2,r2,r12
           mflr r0                            what FOO does in front of its site, and needs behind it
           b   FOO behind the site

It may be called from any file and by pointer, as FOO may, and returns to its caller.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.parts import Code
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor, NewSymbol
from ftpatch.errors import PolicyError
from ftpatch.kernel.module import Module
from ftpatch.plan.link.symbols import Target
from ftpatch.plan.module.records import start_symbol, toc_symbol

TEXT, INIT_TEXT = ".text.ftpatch.original", ".init.text.ftpatch.original"
TEXT_FLAGS = t.SHF_ALLOC | t.SHF_EXECINSTR
ALIGN = 16  # bytes


def keep_original(editor: Editor, module: Module, site: int, name: str) -> Target:
    """Make an entry to the function of a site, past the site's first word. site: index in the site table.

    Raises PolicyError where the name is taken, or the code in front of the site is not known.
    """
    sites, image, modules = module.scan.sites, module.image, module.arch.modules
    assert modules is not None and modules.linking is not None and module.arch.jump is not None
    linking, sec, where = modules.linking, int(sites.sec[site]), f"--keep-original {name}"
    _require_free_name(editor, name, where)
    off = int(sites.body_va[site] - image.base[sec])
    two = bool(sites.entry_va[site] != sites.local_va[site])
    start = linking.entry_pair if two else linking.entry
    if start is None:
        raise PolicyError("the function has two entries", where, found=str(sites.name(site)), expected="one")
    front = _front(module, site, where)
    home = start_symbol(editor, sec)
    own = _section(editor, INIT_TEXT if image.names[sec].startswith(".init") else TEXT)
    code = (*start.words, *front, module.arch.jump.word.bits)
    at = editor.append(own, np.array(code, dtype="<u4").tobytes())
    _fix(editor, own, at, start, modules.toc)
    editor.relocate(own, at + 4 * (len(code) - 1), modules.jump_type, home, off + module.arch.unit)
    entry = at + start.entry
    size, other = at + 4 * len(code) - entry, linking.pair_other if two else 0
    row = editor.add_symbol(NewSymbol(name, own, entry, size, t.STT_FUNC, other=other))
    return Target(row, own, entry)


def _require_free_name(editor: Editor, name: str, where: str) -> None:
    """Refuse a name that somebody has, or that no C program could call."""
    if not name.isprintable() or not name or any(char in name for char in " @"):
        raise PolicyError("not a name for a function", where, found=repr(name), expected="a name as in C")
    rows = editor.image.symbols.rows_named(name)
    if len(rows) or editor.added(name) is not None:
        raise PolicyError("the name is taken", where, found="a symbol of the module", expected="a new name",
                          todo="it is the name by which the object calls the original")  # fmt: skip


def _front(module: Module, site: int, where: str) -> tuple[int, ...]:
    """The words between the function's local entry and its site that must run before what is behind the site."""
    modules, sites = module.arch.modules, module.scan.sites
    assert modules is not None and modules.linking is not None
    low, high = int(sites.local_va[site]), int(sites.body_va[site])
    words = tuple(module.image.code(low, max(high - low, 0) // 4).tolist())
    left = tuple(word for word in words if word not in modules.linking.landing)
    if strange := [word for word in left if word not in modules.linking.repeated]:
        raise PolicyError("the function does something in front of its site that is not known", where,
                          found=f"{strange[0]:#010x}", expected="the site at the function's entry")  # fmt: skip
    return left


def _section(editor: Editor, name: str) -> int:
    """The section of such entries, aligned for one more."""
    first = len(editor.image.shdr)
    known = [sec for sec, own in enumerate(editor.names) if sec >= first and own.startswith(name)]
    sec = known[0] if known else editor.section(
        editor.free_name(name), t.SHT_PROGBITS, TEXT_FLAGS, b"", ALIGN
    )  # fmt: skip
    editor.append(sec, bytes(-editor.append(sec, b"") % 8))
    return sec


def _fix(editor: Editor, sec: int, at: int, code: Code, toc: str) -> None:
    """The relocations of an entry's first words."""
    for fixup in code.fixups:
        editor.relocate(sec, at + fixup.off, fixup.kind, toc_symbol(editor, toc), fixup.addend)
