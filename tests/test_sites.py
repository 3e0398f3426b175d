"""Every fixture's sites, row by row, against an oracle of pyelftools and capstone that knows no ftpatch."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone
import pytest
from elftools.elf.relocation import RelrRelocationSection
from elfwriter import (
    BASE,
    MINI,
    MOV_X9_X30,
    NOP,
    RET,
    TEXT,
    TRAMP,
    Kernel,
    as_code,
    bl,
    edited,
    parsed,
    symbol,
    words_at,
    written,
)

from ftpatch import api
from ftpatch.document.rows import site_rows
from ftpatch.errors import ShapeError

LINKED = {
    "vmlinux-pfe2": "pfe2",
    "vmlinux-pfe2-bti": "pfe2",
    "vmlinux-exec": "pfe2",
    "vmlinux-kcfi": "pfe2",
    "vmlinux-callops": "callops",
    "vmlinux-callops-bti": "callops",
    "vmlinux-pg": "mcount",
    "program": "pfe2",
}
OBJECTS = {
    "pfe2.o": "pfe2",
    "callops.o": "callops",
    "clang-sections.o": "pfe2",
    "pg.o": "mcount",
    "mini.ko": "callops",
}
EVERY = {**LINKED, **OBJECTS}
RECORD_SECTIONS = ("__patchable_function_entries", "__mcount_loc")
DECODER = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)


@dataclass
class Oracle:
    """One fixture as pyelftools sees it."""

    elf: Any
    file: bytes

    def content(self, sec: int) -> bytes:
        head = self.elf.get_section(sec).header
        return self.file[head["sh_offset"] : head["sh_offset"] + head["sh_size"]]

    def section_of(self, va: int) -> int:
        for sec, one in enumerate(self.elf.iter_sections()):
            if one["sh_flags"] & 2 and one["sh_addr"] <= va < one["sh_addr"] + one["sh_size"]:
                return sec
        raise LookupError(hex(va))

    def functions(self) -> Iterator[tuple[int, int, int, int, str, int]]:
        """(section, value, end, weakness, name, symbol row) of each."""
        for row, one in enumerate(self.elf.get_section_by_name(".symtab").iter_symbols()):
            if one["st_info"]["type"] == "STT_FUNC" and isinstance(one["st_shndx"], int):
                weak = one["st_info"]["bind"] == "STB_WEAK"
                yield one["st_shndx"], one["st_value"], one["st_value"] + one["st_size"], weak, one.name, row

    def names(self, sec: int, entry: int) -> list[str]:
        """Names at one entry as scripts/kallsyms.c sorts them: not weak, fewest underscores, table order."""
        found = [
            (weak, len(name) - len(name.lstrip("_")), row, name)
            for where, value, _, weak, name, row in self.functions()
            if (where, value) == (sec, entry)
        ]
        return [one[3] for one in sorted(found)]

    def neighbour(self, va: int) -> str:
        """What kallsyms calls a va of a linked file: the nearest symbol of code before it, mapping symbols left out."""
        kinds = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC")
        near = [
            (-one["st_value"], one["st_info"]["bind"] == "STB_WEAK", len(one.name) - len(one.name.lstrip("_")), row)
            for row, one in enumerate(self.elf.get_section_by_name(".symtab").iter_symbols())
            if one["st_info"]["type"] in kinds and isinstance(one["st_shndx"], int) and one["st_value"] <= va
            if self.elf.get_section(one["st_shndx"])["sh_flags"] & 4 and not one.name.startswith("$")
        ]
        return str(self.elf.get_section_by_name(".symtab").get_symbol(min(near)[3]).name)

    def records(self) -> list[tuple[int, int] | None]:
        """(section, value) of every slot in order; None for a null slot. value: va, or offset in ET_REL."""
        if self.elf["e_type"] == "ET_REL":
            return list(self._in_sections())
        if symtab := self.elf.get_section_by_name(".symtab").get_symbol_by_name("__start_mcount_loc"):
            start, stop = symtab[0]["st_value"], symbol(self.file, "__stop_mcount_loc")
        else:
            head = self.elf.get_section_by_name(RECORD_SECTIONS[0])
            start, stop = head["sh_addr"], head["sh_addr"] + head["sh_size"]
        addends: dict[int, int] = {}
        for section in self.elf.iter_sections():
            if section["sh_type"] == "SHT_RELA":
                addends |= {
                    one["r_offset"]: one["r_addend"] % (1 << 64)
                    for one in section.iter_relocations()
                    if one["r_info_type"] == 1027
                }
        sec = self.section_of(start)
        at = start - self.elf.get_section(sec)["sh_addr"]
        words = struct.unpack_from(f"<{(stop - start) // 8}Q", self.content(sec), at)
        values = [addends.get(start + 8 * i, word) for i, word in enumerate(words)]
        return [(self.section_of(value), value) if value else None for value in values]

    def _in_sections(self) -> Iterator[tuple[int, int]]:
        symtab = self.elf.get_section_by_name(".symtab")
        for sec, section in enumerate(self.elf.iter_sections()):
            if section.name not in RECORD_SECTIONS:
                continue
            slots = {}
            for table in self.elf.iter_sections():
                if table["sh_type"] == "SHT_RELA" and table["sh_info"] == sec:
                    for one in table.iter_relocations():
                        assert one["r_info_type"] == 257  # R_AARCH64_ABS64
                        named = symtab.get_symbol(one["r_info_sym"])
                        slots[one["r_offset"]] = (named["st_shndx"], named["st_value"] + one["r_addend"])
            assert sorted(slots) == list(range(0, section["sh_size"], 8))
            yield from (slots[at] for at in sorted(slots))

    def row(self, number: int, record: tuple[int, int] | None, layout: str) -> dict[str, Any]:
        """The whole row of the interface, by what capstone sees at the record and pyelftools around it."""
        if record is None:
            keys = ("section", "shndx", "function", "entry", "local_entry", "site", "branch", "offset", "pos")
            nothing = dict.fromkeys(keys, None)
            zero = "0x" + "0" * 16
            return {
                "row": number,
                "record": zero,
                **nothing,
                "aliases": [],
                "words": [],
                "status": "null",
                "listed_as": None,
            }
        sec, value = record
        head = self.elf.get_section(sec).header
        off = value - (0 if self.elf["e_type"] == "ET_REL" else head["sh_addr"])
        code = self.content(sec)

        def text(at: int) -> str:
            one = next(DECODER.disasm(code[off + at : off + at + 4], value + at))
            return f"{one.mnemonic} {one.op_str}".strip()

        if layout == "callops":
            first = 12 if text(8).startswith("bti") else 8
            entry, call = value + 8, first + 4
            assert [text(0), text(4), text(first), text(call)] == ["nop"] * 4
        elif layout == "pfe2":
            first, call = 0, 4
            entry = value - 4 if off >= 4 and self.names(sec, value - 4) and text(-4).startswith("bti") else value
            assert [text(0), text(4)] == ["nop"] * 2
        else:
            first = call = 0
            assert text(0).startswith("bl ")
            inside = [one[1] for one in self.functions() if one[0] == sec and one[1] <= value < one[2]]
            entry = max(inside, default=value)
        names = self.names(sec, entry)
        words = struct.unpack_from(f"<{call // 4 + 1}I", code, off)
        return {
            "row": number, "record": f"0x{value:016x}", "section": self.elf.get_section(sec).name, "shndx": sec,
            "function": names[0] if names else None, "aliases": names[1:], "entry": f"0x{entry:016x}",
            "local_entry": f"0x{entry:016x}", "site": f"0x{value + first:016x}", "branch": f"0x{value + call:016x}",
            "offset": f"0x{off + first:x}", "pos": head["sh_offset"] + off + first,
            "words": [f"0x{word:08x}" for word in words], "status": "ready" if names else "weak-leftover",
            "listed_as": None if names else self.neighbour(value + call),
        }  # fmt: skip


def oracle(name: str) -> Oracle:
    path = MINI / name
    return Oracle(parsed(path.read_bytes()), path.read_bytes())


def rows(path: str | Path, layout: str | None = None) -> Any:
    scan = api.scan(str(path), layout)
    return site_rows(scan, scan.sites.status >= 0)


@pytest.mark.parametrize(("name", "layout"), EVERY.items())
def test_every_row_of_a_fixture_is_what_pyelftools_and_capstone_read(name: str, layout: str) -> None:
    other = oracle(name)
    expected = [other.row(i, record, layout) for i, record in enumerate(other.records())]
    assert rows(MINI / name) == expected


@pytest.mark.parametrize(("name", "layout"), EVERY.items())
def test_the_layout_is_decided_by_evidence(name: str, layout: str) -> None:
    shape = api.scan(str(MINI / name)).sites.shape
    assert shape is not None
    assert shape.name == layout


# What testdata/mini/README.md says, worked out from the sources: three overridden weak functions in the unsorted
# images, the same three as leading zeros in the sorted ones.
@pytest.mark.parametrize(
    ("name", "ready", "leftover", "null"),
    [
        ("vmlinux-pfe2", 16, 3, 0),
        ("vmlinux-pfe2-bti", 16, 3, 0),
        ("vmlinux-exec", 16, 3, 0),
        ("vmlinux-pg", 16, 3, 0),
        ("vmlinux-kcfi", 16, 0, 3),
        ("vmlinux-callops", 16, 0, 3),
        ("vmlinux-callops-bti", 16, 0, 3),
        ("pfe2.o", 8, 0, 0),
        ("callops.o", 8, 0, 0),
        ("clang-sections.o", 8, 0, 0),
        ("pg.o", 8, 0, 0),
        ("mini.ko", 6, 0, 0),
        ("program", 4, 0, 0),
        ("vmlinux-notrace", 0, 0, 0),
    ],
)
def test_statuses_count_as_the_sources_say(name: str, ready: int, leftover: int, null: int) -> None:
    found = [row["status"] for row in rows(MINI / name)]
    assert {status: found.count(status) for status in set(found)} == {
        key: n for key, n in (("ready", ready), ("weak-leftover", leftover), ("null", null)) if n
    }


def test_leftovers_are_not_named_after_their_neighbours() -> None:
    left = [row for row in rows(MINI / "vmlinux-pfe2") if row["status"] == "weak-leftover"]
    assert [(row["row"], row["function"], row["aliases"]) for row in left] == [
        (4, None, []), (15, None, []), (18, None, []),
    ]  # fmt: skip


def test_three_names_at_one_entry_are_one_site_under_the_name_that_kallsyms_takes() -> None:
    (row,) = [row for row in rows(MINI / "vmlinux-callops") if "__arm64_sys_getppid" in row["aliases"]]
    assert (row["function"], sorted(row["aliases"])) == ("sys_getppid", ["__arm64_sys_getppid", "__se_sys_getppid"])


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-callops", "vmlinux-kcfi"])
def test_a_function_of_nops_without_a_record_is_no_site(name: str) -> None:
    names = {row["function"] for row in rows(MINI / name)}
    assert names.isdisjoint({"asm_nops", "notrace_helper"})


def test_an_image_without_function_tracer_has_no_layout_and_no_rows() -> None:
    table = api.scan(str(MINI / "vmlinux-notrace")).sites
    assert (table.shape, len(table)) == (None, 0)


@pytest.mark.parametrize(("name", "lead"), [("vmlinux-pfe2", 0), ("vmlinux-callops", 0), ("vmlinux-callops-bti", 4)])
def test_words_of_an_enabled_site_read_as_enabled(name: str, lead: int, tmp_path: Path) -> None:
    file = (MINI / name).read_bytes()
    entry = symbol(file, "vfs_read")
    call = bl(entry + lead + 4, symbol(file, "ftrace_caller"))
    path = edited(MINI / name, tmp_path / "v", {entry + lead: as_code([MOV_X9_X30, call])})
    (row,) = [row for row in rows(path) if row["function"] == "vfs_read"]
    assert (row["status"], row["words"][-2:]) == ("enabled", ["0xaa1e03e9", f"0x{call:08x}"])


def test_the_first_word_alone_reads_as_half(tmp_path: Path) -> None:
    source = MINI / "vmlinux-pfe2"
    entry = symbol(source.read_bytes(), "vfs_read")
    path = edited(source, tmp_path / "v", {entry: as_code([MOV_X9_X30])})
    (row,) = [row for row in rows(path) if row["function"] == "vfs_read"]
    assert row["status"] == "half"


def test_other_words_at_a_record_read_as_unexpected(tmp_path: Path) -> None:
    source = MINI / "vmlinux-pfe2"
    entry = symbol(source.read_bytes(), "vfs_read")
    path = edited(source, tmp_path / "v", {entry: as_code([RET])})
    (row,) = [row for row in rows(path) if row["function"] == "vfs_read"]
    assert (row["status"], row["words"]) == ("unexpected", ["0xd65f03c0", "0xd503201f"])


def test_a_record_outside_the_text_is_outside_text(tmp_path: Path) -> None:
    source = MINI / "vmlinux-exec"
    file = source.read_bytes()
    data = symbol(file, "linux_banner")
    path = edited(source, tmp_path / "v", {symbol(file, "__start_mcount_loc"): struct.pack("<Q", data)})
    row = rows(path)[0]
    assert (row["row"], row["record"], row["section"], row["function"], row["status"]) == (
        0, f"0x{data:016x}", ".rodata", None, "outside-text",
    )  # fmt: skip


def test_a_record_in_no_section_is_outside_text(tmp_path: Path) -> None:
    source = MINI / "vmlinux-exec"
    start = symbol(source.read_bytes(), "__start_mcount_loc")
    path = edited(source, tmp_path / "v", {start: struct.pack("<Q", 0x1234)})
    assert rows(path)[0]["status"] == "outside-text"


@pytest.mark.parametrize("name", ["vmlinux-callops", "vmlinux-callops-bti"])
def test_a_site_enabled_earlier_is_found_without_its_record(name: str, tmp_path: Path) -> None:
    file = (MINI / name).read_bytes()
    entry, start = symbol(file, "vfs_read"), symbol(file, "__start_mcount_loc")
    lead = 4 if words_at(file, entry, 1) != [NOP] else 0
    code = as_code([MOV_X9_X30, bl(entry + lead + 4, symbol(file, "ftrace_caller"))])
    slot = [row["function"] for row in rows(MINI / name)].index("vfs_read")
    path = edited(MINI / name, tmp_path / "v", {entry + lead: code, start + 8 * slot: bytes(8)})
    found = rows(path)
    assert [row["row"] for row in found] == [*range(19), None]
    assert found[slot]["status"] == "null"
    last = found[-1]
    assert (last["record"], last["function"], last["entry"], last["site"], last["status"]) == (
        f"0x{entry - 8:016x}", "vfs_read", f"0x{entry:016x}", f"0x{entry + lead:016x}", "enabled",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "layout"), [("vmlinux-callops", "callops"), ("vmlinux-kcfi", "pfe2")])
def test_the_layout_of_an_image_without_records_is_read_from_its_ftrace_caller(
    name: str, layout: str, tmp_path: Path
) -> None:
    start = symbol((MINI / name).read_bytes(), "__start_mcount_loc")
    path = edited(MINI / name, tmp_path / "v", {start: bytes(19 * 8)})
    table = api.scan(str(path)).sites
    assert table.shape is not None
    assert (table.shape.name, len(table)) == (layout, 19)


F0, F1, F2 = TEXT + 0x200, TEXT + 0x210, TEXT + 0x220


def test_two_layouts_in_one_image_are_refused_with_counts_and_samples(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1), ("f2", F2)]).build())
    code = as_code([NOP, NOP])  # f2's record becomes the one of a CALL_OPS site: f2 − 8, with NOPs on both sides
    edited(Path(path), tmp_path / "w", {F2 - 8: code, BASE + 0x20_0010: struct.pack("<Q", F2 - 8)})
    with pytest.raises(ShapeError) as caught:
        api.scan(str(tmp_path / "w"))
    assert str(caught.value) == (
        f"{tmp_path}/w: no single site layout explains the records: found callops 1, pfe2 2, mcount 0, none of them 0 "
        f"(row 0 at {F0:#x}: d503201f d503201f d65f03c0 00000000; "
        f"row 2 at {F2 - 8:#x}: d503201f d503201f d503201f d503201f), "
        "expected one layout in the whole image – --layout NAME forces one"
    )
    assert caught.value.exit_code == 4


def test_records_that_fit_no_layout_are_refused_with_their_words(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1)]).build()))
    edited(path, tmp_path / "w", {F0: as_code([RET]), F1: as_code([RET])})
    with pytest.raises(ShapeError) as caught:
        api.scan(str(tmp_path / "w"))
    assert str(caught.value) == (
        f"{tmp_path}/w: no single site layout explains the records: found callops 0, pfe2 0, mcount 0, none of them 2 "
        f"(row 0 at {F0:#x}: d65f03c0 d503201f d65f03c0 00000000; row 1 at {F1:#x}: d65f03c0 d503201f d65f03c0 "
        "00000000), expected one layout in the whole image – --layout NAME forces one"
    )


def test_a_forced_layout_overrules_the_evidence(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1), ("f2", F2)]).build()))
    edited(path, tmp_path / "w", {F2 - 8: as_code([NOP, NOP]), BASE + 0x20_0010: struct.pack("<Q", F2 - 8)})
    assert [(row["function"], row["status"]) for row in rows(tmp_path / "w", "pfe2")] == [
        ("f0", "ready"), ("f1", "ready"), (None, "unexpected"),
    ]  # fmt: skip


def test_a_forced_layout_of_no_name_is_refused() -> None:
    with pytest.raises(ShapeError) as caught:
        api.scan(str(MINI / "vmlinux-pfe2"), "pfe3")
    assert str(caught.value) == (
        "arm64 has no layout of that name: found pfe3, expected callops, pfe2, mcount, pfe-front, pad-before, padding, "
        "pfe1 – did you mean pfe1 or pfe2?"
    )


def test_one_function_that_begins_with_four_nops_does_not_change_the_layout() -> None:
    """slot_probe of the pfe2 images: two NOPs of the compiler's, two of its own, and a record at the first."""
    (row,) = [row for row in rows(MINI / "vmlinux-pfe2") if row["function"] == "slot_probe"]
    file = (MINI / "vmlinux-pfe2").read_bytes()
    assert words_at(file, int(row["site"], 16), 4) == [NOP] * 4
    assert row["words"] == ["0xd503201f"] * 2


def test_relr_covers_every_slot_of_the_sorted_images() -> None:
    other = oracle("vmlinux-callops")
    places = {
        one["r_offset"]
        for section in other.elf.iter_sections()
        if isinstance(section, RelrRelocationSection)
        for one in section.iter_relocations()
    }
    start = symbol(other.file, "__start_mcount_loc")
    assert places >= {start + 8 * i for i in range(19)}
    assert api.scan(str(MINI / "vmlinux-callops")).records.relr.all()


def test_a_trampoline_is_no_site() -> None:
    assert TRAMP[0] != MOV_X9_X30
    assert all(row["function"] != "ftrace_stub_direct_tramp" for row in rows(MINI / "vmlinux-callops"))
