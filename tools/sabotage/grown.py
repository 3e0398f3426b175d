"""Random changes of a patched module that grow, add or take away whole parts, and leave a file without a seam."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.kernel.modinfo import VERSION
from tools.sabotage.layout import Layout
from tools.sabotage.victim import Victim

Change = Callable[[Layout, Victim, Random], bool]  # whether it changed anything
TEXT, INIT_TEXT, DATA = ".text.ftpatch", ".init.text.ftpatch", ".data.ftpatch"
CODE = {"sh_type": t.SHT_PROGBITS, "sh_flags": t.SHF_ALLOC | t.SHF_EXECINSTR, "sh_addralign": 16}
WRITABLE = {"sh_type": t.SHT_PROGBITS, "sh_flags": t.SHF_ALLOC | t.SHF_WRITE, "sh_addralign": 8}
RET = {"arm64": 0xD65F03C0, "ppc64le": 0x4E800020, "x86_64": 0xCCCCCCC3}
NAMES = (
    "panic",
    "do_exit",
    "printk",
    "ftpatch_call",
    "ftpatch_stubs",
    "ftpatch_ops",
    "init_module",
    "x",
    "ftpatch_home_2",
)


def _named(layout: Layout, victim: Victim, name: str) -> int:
    """The last section of a name; −1 where there is none."""
    return max((sec for sec in victim.after.sections_named(name) if sec < len(layout.shdr)), default=-1)


def _new(layout: Layout, victim: Victim) -> list[int]:
    """The sections that the patch added."""
    return list(range(len(victim.before.shdr), len(layout.shdr)))


def _added(victim: Victim) -> list[int]:
    """Rows of the symbols that the patch added."""
    return list(range(len(victim.before.symbols.rows), len(victim.after.symbols.rows)))


def _payload(victim: Victim, rng: Random) -> bytes:
    words = [bytes(4), RET[victim.arch.name].to_bytes(4, "little"), rng.randbytes(4)]
    return b"".join(rng.choice(words) for _ in range(rng.choice([1, 2, 16])))


def _tables(layout: Layout) -> list[int]:
    return [sec for sec, head in enumerate(layout.shdr) if head["sh_type"] == t.SHT_RELA]


def new_section_field(layout: Layout, victim: Victim, rng: Random) -> bool:
    if not _new(layout, victim):
        return False
    row = layout.shdr[rng.choice(_new(layout, victim))]
    field = rng.choice(
        ["sh_flags", "sh_type", "sh_addr", "sh_link", "sh_info", "sh_addralign", "sh_entsize", "sh_name"]
    )
    old = int(row[field])
    choices = {"sh_flags": [old | 1, old | 4, old ^ 2, old | 0x10, old | 0x400], "sh_type": [8, 7, 1, 0, 14],
               "sh_addralign": [0, 1, 2, 4, 32, 4096]}  # fmt: skip
    new = rng.choice([value for value in choices.get(field, [1, 8, 24, old + 1, old ^ 0x100]) if value != old])
    row[field] = new
    return True


def old_section_field(layout: Layout, victim: Victim, rng: Random) -> bool:
    row = layout.shdr[rng.randrange(1, len(victim.before.shdr))]
    field = rng.choice(["sh_flags", "sh_type", "sh_addr", "sh_link", "sh_info", "sh_addralign", "sh_entsize"])
    row[field] = int(row[field]) ^ rng.choice([1, 4, 8])
    return True


def section_twice(layout: Layout, victim: Victim, rng: Random) -> bool:
    """Another section of a name that a patch gives, with code or data that nobody planned, with or without a symbol."""
    name = rng.choice([TEXT, INIT_TEXT, DATA, TEXT + ".ops", ".data", ".init.text", ".rodata.ftpatch"])
    same = [sec for sec in _new(layout, victim) if victim.after.names[sec] == name]
    content = bytes(layout.content[same[0]]) if same and rng.random() < 0.5 else _payload(victim, rng)
    sec = layout.section(name, WRITABLE if "data" in name else CODE, content)
    if rng.random() < 0.6:
        size = rng.choice([0, len(content)])
        layout.symbol(rng.choice(NAMES), sec, 0, size, 0x11 if "data" in name else 0x12)
    return True


def section_grown(layout: Layout, victim: Victim, rng: Random) -> bool:
    """More bytes at the end of a section, which its last symbol may claim."""
    new = [sec for sec in _new(layout, victim) if layout.shdr[sec]["sh_type"] == t.SHT_PROGBITS]
    if not new:
        return False
    sec, more = rng.choice(new), rng.choice([bytes(8), bytes(64), _payload(victim, rng)])
    layout.content[sec] += more
    rows = [row for row in _added(victim) if victim.after.symbols.shndx[row] == sec]
    if rows and rng.random() < 0.6:
        _put_symbol(layout, rng.choice(rows), "st_size", lambda size: size + len(more))
    return True


def _put_symbol(layout: Layout, row: int, field: str, change: Callable[[int], int]) -> None:
    table = layout.grow(layout.symtab)
    rows = np.frombuffer(bytes(table), t.SYM).copy()
    bits = 8 * rows.dtype[field].itemsize
    rows[field][row] = change(int(rows[field][row])) & (1 << bits) - 1
    table[:] = rows.tobytes()


def new_symbol_field(layout: Layout, victim: Victim, rng: Random) -> bool:
    if not _added(victim):
        return False
    row, field = rng.choice(_added(victim)), rng.choice(["st_size", "st_info", "st_other", "st_shndx", "st_value"])
    delta = rng.choice([1, 2, 4, 8, 12, 16, 0x10, 0x40])
    _put_symbol(layout, row, field, rng.choice([lambda old: old + delta, lambda old: old ^ delta]))
    return True


def symbol_added(layout: Layout, victim: Victim, rng: Random) -> bool:
    secs = [0, 0xFFF1, 0xFFF2, rng.randrange(1, len(layout.shdr)), *_new(layout, victim)]
    layout.symbol(rng.choice(NAMES), rng.choice(secs), rng.choice([0, 0, 8]), rng.choice([0, 4]),
                  rng.choice([0x10, 0x12, 0x11, 0x20, 0x00]))  # fmt: skip
    return True


def symbol_renamed(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A new symbol gets another name: in a string of its own, or in a part of another string."""
    if not _added(victim):
        return False
    row = rng.choice(_added(victim))
    name = rng.choice([*NAMES, victim.after.symbols.name(row)])
    at = layout.string(layout.strtab, name) if rng.random() < 0.7 else rng.randrange(len(layout.grow(layout.strtab)))
    _put_symbol(layout, row, "st_name", lambda old: at if at != old else at + 1)
    return True


def shndx_added(layout: Layout, victim: Victim, rng: Random) -> bool:
    n = len(layout.grow(layout.symtab)) // t.SYM.itemsize
    content = bytes(4 * n) if rng.random() < 0.5 else rng.randbytes(4 * n)
    layout.section(".symtab_shndx", {"sh_type": 18, "sh_link": layout.symtab, "sh_addralign": 4, "sh_entsize": 4},
                   content + rng.choice([b"", bytes(4), rng.randbytes(64)]))  # fmt: skip
    return True


def strings_grown(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A payload in a table of strings."""
    table = layout.grow(rng.choice([layout.strtab, layout.shstrtab]))
    text = rng.choice([rng.randbytes(64), b"payload\0", b"\0", bytes(100)])
    at = rng.choice([len(table), len(table), rng.randrange(len(table))])
    if at == len(table):
        table += text
    else:
        table[at : at + 1] = b"Z" if table[at] != ord("Z") else b"Y"
    return True


def relocation_added(layout: Layout, victim: Victim, rng: Random) -> bool:
    table = rng.choice(_tables(layout))
    row = np.zeros((), t.RELA)
    size = int(layout.shdr[int(layout.shdr[table]["sh_info"])]["sh_size"])
    row["r_offset"] = rng.randrange(max(size, 4)) & ~3
    n = len(layout.grow(layout.symtab)) // t.SYM.itemsize
    kinds = {"arm64": [257, 283, 282, 0], "ppc64le": [38, 10, 44, 0], "x86_64": [1, 2, 4, 0]}[victim.arch.name]
    row["r_info"] = rng.randrange(n) << 32 | rng.choice(kinds)
    row["r_addend"] = rng.choice([0, 4, -4, 1 << 40])
    content = layout.grow(table)
    if rng.random() < 0.3 and len(content):
        row = np.frombuffer(bytes(content), t.RELA)[rng.randrange(len(content) // 24)]
    content += row.tobytes()
    return True


def relocation_of_ours(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A relocation that the patch made names something else, in another way, or is gone."""
    n = len(victim.before.symbols.rows)
    places = []
    for table in _tables(layout):
        rows = np.frombuffer(bytes(layout.content.get(table, b"")), t.RELA)
        own = int(layout.shdr[table]["sh_info"]) >= len(victim.before.shdr)
        places += [(table, row) for row in range(len(rows)) if own or int(rows["r_info"][row]) >> 32 >= n]
    if not places:
        return False
    table, row = rng.choice(places)
    rows = np.frombuffer(bytes(layout.content[table]), t.RELA).copy()
    match rng.randrange(6):
        case 0:
            rows["r_addend"][row] += rng.choice([-8, -4, 4, 8, 1 << 33])
        case 1:
            rows["r_info"][row] = int(rows["r_info"][row]) + rng.choice([1, 2, -1]) & (1 << 64) - 1
        case 2:
            rows["r_offset"][row] += np.uint64(rng.choice([4, 8, 1]))
        case 3:
            rows = np.delete(rows, row)
        case 4:
            symbols = len(layout.grow(layout.symtab)) // t.SYM.itemsize
            rows["r_info"][row] = rng.randrange(symbols) << 32 | int(rows["r_info"][row]) & 0xFFFF_FFFF
        case _:
            rows = np.concatenate([rows, rows[row : row + 1]])
    layout.content[table][:] = rows.tobytes()
    return True


def call_elsewhere(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A call in code of the patch goes to another function: of the kernel, of the module, or of its init text."""
    symbols = victim.after.symbols
    modules = victim.arch.modules
    assert modules is not None
    places = [(table, row) for table in _tables(layout) if int(layout.shdr[table]["sh_info"]) in _new(layout, victim)
              for row, info in enumerate(np.frombuffer(bytes(layout.content[table]), t.RELA)["r_info"].tolist())
              if info & 0xFFFF_FFFF == modules.branch]  # fmt: skip
    if not places:
        return False
    table, at = rng.choice(places)
    functions = np.flatnonzero((symbols.type == t.STT_FUNC) | ((symbols.shndx == 0) & (symbols.rows["st_name"] > 0)))
    row = int(rng.choice(functions.tolist()))
    if rng.random() < 0.4:
        name = rng.choice(["panic", "do_exit", "kthread_exit", "make_task_dead", "vprintk"])
        row = layout.symbol(name, 0)
        sec = _named(layout, victim, "__versions")
        if sec >= 0:
            layout.grow(sec).extend(np.array([(rng.getrandbits(32), name.encode())], VERSION).tobytes())
    rows = np.frombuffer(bytes(layout.content[table]), t.RELA).copy()
    rows["r_info"][at] = row << 32 | modules.branch
    layout.content[table][:] = rows.tobytes()
    return True


def modinfo(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A string more, less, in another place, or another name in depends=."""
    sec = _named(layout, victim, ".modinfo")
    if sec < 0:
        return False
    strings = [text for text in bytes(layout.grow(sec)).split(b"\0") if text]
    at = next((i for i, text in enumerate(strings) if text.startswith(b"depends=")), None)
    match rng.randrange(6):
        case 0:
            strings.append(
                rng.choice([b"intree=Y", b"alias=pci:*", b"import_ns=CRYPTO_INTERNAL", b"softdep=pre: evil"])
            )
        case 1:
            strings.pop(rng.randrange(len(strings)))
        case 2:
            rng.shuffle(strings)
        case 3 if at is not None:
            names = strings[at][8:].split(b",") if len(strings[at]) > 8 else []
            rng.choice([lambda: names.append(b"evil"), lambda: names.insert(0, b"evil"),
                        lambda: names.append(names[0] if names else b""), names.clear])()  # fmt: skip
            strings[at] = b"depends=" + b",".join(names)
        case 4:
            strings.append(b"depends=evil")
        case _:
            strings.append(b"depends=")
    new = b"".join(text + b"\0" for text in strings) + bytes(rng.choice([0, 0, 1, 9]))
    layout.grow(sec)[:] = new
    return True


def versions(layout: Layout, victim: Victim, rng: Random) -> bool:
    sec = _named(layout, victim, "__versions")
    if sec < 0:
        return False
    rows = np.frombuffer(bytes(layout.grow(sec)), VERSION).copy()
    match rng.randrange(4) if len(rows) else 3:
        case 0:
            rows["crc"][rng.choice([0, len(rows) - 1])] ^= np.uint64(1 << rng.randrange(64))
        case 1:
            rows = np.delete(rows, rng.randrange(len(rows)))
        case 2:
            rows = np.concatenate([rows, rows[-1:]])
        case _:
            name = rng.choice([b"panic", b"evil"])
            rows = np.concatenate([rows, np.array([(rng.getrandbits(32), name)], VERSION)])
    content = rows.tobytes()
    if rng.random() < 0.2 and len(rows):  # behind the NUL of a name
        content = content[:-1] + b"x"
    layout.grow(sec)[:] = content
    return True


def padding(layout: Layout, victim: Victim, rng: Random) -> bool:
    if not layout.content:
        return False
    sec = rng.choice(sorted(layout.content))
    layout.between[sec] = rng.choice([bytes(1), bytes(4096), rng.randbytes(5), rng.randbytes(4096)])
    return True


def other_order(layout: Layout, victim: Victim, rng: Random) -> bool:
    """The sections lie in another order."""
    order = sorted(layout.content)
    rng.shuffle(order)
    layout.order = order
    return order != sorted(layout.content)


def behind_headers(layout: Layout, victim: Victim, rng: Random) -> bool:
    layout.behind = rng.choice([bytes(8), bytes(64), rng.randbytes(64), np.array(layout.shdr, t.SHDR).tobytes()])
    return True


def fake_tail(layout: Layout, victim: Victim, rng: Random) -> bool:
    """Section headers of an earlier patch that never was, which name a payload."""
    heads = victim.before.shdr.copy()
    payload = rng.randbytes(rng.choice([64, 4096]))
    pos = layout.start + (-layout.start % 16)
    if rng.random() < 0.5:
        grown = [sec for sec in range(len(heads)) if heads["sh_type"][sec] in (t.SHT_SYMTAB, t.SHT_STRTAB, t.SHT_RELA)]
        sec = rng.choice(grown)
        content = victim.before.content(sec).tobytes() if rng.random() < 0.5 else b""
        payload = content + payload[: len(payload) // 24 * 24]
        heads["sh_offset"][sec], heads["sh_size"][sec] = pos, len(payload)
    else:
        row = np.zeros(1, t.SHDR)
        for key, value in {**CODE, "sh_offset": pos, "sh_size": len(payload)}.items():
            row[key] = value
        heads = np.concatenate([heads, row])
    tail = bytes(pos - layout.start) + payload
    tail += bytes(-(layout.start + len(tail)) % 8) + heads.tobytes()
    first = min(layout.content, default=None)
    if first is None:
        return False
    layout.between[first] = tail
    return True


def section_taken(layout: Layout, victim: Victim, rng: Random) -> bool:
    """The last section is gone, or one that is not there is counted."""
    new = _new(layout, victim)
    if new and rng.random() < 0.7:
        layout.shdr.pop()
        layout.content.pop(new[-1], None)
    else:
        layout.shdr.append(np.zeros((), t.SHDR))
    return True


def sections_swapped(layout: Layout, victim: Victim, rng: Random) -> bool:
    new = _new(layout, victim)
    if len(new) < 2:
        return False
    one, two = rng.sample(new, 2)
    layout.shdr[one], layout.shdr[two] = layout.shdr[two], layout.shdr[one]
    layout.content[one], layout.content[two] = layout.content[two], layout.content[one]
    return True


def old_section_grown(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A section of the module becomes longer: its records, or anything else."""
    sec = rng.randrange(1, len(victim.before.shdr))
    if not victim.before.has_bytes[sec]:
        return False
    layout.grow(sec).extend(bytes(rng.choice([8, 16, 24])))
    return True


def code_word(layout: Layout, victim: Victim, rng: Random) -> bool:
    """A word of the patch's own code."""
    new = [sec for sec in _new(layout, victim) if victim.after.executable[sec] and len(layout.content[sec]) >= 4]
    if not new:
        return False
    content = layout.content[rng.choice(new)]
    at = rng.randrange(len(content) // 4) * 4
    word = int.from_bytes(content[at : at + 4], "little")
    other = [0xD503201F, 0x60000000, RET[victim.arch.name], 0, word ^ 1 << rng.randrange(32), rng.getrandbits(32)]
    content[at : at + 4] = rng.choice([value for value in other if value != word]).to_bytes(4, "little")
    return True


CHANGES: tuple[Change, ...] = (
    new_section_field, old_section_field, section_twice, section_grown, new_symbol_field, symbol_added, symbol_renamed,
    shndx_added, strings_grown, relocation_added, relocation_of_ours, call_elsewhere, modinfo, versions, padding,
    other_order, behind_headers, fake_tail, section_taken, sections_swapped, old_section_grown, code_word,
)  # fmt: skip
