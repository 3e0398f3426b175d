"""How the records of a module leave and return, and how an editor's work becomes the edits of a plan.

A loader counts slots and reads each one, so that a record is cut out with its slot and relocation. One that returns
goes to the end of its section: the loader sorts them.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.edits import Edits, group
from ftpatch.plan.records_back import BY_JOURNAL
from ftpatch.sites.records import SLOT, RecordTable, record_sections
from ftpatch.sites.table import SiteTable

CUT = "slot and relocation are cut out, as every loader counts what is there"
KEPT = "asked for: the loader will find other words than it expects and switch ftrace off, machine-wide"
RETURNED = "sites get their records back, behind those that the section has"


def require_way(way: str, ways: tuple[str, ...], path: str) -> None:
    """Refuse ways for records to leave that only a kernel has."""
    if way not in ways:
        raise PolicyError(f"--records {way} does not work in a module", path,
                          found="a loader that reads every slot",
                          expected="shrink: slot and relocation leave")  # fmt: skip


def cut_records(editor: Editor, records: RecordTable, gone: Mask) -> None:
    """Cut the slots out of every record section, each with its relocation."""
    image = editor.image
    for sec in record_sections(image):
        first, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        rows = np.flatnonzero((records.slot >= first) & (records.slot < first + size))
        if gone[rows].any():
            editor.cut_slots(sec, gone[rows], int(rows[0]))


def section_symbol(image: Image, sec: int) -> int | None:
    """Row of the symbol that stands for the start of a section."""
    symbols = image.symbols
    at_start = (symbols.type == t.STT_SECTION) & (symbols.shndx == sec) & (symbols.rows["st_value"] == 0)
    rows = np.flatnonzero(at_start)
    return int(rows[0]) if len(rows) else None


def start_symbol(editor: Editor, sec: int) -> int:
    """Row of a symbol at the start of a section of the module; made where it has none."""
    row, name = section_symbol(editor.image, sec), f"ftpatch_home_{sec}"
    if row is None:
        row = editor.added(name)
    return editor.symbol(name, sec) if row is None else row


def toc_symbol(editor: Editor, name: str) -> int:
    """Row of the loader's own symbol for the TOC: it fills in the first one of that name alone."""
    rows = editor.image.symbols.rows_named(name)
    if len(rows):
        return int(rows[0])
    made = editor.added(name)
    return editor.symbol(name, 0) if made is None else made


def return_record(editor: Editor, sites: SiteTable, site: int) -> None:
    """A slot and its relocation behind the others of the first record section."""
    image, sec = editor.image, int(sites.sec[site])
    table = next(iter(record_sections(image)), None)
    symbol = section_symbol(image, sec)
    if table is None or symbol is None:
        missing = "record section" if table is None else f"section symbol of {image.names[sec]}"
        raise PolicyError("a record cannot return to this module", image.path, found=f"no {missing}",
                          todo=BY_JOURNAL)  # fmt: skip
    slot = editor.append(table, bytes(SLOT))  # zero in the file: its relocation holds the value
    editor.relocate(table, slot, image.arch.abs64, symbol, int(sites.off[site]))


def edits_of(editor: Editor) -> Edits:
    """The editor's result as edits with their old bytes."""
    header, patches, tail = editor.finish()
    image, start = editor.image, editor.image.shdr["sh_offset"].tolist()
    alike: dict[tuple[str, int], list[tuple[int, int, bytes]]] = {}  # (kind, width) → (owner, position, new bytes)
    for piece in header:
        alike.setdefault(("header", len(piece.new)), []).append((0, piece.pos, piece.new))
    for patch in patches:
        row = (patch.owner, start[patch.sec] + patch.off, patch.new)
        alike.setdefault((patch.kind, len(patch.new)), []).append(row)
    groups = []
    for (kind, width), rows in alike.items():
        owners, pos, new = zip(*rows, strict=True)
        new_bytes = np.frombuffer(b"".join(new), dtype=np.uint8).reshape(-1, width)
        groups.append(group(kind, image.data, np.array(owners, np.int64), np.array(pos, np.int64), new_bytes))
    return Edits(groups, tail)
