"""Damage to sites whose instructions are bytes: each byte of a call, what lies beside it, tables that list code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.sites.table import READY
from tools.sabotage.victim import Damage, Mutation, Victim

CALL, JMP, RET, INT3 = 0xE8, 0xE9, 0xC3, 0xCC
NOP5, ENDBR64 = bytes.fromhex("0f1f440000"), bytes.fromhex("f30f1efa")
SIZE = 5  # bytes of a site
OURS = (".text.ftpatch", ".init.text.ftpatch")
TABLES = (".return_sites", ".call_sites", ".orc_unwind_ip", ".orc_unwind", ".ibt_endbr_seal", ".retpoline_sites",
          ".altinstructions", ".notes", "__mcount_loc", "__patchable_function_entries")  # fmt: skip


def rules(*names: str) -> frozenset[str]:
    return frozenset(f"verify-{name}" for name in names)


SITE = rules("site", "branch", "byte", "redirect", "relocation")
RECORD = rules("record", "order", "relocation", "site", "byte")
STUB = rules("stub", "branch", "emulation", "relocation", "byte")


def _sites(victim: Victim) -> list[int]:
    """File positions of the patched sites that call."""
    if victim.arch.unit > 1:
        return []
    return [int(site["pos"]) for site in victim.patched if site["action"] != "redirect"]


def _others(victim: Victim) -> list[int]:
    """Rows of sites that are as compiled and have their records."""
    if victim.arch.unit > 1:
        return []
    patched, sites = {int(site["pos"]) for site in victim.patched}, victim.sites
    rows = np.flatnonzero((sites.status == READY) & (sites.row >= 0)).tolist()
    return [row for row in rows if int(sites.pos[row]) not in patched][:64]


def _calls(pos: int, va: int, target: int) -> tuple[int, bytes]:
    """The write that makes the call at a position go to another address."""
    return pos + 1, (target - va - SIZE & 0xFFFF_FFFF).to_bytes(4, "little")


def byte_of_call(off: int, mask: int) -> Mutation:
    def make(victim: Victim) -> Damage | None:
        places = _sites(victim)
        return victim.flip(places[0] + off, mask) if places else None

    return Mutation(f"call's byte {off} by {mask:#04x}", SITE, make)


def call_becomes(code: bytes) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        places = _sites(victim)
        return Damage([(places[0], code)]) if places else None

    return make


def beside(off: int, mask: int = 0x10) -> Callable[[Victim], Damage | None]:
    """A byte at some distance from a site."""

    def make(victim: Victim) -> Damage | None:
        places = _sites(victim)
        return victim.flip(places[0] + off, mask) if places else None

    return make


def landing_pad(victim: Victim) -> Damage | None:
    """The endbr64 in front of a site becomes a NOP of four bytes."""
    for pos in _sites(victim):
        if victim.read(pos - 4, 4) == ENDBR64:
            return Damage([(pos - 4, bytes.fromhex("0f1f4000"))])
    return None


def distances_swapped(victim: Victim) -> Damage | None:
    """Two sites of a linked file have each other's distance."""
    places = _sites(victim)
    if not victim.linked or len(places) < 2:
        return None
    one, two = (victim.read(pos + 1, 4) for pos in places[:2])
    return Damage([(places[0] + 1, two), (places[1] + 1, one)])


def call_of(name: str, off: int) -> Callable[[Victim], Damage | None]:
    """A site calls code that no site may call."""

    def make(victim: Victim) -> Damage | None:
        target = victim.after.symbols.value(name)
        sites = [site for site in victim.patched if site["action"] != "redirect"]
        if victim.arch.unit > 1 or not victim.linked or target is None or not sites:
            return None
        return Damage([_calls(int(sites[0]["pos"]), int(sites[0]["branch"], 16), target + off)])

    return make


def another_calls(victim: Victim) -> Damage | None:
    """A site that is not patched calls the trampoline as well, and keeps its record."""
    target = victim.after.symbols.value("ftrace_caller")
    for row in _others(victim) if victim.linked and target is not None else ():
        pos, va = int(victim.sites.pos[row]), int(victim.sites.branch_va[row])
        if victim.read(pos, 1)[0] == CALL:
            return Damage([_calls(pos, va, target or 0)])
    return None


def another_becomes(code: bytes) -> Callable[[Victim], Damage | None]:
    def make(victim: Victim) -> Damage | None:
        rows = _others(victim)
        return Damage([(int(victim.sites.pos[rows[0]]), code)]) if rows else None

    return make


def record_by(step: int) -> Callable[[Victim], Damage | None]:
    """A live record names another byte."""

    def make(victim: Victim) -> Damage | None:
        live = np.flatnonzero(victim.records.live).tolist()
        if victim.arch.unit > 1 or not victim.linked or not live:
            return None
        slot = live[len(live) // 2]
        return Damage([victim.put(int(victim.records.slot[slot]), int(victim.records.value[slot]) + step, 8)])

    return make


def emptied_slot_filled(victim: Victim) -> Damage | None:
    """The record of a patched site is in its slot again."""
    edits = victim.edits("record ")
    if victim.arch.unit > 1 or not victim.linked or not edits:
        return None
    return Damage([(int(edits[0]["pos"]), bytes.fromhex(edits[0]["old"]))])


def kept_relocation(field: str) -> Callable[[Victim], Damage | None]:
    """A relocation that the link kept, of the record table or of code."""

    def make(victim: Victim) -> Damage | None:
        if victim.arch.unit > 1 or not victim.linked:
            return None
        fields = t.RELA.fields
        assert fields is not None
        for sec in np.flatnonzero(victim.after.shdr["sh_type"] == t.SHT_RELA).tolist():
            if int(victim.after.shdr["sh_size"][sec]) >= t.RELA.itemsize:
                return victim.flip(victim.start(sec) + int(fields[field][1]))
        return None

    return make


def byte_of(name: str) -> Mutation:
    """The middle of a table that the kernel or its loader reads."""

    def make(victim: Victim) -> Damage | None:
        sec = victim.section(name)
        if victim.arch.unit > 1 or sec < 0:
            return None
        return victim.flip(victim.start(sec) + int(victim.after.shdr["sh_size"][sec]) // 2, 0x20)

    return Mutation(f"byte of {name}", rules("byte", "section", "record", "stub", "relocation"), make)


def grown_row(name: str, field: str) -> Mutation:
    """The last relocation of a table that a patch makes longer: that of its own code."""

    def make(victim: Victim) -> Damage | None:
        rows, start = victim.relocations(name)
        fields = t.RELA.fields
        assert fields is not None
        if victim.arch.unit > 1 or victim.linked or not len(rows):
            return None
        return victim.flip(start + t.RELA.itemsize * (len(rows) - 1) + int(fields[field][1]), 2)

    return Mutation(f"{field} of the last row of {name}", rules("stub", "relocation", "section", "byte"), make)


def padding_row(step: int) -> Mutation:
    """A relocation of the list of padding, which is no record table."""

    def make(victim: Victim) -> Damage | None:
        rows, start = victim.relocations("__patchable_function_entries")
        if victim.arch.unit > 1 or victim.linked or not len(rows):
            return None
        return Damage([victim.put(start + 16, int(rows["r_addend"][0]) + step, 8)])

    return Mutation(f"row of the padding's list by {step}", rules("relocation", "byte"), make)


def byte_of_stub(off: int, mask: int) -> Mutation:
    """A byte of the code that a module's patch brings along."""

    def make(victim: Victim) -> Damage | None:
        sec = victim.section(*OURS)
        if victim.arch.unit > 1 or victim.linked or sec < 0:
            return None
        return victim.flip(victim.start(sec) + off, mask)

    return Mutation(f"code of the patch, byte {off} by {mask:#04x}", STUB, make)


KINDS = (
    *(byte_of_call(off, mask) for off in range(SIZE) for mask in (1, 0x80)),
    Mutation("call becomes a jump", SITE, call_becomes(bytes((JMP,)))),
    Mutation("call becomes int3", SITE, call_becomes(bytes((INT3,)))),
    Mutation("call becomes ret", SITE, call_becomes(bytes((RET,)) + NOP5[1:])),
    Mutation("call becomes another NOP", SITE, call_becomes(bytes.fromhex("0f1f440001"))),
    Mutation("byte in front of a site", rules("byte"), beside(-1)),
    Mutation("byte behind a site", rules("byte"), beside(SIZE)),
    Mutation("byte of the padding in front of a function", rules("byte"), beside(-12)),
    Mutation("landing pad removed", rules("byte"), landing_pad),
    Mutation("distances of two sites swapped", SITE, distances_swapped),
    Mutation("call behind the trampoline's first instruction", SITE, call_of("ftrace_caller", 4)),
    Mutation("call in front of the trampoline", SITE, call_of("ftrace_caller", -1)),
    Mutation("call of a traced function", SITE, call_of("vfs_write", 0)),
    Mutation("call of panic", SITE, call_of("panic", 0)),
    Mutation("call of data", SITE, call_of("linux_banner", 0)),
    Mutation("another site calls, record kept", RECORD | SITE, another_calls),
    Mutation("another site is a jump", SITE, another_becomes(bytes((JMP,)))),
    Mutation("another site is int3", SITE, another_becomes(bytes((INT3,)))),
    *(Mutation(f"record by {step}", RECORD, record_by(step)) for step in (1, -1, -4, 5)),
    Mutation("emptied slot filled again", RECORD, emptied_slot_filled),
    *(Mutation(f"kept relocation's {field}", rules("relocation", "byte", "section"), kept_relocation(field))
      for field in ("r_offset", "r_info", "r_addend")),
    *map(byte_of, TABLES),
    *(grown_row(name, field) for name in TABLES[:3] for field in ("r_offset", "r_info", "r_addend")),
    padding_row(8), padding_row(-1),
    *(byte_of_stub(off, 1 << off % 8) for off in range(0, 108, 6)),
)  # fmt: skip
