"""Small kernels without a symbol table, made here: code with patch sites, records, relocations, and a kallsyms.

    head │ text │ constants, kallsyms │ init text, records, relocations │ data

flat, or as sections of an ELF file.

Each knows where its parts are, so that damage can be led to them, and an answer be judged by what was damaged.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # those who write such files for the tests are there

from container_files import boot_image, bzimage, uimage, zboot
from elfwriter import ALLOC, EXEC, WRITE, Elf, rela
from kallsymswriter import BANNER, FORMS, Form, Symbol, tables

from tools.damage_images.machines import MACHINES, Machine

__all__ = ["KERNEL_TABLES", "Sound", "all_small", "boot_image", "bzimage", "flat", "stripped", "uimage", "zboot"]
HEAD, FUNCTION, N_INIT = 0x200, 32, 6
KERNEL_TABLES = ("token_table", "token_index", "names", "markers", "num_syms", "offsets", "relative_base",
                 "seqs_of_names")  # fmt: skip
VERBS, NOUNS = ("get", "put", "read", "write", "free", "init"), ("page", "inode", "sk_buff", "irq", "node2", "dev7")


@dataclass(frozen=True)
class Sound:
    """A kernel that nothing is wrong with."""

    name: str
    data: bytes
    parts: dict[str, tuple[int, int]]  # file positions [start, end), by name
    relocated: tuple[int, ...] = ()  # positions of the words that a boot loader moves, as far as they hold addresses
    flat: bool = True
    link: int = 0  # address of a flat kernel's first byte
    rela: bool = False  # its relocations have addends

    def part_of(self, pos: int) -> str:
        """The innermost part that has a position."""
        holding = [(end - start, name) for name, (start, end) in self.parts.items() if start <= pos < end]
        return min(holding, default=(0, "other"))[1]


@dataclass
class _Maker:
    """A kernel on its way; positions are distances from its first byte."""

    machine: Machine
    form: Form
    relocations: str  # rela, relr, none
    with_data: bool  # kallsyms has symbols of data
    n: int
    octets: bytearray = field(default_factory=bytearray)
    symbols: list[Symbol] = field(default_factory=list)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    addresses: dict[int, int] = field(default_factory=dict)  # words with addresses, by position
    starts: list[int] = field(default_factory=list)  # of functions
    records: list[int] = field(default_factory=list)

    def here(self, align: int = 1) -> int:
        self.octets += bytes(-len(self.octets) % align)
        return len(self.octets)

    def name(self, name: str, letter: str = "T", back: int = 0) -> None:
        if self.with_data or letter in "tTW" or name == "_etext":
            self.symbols.append((letter, name, self.machine.link + len(self.octets) - back))

    def pointers(self, places: Iterable[int]) -> None:
        for place in places:
            self.addresses[len(self.octets)] = self.machine.link + place
            self.octets += bytes(8)

    def function(self, name: str, letter: str, traced: bool) -> int:
        start = self.here()
        self.name(name, letter)
        self.octets += self.machine.global_entry
        if traced:
            self.records.append(self.here())
        self.octets += self.machine.site if traced else self.machine.plain
        size = FUNCTION + 16 * (len(self.starts) * 7919 % 4)  # no distance has many functions
        rest = size - (len(self.octets) - start) - len(self.machine.ret)
        self.octets += self.machine.filling * (rest // len(self.machine.filling)) + self.machine.ret
        self.starts.append(start)
        return start

    def fill(self, kallsyms_size: int, relocations_size: int, symbols: list[Symbol]) -> None:
        """All of it. symbols: of the whole kernel, from the pass before, as are the sizes."""
        self._text()
        self._constants(kallsyms_size, symbols)
        self._init()
        self._relocations(relocations_size)
        self._data()

    def _text(self) -> None:
        if self.form.kind == "percpu":
            self.symbols += [("A", f"cpu_{row}", 8 * row) for row in range(3)]
        self.name("_text")
        self.octets += bytes(range(1, 129)) * (HEAD // 128)
        self.name("_stext")
        for special in ("ftrace_stub", "ftrace_caller", "_mcount"):
            self.function(special, "T", traced=False)
        for row in range(self.n):
            name = f"__{NOUNS[row % 6]}_{VERBS[row // 6 % 6]}_{row:x}"
            start = self.function(name if row % 7 else f"{name}.isra.0", "tT"[row % 2], traced=row % 9 > 0)
            if row % 50 == 3:
                self.symbols.append(("W", f"alias_{row}", self.machine.link + start))
        self.parts["code"] = (0, self.here())
        self.name("_etext", "D")

    def _constants(self, size: int, symbols: list[Symbol]) -> None:
        self.here(64)
        self.name("__start_rodata", "D")
        self.name("linux_banner", "D")
        self.parts["banner"] = (self.here(), self.here() + len(BANNER))
        self.octets += BANNER
        self.name("strings", "r")
        strings = []
        for row in range(160):
            strings.append(self.here())
            self.octets += f"a message of part {row}\n".encode() + b"\0"
        self.here(64)
        self.name("pointers", "r")
        start = self.here()
        self.pointers(strings)
        self.pointers(self.starts[3::2])
        self.parts["pointers"] = (start, self.here())
        self._kallsyms(size, symbols)
        self.name("__end_rodata", "D")

    def _kallsyms(self, size: int, symbols: list[Symbol]) -> None:
        start, zero = self.here(64), self.relocations == "rela"
        octets = bytes(size)
        if symbols:
            written = tables(symbols, self.form, self.machine.link + start, base=0 if zero else None)
            octets, at = written.octets, sorted(written.at.items(), key=lambda table: table[1])
            ends = [pos for _, pos in at[1:]] + [len(octets)]
            self.parts |= {table: (start + pos, start + end) for (table, pos), end in zip(at, ends, strict=True)}
            lowest = min(va for _, _, va in symbols if va >> 63)
            if self.form.kind in ("base", "percpu"):
                self.addresses[start + written.at["relative_base"]] = lowest
            if self.form.kind == "absolute":
                pos = start + written.at["offsets"]
                self.addresses |= {pos + 8 * row: va for row, (_, _, va) in enumerate(symbols)}
        self.octets += octets
        self.parts["kallsyms"] = (start, self.here())
        self.here(64)

    def _init(self) -> None:
        self.here(256)
        self.name("__init_begin", "D")
        self.name("_sinittext")
        start = self.here()
        for row in range(N_INIT):
            self.function(f"setup_{NOUNS[row % 6]}", "t", traced=True)
        self.parts["init code"] = (start, self.here())
        self.name("_einittext")
        self.here(64)
        self.name("__start_mcount_loc", "D")
        start = self.here()
        self.pointers(self.records)
        self.parts["records"] = (start, self.here())
        self.name("__stop_mcount_loc", "D")
        self.octets += b"parameters\0"

    def _data(self) -> None:
        self.name("__init_end", "D")
        self.here(256)
        self.name("_sdata", "D")
        self.name("ops", "d")
        start = self.here()
        self.pointers(self.starts[3::5])
        self.parts["data"] = (start, self.here())
        self.octets += b"\1" * 64
        self.here(256)
        self.name("_edata", "D")
        self.name("__bss_start", "B")
        self.name("_end", "B", back=-4096)

    def _relocations(self, size: int) -> None:
        """Room for the tables of relocations, whose size is known from the pass before."""
        self.here(64)
        name = self.relocations
        if name != "none":
            self.name(f"__{name}_start", "d")
            start = self.here()
            self.octets += bytes(size)
            self.parts["relocations"] = (start, self.here())
            self.name(f"__{name}_end", "d")
            self.octets += b"\0more"

    def relocate(self) -> bytes:
        """Write what relocations are about; their tables."""
        rows = sorted(self.addresses.items())
        link, made = self.machine.link, b""
        if self.relocations == "rela":
            made = b"".join(rela(link + pos, self.machine.relative, value) for pos, value in rows)
        else:
            for pos, value in rows:
                self.octets[pos : pos + 8] = value.to_bytes(8, "little")
        if self.relocations == "relr":
            made = _packed([link + pos for pos, _ in rows])
        if "relocations" in self.parts:
            start, end = self.parts["relocations"]
            self.octets[start:end] = made[: end - start]
        return made


def _packed(places: list[int]) -> bytes:
    """A table of RELR: an address, then a map of the words behind it, of eight of them here: a table of a few words
    is none that a program could tell from anything else."""
    words: list[int] = []
    rest = sorted(places)
    while rest:
        first = rest.pop(0)
        bits = 1
        while rest and rest[0] <= first + 8 * 8:
            bits |= 1 << (rest.pop(0) - first) // 8
        words += [first, bits]
    return struct.pack(f"<{len(words)}Q", *words)


@cache
def flat(form: str, relocations: str, with_data: bool = True, n: int = 300) -> Sound:
    """A flat arm64 kernel. form: a key of `kallsymswriter.FORMS`; relocations: rela, relr, none."""
    made = _made("arm64", form, relocations, with_data, n)
    head = struct.pack("<IIQQQ24x4sI", 0x91005A4D, 0x14000010, 0, len(made.octets) + 0x1000, 10, b"ARM\x64", 0)
    made.octets[: len(head)] = head
    parts = made.parts | {"header": (0, len(head))}
    name = f"arm64 {form} {relocations}{'' if with_data else ' code alone'}"
    return Sound(name, bytes(made.octets), parts, tuple(made.addresses), link=made.machine.link,
                 rela=relocations == "rela")  # fmt: skip


@cache
def stripped(machine: str, form: str, relocations: str = "none", with_data: bool = True, n: int = 300) -> Sound:
    """A stripped ELF file."""
    made = _made(machine, form, relocations, with_data, n)
    link, parts = made.machine.link, made.parts
    cuts = [0, *(pos & -64 for pos in (parts["banner"][0], parts["init code"][0], parts["records"][0])),
            parts["data"][0] & -64, len(made.octets)]  # fmt: skip
    heads = ((".text", ALLOC | EXEC), (".rodata", ALLOC), (".init.text", ALLOC | EXEC), (".init.data", ALLOC | WRITE),
             (".data", ALLOC | WRITE))  # fmt: skip
    elf = Elf(3 if relocations != "none" else 2, made.machine.e_machine)
    table = parts.get("relocations", (len(made.octets),) * 2)
    for (name, flags), start, end in zip(heads, cuts, cuts[1:], strict=False):
        held = end if table[0] < start or table[0] >= end else table[0]
        elf.section(name, bytes(made.octets[start:held]), flags=flags, addr=link + start, align=64)
        if held < end:
            rows = bytes(made.octets[slice(*table)])
            elf.section(".rela.dyn", rows, type=4, flags=ALLOC, addr=link + table[0], align=64, entsize=24)
    data = elf.build()
    shift = data.index(bytes(made.octets[: cuts[1]]))
    last = data.index(bytes(made.octets[slice(*parts["data"])])) - parts["data"][0]  # sections may have gaps in between
    moved = {
        name: (start + by, end + by)
        for name, (start, end) in parts.items()
        for by in [last if name == "data" else shift]
    }
    shoff = int.from_bytes(data[40:48], "little")
    moved |= {"header": (0, 64), "sections": (shoff, len(data))}
    label = f"{machine} {form} {relocations}{'' if with_data else ' code alone'}"
    return Sound(label, data, moved, tuple(pos + shift for pos in made.addresses), flat=False)


def _made(machine: str, form: str, relocations: str, with_data: bool, n: int) -> _Maker:
    """Passes: names and pointers, the sizes of their tables, and all of it at its place."""
    made = _Maker(MACHINES[machine], FORMS[form], relocations, with_data, n)
    made.fill(0, 0, [])
    for _ in range(4):
        before = made
        start, end = before.parts["kallsyms"]
        size = len(before.relocate())
        made = _Maker(before.machine, before.form, relocations, with_data, n)
        made.fill(end - start, size, before.symbols)
    assert len(made.relocate()) == size and made.symbols == before.symbols
    return made


def all_small() -> tuple[Sound, ...]:
    """Kernels of every form of kallsyms and every kind of relocation."""
    forms = ("4.4", "4.20", "6.1", "6.2", "6.4", "7.0")
    made = [flat(form, relocations) for form in forms for relocations in ("rela", "relr", "none")]
    made += [flat(form, "relr", with_data=False) for form in ("6.1", "6.4", "7.0")]
    made += [flat(form, "rela", with_data=False) for form in ("4.20", "6.1")]
    made += [stripped("x86_64", form) for form in ("4.6-x86", "6.2-x86", "6.4-x86", "7.0")]
    made += [stripped("x86_64", "6.4", with_data=False)]
    made += [stripped("ppc64le", form, "rela") for form in ("4.20", "6.1", "6.4", "7.0")]
    return tuple(made)
