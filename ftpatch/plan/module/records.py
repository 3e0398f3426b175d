"""How the records of a module leave and return, and how an editor's work becomes the edits of a plan.

A loader counts slots and reads each one, so that a record is cut out with its slot and relocation. One that returns
goes to the end of its section: the loader sorts them.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import Mask
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor, Patch
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.edits import Edits, Group, group
from ftpatch.plan.records_back import BY_JOURNAL
from ftpatch.sites.records import SECTIONS, SLOT, RecordTable
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
    for sec in image.sections_named(*SECTIONS):
        first, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        rows = np.flatnonzero((records.slot >= first) & (records.slot < first + size))
        if image.has_bytes[sec] and gone[rows].any():
            editor.cut_slots(sec, gone[rows], int(rows[0]))


def return_record(editor: Editor, arch: Arch, sites: SiteTable, site: int) -> None:
    """A slot and its relocation behind the others of the first record section."""
    image, sec = editor.image, int(sites.sec[site])
    home = next((one for one in image.sections_named(*SECTIONS) if image.has_bytes[one]), -1)
    rows = np.flatnonzero(
        (image.symbols.type == t.STT_SECTION) & (image.symbols.shndx == sec) & (image.symbols.rows["st_value"] == 0)
    )
    if home < 0 or not len(rows):
        raise PolicyError("a record cannot return to this module", image.path,
                          found="no record section" if home < 0 else f"no section symbol of {image.names[sec]}",
                          todo=BY_JOURNAL)  # fmt: skip
    slot = editor.append(home, bytes(SLOT))  # zero in the file: its relocation holds the value
    editor.relocate(home, slot, arch.abs64, int(rows[0]), int(sites.off[site]))


def edits_of(image: Image, editor: Editor) -> Edits:
    """The editor's result as edits with their old bytes."""
    header, patches, tail = editor.finish()
    groups: list[Group] = []
    for piece in header:
        groups.append(_group(image, "header", [(0, piece.pos, piece.new)]))
    kinds: dict[tuple[str, int], list[Patch]] = {}
    for patch in patches:
        kinds.setdefault((patch.kind, len(patch.new)), []).append(patch)
    offset = image.shdr["sh_offset"].astype(np.int64)
    for (kind, _), some in kinds.items():
        rows = [(patch.owner, int(offset[patch.sec]) + patch.off, patch.new) for patch in some]
        groups.append(_group(image, kind, rows))
    return Edits(groups, tail)


def _group(image: Image, kind: str, rows: list[tuple[int, int, bytes]]) -> Group:
    """A group from (owner, position, new bytes) rows of one width."""
    new = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.uint8).reshape(len(rows), -1)
    ids, pos = (np.array([row[column] for row in rows], dtype=np.int64) for column in (0, 1))
    return group(kind, image.data, ids, pos, new)
