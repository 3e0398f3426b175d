"""Where the sections of an object go in a module: into new ones, or behind what the loader's tables hold.

.text, .rodata.str1.8, .toc …   a new section `HEAD.ftpatch.with.NAME`; the head tells what kind of memory it is,
                                and no loader looks for such a name
__ex_table, .data..percpu …     behind the rows that the module's section of that name has; a new one of the same
                                name where it has none
common symbols                  .bss.ftpatch.with.common
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.parts import Linking
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.module_sections import APPENDED, DROPPED, FOLDED, REFUSED, WITHOUT_ROWS, Treatment, treatment
from ftpatch.sites.records import SECTIONS as RECORDS

MARK = ".ftpatch.with"  # in the name of every section that came with an object
COMMON = ".bss" + MARK + ".common"
MEMORY = t.SHF_ALLOC | t.SHF_WRITE | t.SHF_EXECINSTR
MAX_ALIGN = 4096  # a module's memory is aligned to pages, and 4 KiB are the smallest
MAX_SIZE = 1 << 30  # bytes of a section in memory
MAX_SECTIONS = 1000  # that come along; /sys has a file for each


@dataclass(frozen=True)
class Section:
    """One section of the object that comes along."""

    number: int  # in the object
    name: str  # there
    sec: int  # of the module, where it is now
    off: int  # byte offset of its first byte in that
    table: bool  # whether the loader walks it, and minds rows about init text itself
    init: bool  # whether it is freed with init memory


def carry_sections(editor: Editor, patch: Image, linking: Linking, where: str) -> dict[int, Section]:
    """Add all sections that are needed to the editor's module; by number in the object.

    Raises PolicyError for one that cannot come along.
    """
    wanted = _wanted(editor.image, patch, linking, where)
    if len(wanted) > MAX_SECTIONS:
        raise PolicyError("the object has too many sections", where, found=str(len(wanted)),
                          expected=f"at most {MAX_SECTIONS}",
                          todo="compile without -ffunction-sections and -fdata-sections")  # fmt: skip
    for sec, treated in wanted.items():  # before anything is changed
        _require_ordinary(patch, sec, where)
        if treated.what == APPENDED:
            _require_same_rows(editor.image, patch, sec, where)
    return {sec: _place(editor, patch, sec, treated) for sec, treated in wanted.items()}


def _wanted(module: Image, patch: Image, linking: Linking, where: str) -> dict[int, Treatment]:
    """The sections that come along, each with what is done with it."""
    loaded = (patch.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (patch.shdr["sh_size"] > 0)
    wanted = {}
    for sec in np.flatnonzero(patch.shdr["sh_size"] > 0).tolist():
        treated = treatment(patch.names[sec], linking)
        if treated.what == REFUSED and (loaded[sec] or patch.names[sec].startswith(".export_symbol")):
            raise PolicyError("the object has a section that cannot be linked in", where,
                              found=f"{patch.names[sec]}: {treated.why}", expected="code and data",
                              todo=treated.todo)  # fmt: skip
        useless = treated.what == FOLDED and not module.sections_named(treated.name)
        if loaded[sec] and treated.what != DROPPED and not useless:
            wanted[sec] = treated
    return wanted


def _require_ordinary(patch: Image, sec: int, where: str) -> None:
    """Refuse a section that no loader would treat as its header says."""
    head, name = patch.shdr[sec], patch.names[sec]
    flags, align, size = (int(head[field]) for field in ("sh_flags", "sh_addralign", "sh_size"))
    why, expected, todo = "", "", ""
    if not name.isprintable() or not name.strip("."):
        why, expected, todo = repr(name), "a name", "give the object as the compiler made it"
    elif flags & t.SHF_TLS:
        why, expected, todo = "thread-local variables", "none, as in every kernel", "use per-cpu variables"
    elif flags & MEMORY == MEMORY:
        why, expected, todo = "writable code", "code or data", "newer kernels refuse modules with such a section"
    elif align & (align - 1) or align > MAX_ALIGN:
        why, expected, todo = f"an alignment of {align:#x}", f"a power of two up to {MAX_ALIGN:#x}", (
            "a module's memory is not aligned to more than a page"
        )  # fmt: skip
    elif int(head["sh_type"]) not in (t.SHT_PROGBITS, t.SHT_NOBITS):
        why, expected, todo = f"section type {int(head['sh_type']):#x}", "bytes or room for them", "leave it out"
    elif size > MAX_SIZE:
        why, expected, todo = f"{size} bytes", f"at most {MAX_SIZE}", "allocate memory at run time"
    if why:
        raise PolicyError("the object has a section that cannot be linked in", where, found=f"{name}: {why}",
                          expected=expected, todo=todo)  # fmt: skip


def _require_same_rows(module: Image, patch: Image, sec: int, where: str) -> None:
    """Refuse rows of another length than those that the module's table has: both are told by their relocations."""
    name = patch.names[sec]
    homes = [home for home in module.sections_named(name) if int(module.shdr["sh_size"][home])]
    if not homes:
        return
    if not module.has_bytes[homes[0]]:
        raise PolicyError(f"nothing can be put behind the module's {name}", where, found="a section without bytes",
                          expected="one with contents", todo=f"leave {name} out of the object")  # fmt: skip
    if name in WITHOUT_ROWS:
        return
    ours, theirs = (_relocations_and_bytes(image, number) for image, number in ((patch, sec), (module, homes[0])))
    align = max(int(patch.shdr["sh_addralign"][sec]), 1)
    if ours[0] * theirs[1] != theirs[0] * ours[1] or theirs[1] % align:
        found, expected = (f"{n} relocations in {size} bytes" for n, size in (ours, theirs))
        raise PolicyError(f"the object's {name} has rows of another form than the module's", where, found=found,
                          expected=f"rows as in the module's {expected}",
                          todo="compile with the headers and the configuration of the module's kernel")  # fmt: skip


def _relocations_and_bytes(image: Image, sec: int) -> tuple[int, int]:
    rows = [image.rows(table, t.RELA) for table in image.rela_tables.get(sec, [])]
    return sum(map(len, rows)), int(image.shdr["sh_size"][sec])


def _place(editor: Editor, patch: Image, sec: int, treated: Treatment) -> Section:
    """Put one section where it belongs."""
    name = patch.names[sec]
    table = treated.what in (APPENDED, FOLDED)
    homes = [home for home, known in enumerate(editor.names) if known == treated.name] if table else []
    init = (treated.name if table else name).startswith(".init")
    if homes:
        return Section(sec, name, homes[0], _append(editor, patch, sec, homes[0]), True, init)
    return Section(sec, name, _new(editor, patch, sec, treated), 0, table, init)


def _append(editor: Editor, patch: Image, sec: int, home: int) -> int:
    """Put bytes behind those that a section of the module has; their offset."""
    align, head = max(int(patch.shdr["sh_addralign"][sec]), 1), editor.shdr[home]
    size = editor.append(home, b"")
    editor.append(home, bytes(-size % align))
    head["sh_addralign"] = max(int(head["sh_addralign"]), align)
    return editor.append(home, _content(patch, sec))


def _content(patch: Image, sec: int) -> bytes:
    """The bytes of a section; zeros of a table of records, whose relocations hold what counts."""
    if patch.names[sec] in RECORDS or not patch.has_bytes[sec]:
        return bytes(int(patch.shdr["sh_size"][sec]))
    return patch.content(sec).tobytes()


def _new(editor: Editor, patch: Image, sec: int, treated: Treatment) -> int:
    """Make a section of its own; its number in the module."""
    head = patch.shdr[sec]
    flags = int(head["sh_flags"]) & MEMORY
    # Assemblers may leave the alignment of code to who writes it, and nobody else would see to it.
    align = max(int(head["sh_addralign"]), patch.arch.unit if flags & t.SHF_EXECINSTR else 1)
    name = treated.name if treated.what == APPENDED else editor.free_name(_name(patch, sec))
    if not patch.has_bytes[sec]:
        return editor.empty_section(name, flags, int(head["sh_size"]), align)
    return editor.section(name, t.SHT_PROGBITS, flags, _content(patch, sec), align)


def _name(patch: Image, sec: int) -> str:
    """A name that tells what kind of memory it is, and that it came along."""
    old, flags = patch.names[sec], int(patch.shdr["sh_flags"][sec])
    if flags & t.SHF_EXECINSTR:
        head = ".text"
    elif flags & t.SHF_WRITE:
        head = ".data" if patch.has_bytes[sec] else ".bss"
    else:
        head = ".rodata"
    head = ".init" + head if old.startswith(".init") else head
    return head + MARK + (old if old.startswith(".") else "." + old)
