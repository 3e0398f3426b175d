"""ppc64le: every fixture's sites against an oracle of pyelftools and capstone, and every byte that enabling writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import capstone
import numpy as np
import pytest
from elfwriter import MINI as ARM64
from elfwriter import parsed, written

from ftpatch import api
from ftpatch.arch.parts import Entry
from ftpatch.arch.ppc64le import far_stub, read_entry, site_stub, skips_zero
from ftpatch.arch.ppc64le_walk import BL, B, runs_before
from ftpatch.arrays import U32
from ftpatch.cli import run
from ftpatch.document.rows import site_rows
from ftpatch.document.summary import summary
from ftpatch.errors import PolicyError, ReachError
from ftpatch.journal.write import plan_object
from ftpatch.plan import routes
from ftpatch.plan.decide import make_plan
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.plan.stub_room import SharedStub
from ftpatch.plan.targets import Target
from ftpatch.sites.select import select

MINI = ARM64.parent / "mini-ppc64le"
BASE = 0xC000_0000_0000_0000
NOP, MFLR_R0, MTLR_R0 = 0x60000000, 0x7C0802A6, 0x7C0803A6
MTCTR_R12, BCTR, BCTRL, BLR = 0x7D8903A6, 0x4E800420, 0x4E800421, 0x4E800020
M64 = (1 << 64) - 1
LINKED = {
    "vmlinux-mprofile": "mprofile",
    "vmlinux-pfe2": "pfe2",
    "vmlinux-ool": "ool",
    "vmlinux-ool-noops": "ool",
    "vmlinux-far": "pfe2",
    "vmlinux-unreachable": "pfe2",
    "vmlinux-clang": "ool-global",
    "vmlinux-gcc12": "pfe2-global",
    "vmlinux-nm": "pfe-between",
    "vmlinux-pg": "mcount",
}
OBJECTS = {"pfe2.o": "pfe2", "mprofile.o": "mprofile", "clang.o": "ool-global", "mini.ko": "ool"}
EVERY = {**LINKED, **OBJECTS}
DECODER = capstone.Cs(capstone.CS_ARCH_PPC, capstone.CS_MODE_64 | capstone.CS_MODE_LITTLE_ENDIAN)
LEAVES = (
    "the patched functions leave ftrace's list: "
    "they can no longer be traced by name, kprobed through ftrace or live-patched"
)
NO_FILTER = (
    "this kernel's ftrace_caller has no per-site filter: "
    "a tracer that runs alone also sees the patched sites, whatever its filter"
)
BUILD_ID = "the build-id still names the original build, not these bytes"
SIGNATURE = "a Secure Boot signature over the image is void"
EARLY = "it runs before setup_paca is done, when ftrace_caller finds no paca (--force-early overrides)"


def b(at: int, to: int, link: int = 0) -> int:
    """The word `b to` (or `bl`) at `at`: I-form, LI in bits 2 to 25 (Power ISA, book I, 2.4)."""
    assert -0x200_0000 <= to - at <= 0x1FF_FFFC and not (to - at) & 3
    return 0x4800_0000 | (to - at) & 0x03FF_FFFC | link


def bl(at: int, to: int) -> int:
    return b(at, to, 1)


def far_words(target: int, toc: int, ktoc: int) -> list[int]:
    """ld r12,ktoc(r13); addis r12,r12,@ha; addi r12,r12,@l; mtctr r12; bctr."""
    low = (target - toc) & 0xFFFF
    high = (target - toc - (low - 0x1_0000 if low >= 0x8000 else low)) >> 16 & 0xFFFF
    return [0xE98D_0000 | ktoc, 0x3D8C_0000 | high, 0x398C_0000 | low, MTCTR_R12, BCTR]


def code(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


@lru_cache(maxsize=32)
def layout_of(file: bytes) -> tuple[list[tuple[int, int, int]], dict[str, list[tuple[int, int]]], tuple[int, int]]:
    """By pyelftools: (p_vaddr, p_filesz, p_offset) of each PT_LOAD; (value, st_other's local bits) of each name;
    position and size of .rela.dyn."""
    elf = parsed(file)
    loads = [
        (one["p_vaddr"], one["p_filesz"], one["p_offset"]) for one in elf.iter_segments() if one["p_type"] == "PT_LOAD"
    ]
    names: dict[str, list[tuple[int, int]]] = {}
    for one in elf.get_section_by_name(".symtab").iter_symbols():
        if one["st_shndx"] != "SHN_UNDEF":
            names.setdefault(one.name, []).append((one["st_value"], one["st_other"]["local"]))
    head = elf.get_section_by_name(".rela.dyn")
    return loads, names, (head["sh_offset"], head["sh_size"]) if head else (0, 0)


def symbol(file: bytes, name: str) -> int:
    """Value of the only symbol of that name."""
    ((value, _),) = layout_of(file)[1][name]
    return value


def pos_of(file: bytes, va: int) -> int:
    """File position of a va by the program headers, so that gaps between sections count too."""
    (pos,) = [offset + va - start for start, size, offset in layout_of(file)[0] if 0 <= va - start < size]
    return pos


def words_at(file: bytes, va: int, n: int) -> list[int]:
    return list(struct.unpack_from(f"<{n}I", file, pos_of(file, va)))


def quad(file: bytes, va: int) -> int:
    return int(struct.unpack_from("<Q", file, pos_of(file, va))[0])


def local(file: bytes, name: str) -> int:
    """The only local entry of that name, by st_other (ELFv2 ABI, 3.4.1)."""
    ((value, bits),) = layout_of(file)[1][name]
    return value + {0: 0, 1: 0, 2: 4, 3: 8, 4: 16, 5: 32, 6: 64}[bits]


def relocations(file: bytes) -> list[tuple[int, int, int]]:
    """(r_offset, r_info, r_addend) of .rela.dyn in order."""
    start, size = layout_of(file)[2]
    return [(offset, info, addend) for offset, info, addend in struct.iter_unpack("<QQQ", file[start : start + size])]


def rela_pos(file: bytes, place: int) -> int:
    """File position of the RELATIVE row that covers a place."""
    (at,) = [i for i, row in enumerate(relocations(file)) if row[:2] == (place, 22)]
    return layout_of(file)[2][0] + 24 * at


def slot_of(file: bytes, record: int) -> int:
    """va of the slot whose RELATIVE addend is that record."""
    start, stop = symbol(file, "__start_mcount_loc"), symbol(file, "__stop_mcount_loc")
    (va,) = [offset for offset, info, addend in relocations(file) if addend == record and start <= offset < stop]
    assert quad(file, va) == record
    return va


def records(file: bytes) -> list[int]:
    """What the kernel finds in its array at load bias 0; null slots left out."""
    start, stop = symbol(file, "__start_mcount_loc"), symbol(file, "__stop_mcount_loc")
    addends = {offset: addend for offset, info, addend in relocations(file) if info == 22}
    values = [addends.get(va, quad(file, va)) for va in range(start, stop, 8)]
    return [value for value in values if value not in (0, M64 - 3)]


def changed(file: bytes, at: Mapping[int, bytes], raw: Mapping[int, bytes] | None = None) -> bytes:
    """The file with other bytes at some vas, and at some file positions."""
    new = bytearray(file)
    for va, content in at.items():
        new[pos_of(file, va) : pos_of(file, va) + len(content)] = content
    for pos, content in (raw or {}).items():
        new[pos : pos + len(content)] = content
    return bytes(new)


def renamed(file: bytes, name: str) -> bytes:
    """The file without a symbol of that name: its first letter is another."""
    head = parsed(file).get_section_by_name(".strtab")
    start, end = head["sh_offset"], head["sh_offset"] + head["sh_size"]
    at = file.index(b"\0" + name.encode() + b"\0", start, end) + 1
    return file[:at] + b"Z" + file[at + 1 :]


def planned(path: str | Path, *func: str, status: tuple[str, ...] = (), **request: Any) -> Plan:
    scan = api.scan(str(path))
    chosen = select(scan.sites, func, status).mask
    return make_plan(scan, replace(EnableRequest(chosen), **request))


def result(path: str | Path, plan: Plan) -> bytes:
    """The file with the plan's edits in place, whose old bytes must be the file's."""
    file = bytearray(Path(path).read_bytes())
    for pos, old, new, _, _ in plan.edits:
        assert file[pos : pos + len(old)] == old
        file[pos : pos + len(new)] = new
    return bytes(file)


# -- scan --------------------------------------------------------------------------------------------------------


class Oracle:
    """One fixture as pyelftools sees it."""

    def __init__(self, name: str) -> None:
        self.file = (MINI / name).read_bytes()
        self.elf: Any = parsed(self.file)
        self.linked = self.elf["e_type"] != "ET_REL"
        self.symbols = list(self.elf.get_section_by_name(".symtab").iter_symbols())
        self.functions = [
            (
                one["st_shndx"], one["st_value"],
                one["st_value"] + ((1 << one["st_other"]["local"]) >> 2 << 2),
                one["st_value"] + one["st_size"], one["st_info"]["bind"] == "STB_WEAK", row, one.name,
            )
            for row, one in enumerate(self.symbols)
            if one["st_info"]["type"] == "STT_FUNC" and isinstance(one["st_shndx"], int)
        ]  # fmt: skip

    def content(self, sec: int) -> bytes:
        head = self.elf.get_section(sec).header
        return self.file[head["sh_offset"] : head["sh_offset"] + head["sh_size"]]

    def records(self) -> list[tuple[int, int]]:
        """(section, value) of every slot in order; value: va, or offset in ET_REL."""
        if self.linked:
            secs = list(enumerate(self.elf.iter_sections()))
            found = []
            for value in records(self.file):
                (sec,) = [
                    i for i, s in secs if s["sh_flags"] & 2 and s["sh_addr"] <= value < s["sh_addr"] + s["sh_size"]
                ]
                found.append((sec, value))
            return found
        found = []
        for sec, section in enumerate(self.elf.iter_sections()):
            if section.name not in ("__patchable_function_entries", "__mcount_loc"):
                continue
            slots = {}
            for table in self.elf.iter_sections():
                if table["sh_type"] == "SHT_RELA" and table["sh_info"] == sec:
                    for one in table.iter_relocations():
                        assert one["r_info_type"] == 38  # R_PPC64_ADDR64
                        to = self.symbols[one["r_info_sym"]]
                        slots[one["r_offset"]] = (to["st_shndx"], to["st_value"] + one["r_addend"])
            assert sorted(slots) == list(range(0, section["sh_size"], 8))
            found += [slots[at] for at in sorted(slots)]
        return found

    def names(self, sec: int, column: int, value: int) -> tuple[int | None, list[str]]:
        """Global entry and names of the functions whose column 1 (global) or 2 (local entry) is there, as kallsyms
        sorts them: not weak, fewest underscores, table order."""
        found = [one for one in self.functions if one[0] == sec and one[column] == value]
        found.sort(key=lambda one: (one[4], len(one[6]) - len(one[6].lstrip("_")), one[5]))
        return (found[0][1], [one[6] for one in found]) if found else (None, [])

    def neighbour(self, va: int) -> str:
        """What kallsyms calls a va: the nearest symbol of code before it, linker stubs left out."""
        kinds = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC")
        near = [
            (-one["st_value"], one["st_info"]["bind"] == "STB_WEAK", len(one.name) - len(one.name.lstrip("_")), row)
            for row, one in enumerate(self.symbols)
            if one["st_info"]["type"] in kinds and isinstance(one["st_shndx"], int) and one["st_value"] <= va
            if self.elf.get_section(one["st_shndx"])["sh_flags"] & 4 and "_branch." not in one.name
        ]
        return str(self.symbols[min(near)[3]].name)

    def row(self, number: int, sec: int, value: int, layout: str) -> dict[str, Any]:
        """The whole row of the interface."""
        head = self.elf.get_section(sec).header
        off = value - (head["sh_addr"] if self.linked else 0)
        content = self.content(sec)

        def text(at: int) -> str:
            one = next(DECODER.disasm(content[off + at : off + at + 4], value + at))
            return f"{one.mnemonic} {one.op_str}".strip()

        first = call = 0
        column, at = 2, value
        if layout == "mprofile":
            gcc5 = text(-4) == "std r0, 0x10(r1)"
            assert text(-8 if gcc5 else -4) == "mflr r0"
            assert text(0).startswith("bl ")
            at = value - (8 if gcc5 else 4)
        elif layout == "pfe2":
            call = 4
            assert [text(0), text(4)] == ["nop"] * 2
        elif layout == "ool":
            assert text(0) == "nop"
        elif layout == "ool-global":
            column = 1
            two = text(0).startswith(("addis r2, r12, ", "lis r2, ", "ld r2, -8(r12)"))
            first = call = 8 if two else 0
            assert text(first) == "nop"
        elif layout == "pfe2-global":
            column, call = 1, 4
            assert [text(0), text(4)] == ["nop"] * 2
        elif layout == "pfe-between":
            at, first, call = value + 8, 8, 12
            assert [text(4 * i) for i in range(4)] == ["nop"] * 4
        else:
            assert text(0).startswith("bl ")
            inside = [one[1] for one in self.functions if one[0] == sec and one[1] <= value < one[3]]
            column, at = 1, max(inside, default=value)
        entry, names = self.names(sec, column, at)
        entry = value if entry is None else entry
        locals_ = [one[2] for one in self.functions if one[0] == sec and one[1] == entry]
        words = struct.unpack_from(f"<{call // 4 + 1}I", content, off)
        return {
            "row": number, "record": f"0x{value:016x}", "section": self.elf.get_section(sec).name, "shndx": sec,
            "function": names[0] if names else None, "aliases": names[1:], "entry": f"0x{entry:016x}",
            "local_entry": f"0x{locals_[0] if names else entry:016x}", "site": f"0x{value + first:016x}",
            "branch": f"0x{value + call:016x}", "offset": f"0x{off + first:x}",
            "pos": head["sh_offset"] + off + first, "words": [f"0x{word:08x}" for word in words],
            "status": "ready" if names else "weak-leftover",
            "listed_as": None if names else self.neighbour(value + call),
        }  # fmt: skip


def rows(path: str | Path, layout: str | None = None) -> Any:
    scan = api.scan(str(path), layout)
    return site_rows(scan, scan.sites.status >= 0)


@pytest.mark.parametrize(("name", "layout"), EVERY.items())
def test_every_row_of_a_fixture_is_what_pyelftools_and_capstone_read(name: str, layout: str) -> None:
    other = Oracle(name)
    assert rows(MINI / name) == [other.row(i, *record, layout) for i, record in enumerate(other.records())]


@pytest.mark.parametrize(("name", "layout"), EVERY.items())
def test_the_layout_is_decided_by_evidence(name: str, layout: str) -> None:
    shape = api.scan(str(MINI / name)).sites.shape
    assert shape is not None
    assert shape.name == layout


# By the table in testdata/mini-ppc64le/README.md.
@pytest.mark.parametrize(
    ("name", "ready", "leftover", "init"),
    [
        *((name, 30 if name == "vmlinux-pfe2" else 28, 4, 11) for name in LINKED),
        ("pfe2.o", 9, 0, 2),
        ("mprofile.o", 9, 0, 2),
        ("clang.o", 9, 0, 2),
        ("mini.ko", 8, 0, 4),
    ],
)
def test_counts_are_those_of_the_sources(name: str, ready: int, leftover: int, init: int) -> None:
    found = rows(MINI / name)
    assert [sum(row["status"] == one for row in found) for one in ("ready", "weak-leftover")] == [ready, leftover]
    assert len(found) == ready + leftover
    assert sum(row["section"].startswith(".init.text") for row in found) == init


@pytest.mark.parametrize(
    ("name", "skips"), [("vmlinux-mprofile", 1), ("vmlinux-clang", 23), ("clang.o", 5), ("vmlinux-pfe2", 0)]
)
def test_the_summary_counts_extra_words(name: str, skips: int) -> None:
    scan = api.scan(str(MINI / name))
    assert summary(scan)["with_skip"] == skips


@pytest.mark.parametrize(
    ("name", "beyond", "trampolines"),
    [
        ("vmlinux-far", 3, {"ftrace_tramp_text": 2, "ftrace_tramp_init": 21}),
        ("vmlinux-unreachable", 12, {"ftrace_tramp_text": 12, "ftrace_tramp_init": 21}),
        ("vmlinux-pfe2", 0, {"ftrace_tramp_text": 0, "ftrace_tramp_init": 0}),
    ],
)
def test_the_summary_counts_what_a_call_does_not_reach(name: str, beyond: int, trampolines: dict[str, int]) -> None:
    scan = api.scan(str(MINI / name))
    found = summary(scan)["reach"]
    assert found is not None
    assert (found["beyond"], found["trampolines"], found["limit"]) == (beyond, trampolines, 0x1FFFFFC)


def test_only_the_gcc_5_function_has_its_std_in_front_of_the_call() -> None:
    file = (MINI / "vmlinux-mprofile").read_bytes()
    (row,) = [row for row in rows(MINI / "vmlinux-mprofile") if row["function"] == "asm_toc"]
    entry = symbol(file, "asm_toc")
    assert (row["entry"], row["local_entry"], row["site"]) == tuple(f"0x{entry + n:016x}" for n in (0, 8, 16))


@pytest.mark.parametrize("name", [name for name in LINKED if name != "vmlinux-pg"])
def test_functions_that_begin_with_nops_without_a_record_are_no_sites(name: str) -> None:
    assert {row["function"] for row in rows(MINI / name)}.isdisjoint({"asm_nops", "notrace_helper", "tiny_notrace"})


def test_three_nops_of_one_function_are_one_site() -> None:
    """pcrel_edge has the assembler's padding NOP behind its two, slot_probe two NOPs of its own."""
    found = {row["function"]: row["words"] for row in rows(MINI / "vmlinux-pfe2")}
    assert found["pcrel_edge"] == found["slot_probe"] == found["pcrel_read"] == ["0x60000000"] * 2


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    exit_code = run([str(argument) for argument in arguments])
    return exit_code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        (
            "vmlinux-gcc12", "pfe2-global",
            "the NOPs stand in front of the set-up of r2, which is then off by 8: code that gcc 12 breaks",
        ),
        ("vmlinux-nm", "pfe-between", "NOPs between the global and the local entry (N,M): no kernel patches those"),
    ],
)  # fmt: skip
def test_layouts_that_no_kernel_patches_are_exit_4_with_the_reason(
    name: str, layout: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, error = refusal(capsys, "enable", MINI / name, "--func", "vfs_read", "-o", tmp_path / "out")
    assert exit_code == 4
    assert error == (
        f"ftpatch: {MINI / name}: layout {layout} cannot be enabled on disk: found {reason}, "
        "expected -fpatchable-function-entry"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "debug-only.ko", "text without contents: found a debug-only file (NOBITS text), expected code – "
            "use the file that it is the debug companion of",
        ),
        (
            "headers-vmlinux", "no text at all: found type information only (a headers package's vmlinux), "
            "expected a kernel – use the vmlinux of the debug package",
        ),
    ],
)  # fmt: skip
def test_what_has_no_text_is_named(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "scan", MINI / name) == (3, f"ftpatch: {MINI / name}: {message}")


def test_objects_need_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "enable", MINI / "pfe2.o", "--func", "*", "--dry-run") == (
        5, f"ftpatch: {MINI / 'pfe2.o'}: nothing says what the sites call: expected --target SYMBOL – ftrace_caller is "
        "the kernel's own, and keeps what its entries keep",
    )  # fmt: skip


def test_a_word_that_disagrees_with_its_relocation_is_refused(tmp_path: Path) -> None:
    file = (MINI / "vmlinux-pfe2").read_bytes()
    slot = slot_of(file, local(file, "vfs_read"))
    path = written(tmp_path / "v", changed(file, {slot: struct.pack("<Q", local(file, "vfs_write"))}))
    row = (slot - symbol(file, "__start_mcount_loc")) // 8
    off = local(file, "vfs_read") - parsed(file).get_section_by_name(".text")["sh_addr"]
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_read")
    assert caught.value.details == (
        f"vfs_read (row {row}, .text+{off:#x}): its record's word and relocation disagree",
    )  # fmt: skip
    assert planned(path, "vfs_write").index.size == 1


# -- enable: every byte ------------------------------------------------------------------------------------------


def dropped(file: bytes, record: int, row: bytes = bytes(24), word: bytes = bytes(8)) -> tuple[int, bytes, int, bytes]:
    """(slot va, its new word, position of its relocation row, its new content)."""
    slot = slot_of(file, record)
    return slot, word, rela_pos(file, slot), row


@pytest.mark.parametrize("name", ["vfs_read", "slot_probe", "asm_toc", "b_late"])
def test_mprofile_only_the_call_changes_and_the_record_goes(name: str) -> None:
    path = MINI / "vmlinux-mprofile"
    file = path.read_bytes()
    site = local(file, name) + (8 if name == "asm_toc" else 4)
    lead = [MFLR_R0, 0xF8010010] if name == "asm_toc" else [MFLR_R0]  # std r0,16(r1) of gcc 5
    assert words_at(file, local(file, name), len(lead) + 1) == [*lead, bl(site, symbol(file, "_mcount"))]
    slot, word, pos, row = dropped(file, site)
    expected = changed(file, {site: code(bl(site, symbol(file, "ftrace_caller"))), slot: word}, {pos: row})
    plan = planned(path, name)
    assert result(path, plan) == expected
    assert (plan.summary.records, plan.notes) == ("null", (LEAVES, NO_FILTER, BUILD_ID, SIGNATURE))


PFE2 = [
    ("vmlinux-pfe2", name) for name in ("vfs_read", "slot_probe", "asm_toc", "pcrel_read", "pcrel_edge", "b_late")
] + [("vmlinux-far", name) for name in ("vfs_write", "a_window")]


@pytest.mark.parametrize(("image", "name"), PFE2)
def test_pfe2_two_words_at_the_local_entry_and_the_record_goes(image: str, name: str) -> None:
    """Minus four is skipped by both orders of the kernel's loop; a 0 only by the newer one."""
    path = MINI / image
    file = path.read_bytes()
    at = local(file, name)
    plan = planned(path, name)
    word = {"minus4": struct.pack("<q", -4), "null": bytes(8)}[plan.summary.records]
    slot, word, pos, row = dropped(file, at, word=word)
    call = bl(at + 4, symbol(file, "ftrace_caller"))
    assert result(path, plan) == changed(file, {at: code(MFLR_R0, call), slot: word}, {pos: row})
    assert plan.notes == (LEAVES, NO_FILTER, BUILD_ID, SIGNATURE)


@pytest.mark.parametrize("name", ["pcrel_read", "pcrel_edge"])
def test_a_prefixed_instruction_behind_a_site_stays_whole(name: str) -> None:
    path = MINI / "vmlinux-pfe2"
    file = path.read_bytes()
    at = symbol(file, name)
    after = result(path, planned(path, name))
    before = words_at(file, at, 8)
    prefix = next(i for i, word in enumerate(before) if word >> 26 == 1)
    assert prefix == (3 if name == "pcrel_edge" else 2)
    assert words_at(after, at, 8)[2:] == before[2:]


@pytest.mark.parametrize("path", [MINI / "vmlinux-pfe2", MINI / "vmlinux-far", MINI / "vmlinux-ool"])
def test_nothing_that_is_written_is_a_prefixed_instruction(path: Path) -> None:
    """So that no stub can have one across a 64-byte boundary."""
    plan = planned(path, "*", force_early=True)
    code_edits = [new for _, _, new, kind, _ in plan.edits if kind in ("site", "stub", "thunk")]
    found = [word for new in code_edits for (word,) in struct.iter_unpack("<I", new)]
    assert len(found) >= 28
    assert not [hex(word) for word in found if word >> 26 == 1]


AREAS = ("ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext")


@pytest.mark.parametrize("image", ["vmlinux-ool", "vmlinux-ool-noops", "vmlinux-clang"])
@pytest.mark.parametrize("name", ["vfs_read", "slot_probe", "asm_toc", "direct_only", "b_late", "a_setup"])
def test_out_of_line_site_stub_ops_and_relocation(image: str, name: str) -> None:
    """One record less: the last slot of the last area of its kind is free. Its relocation moves the ops pointer."""
    path = MINI / image
    file = path.read_bytes()
    size = 16 if image == "vmlinux-ool-noops" else 24
    area = AREAS[2] if name in ("b_late", "a_setup") else AREAS[1]
    (count,) = words_at(file, symbol(file, f"{area}_count"), 1)
    slot = symbol(file, area) + size * (count - 1)
    stub, at = slot + size - 16, local(file, name)
    record = symbol(file, name) if image == "vmlinux-clang" else at
    where, word, pos, row = dropped(file, record)
    changes = {
        at: code(b(at, stub)),
        stub: code(MFLR_R0, bl(stub + 4, symbol(file, "ftrace_caller")), MTLR_R0, b(stub + 12, at + 4)),
        where: word,
    }
    if size == 24:
        ops = symbol(file, "ftrace_list_ops")
        changes[slot], row = struct.pack("<Q", ops), struct.pack("<QQQ", slot, 22, ops)
    plan = planned(path, name)
    assert result(path, plan) == changed(file, changes, {pos: row})
    told = (LEAVES, BUILD_ID, SIGNATURE) if size == 24 else (LEAVES, NO_FILTER, BUILD_ID, SIGNATURE)
    assert (plan.summary.records, plan.notes) == ("null", told)
    assert (plan.calls.slot.tolist(), plan.calls.branch_to.tolist(), plan.calls.call_va.tolist()) == (
        [slot],
        [stub],
        [stub + 4],
    )


def test_ops_nop_is_the_kernels_own_object() -> None:
    path = MINI / "vmlinux-ool"
    file = path.read_bytes()
    after = result(path, planned(path, "vfs_read", ops="nop"))
    ops = symbol(file, "ftrace_nop_ops")
    ((slot, info, addend),) = set(relocations(after)) - set(relocations(file))
    assert (info, addend, quad(after, slot)) == (22, ops, ops)


@pytest.mark.parametrize("image", ["vmlinux-ool", "vmlinux-clang", "vmlinux-ool-noops", "vmlinux-mprofile"])
def test_a_result_reads_as_enabled(image: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", result(MINI / image, planned(MINI / image, "vfs_read", "b_late", "asm_toc")))
    found = rows(path)
    lost = [row for row in found if row["status"] == "enabled"]
    assert sorted((row["function"], row["row"]) for row in lost) == [
        ("asm_toc", None), ("b_late", None), ("vfs_read", None),
    ]  # fmt: skip
    file = Path(path).read_bytes()
    column = "local_entry"
    assert {row["function"]: int(row[column], 16) for row in lost} == {
        name: local(file, name) for name in ("asm_toc", "b_late", "vfs_read")
    }
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_read")
    assert caught.value.details[0].endswith(": already enabled")


def test_in_an_out_of_line_kernel_a_plain_return_is_a_target() -> None:
    path = MINI / "vmlinux-ool"
    file = path.read_bytes()
    plan = planned(path, "vfs_read", target="ftrace_stub_direct_tramp")
    assert plan.calls.call_to.tolist() == [symbol(file, "ftrace_stub_direct_tramp")]
    assert (plan.summary.ops, plan.summary.ops_via) == (None, "none")
    ((slot, _, _),) = set(relocations(file)) - set(relocations(result(path, plan)))
    assert slot == slot_of(file, local(file, "vfs_read"))


def test_mcount_is_what_the_sites_call_already() -> None:
    with pytest.raises(PolicyError) as caught:
        planned(MINI / "vmlinux-mprofile", "vfs_read", target="_mcount")
    assert str(caught.value) == (
        "--target _mcount: the sites call this target already: found _mcount, "
        "expected ftrace_caller or ftrace_regs_caller"
    )


# -- far calls ---------------------------------------------------------------------------------------------------

FAR, AWAY = MINI / "vmlinux-far", MINI / "vmlinux-unreachable"


def through(name: str, va: int, calls: str = "1 call goes") -> str:
    why = "zero bytes that no symbol claims"
    if name.startswith("ftrace_tramp"):
        why = "the kernel's own, filled with the jump to ftrace_regs_caller that it will write there itself"
    return f"{calls} through {name} at {va:#x}: {why}"


@pytest.mark.parametrize(
    ("path", "name", "area", "ktoc"),
    [
        (FAR, "b_mid", "ftrace_tramp_text", 16),
        (FAR, "b_late", "ftrace_tramp_init", 16),
        (AWAY, "b_late", "ftrace_tramp_init", 8),
        (AWAY, "start_kernel", "ftrace_tramp_init", 8),
    ],
)
def test_a_far_call_goes_through_the_kernels_own_trampoline(path: Path, name: str, area: str, ktoc: int) -> None:
    file = path.read_bytes()
    at, stub = local(file, name), symbol(file, area)
    plan = planned(path, name)
    assert plan.notes == (LEAVES, NO_FILTER, through(area, stub), BUILD_ID, SIGNATURE)
    after = result(path, plan)
    assert words_at(after, at, 2) == [MFLR_R0, bl(at + 4, stub)]
    assert words_at(after, stub, 8) == [
        *far_words(symbol(file, "ftrace_regs_caller"), symbol(file, ".TOC."), ktoc), 0, 0, 0,
    ]  # fmt: skip
    assert plan.calls.call_to.tolist() == [stub]


def test_the_five_words_by_hand() -> None:
    """.TOC. c000000000008f00, ftrace_regs_caller c00000000000074c: −0x87b4 is −1·0x10000 + 0x784c."""
    file = FAR.read_bytes()
    assert (symbol(file, ".TOC."), symbol(file, "ftrace_regs_caller")) == (BASE + 0x8F00, BASE + 0x74C)
    after = result(FAR, planned(FAR, "b_late"))
    assert words_at(after, symbol(file, "ftrace_tramp_init"), 5) == [
        0xE98D0010, 0x3D8CFFFF, 0x398C784C, 0x7D8903A6, 0x4E800420,
    ]  # fmt: skip


def test_a_call_that_reaches_goes_straight_though_the_other_entry_is_out_of_reach() -> None:
    file = FAR.read_bytes()
    at = local(file, "a_window")
    after = result(FAR, planned(FAR, "a_window"))
    assert words_at(after, at, 2) == [MFLR_R0, bl(at + 4, symbol(file, "ftrace_caller"))]


def test_several_calls_share_one_stub_and_are_counted() -> None:
    file = AWAY.read_bytes()
    plan = planned(AWAY, "b_late", "b_mid", "vfs_read")
    stub = symbol(file, "ftrace_tramp_init")
    assert plan.notes[2] == through("ftrace_tramp_init", stub, "2 calls go")
    assert len(plan.calls.shared) == 1
    assert sorted(plan.calls.through.tolist()) == [-1, 0, 0]


def taken(path: Path, tmp_path: Path, *areas: str, by: str = "bytes") -> str:
    """A copy in which something stands in the kernel's trampolines, or a relocation will write there."""
    file = path.read_bytes()
    for area in areas:
        va = symbol(file, area)
        if by == "bytes":
            file = changed(file, {va + 16: b"\1"})
        else:
            place = symbol(file, "a_ctor")
            file = changed(file, {}, {rela_pos(file, place): struct.pack("<Q", va + 12)})
    return written(tmp_path / "taken", file)


@pytest.mark.parametrize("by", ["bytes", "relocation"])
def test_a_trampoline_that_is_not_empty_is_left_alone_and_the_gap_taken(by: str, tmp_path: Path) -> None:
    path = taken(FAR, tmp_path, "ftrace_tramp_init", by=by)
    file = Path(path).read_bytes()
    at, stub = local(file, "b_late"), symbol(file, "__init_begin") - 32
    plan = planned(path, "b_late")
    after = result(path, plan)
    assert plan.notes[2] == through("gap before init text", stub)
    assert words_at(after, stub, 8) == [
        *far_words(symbol(file, "ftrace_caller"), symbol(file, ".TOC."), 16), 0, 0, 0,
    ]  # fmt: skip
    assert words_at(after, at, 2) == [MFLR_R0, bl(at + 4, stub)]
    tramp = symbol(file, "ftrace_tramp_init")
    assert words_at(after, tramp, 8) == words_at(file, tramp, 8)


def test_in_the_gap_bytes_and_relocations_are_passed_over(tmp_path: Path) -> None:
    path = Path(taken(FAR, tmp_path, "ftrace_tramp_init"))
    file = path.read_bytes()
    end = symbol(file, "__init_begin")
    place = rela_pos(file, symbol(file, "a_ctor"))
    path.write_bytes(changed(file, {end - 1: b"\1"}, {place: struct.pack("<Q", end - 64 + 13)}))
    assert [stub.va for stub in planned(path, "b_late").calls.shared] == [end - 96]


def test_a_full_gap_leaves_no_room(tmp_path: Path) -> None:
    path = Path(taken(FAR, tmp_path, "ftrace_tramp_init"))
    file = path.read_bytes()
    end = symbol(file, "__init_begin")
    path.write_bytes(changed(file, {end - 0xBE0: b"\1" * 0xBE0}))
    with pytest.raises(ReachError) as caught:
        planned(path, "b_late")
    call, target = local(file, "b_late") + 4, symbol(file, "ftrace_caller")
    assert f"out of reach: {target - call:+#x} bytes to ftrace_caller, " in caught.value.details[0]
    assert "gap" not in caught.value.details[0]


def test_init_texts_trampoline_serves_init_text_alone() -> None:
    """It is freed with it: a call from elsewhere at the same distance takes the gap."""
    scan = api.scan(str(FAR))
    file = FAR.read_bytes()
    va = symbol(file, "ftrace_caller")
    target = Target(va, "ftrace_caller", True, scan.arch.read_entry(scan.image.code(va, 64)))
    call = np.full(2, local(file, "b_late") + 4, dtype=np.uint64)
    to = routes.by_reach(scan, target, call, np.array([True, False]))
    assert to.call_to.tolist() == [symbol(file, "ftrace_tramp_init"), symbol(file, "__init_begin") - 32]
    assert [stub.name for stub in to.shared] == ["ftrace_tramp_init", "gap before init text"]


def test_a_site_that_reaches_nothing_is_refused_with_all_distances() -> None:
    file = AWAY.read_bytes()
    call = local(file, "island") + 4
    gap = symbol(file, "__init_begin") - 32
    (tail,) = [stub.va for stub in our_stubs(AWAY) if stub.name == "text tail"]
    tried = {
        "ftrace_caller": symbol(file, "ftrace_caller"), "ftrace_tramp_text": symbol(file, "ftrace_tramp_text"),
        "ftrace_tramp_init": symbol(file, "ftrace_tramp_init"), "text tail": tail,
        "gap before init text": gap,
    }  # fmt: skip
    way = [f"{va - call:+#x}{' bytes' if i == 0 else ''} to {name}" for i, (name, va) in enumerate(tried.items())]
    (row,) = [row["row"] for row in rows(AWAY) if row["function"] == "island"]
    off = local(file, "island") - parsed(file).get_section_by_name(".text.island")["sh_addr"]
    span = "a call spans -0x2000000..+0x1fffffc"
    reason = f"island (row {row}, .text.island+{off:#x}): out of reach: {', '.join(way)}, {span}"
    with pytest.raises(ReachError) as caught:
        planned(AWAY, "island", "vfs_read")
    assert caught.value.details == (reason,)
    assert caught.value.exit_code == 5
    assert planned(AWAY, "island", "vfs_read", skip_unpatchable=True).index.size == 1


def our_stubs(path: str | Path) -> list[SharedStub]:
    """Where there is room for a stub of our own to ftrace_stub."""
    scan = api.scan(str(path))
    assert scan.arch.far is not None
    va = symbol(Path(path).read_bytes(), "ftrace_stub")
    return routes.far_stubs(scan, scan.arch.far, Target(va, "ftrace_stub", False, Entry(False)))


@pytest.mark.parametrize("path", [FAR, AWAY], ids=["far", "unreachable"])
def test_a_stub_in_the_tail_keeps_clear_of_the_kernels_trampoline(path: Path) -> None:
    """The kernel writes five words there at boot, and would write them over our stub."""
    (tail,) = [stub.va for stub in our_stubs(path) if stub.name == "text tail"]
    assert tail >= symbol(path.read_bytes(), "ftrace_tramp_text") + 20


@pytest.mark.parametrize("name", ["b_late"])
def test_another_target_gets_a_stub_of_our_own(name: str) -> None:
    file = FAR.read_bytes()
    at = local(file, name)
    plan = planned(FAR, name, target="ftrace_stub", force_target=True)
    (stub,) = plan.calls.shared
    assert stub.name in ("text tail", "gap before init text")
    after = result(FAR, plan)
    words = far_words(symbol(file, "ftrace_stub"), symbol(file, ".TOC."), 16)
    assert words_at(after, stub.va, 5) == words
    assert words_at(after, at, 2) == [MFLR_R0, bl(at + 4, stub.va)]
    for area in ("ftrace_tramp_text", "ftrace_tramp_init"):
        assert words_at(after, symbol(file, area), 5) == [0] * 5
    assert plan.notes == (LEAVES, through(stub.name, stub.va), BUILD_ID, SIGNATURE)


def test_a_second_patch_uses_the_kernels_trampoline_again(tmp_path: Path) -> None:
    first = result(AWAY, planned(AWAY, "b_late"))
    path = written(tmp_path / "one", first)
    plan = planned(path, "b_mid")
    stub = symbol(first, "ftrace_tramp_init")
    assert [(one.va, one.present) for one in plan.calls.shared] == [(stub, True)]
    after = result(path, plan)
    assert words_at(after, stub, 8) == words_at(first, stub, 8)
    assert after == result(AWAY, planned(AWAY, "b_late", "b_mid"))


@pytest.mark.parametrize(
    "place",
    [
        "gap before init text",
        "text tail",
    ],
)
def test_a_second_patch_uses_our_stub_again(place: str, tmp_path: Path) -> None:
    (stub,) = [one for one in our_stubs(FAR) if one.name == place]
    file = FAR.read_bytes()
    five = far_words(symbol(file, "ftrace_stub"), symbol(file, ".TOC."), 16)
    assert (stub.words.tolist(), stub.present) == (five, False)
    path = written(tmp_path / "one", changed(file, {stub.va: code(*five)}))
    assert [(one.va, one.present) for one in our_stubs(path) if one.name == place] == [(stub.va, True)]


def test_a_second_patch_through_the_gap_writes_no_second_stub(tmp_path: Path) -> None:
    target: dict[str, Any] = {"target": "ftrace_stub", "force_target": True}
    first = result(AWAY, planned(AWAY, "b_late", **target))
    path = written(tmp_path / "one", first)
    assert result(path, planned(path, "b_mid", **target)) == result(AWAY, planned(AWAY, "b_late", "b_mid", **target))


@pytest.mark.parametrize(
    ("distance", "high", "low"),
    [
        (0, 0, 0),
        (0x7FFF, 0, 0x7FFF),
        (0x8000, 1, 0x8000),
        (-1, 0, 0xFFFF),
        (-0x8000, 0, 0x8000),
        (-0x8001, 0xFFFF, 0x7FFF),
        (0x7FFF_7FFF, 0x7FFF, 0x7FFF),
        (-0x8000_8000, 0x8000, 0x8000),
    ],
)
def test_a_far_stub_at_the_ends_of_its_range(distance: int, high: int, low: int) -> None:
    toc = 0xC000_0000_0100_8000
    words = [0xE98D0010, 0x3D8C0000 | high, 0x398C0000 | low, 0x7D8903A6, 0x4E800420]
    assert far_stub(toc + distance, toc, 16).tolist() == words
    assert far_words(toc + distance, toc, 16) == words


@pytest.mark.parametrize("distance", [0x7FFF_8000, -0x8000_8001])
def test_a_far_stub_beyond_its_range_is_our_mistake(distance: int) -> None:
    with pytest.raises(AssertionError):
        far_stub(BASE + (1 << 40) + distance, BASE + (1 << 40), 8)


# -- words and branches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "field"),
    [(0, 0), (4, 4), (-4, 0x3FFFFFC), (0x1FFFFFC, 0x1FFFFFC), (-0x2000000, 0x2000000)],
)
def test_branches_hold_24_bits_from_bit_2(distance: int, field: int) -> None:
    at = np.array([distance], dtype=np.int64)
    assert B.encode(at).tolist() == [0x48000000 | field]
    assert BL.encode(at).tolist() == [0x48000001 | field]
    for branch in (B, BL):
        assert branch.decode(branch.encode(at)).tolist() == [distance]
    text = next(DECODER.disasm(code(0x48000000 | field), 0x1000_0000))
    assert (text.mnemonic, int(text.op_str.lstrip("#"), 16)) == ("b", 0x1000_0000 + distance)


def test_how_far_a_branch_reaches() -> None:
    at = np.array([-0x2000004, -0x2000000, 2, 0x1FFFFFC, 0x2000000], dtype=np.int64)
    assert BL.reaches(at).tolist() == [False, True, False, True, False]
    assert (B.low, B.high) == (-0x2000000, 0x1FFFFFC)
    with pytest.raises(AssertionError):
        B.encode(at[-1:])


@pytest.mark.parametrize("word", [0x48000002, 0x48000003, 0x4C000001, 0x40000001])
def test_absolute_branches_and_others_are_neither(word: int) -> None:
    one = np.array([word], dtype=np.uint32)
    assert [B.word.matches(one)[0], BL.word.matches(one)[0]] == [False, False]


def test_site_stubs_at_the_ends_of_their_ranges() -> None:
    call = np.array([0x1FFFFFC, -0x2000000], dtype=np.int64)
    back = np.array([-0x2000000, 0x1FFFFFC], dtype=np.int64)
    assert site_stub(call, back).tolist() == [
        [MFLR_R0, 0x49FFFFFD, MTLR_R0, 0x4A000000],
        [MFLR_R0, 0x4A000001, MTLR_R0, 0x49FFFFFC],
    ]
    with pytest.raises(AssertionError):
        site_stub(back[1:] + 4, back[1:])
    with pytest.raises(AssertionError):
        site_stub(call[:1], call[:1] + 4)


def words(*values: int) -> U32:
    return np.array(values, dtype=np.uint32)


LD_R3_R31, CMPDI_R3, BEQ, BL_ADJUST = 0xE87F0000, 0x2C230000, 0x41820010, 0x48000101
NEWER = (0x3BFF0008, LD_R3_R31, CMPDI_R3, BEQ, BL_ADJUST, 0x60000000)
OLDER = (LD_R3_R31, 0x3BFF0008, BL_ADJUST, 0x60000000, CMPDI_R3, BEQ)


@pytest.mark.parametrize(
    ("loop", "shown"),
    [
        (NEWER, True),
        (OLDER, False),
        ((LD_R3_R31, 0x3BFF0008, CMPDI_R3, BEQ, BL_ADJUST), True),  # addi between
        ((0xE87E0008, 0x2F230000, 0x419E0010), True),  # ld r3,8(r30); cmpdi cr6,r3,0
        ((LD_R3_R31, 0x2C240000, BL_ADJUST, CMPDI_R3), False),  # cmpdi r4,0
        ((LD_R3_R31, 0x2C230001, BL_ADJUST), False),  # cmpdi r3,1
        ((LD_R3_R31, 0x2C030000, BL_ADJUST), False),  # cmpwi r3,0: only half of it
        ((0xE87F0001, CMPDI_R3), False),  # ldu is not looked for
        ((0xE89F0000, CMPDI_R3), False),  # ld r4
        ((LD_R3_R31, 0x4E800420, CMPDI_R3), False),  # bctr comes first
        ((*OLDER, *NEWER), True),
        ((LD_R3_R31,), False),
        ((), False),
    ],
)
def test_the_order_of_test_and_adjustment(loop: tuple[int, ...], shown: bool) -> None:
    assert skips_zero(words(*loop)) is shown


LD_R2 = 0xE84D0010  # ld r2,16(r13)


@pytest.mark.parametrize(
    ("start", "entry"),
    [
        ((BLR,), Entry(False)),
        ((0xF821FFE1, 0xF821FE51, LD_R2), Entry(False, kernel_toc=16)),
        ((0xF821FFE1, 0xE84D0008), Entry(False, kernel_toc=8)),
        ((0x7D6802A6, 0xE98BFFF0, 0xE98C00C0, 0x2C2C0000, LD_R2), Entry(True, direct_call=192, kernel_toc=16)),
        ((0xE98BFFF0, 0x60000000, 0xE98C00C8, LD_R2), Entry(True, direct_call=200, kernel_toc=16)),
        # no direct calls: ld r5,-16(r11); ld r12,0(r5); mtctr; bctrl
        ((LD_R2, 0xE8ABFFF0, 0xE9850000, MTCTR_R12, BCTRL), Entry(True, direct_call=0, kernel_toc=16)),
        # another register's pointer
        ((0xE98BFFF0, 0xE9850008, 0xE98600C8, LD_R2), Entry(True, direct_call=0, kernel_toc=16)),
        # ld r12,-24(r11), ld r12,-16(r10): no ops; lwa r2,16(r13), ld r2,16(r12): no TOC
        ((0xE98BFFE8, 0xE98AFFF0, 0xE84D0012, 0xE84C0010), Entry(False)),
        ((*[NOP] * 63, LD_R2), Entry(False, kernel_toc=16)),
        ((*[NOP] * 64, LD_R2), Entry(False)),
        ((), Entry(False)),
    ],
)
def test_what_a_trampoline_reads(start: tuple[int, ...], entry: Entry) -> None:
    assert read_entry(words(*start)) == entry


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("vmlinux-pfe2", Entry(False, kernel_toc=16)),
        ("vmlinux-unreachable", Entry(False, kernel_toc=8)),
        ("vmlinux-ool", Entry(True, direct_call=200, kernel_toc=16)),
        ("vmlinux-ool-noops", Entry(False, kernel_toc=16)),
    ],
)
def test_what_the_fixtures_trampolines_read(name: str, entry: Entry) -> None:
    file = (MINI / name).read_bytes()
    for own in ("ftrace_caller", "ftrace_regs_caller"):
        assert read_entry(words(*words_at(file, symbol(file, own), 64))) == entry


# -- early functions ---------------------------------------------------------------------------------------------

BEFORE = ("early_setup", "initialise_paca", "fixup_boot_paca", "paca_checksum")
ENABLEABLE = [
    name for name in LINKED if name not in ("vmlinux-gcc12", "vmlinux-nm", "vmlinux-pg")
]  # fmt: skip


@pytest.mark.parametrize("image", ENABLEABLE)
@pytest.mark.parametrize("name", [*BEFORE, "setup_paca"])
def test_what_runs_before_the_paca_exists_is_refused(image: str, name: str) -> None:
    """setup_paca too: its own site runs before its first instruction sets r13."""
    with pytest.raises(PolicyError) as caught:
        planned(MINI / image, name)
    (detail,) = caught.value.details
    assert detail.startswith(f"{name} (row ")
    assert detail.partition("): ")[2] == EARLY
    assert planned(MINI / image, name, force_early=True).index.size == 1


@pytest.mark.parametrize("image", ENABLEABLE)
def test_what_runs_later_is_not(image: str) -> None:
    plan = planned(MINI / image, "early_init_devtree", "enable_ftrace", "start_kernel", "b_late")
    assert (plan.index.size, plan.reasons) == (4, {})
    assert not [note for note in plan.notes if "paca" in note]


def test_another_target_that_reads_no_paca_may_be_called_early() -> None:
    plan = planned(MINI / "vmlinux-ool", *BEFORE, target="ftrace_stub_direct_tramp")
    assert plan.index.size == 4


@pytest.mark.parametrize("lost", ["early_setup", "setup_paca"])
def test_without_the_symbols_the_three_known_names_are_still_refused(lost: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", renamed((MINI / "vmlinux-pfe2").read_bytes(), lost))
    remark = "what runs before the paca exists is not known: no early_setup or no setup_paca here"
    assert planned(path, "vfs_read").notes[-1] == remark
    names = {one for one in BEFORE[:3] if one != lost}
    for name in names:
        with pytest.raises(PolicyError) as caught:
            planned(path, name)
        assert caught.value.details[0].endswith(EARLY)
    assert planned(path, "paca_checksum").notes[-1] == remark
    forced = planned(path, *names, force_early=True)
    assert forced.index.size == len(names)


def test_an_indirect_call_on_the_way_is_told(tmp_path: Path) -> None:
    """The first `bl` of initialise_paca becomes a bctrl: paca_checksum is then not known to run."""
    file = (MINI / "vmlinux-pfe2").read_bytes()
    at = local(file, "initialise_paca")
    found = words_at(file, at, 20)
    call = next(at + 4 * i for i, word in enumerate(found) if word & 0xFC000003 == 0x48000001)
    path = written(tmp_path / "v", changed(file, {call: code(BCTRL)}))
    assert planned(path, "vfs_read").notes[-1] == (
        f"what runs before the paca exists is not fully known: an indirect call at {call:#x}"
    )


START, STOP, F, G, H = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000


def walk(functions: Mapping[int, Sequence[int]], stubs: Mapping[int, int] | None = None) -> tuple[set[int], str]:
    """What runs before STOP in a program of these functions; stubs: a linker's, and where they lead."""
    memory = {at + 4 * i: word for at, body in functions.items() for i, word in enumerate(body)}

    def read(va: int, n: int) -> U32:
        return words(*([memory[va]] if va in memory else []))

    return runs_before(read, lambda va: (stubs or {}).get(va, va), START, STOP)


def test_calls_before_the_end_are_found_and_later_ones_not() -> None:
    body = (bl(START, F), bl(START + 4, STOP), bl(START + 8, G), BLR)
    assert walk({START: body, F: (bl(F, H), BLR), H: (BLR,), G: (BLR,)}) == ({START, STOP, F, H}, "")


def test_a_call_may_go_to_the_local_entry_of_the_end() -> None:
    assert walk({START: (bl(START, STOP + 8), bl(START + 4, G), BLR), G: (BLR,)}) == ({START, STOP}, "")


def test_both_sides_of_a_conditional_branch_count() -> None:
    # beq .+12; bl STOP; blr; bl F; blr
    body = (0x4182000C, bl(START + 4, STOP), BLR, bl(START + 12, F), BLR)
    assert walk({START: body, F: (BLR,)}) == ({START, STOP, F}, "")
    # a path around the end: bne .+8; bl STOP; bl F
    around = (0x40820008, bl(START + 4, STOP), bl(START + 8, F), BLR)
    assert walk({START: around, F: (BLR,)}) == ({START, STOP, F}, "")


def test_a_conditional_return_and_a_loop_are_followed() -> None:
    # beqlr; bl F; bdnz .-4; b .-12
    body = (0x4D820020, bl(START + 4, F), 0x4200FFFC, b(START + 12, START))
    assert walk({START: body, F: (BLR,)}) == ({START, STOP, F}, "")


def test_a_linkers_stub_is_its_destination() -> None:
    body = (bl(START, 0x9000), bl(START + 4, 0x9020), bl(START + 8, G), BLR)
    assert walk({START: body, F: (BLR,), G: (BLR,)}, {0x9000: F, 0x9020: STOP}) == ({START, STOP, F}, "")


def test_a_function_that_is_jumped_to_runs_too() -> None:
    """b F: a tail call."""
    assert walk({START: (b(START, F),), F: (bl(F, G), BLR), G: (BLR,)}) == ({START, STOP, F, G}, "")


def test_a_tail_call_through_a_linkers_stub_is_followed() -> None:
    stub = (0x3D820000, 0xE98C0000, MTCTR_R12, BCTR)  # plt_branch
    found, _ = walk({START: (b(START, 0x9000),), 0x9000: stub, F: (bl(F, G), BLR), G: (BLR,)}, {0x9000: F})
    assert {F, G} <= found


def test_a_tail_call_of_the_end_ends_the_walk() -> None:
    """What it runs itself is walked once, not as a part of the caller."""
    assert walk({START: (b(START, STOP),), STOP: (BLR,)}) == ({START, STOP}, "")


def test_what_the_end_calls_runs_before_it_has_run() -> None:
    body = (bl(STOP, F), 0x7C6D1B78, BLR)  # mr r13,r3
    assert walk({START: (bl(START, STOP), BLR), STOP: body, F: (BLR,)}) == ({START, STOP, F}, "")


@pytest.mark.parametrize("word", [BCTRL, 0x4E800021], ids=["bctrl", "blrl"])
def test_an_indirect_call_is_a_gap(word: int) -> None:
    body = (word, bl(START + 4, F), bl(START + 8, STOP), BLR)
    assert walk({START: body, F: (BLR,)}) == ({START, STOP, F}, f"an indirect call at {START:#x}")


def test_an_indirect_jump_is_a_gap() -> None:
    """bctr: a computed tail call, or a switch."""
    _, why = walk({START: (MTCTR_R12, BCTR)})
    assert why != ""


def test_code_that_cannot_be_read_is_a_gap() -> None:
    assert walk({START: (bl(START, F), BLR)}) == ({START, STOP, F}, f"the code at {F:#x} cannot be read")
    assert walk({START: (NOP,)})[1] == f"the code at {START + 4:#x} cannot be read"


# -- records of init text do not stay alone ----------------------------------------------------------------------

ONLY_INIT = (
    "records of init text leave the table too, their code unchanged: as the only ones left "
    "they would make the kernel read through a null pointer once init memory is freed"
)


def _not_init(path: Path) -> list[str]:
    return [f"row:{row['row']}" for row in rows(path) if row["section"] and not row["section"].startswith(".init")]


@pytest.mark.parametrize(
    ("path", "n_init"),
    [
        (MINI / "vmlinux-pfe2", 11),
        (MINI / "vmlinux-mprofile", 11),
        (MINI / "vmlinux-ool", 11),
        (MINI / "vmlinux-clang", 11),
        (ARM64 / "vmlinux-pfe2", None),
        (ARM64 / "vmlinux-callops", None),
        (ARM64 / "vmlinux-exec", None),
    ],
    ids=lambda value: f"{value.parent.name}-{value.name}" if isinstance(value, Path) else None,
)
def test_init_texts_records_do_not_stay_alone(path: Path, n_init: int | None, tmp_path: Path) -> None:
    init = [row for row in rows(path) if row["section"] == ".init.text"]
    n_init = len(init) if n_init is None else n_init
    assert n_init == len(init) > 0
    plan = planned(path, *_not_init(path), force_early=True)
    assert f"{n_init} {ONLY_INIT}" in plan.notes
    after = written(tmp_path / "v", result(path, plan))
    scan = api.scan(after)
    assert int(scan.records.live.sum()) == 0
    file, before = Path(after).read_bytes(), path.read_bytes()
    for row in init:
        start = row["pos"]
        assert file[start : start + 8] == before[start : start + 8]


@pytest.mark.parametrize("path", [MINI / "vmlinux-pfe2", ARM64 / "vmlinux-pfe2"], ids=["ppc64le", "arm64"])
def test_one_record_outside_init_text_keeps_them_all(path: Path) -> None:
    plan = planned(path, *_not_init(path)[:-1], force_early=True)
    assert int(plan.gone.sum()) == plan.index.size
    assert not [note for note in plan.notes if ONLY_INIT in note]


@pytest.mark.parametrize("path", [MINI / "vmlinux-pfe2", ARM64 / "vmlinux-pfe2"], ids=["ppc64le", "arm64"])
def test_the_fate_of_a_record_that_leaves_with_the_others_is_in_the_journal(path: Path, tmp_path: Path) -> None:
    """b_late is enabled already, so that it stays as it is, but its record leaves."""
    scan = api.scan(str(path))
    (late,) = [row for row in rows(path) if row["function"] == "b_late"]
    file = bytearray(path.read_bytes())
    file[late["pos"] : late["pos"] + 4] = b"\0\0\0\0"  # no site any more
    changed_path = written(tmp_path / "v", file)
    scan = api.scan(changed_path)
    chosen = select(scan.sites, [*_not_init(path), f"row:{late['row']}"]).mask
    request = replace(EnableRequest(chosen), force_early=True, skip_unpatchable=True)
    plan = make_plan(scan, request)
    sites = {site["row"]: site for site in plan_object(plan, None, None)["sites"]}
    fates = {site["record_fate"] for site in sites.values()}
    assert fates == {{"null": "null", "minus4": "minus4", "shrink": "cut"}[plan.summary.records]}
    assert (sites[late["row"]]["action"], bool(sites[late["row"]]["reason"])) == ("keep", True)


def test_kept_records_all_stay() -> None:
    path = MINI / "vmlinux-pfe2"
    plan = planned(path, *_not_init(path), force_early=True, records="keep")
    assert not [note for note in plan.notes if ONLY_INIT in note]
    assert records(result(path, plan)) == records(path.read_bytes())


# -- the whole command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ENABLEABLE)
def test_every_site_at_once_through_the_command_line(image: str, tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    out = tmp_path / "out"
    skip = ["--skip-unpatchable"] if image == "vmlinux-unreachable" else []
    ftpatch("enable", MINI / image, "--func", "*", "--force-early", "-o", out, *skip)
    before = [row["function"] for row in rows(MINI / image) if row["function"]]
    found = rows(out)
    names = sorted(row["function"] for row in found if row["status"] == "enabled")
    assert names == sorted(name for name in before if not (skip and name == "island"))
    relative = {offset: addend for offset, info, addend in relocations(out.read_bytes()) if info == 22}
    assert all(quad(out.read_bytes(), place) == addend for place, addend in relative.items())
