"""Random changes of any patched file: bytes, fields of its headers and tables, branches, records, its end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np

from ftpatch.elf import tables as t
from tools.sabotage.victim import Damage, Victim

Change = Callable[[Victim, Random], Damage | None]
FATAL = ("panic", "do_exit", "vfs_read", "ftrace_regs_caller", "ftrace_stub", "schedule")
MARKER = b"~Module signature appended~\n"


def _fields(dtype: np.dtype[np.void]) -> list[tuple[int, int]]:
    """(offset, bytes) of every field of a row."""
    return [(int(dtype.fields[name][1]), int(dtype.fields[name][0].itemsize)) for name in dtype.names or ()
            if dtype.fields]  # fmt: skip


def _changed(victim: Victim, rng: Random, pos: int, size: int) -> Damage:
    """A number at a position becomes another: by a bit, by little, or by anything."""
    old = int.from_bytes(victim.read(pos, size), "little")
    new = rng.choice([old ^ 1 << rng.randrange(8 * size), old + rng.choice([-8, -4, -1, 1, 4, 8, 16]),
                      rng.choice([0, 1, 2, 0xFFFF]), rng.getrandbits(8 * size)])  # fmt: skip
    return Damage([victim.put(pos, new if new != old else old ^ 1, size)])


def _row(victim: Victim, rng: Random, start: int, rows: int, dtype: np.dtype[np.void]) -> Damage | None:
    """A field of one of many rows."""
    if not rows:
        return None
    off, size = rng.choice(_fields(dtype))
    return _changed(victim, rng, start + rng.randrange(rows) * dtype.itemsize + off, min(size, 8))


def byte(victim: Victim, rng: Random) -> Damage | None:
    return victim.flip(rng.randrange(len(victim.after.data)), rng.randrange(1, 256))


def elf_header(victim: Victim, rng: Random) -> Damage | None:
    return _row(victim, rng, 0, 1, t.EHDR)


def identification(victim: Victim, rng: Random) -> Damage | None:
    """Version, OS and ABI, and the padding behind."""
    return victim.flip(rng.randrange(6, 16), rng.randrange(1, 256))


def section_header(victim: Victim, rng: Random) -> Damage | None:
    return _row(victim, rng, int(victim.after.ehdr["e_shoff"]), len(victim.after.shdr), t.SHDR)


def program_header(victim: Victim, rng: Random) -> Damage | None:
    return _row(victim, rng, int(victim.after.ehdr["e_phoff"]), len(victim.after.phdr), t.PHDR)


def symbol(victim: Victim, rng: Random) -> Damage | None:
    tab = np.flatnonzero(victim.after.shdr["sh_type"] == t.SHT_SYMTAB)
    return _row(victim, rng, victim.start(int(tab[0])), len(victim.after.symbols.rows), t.SYM) if len(tab) else None


def relocation(victim: Victim, rng: Random) -> Damage | None:
    tables = np.flatnonzero((victim.after.shdr["sh_type"] == t.SHT_RELA) & (victim.after.shdr["sh_size"] > 0)).tolist()
    if not tables:
        return None
    table = rng.choice(tables)
    return _row(victim, rng, victim.start(table), int(victim.after.shdr["sh_size"][table]) // 24, t.RELA)


def string(victim: Victim, rng: Random) -> Damage | None:
    tables = np.flatnonzero(
        (victim.after.shdr["sh_type"] == t.SHT_STRTAB) & (victim.after.shdr["sh_size"] > 0)
    ).tolist()
    table = rng.choice(tables)
    pos = victim.start(table) + rng.randrange(int(victim.after.shdr["sh_size"][table]))
    return victim.flip(pos, rng.choice([0x20, 1, 0xFF, victim.read(pos, 1)[0] or 0x41]))


def between(victim: Victim, rng: Random) -> Damage | None:
    """A byte that lies in no section and no header."""
    image = victim.after
    spans = [(0, 64), (int(image.ehdr["e_shoff"]), int(image.ehdr["e_shoff"]) + image.shdr.nbytes),
             (int(image.ehdr["e_phoff"]), int(image.ehdr["e_phoff"]) + image.phdr.nbytes)]  # fmt: skip
    heads = image.shdr[image.has_bytes]
    spans += [(int(head["sh_offset"]), int(head["sh_offset"]) + int(head["sh_size"])) for head in heads]
    gaps, end = [], 0
    for low, high in sorted(spans):
        gaps += [(end, low)] if low > end else []
        end = max(end, high)
    if not gaps:
        return None
    low, high = rng.choice(gaps)
    return victim.flip(rng.randrange(low, high), rng.randrange(1, 256))


def edited(victim: Victim, rng: Random) -> Damage | None:
    """A bit of what the patch itself wrote."""
    edit = rng.choice([edit for edit in victim.journal["edits"] if edit["new"]])
    return victim.flip(int(edit["pos"]) + rng.randrange(len(edit["new"]) // 2), 1 << rng.randrange(8))


def edit_undone(victim: Victim, rng: Random) -> Damage | None:
    """Some of what the patch wrote is as it was before."""
    edits = [edit for edit in victim.journal["edits"] if edit["old"]]
    some = rng.sample(edits, min(len(edits), rng.randint(1, 3)))
    return Damage([(int(edit["pos"]), bytes.fromhex(edit["old"])) for edit in some]) if edits else None


def block_copied(victim: Victim, rng: Random) -> Damage | None:
    size = rng.choice([4, 8, 16, 24, 64])
    to, of = (rng.randrange(len(victim.after.data) - size) & ~3 for _ in range(2))
    return Damage([(to, victim.read(of, size))])


def _branches(victim: Victim) -> list[int]:
    """Positions of what looks like a branch in sites and stubs that the patch wrote."""
    edits = [edit for edit in victim.journal["edits"] if "site" in edit["owner"] or "stub" in edit["owner"]]
    unit = victim.arch.unit
    places = [pos for edit in edits for pos in range(int(edit["pos"]), int(edit["pos"]) + len(edit["new"]) // 2, unit)]
    if unit == 1:
        return [pos for pos in places if victim.read(pos, 1)[0] in (0xE8, 0xE9)]
    return [pos for pos in places if victim.word(pos) >> 26 in (0b000101, 0b100101, 18)]


def branch(victim: Victim, rng: Random) -> Damage | None:
    """The branch of a site, or of code that the patch brings, goes to another function."""
    if not victim.linked:
        return None
    image, names, words = victim.after, [*FATAL, "another"], _branches(victim)
    if not words:
        return None
    pos, name = rng.choice(words), rng.choice(names)
    va = image.symbols.value(name)
    to = int(rng.choice(image.functions.va.tolist())) if va is None else va
    sec = next(sec for sec in np.flatnonzero(image.executable).tolist()
               if victim.start(sec) <= pos < victim.start(sec) + int(image.shdr["sh_size"][sec]))  # fmt: skip
    distance = to - (int(image.base[sec]) + pos - victim.start(sec))
    if victim.arch.unit == 1:
        return Damage([victim.put(pos + 1, distance - 5)])
    word = victim.word(pos)
    new = word & 0xFC00_0003 | distance & 0x03FF_FFFC if victim.arch.name == "ppc64le" else (
        word & 0xFC00_0000 | distance >> 2 & 0x03FF_FFFF)  # fmt: skip
    return Damage([victim.put(pos, new)])


def instruction(victim: Victim, rng: Random) -> Damage | None:
    """A word of code that the patch wrote becomes another instruction."""
    edits = [edit for edit in victim.journal["edits"] if edit["owner"].startswith(("site", "stub", "section"))]
    unit = victim.arch.unit
    words = [pos for edit in edits for pos in range(
             int(edit["pos"]) + unit - 1 & -unit, int(edit["pos"]) + len(edit["new"]) // 2, unit)]  # fmt: skip
    if unit == 1:
        code = [b"\xc3", b"\xcc", b"\x90", b"\xe9", b"\x0f\x0b", bytes.fromhex("0f1f440000"), rng.randbytes(5)]
        return Damage([(rng.choice(words), rng.choice(code))]) if words else None
    other = [0xD503201F, 0x60000000, 0xD65F03C0, 0x4E800020, 0x4E800420, 0, 0xD4200000, 0x7FE00008, rng.getrandbits(32)]
    return Damage([victim.put(rng.choice(words), rng.choice(other))]) if words else None


def record(victim: Victim, rng: Random) -> Damage | None:
    """A slot of the record table: another's value, none, or a little beside."""
    if not len(victim.records):
        return None
    slots = [int(pos) for pos in victim.records.slot.tolist()]
    pos, other = rng.choice(slots), rng.choice(slots)
    old = int.from_bytes(victim.read(pos, 8), "little")
    new = rng.choice([int.from_bytes(victim.read(other, 8), "little"), 0, old + 4, old - 4, (1 << 64) - 4])
    return Damage([victim.put(pos, new, 8)])


def appended(victim: Victim, rng: Random) -> Damage | None:
    """Bytes behind the end: nothing, anything, a copy of something, or what looks like a signature."""
    size = rng.choice([1, 8, 64, 4096])
    blob = bytes([0x30, 0x82]) + (size & 0xFFFF).to_bytes(2, "big") + bytes(rng.getrandbits(8) for _ in range(size))
    tail = bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(blob).to_bytes(4, "big") + MARKER
    made = [bytes(size), rng.randbytes(size), victim.read(0, size), blob + tail, MARKER]
    return Damage(appended=rng.choice(made))


def cut(victim: Victim, rng: Random) -> Damage | None:
    return Damage(cut=rng.choice([1, 4, 8, 64, 200]))


def fake_pkcs7(victim: Victim, rng: Random) -> Damage | None:
    """100 KB that look like a signature to who looks at its frame alone."""
    payload = rng.randbytes(100_000)
    message = b"\x30\x83" + len(payload).to_bytes(3, "big") + payload
    tail = bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(message).to_bytes(4, "big") + MARKER
    return Damage(appended=message + tail)


CHANGES: tuple[Change, ...] = (
    byte, elf_header, identification, section_header, program_header, symbol, relocation, string, between, edited,
    edit_undone, block_copied, branch, instruction, record, appended, cut, fake_pkcs7,
)  # fmt: skip
