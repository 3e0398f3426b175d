"""Calls of the profiling function (-pg) by their relocations: which a kernel's build records, and which it makes NOPs.

Source: scripts/recordmcount.h sift_rel_mcount(), nop_mcount() (Linux 6.12); scripts/Makefile.build, objtool --mcount.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.kernel.recorded import is_recorded
from ftpatch.plan.record.places import NOWHERE, Places, joined
from ftpatch.sites.profiler_calls import calls_by_relocation, n_indirect, profiler_calls


def calls_of(image: Image) -> Places:
    """Every direct call of the profiling function, by section and offset."""
    names = dict.fromkeys(shape.called for shape in image.arch.shapes if shape.called)
    return joined(NOWHERE, *(Places(*calls_by_relocation(image, name)) for name in names)).ordered()


def pointer_text(image: Image) -> str:
    """How many calls of the profiling function go through a pointer, which no kernel's tracer can switch; empty for
    none."""
    names = dict.fromkeys(shape.called for shape in image.arch.shapes if shape.called)
    n = sum(n_indirect(image, name) + len(profiler_calls(image, name)[0]) for name in names)
    return f", {n} through a pointer, which no tracer of a kernel can switch" if n else ""


def are_recorded(image: Image, places: Places) -> Mask:
    """Which of some places in code lie in sections whose calls a kernel's build records."""
    recorded = np.array([is_recorded(name) for name in image.names], dtype=bool)
    return np.asarray(recorded[places.sec])


def make_nops(editor: Editor, calls: Places) -> None:
    """Turn calls into NOPs, and take their relocations out: not every module loader knows one that does nothing."""
    image = editor.image
    call, size = image.arch.call, image.arch.call.size
    nop = image.arch.nop.to_bytes(size, "little" if image.arch.unit > 1 else "big")
    for number, (sec, off) in enumerate(zip(calls.sec.tolist(), calls.off.tolist(), strict=True)):  # an edit each
        editor.patch(sec, off, nop, "call", number)
    for sec in np.unique(calls.sec).tolist():
        fields = calls.off[calls.sec == sec] + call.relocated_at
        for table in image.rela_tables.get(sec, []):
            rows = image.rows(table, t.RELA)
            mine = is_in(rows["r_offset"].astype(np.int64), fields)
            mine &= is_in(rows["r_info"] & np.uint64(0xFFFF_FFFF), image.arch.direct_calls)
            if mine.any():
                editor.cut_relocations(table, mine)
