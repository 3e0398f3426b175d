"""The relocations that a link kept of what --set changes: they must say what the bytes say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftpatch.arch.proof_tables import BIT64
from ftpatch.elf import tables as t
from ftpatch.proof.case import Case

# (section of the place, its va, va that it leads to, bytes from it to where a distance counts from; 0: no distance)
Place = tuple[int, int, int, int]


def check_kept(case: Case, name: str, places: Sequence[Place]) -> None:
    """Findings where the relocation of a static call's key or trampoline does not lead where that does."""
    old, new = case.before.image, case.after.image
    for sec, va, to, ends in places:
        tables = [table for table in new.rela_tables.get(sec, ()) if not new.shdr["sh_flags"][table] & t.SHF_ALLOC]
        found = False
        for table in tables:
            rows = new.rows(table, t.RELA)
            for row in np.flatnonzero(rows["r_offset"] == np.uint64(va)).tolist():
                pos = int(new.shdr["sh_offset"][table]) + row * t.RELA.itemsize
                was, is_ = (image.data[pos : pos + t.RELA.itemsize].tobytes() for image in (old, new))
                if was[:8] == is_[:8]:  # r_offset
                    case.account_for("relocation", [pos], t.RELA.itemsize)
                found |= _says(case, name, is_, (va, to, ends), pos)
        if tables and to and not found:
            case.say("verify-relocation", f"{name}: no relocation of {new.names[sec]} is about {va:#x}, which holds an "
                     "address")  # fmt: skip


def _says(case: Case, name: str, octets: bytes, place: tuple[int, int, int], pos: int) -> bool:
    """Whether a relocation is about a place; a finding where it is, and leads elsewhere."""
    va, to, ends = place
    row = np.frombuffer(octets, t.RELA)[0]
    kind, symbol = int(row["r_info"]) & 0xFFFF_FFFF, int(row["r_info"]) >> 32
    symbols = case.after.image.symbols
    if kind == case.arch.none:
        return False
    kinds = (case.arch.abs64,) if not ends else case.arch.direct_calls
    value = int(symbols.rows["st_value"][symbol]) if symbol < len(symbols.rows) else -1
    leads = value + int(row["r_addend"]) + ends & BIT64
    if kind not in kinds or value < 0 or not to or leads != to:
        case.say("verify-relocation", f"{name}: the relocation at {va:#x} has type {kind} and leads to {leads:#x}, the "
                 f"place to {to:#x}", pos=pos)  # fmt: skip
    return True
