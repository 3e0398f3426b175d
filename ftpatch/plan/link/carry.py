"""Links an object file into a module: what comes along is decided and checked, then added at the module's end.

    sections ──► symbols ──► relocations
    where each    what each    each names the same thing
    one goes      becomes      as in the object

A section that came along is known by its name: `.ftpatch.with` is in it, unless the loader needs another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.errors import UnsupportedError
from ftpatch.kernel.module import Module
from ftpatch.plan.link.agree import require_agreement, user_registers_used
from ftpatch.plan.link.relocations import Relocations
from ftpatch.plan.link.sections import Section, carry_sections
from ftpatch.plan.link.symbols import Symbols, Target
from ftpatch.plan.request import Against


@dataclass(frozen=True)
class Carried:
    """What an object brought into a module."""

    symbols: Mapping[str, int]  # row in the module's symbol table, by the object's name, of all that the object defines
    patch_rows: Mapping[str, int]  # the same symbols' rows in the object's own table
    rows: Mapping[int, int]  # row in the module's symbol table, by row in the object's, of all that has a type
    sections: tuple[Section, ...]  # where its sections are now
    uses: frozenset[tuple[int, int]]  # (section, offset) of all in the module that it names
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def carry(
    editor: Editor, module: Module, patch: Image, against: Against, originals: Mapping[str, Target]
) -> Carried:  # fmt: skip
    """Link an object into the editor's module. originals: what `keep_original` made, by the name that the object uses.

    Raises ArchError, ElfError, PolicyError or SelectionError where that cannot be; the editor is of no use then.
    """
    modules = module.arch.modules
    if modules is None or modules.linking is None:
        raise UnsupportedError("objects cannot be linked into modules of this machine", patch.path,
                               found=module.arch.name)  # fmt: skip
    linking = modules.linking
    notes = require_agreement(module, patch, linking)
    sections = carry_sections(editor, patch, linking, patch.path)
    symbols = Symbols(editor, module, patch, against, sections, originals, patch.path)
    symbols.define()
    Relocations(symbols, linking).carry()
    rows = {name: patch.symbols.defined(name) for name in symbols.defined}
    return Carried(
        symbols.defined, {name: row for name, row in rows.items() if row is not None}, symbols.rows,
        tuple(sections.values()), symbols.uses, (*notes, *symbols.notes),
        (*user_registers_used(patch, linking), *symbols.warnings),
    )  # fmt: skip
