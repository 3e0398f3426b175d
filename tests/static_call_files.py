"""A kernel and an object with static calls, of a few bytes each; tests change one thing in them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from elfwriter import ALLOC, ET_EXEC, ET_REL, EXEC, FUNC, OBJECT, RELA, SECTION, WRITE, Elf

X86_64, PC32, PLT32, ABS64 = 62, 2, 4, 1
TEXT, RODATA, INIT, DATA = 0xFFFFFFFF81000000, 0xFFFFFFFF81100000, 0xFFFFFFFF81200000, 0xFFFFFFFF81300000
KEYS = {"a": DATA, "b": DATA + 16, "n": DATA + 32, "r": DATA + 48}
TRAMPOLINES = {name: TEXT + 0x80 + 8 * number for number, name in enumerate(KEYS)}
FUNCTIONS = {"user": TEXT + 0x10, "last": TEXT + 0x20, "never": TEXT + 0x30, "f": TEXT + 0x40, "g": TEXT + 0x50,
             "__x86_return_thunk": TEXT + 0x60, "__static_call_return0": TEXT + 0x70, "start": INIT}  # fmt: skip
POINTERS = {"a": FUNCTIONS["f"], "b": FUNCTIONS["g"], "n": 0, "r": FUNCTIONS["__static_call_return0"]}
SIGNATURE = bytes.fromhex("0fb9cc")
ENTRIES = ((TEXT + 0x11, "a", 0), (TEXT + 0x20, "b", 1), (TEXT + 0x30, "n", 1), (INIT + 4, "a", 0))
NOP5, XOR, RET = (bytes.fromhex(code) for code in ("0f1f440000", "2e2e2e31c0", "c3cccccccc"))


def branch(opcode: str, at: int, to: int) -> bytes:
    """A call or jump of 32 bits."""
    code = bytes.fromhex(opcode)
    return code + struct.pack("<i", to - at - len(code) - 4)


def kernel(
    code: Mapping[int, bytes] = {}, entries: Sequence[tuple[int, Any, int]] = ENTRIES,
    pointers: Mapping[str, int] = {}, without: Sequence[str] = (), pairs: Sequence[tuple[str, str]] = (("a", "a"),),
    symbols: Mapping[str, int] = {}, read_only: bool = False,
) -> bytes:  # fmt: skip
    """A kernel with four keys; each argument is what is otherwise in it."""
    text, init = bytearray(b"\xcc" * 0x100), bytearray(b"\xcc" * 0x10)
    leads = {**POINTERS, "n": FUNCTIONS["__x86_return_thunk"]}
    stock = {TEXT + 0x11: branch("e8", TEXT + 0x11, TRAMPOLINES["a"]),
             INIT + 4: branch("e8", INIT + 4, TRAMPOLINES["a"]),
             TEXT + 0x20: branch("e9", TEXT + 0x20, TRAMPOLINES["b"]),
             TEXT + 0x30: branch("0f84", TEXT + 0x30, TRAMPOLINES["n"]),
             **{va: branch("e9", va, leads[name]) + SIGNATURE for name, va in TRAMPOLINES.items()}}  # fmt: skip
    for va, new in [*stock.items(), *code.items()]:
        part, low = (init, INIT) if va >= INIT else (text, TEXT)
        part[va - low : va - low + len(new)] = new
    table = b""
    for site, key, flags in entries:
        here = RODATA + len(table)
        table += struct.pack("<ii", site - here, KEYS.get(key, key) + flags - here - 4)
    stop = RODATA + len(table)
    for trampoline, key in pairs:
        here = RODATA + len(table)
        table += struct.pack("<ii", TRAMPOLINES.get(trampoline, TEXT) - here, KEYS[key] - here - 4)
    data = b"".join(struct.pack("<QQ", {**POINTERS, **pointers}[name], 1) for name in KEYS)
    elf = Elf(ET_EXEC, X86_64)
    secs = {TEXT: elf.section(".text", bytes(text), addr=TEXT, flags=ALLOC | EXEC, align=16),
            RODATA: elf.section(".rodata", table, addr=RODATA, flags=ALLOC, align=8),
            INIT: elf.section(".init.text", bytes(init), addr=INIT, flags=ALLOC | EXEC, align=16),
            DATA: elf.section(".data", data, addr=DATA, flags=ALLOC if read_only else ALLOC | WRITE, align=16)
            }  # fmt: skip
    named = {f"__SCT__{name}": va for name, va in TRAMPOLINES.items()} | FUNCTIONS
    for name, va in named.items():
        if name not in without:
            elf.symbol(name, secs[INIT if va >= INIT else TEXT], va, 8)
    marks = {"linux_banner": RODATA, "start_kernel": INIT, "init_task": DATA, "__start_static_call_sites": RODATA,
             "__stop_static_call_sites": stop, "__start_static_call_tramp_key": stop,
             "__stop_static_call_tramp_key": RODATA + len(table), "_stext": TEXT, "_etext": TEXT + 0x100,
             "_sinittext": INIT, "_einittext": INIT + 0x10, "__init_begin": INIT, "__init_end": INIT + 0x1000,
             **{f"__SCK__{name}": va for name, va in KEYS.items()}, **symbols}  # fmt: skip
    for name, va in marks.items():
        if name not in without:
            elf.symbol(name, secs[va & ~0xFFFFF], va, 16 if "SCK" in name else 0, OBJECT)
    return elf.build()


SITES = ((1, "__SCK__away", 0), (0x11, "__SCT__closed", 0), (0x21, "__SCK__own", 1))


def made(
    sites: Sequence[tuple[int | None, str | None, int]] = SITES, code: Mapping[int, bytes] = {},
    calls: Mapping[int, str] = {}, section: str = ".text", flags: int = ALLOC | EXEC, pointer: str = "f", cut: int = 0,
) -> bytes:  # fmt: skip
    """An object with a key of its own, one of another file and one that only its trampoline names.

    sites: place of the instruction, what the key's field names, and its addend.
    """
    text = bytearray(b"\xcc" * 0x40)
    for at, opcode in ((1, b"\xe8"), (0x11, b"\xe8"), (0x21, b"\xe9"), *code.items()):
        text[at : at + max(len(opcode), 5)] = opcode.ljust(5, b"\0")
    elf = Elf(ET_REL, X86_64)
    names = {"f": (1, 0x30), "g": (1, 0x38), "__SCT__own": (2, 0), "__SCK__own": (3, 0), "__SCT__away": (0, 0),
             "__SCK__away": (0, 0), "__SCT__closed": (0, 0), "__static_call_return0": (0, 0)}  # fmt: skip
    elf.section(section, bytes(text), flags=flags, align=16)
    elf.section(".static_call.text", b"\xe9\0\0\0\0" + SIGNATURE, flags=ALLOC | EXEC, align=4)
    elf.section(".data", bytes(16), flags=ALLOC | WRITE, align=16)
    elf.section(".static_call_sites", bytes(8 * len(sites) - cut), flags=ALLOC | WRITE, align=4)
    rows = {name: elf.symbol(name, sec, value, 8, FUNC if sec != 3 else OBJECT) for name, (sec, value) in names.items()}
    start = elf.symbol(".text", 1, 0, 0, SECTION)
    entries = []
    for number, (site, key, addend) in enumerate(sites):
        entries += [(8 * number, PC32, start, site)] if site is not None else []
        entries += [(8 * number + 4, PC32, rows[key], addend)] if key else []
    called = {1: "__SCT__away", 0x11: "__SCT__closed", 0x21: "__SCT__own", **calls}
    tables = {1: [(at + 1, PLT32, rows[name], -4) for at, name in called.items() if name],
              2: [(1, PLT32, rows["f"], -4)], 3: [(0, ABS64, rows[pointer], 0)] if pointer else [],
              4: entries}  # fmt: skip
    symtab = len(elf.sections) + len(tables)
    for sec, relocations in tables.items():
        data = b"".join(struct.pack("<QQq", at, row << 32 | kind, addend) for at, kind, row, addend in relocations)
        elf.section(f".rela{elf.sections[sec].name}", data, type=RELA, link=symtab, info=sec, align=8, entsize=24)
    return elf.build()
