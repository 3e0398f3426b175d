"""The append-only editor: what it leaves alone, where new things go, and four other readers of what it makes."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lief
import numpy as np
import pytest
from elftools.elf.descriptions import describe_reloc_type
from elfwriter import (
    ALLOC,
    ET_REL,
    EXEC,
    FUNC,
    LOCAL,
    LORESERVE,
    MINI,
    NOTYPE,
    OBJECT,
    PROGBITS,
    RELA,
    SECTION,
    STRTAB,
    SYMTAB,
    SYMTAB_SHNDX,
    XINDEX,
    Elf,
    Relocation,
    Section,
    extended,
    parsed,
    rela,
    relocated,
    relocations_by_table,
    written,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftpatch.elf.editor import MAX_ALIGN, Editor
from ftpatch.errors import ElfError
from ftpatch.recovered.image import open_image

MINI_PPC = MINI.parent / "mini-ppc64le"
FIXTURES = [
    *(MINI / name for name in ("mini.ko", "callops.o", "clang-sections.o", "pfe2.o", "pg.o")),
    *(MINI_PPC / name for name in ("mini.ko", "clang.o", "mprofile.o", "pfe2.o", "debug-only.ko")),
]
ids = ["/".join(path.parts[-2:]) for path in FIXTURES]
fixtures = pytest.mark.parametrize("path", FIXTURES, ids=ids)
CALL, ABS64 = {183: 283, 21: 10}, {183: 257, 21: 38}  # R_AARCH64_CALL26, R_PPC64_REL24; ABS64, ADDR64
E_SHOFF, E_SHNUM = slice(40, 48), slice(60, 62)


def editor_of(path: Path | str) -> Editor:
    return Editor(open_image(str(path)))


def result(editor: Editor) -> bytes:
    """The file that the editor's answer describes."""
    file = bytearray(editor.image.data.tobytes())
    header, patches, tail = editor.finish()
    for field in header:
        file[field.pos : field.pos + len(field.new)] = field.new
    for patch in patches:
        pos = int(editor.image.shdr["sh_offset"][patch.sec]) + patch.off
        file[pos : pos + len(patch.new)] = patch.new
    for piece in tail:
        assert piece.pos == len(file)
        file += piece.new
    return bytes(file)


def heads(file: bytes | bytearray) -> list[dict[str, int]]:
    """Every section header, as numbers."""
    fields = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize")
    shoff, n = struct.unpack_from("<Q", file, 40)[0], struct.unpack_from("<H", file, 60)[0]
    n = n or struct.unpack_from("<Q", file, shoff + 32)[0]
    table = struct.iter_unpack("<IIQQQQIIQQ", file[shoff : shoff + 64 * n])
    return [dict(zip(fields, row, strict=True)) for row in table]


def content(file: bytes, sec: int) -> bytes:
    head = heads(file)[sec]
    return file[head["offset"] : head["offset"] + head["size"]]


def index_of(file: bytes, name: str) -> int:
    return int(parsed(file).get_section_index(name))


def symtab(file: bytes | bytearray) -> int:
    return next(sec for sec, head in enumerate(heads(file)) if head["type"] == SYMTAB)


def everything(editor: Editor) -> None:
    """One of each kind of change."""
    machine = editor.image.e_machine
    code = editor.section(".text.ftpatch", PROGBITS, ALLOC | EXEC, b"\xc0\x03\x5f\xd6", 16)
    here = editor.symbol("ftpatch_call", code, 0, 4, FUNC)
    there = editor.symbol("somewhere_else", 0)
    editor.relocate(code, 0, CALL[machine], there)
    editor.relocate(code, 0, ABS64[machine], here, -8)
    text = [*editor.image.sections_named(".text.vfs_read"), *editor.image.sections_named(".text")][0]
    editor.relocate(text, 4, CALL[machine], here, 0)
    data = editor.section(".data.ftpatch", PROGBITS, ALLOC, bytes(24), 8)
    editor.relocate(data, 8, ABS64[machine], here, 4)


# -- nothing asked -----------------------------------------------------------------------------------------------------


@fixtures
def test_an_editor_that_is_asked_nothing_changes_nothing(path: Path) -> None:
    editor = editor_of(path)
    assert editor.finish() == ([], [], [])
    assert result(editor) == path.read_bytes()


@pytest.mark.parametrize("n", [12, 70_000])
def test_nothing_asked_of_a_built_file_changes_nothing(tmp_path: Path, n: int) -> None:
    path = many_sections(tmp_path, n)
    assert editor_of(path).finish() == ([], [], [])


def test_a_cut_without_slots_changes_nothing(mini: Path) -> None:
    editor = editor_of(mini / "mini.ko")
    editor.cut_slots(14, np.zeros(6, dtype=bool), 0)
    assert editor.finish() == ([], [], [])


def test_a_linked_file_is_not_for_this_editor(mini: Path) -> None:
    with pytest.raises(AssertionError, match="a linked file was to be edited as a relocatable one"):
        editor_of(mini / "vmlinux-pfe2")


# -- what stays --------------------------------------------------------------------------------------------------------


@fixtures
def test_original_bytes_stay_in_place_but_for_two_fields_of_the_header(path: Path) -> None:
    editor = editor_of(path)
    everything(editor)
    before, after = path.read_bytes(), result(editor)
    kept = bytearray(after[: len(before)])
    assert kept[E_SHOFF] != before[E_SHOFF] and kept[E_SHNUM] != before[E_SHNUM]
    kept[E_SHOFF], kept[E_SHNUM] = before[E_SHOFF], before[E_SHNUM]
    assert kept == before


@fixtures
def test_a_patch_without_growth_leaves_even_the_header_alone(path: Path) -> None:
    editor = editor_of(path)
    sec = editor.image.sections_named("__patchable_function_entries", "__mcount_loc", ".symtab")[0]
    if not editor.image.has_bytes[sec]:
        (sec,) = editor.image.sections_named(".symtab")
    editor.patch(sec, 0, b"\x7f", "site", 0)
    before, pos = path.read_bytes(), heads(path.read_bytes())[sec]["offset"]
    assert result(editor) == before[:pos] + b"\x7f" + before[pos + 1 :]


@fixtures
def test_no_old_section_or_symbol_changes_its_number(path: Path) -> None:
    editor = editor_of(path)
    everything(editor)
    before, after = path.read_bytes(), result(editor)
    old, new = heads(before), heads(after)
    moves = {SYMTAB, STRTAB, RELA, SYMTAB_SHNDX}
    for one, two in zip(old, new, strict=False):
        if one["type"] in moves:
            one, two = ({**head, "offset": 0, "size": 0} for head in (one, two))
        assert one == two
    table, rows = symtab(before), content(before, symtab(before))
    assert content(after, symtab(after))[: len(rows)] == rows
    assert new[symtab(after)]["info"] == old[table]["info"]
    for strings in {old[table]["link"], struct.unpack_from("<H", before, 62)[0]}:
        assert content(after, strings).startswith(content(before, strings))


@fixtures
def test_new_symbols_are_global_and_last(path: Path) -> None:
    editor = editor_of(path)
    everything(editor)
    file = result(editor)
    found = list(parsed(file).get_section(symtab(file)).iter_symbols())
    n, first = len(editor.image.symbols.rows), len(editor.image.shdr)
    assert [(one.name, one["st_info"]["bind"], one["st_info"]["type"], one["st_shndx"]) for one in found[n:]] == [
        ("ftpatch_call", "STB_GLOBAL", "STT_FUNC", first),
        ("somewhere_else", "STB_GLOBAL", "STT_NOTYPE", "SHN_UNDEF"),
    ]
    local = heads(file)[symtab(file)]["info"]
    assert {one["st_info"]["bind"] for one in found[:local]} == {"STB_LOCAL"}
    assert "STB_LOCAL" not in {one["st_info"]["bind"] for one in found[local:]}


@fixtures
def test_what_grows_lies_behind_the_original_bytes_and_is_aligned(path: Path) -> None:
    editor = editor_of(path)
    everything(editor)
    before, after = path.read_bytes(), result(editor)
    old, new, end = heads(before), heads(after), len(before)
    moved = [sec for sec, head in enumerate(new) if head["offset"] >= end]
    grown = [sec for sec in moved if sec < len(old)]
    kinds = [old[sec]["type"] for sec in grown]
    assert kinds.count(SYMTAB) == 1 and kinds.count(RELA) == 1
    assert [sec for sec in moved if sec >= len(old)] == list(range(len(old), len(new)))
    for sec in moved:
        assert new[sec]["offset"] % max(new[sec]["align"], 1) == 0
        assert 0 <= new[sec]["offset"] - end < max(new[sec]["align"], 1)  # in the order of their numbers, no gaps
        end = new[sec]["offset"] + new[sec]["size"]
    shoff = struct.unpack_from("<Q", after, 40)[0]
    assert shoff % 8 == 0 and 0 <= shoff - end < 8 and shoff + 64 * len(new) == len(after)


def test_one_string_table_for_symbols_and_sections_grows_once(mini: Path) -> None:
    """clang writes a single .strtab, which both the symbol table and e_shstrndx name."""
    path = mini / "clang-sections.o"
    before = path.read_bytes()
    strings = struct.unpack_from("<H", before, 62)[0]
    assert heads(before)[symtab(before)]["link"] == strings
    editor = editor_of(path)
    everything(editor)
    after = result(editor)
    assert [sec for sec, head in enumerate(heads(after)[: len(heads(before))]) if head["offset"] >= len(before)
            and head["type"] == STRTAB] == [strings]  # fmt: skip
    new = content(after, strings)
    assert new[len(content(before, strings)) :] == (
        b".text.ftpatch\0ftpatch_call\0somewhere_else\0.rela.text.ftpatch\0.data.ftpatch\0.rela.data.ftpatch\0"
    )
    assert parsed(after).get_section(len(heads(after)) - 1).name == ".rela.data.ftpatch"


def test_the_pieces_say_what_they_are(mini: Path) -> None:
    editor = editor_of(mini / "mini.ko")
    everything(editor)
    header, patches, tail = editor.finish()
    assert [(one.pos, len(one.new), one.owner) for one in header] == [(40, 8, "e_shoff"), (60, 2, "e_shnum")]
    assert patches == []
    assert [one.owner for one in tail] == [
        "section 3 .rela.text", "section 20 .symtab", "section 21 .strtab", "section 22 .shstrtab",
        "section 23 .text.ftpatch", "section 24 .rela.text.ftpatch", "section 25 .data.ftpatch",
        "section 26 .rela.data.ftpatch", "section headers",
    ]  # fmt: skip


# -- tables that are not there -----------------------------------------------------------------------------------------


def plain(tmp_path: Path, *, machine: int = 183, tables: bool = True) -> Path:
    """A file of one function, with or without relocations for it."""
    elf = Elf(ET_REL, machine)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC, align=8)
    if tables:
        elf.section(".rela.text", rela(0, CALL[machine], 0, 2), type=RELA, link=3, info=1, align=8, entsize=24)
    elf.symbol("", 1, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", 1, 0, 16)
    return Path(written(tmp_path / "plain.o", elf.build()))


def test_a_table_is_made_for_a_section_without_relocations(tmp_path: Path) -> None:
    path = plain(tmp_path, tables=False)
    editor = editor_of(path)
    editor.relocate(1, 4, 283, 2, -4)
    file = result(editor)
    (table,) = (sec for sec, head in enumerate(heads(file)) if head["type"] == RELA)
    assert parsed(file).get_section(table).name == ".rela.text"
    assert heads(file)[table] | {"name": 0, "offset": 0} == {
        "name": 0, "type": RELA, "flags": 0x40, "addr": 0, "offset": 0, "size": 24, "link": symtab(file), "info": 1,
        "align": 8, "entsize": 24,
    }  # fmt: skip
    assert relocated(file) == [Relocation(1, 4, 283, "f", -4)]


def test_new_relocations_follow_the_old_ones(tmp_path: Path) -> None:
    editor = editor_of(plain(tmp_path))
    for off in (8, 4):
        editor.relocate(1, off, 283, 1, off)
    assert relocated(result(editor)) == [
        Relocation(1, 0, 283, "f", 0), Relocation(1, 8, 283, ".text", 8), Relocation(1, 4, 283, ".text", 4),
    ]  # fmt: skip


def test_a_row_of_a_table_that_grows_is_patched_in_the_copy(tmp_path: Path) -> None:
    path = plain(tmp_path)
    editor = editor_of(path)
    editor.patch(2, 0, rela(0, 283, 12, 1), "relocation", 0)
    editor.relocate(1, 4, 283, 2)
    assert editor.finish()[1] == []
    file = result(editor)
    assert relocated(file) == [Relocation(1, 0, 283, ".text", 12), Relocation(1, 4, 283, "f", 0)]
    assert file[40:48] != path.read_bytes()[40:48] and file[64:160] == path.read_bytes()[64:160]


def test_a_string_table_whose_last_string_lacks_its_end_keeps_that_name(tmp_path: Path) -> None:
    """The name that came next became a part of the last one, and the self-check refused the result (exit 70)."""
    path = plain(tmp_path)
    file = bytearray(path.read_bytes())
    for sec in (symtab(file) + 1, len(heads(file)) - 1):
        head = struct.unpack_from("<Q", file, 40)[0] + 64 * sec
        struct.pack_into("<Q", file, head + 32, heads(file)[sec]["size"] - 1)
    path.write_bytes(file)
    editor = editor_of(path)
    assert (editor.image.names[-1], editor.image.symbols.name(2)) == (".shstrtab", "f")
    editor.symbol("g", editor.section(".more", PROGBITS, ALLOC, b"x", 1))
    again = open_image(written(tmp_path / "out.o", result(editor)))
    assert again.names[-2:] == (".shstrtab", ".more")
    assert [again.symbols.name(row) for row in (2, 3)] == ["f", "g"]


def test_another_content_goes_to_the_end_and_the_old_one_stays(mini: Path) -> None:
    before = (mini / "mini.ko").read_bytes()
    editor = editor_of(mini / "mini.ko")
    editor.replace(12, b"license=GPL\0")
    file = result(editor)
    assert content(file, 12) == b"license=GPL\0" and heads(file)[12]["offset"] == len(before)
    assert file[64 : len(before)] == before[64:]


# -- more sections than a symbol can name ------------------------------------------------------------------------------


@cache
def file_of(n: int) -> bytes:
    """A file of n sections: code and relocations first, empty ones, the tables last. With very many of them a symbol of
    the last empty one needs a table of its own for their numbers."""
    elf, wide = Elf(ET_REL), n > LORESERVE + 8
    text = elf.section(".text", bytes(16), flags=ALLOC | EXEC, align=8)
    rows = rela(0, 283, 4, 2) + rela(4, 257, 0, 3)
    elf.section(".rela.text", rows, type=RELA, link=n - 3 - wide, info=text, align=8, entsize=24)
    for _ in range(n - 6 - wide):
        last = elf.section(".d", flags=ALLOC)
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", text, 0, 16)
    elf.symbol("far", last if wide else text, 0, 0, OBJECT)
    return elf.build()


def many_sections(tmp_path: Path, n: int) -> Path:
    path = tmp_path / "many.o"
    path.write_bytes(file_of(n))
    assert len(heads(path.read_bytes())) == n
    return path


@pytest.mark.parametrize(
    ("n", "e_shnum", "first", "tables"),
    [
        (12, 17, 12, 0),
        (65_274, 65_279, 65_274, 0),  # the last count that e_shnum holds
        (65_275, 0, 65_275, 0),
        (65_278, 0, 65_278, 1),
        (65_279, 0, 65_279, 1),  # the last number that a symbol holds
        (65_280, 0, 65_280, 1),
        (70_000, 0, 70_000, 1),
    ],
)
def test_sections_and_symbols_beyond_65279_are_counted_where_they_fit(
    tmp_path: Path, n: int, e_shnum: int, first: int, tables: int
) -> None:
    path = many_sections(tmp_path, n)
    before = path.read_bytes()
    editor = editor_of(path)
    secs = [editor.section(f".new{i}", PROGBITS, ALLOC, bytes([i] * 8), 8) for i in range(3)]
    symbols = [editor.symbol(f"new{i}", sec, i, 1, OBJECT) for i, sec in enumerate(secs)]
    outside = editor.symbol("outside", 0)
    for i, sec in enumerate(secs[:2]):
        editor.relocate(sec, 0, 257, symbols[i], i)
    editor.relocate(1, 8, 283, outside)
    after = result(editor)
    head = heads(after)
    shnum, shstrndx = struct.unpack_from("<HH", after, 60)
    made = tables and n <= LORESERVE + 8
    assert len(head) == n + 5 + made
    assert shnum == (e_shnum if not made else 0) and head[0]["size"] == (0 if shnum else len(head))
    assert shstrndx == struct.unpack_from("<H", before, 62)[0]
    assert head[0]["link"] == heads(before)[0]["link"] == (n - 1 if n - 1 >= LORESERVE else 0)
    rows = content(after, symtab(after))
    raw = [struct.unpack_from("<H", rows, 24 * row + 6)[0] for row in (*symbols, outside)]
    assert raw == [*(sec if sec < LORESERVE else XINDEX for sec in secs), 0]
    wide = [sec for sec, one in enumerate(head) if one["type"] == SYMTAB_SHNDX]
    assert len(wide) == tables
    if wide:
        numbers = struct.unpack(f"<{len(rows) // 24}I", content(after, wide[0]))
        assert [numbers[row] for row in symbols] == [sec if sec >= LORESERVE else 0 for sec in secs]
        assert (head[wide[0]]["link"], head[wide[0]]["entsize"], head[wide[0]]["align"]) == (symtab(after), 4, 4)
    out = written(tmp_path / "out.o", after)
    again = open_image(out)
    assert [again.names[int(again.symbols.shndx[row])] for row in symbols] == [".new0", ".new1", ".new2"]
    assert again.symbols.shndx[: len(editor.image.symbols.rows)].tolist() == editor.image.symbols.shndx.tolist()
    rows_of = by_pyelftools(after)
    assert readelf_relocations(out) == rows_of
    assert rows_of[".rela.text"][-1] == (8, 283, "outside", 0)
    assert rows_of[".rela.new1"] == [(0, 257, "new1", 1)]
    if shnum:  # lief looks no further than that
        binary = lief.parse(out)
        assert isinstance(binary, lief.ELF.Binary) and len(binary.sections) == len(head)


def test_the_table_of_wide_numbers_is_the_symbol_tables_own_and_has_an_entry_per_symbol(tmp_path: Path) -> None:
    """The first such table was taken whatever it belonged to, and one too short was only appended to, so that the new
    entry stood for another symbol."""
    elf = Elf(ET_REL)
    text = elf.section(".text", bytes(16), flags=ALLOC | EXEC, align=8)
    elf.section(".foreign", bytes(4), type=SYMTAB_SHNDX, link=text, align=4, entsize=4)
    elf.section(".symtab_shndx", bytes(4), type=SYMTAB_SHNDX, link=4, align=4, entsize=4)
    elf.symbol("f", text, 0, 16)
    path = Path(written(tmp_path / "short.o", elf.build()))
    editor = editor_of(path)
    editor.symbol("g", text)
    file = result(editor)
    assert (heads(file)[3]["size"], heads(file)[2]["size"]) == (12, 4)


# -- records that are cut ----------------------------------------------------------------------------------------------


def slots(file: bytes, sec: int) -> list[tuple[int, str, int]]:
    """(offset, symbol, addend) of the relocations of a record section."""
    return [(one.offset, one.symbol, one.addend) for one in relocated(file) if one.section == sec]


@pytest.mark.parametrize("gone", [{0}, {5}, {0, 5}, {2, 3}, set(range(6)), {0, 1, 2, 3, 4}, {1, 2, 3, 4, 5}])
@pytest.mark.parametrize("name", ["mini.ko", "callops.o", "pg.o", "pfe2.o"])
def test_slots_close_ranks_in_their_order(tmp_path: Path, mini: Path, name: str, gone: set[int]) -> None:
    before = (mini / name).read_bytes()
    editor = editor_of(mini / name)
    (sec,) = editor.image.sections_named("__patchable_function_entries", "__mcount_loc")
    old = slots(before, sec)
    mask = np.array([slot in gone for slot in range(len(old))])
    editor.cut_slots(sec, mask, 0)
    file = result(editor)
    kept = [row for slot, row in enumerate(old) if slot not in gone]
    assert slots(file, sec) == [(8 * at, *row[1:]) for at, row in enumerate(kept)]
    table = next(i for i, head in enumerate(heads(file)) if head["type"] == RELA and head["info"] == sec)
    assert (heads(file)[sec]["size"], heads(file)[table]["size"]) == (8 * len(kept), 24 * len(kept))
    assert len(heads(file)) == len(heads(before))
    others = [one for one in relocated(before) if one.section != sec]
    assert [one for one in relocated(file) if one.section != sec] == others
    assert {patch.kind for patch in editor.finish()[1]} <= {"relocation"}  # the words are all alike


def test_records_in_many_sections_are_cut_in_theirs(mini: Path) -> None:
    before = (mini / "clang-sections.o").read_bytes()
    editor = editor_of(mini / "clang-sections.o")
    secs = editor.image.sections_named("__patchable_function_entries")
    assert len(secs) == 8
    for sec in (secs[0], secs[3], secs[7]):
        editor.cut_slots(sec, np.ones(1, dtype=bool), 0)
    file = result(editor)
    assert [len(slots(file, sec)) for sec in secs] == [0, 1, 1, 0, 1, 1, 1, 0]
    assert [slots(file, sec) for sec in secs if slots(file, sec)] == [
        slots(before, sec) for i, sec in enumerate(secs) if i not in (0, 3, 7)
    ]
    assert editor.finish()[1] == []


def test_the_words_of_slots_move_with_them_and_keep_their_owner(tmp_path: Path) -> None:
    """ppc64 repeats the addend in the word."""
    elf = Elf(ET_REL, 21)
    text = elf.section(".text", bytes(32), flags=ALLOC | EXEC)
    words = [0x10, 0x20, 0x30, 0x30]
    sec = elf.section("__mcount_loc", struct.pack("<4Q", *words), flags=ALLOC, align=8)
    rows = b"".join(rela(8 * i, 38, word, 1) for i, word in enumerate(words))
    elf.section(".rela__mcount_loc", rows, type=RELA, link=4, info=sec, align=8, entsize=24)
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", text, 0)
    editor = editor_of(written(tmp_path / "a.o", elf.build()))
    editor.cut_slots(sec, np.array([False, True, False, False]), 100)
    patches = editor.finish()[1]
    assert [(one.sec, one.off, one.kind, one.owner) for one in patches] == [
        (2, 8, "record", 101), (3, 24, "relocation", 1),
    ]  # fmt: skip
    file = result(editor)
    assert struct.unpack("<3Q", content(file, sec)) == (0x10, 0x30, 0x30)
    assert slots(file, sec) == [(0, ".text", 0x10), (8, ".text", 0x30), (16, ".text", 0x30)]


def test_relocations_that_do_nothing_may_be_anywhere_in_a_record_table(tmp_path: Path) -> None:
    """R_*_NONE is skipped by every loader; one far outside made an IndexError."""
    elf = Elf(ET_REL)
    text = elf.section(".text", bytes(32), flags=ALLOC | EXEC)
    sec = elf.section("__mcount_loc", bytes(16), flags=ALLOC, align=8)
    rows = rela(0, 257, 0, 1) + rela(0x1234_5678, 0, 0) + rela(8, 257, 16, 1) + rela(11, 0, 0)
    elf.section(".rela__mcount_loc", rows, type=RELA, link=4, info=sec, align=8, entsize=24)
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", text, 0)
    editor = editor_of(written(tmp_path / "a.o", elf.build()))
    editor.cut_slots(sec, np.array([True, False]), 0)
    assert slots(result(editor), sec) == [(0x1234_5678, "", 0), (0, ".text", 16), (3, "", 0)]


# -- files that contradict themselves ----------------------------------------------------------------------------------


def set_field(path: Path, sec: int, at: int, kind: str, value: int) -> None:
    """Change one field of a section header."""
    file = bytearray(path.read_bytes())
    struct.pack_into(kind, file, struct.unpack_from("<Q", file, 40)[0] + 64 * sec + at, value)
    path.write_bytes(file)


def set_symbol(path: Path, row: int, at: int, kind: str, value: int) -> None:
    file = bytearray(path.read_bytes())
    struct.pack_into(kind, file, heads(file)[symtab(file)]["offset"] + 24 * row + at, value)
    path.write_bytes(file)


def set_relocation(path: Path, at: int, kind: str, value: int) -> None:
    file = bytearray(path.read_bytes())
    struct.pack_into(kind, file, heads(file)[2]["offset"] + at, value)
    path.write_bytes(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: set_symbol(path, 2, 0, "<I", 99),
         "{path}: .symtab: a symbol's name lies outside the string table: found symbol 2, expected less than 0x3"),
        (lambda path: set_symbol(path, 2, 6, "<H", 6),
         "{path}: .symtab: a symbol lies in no section of the file: found symbol 2, expected a section below 6"),
        (lambda path: set_field(path, 3, 44, "<I", 4),
         "{path}: .symtab: the symbol table's sh_info is greater than its length: found 4, expected at most 3"),
        (lambda path: set_field(path, 1, 40, "<I", 6),
         "{path}: a section's sh_link is no section: found section 1, expected a link below 6"),
        (lambda path: set_field(path, 2, 40, "<I", 4),
         "{path}: section 2 .rela.text: the relocations' sh_link is not the symbol table: found section 4, expected "
         "section 3"),
        (lambda path: set_field(path, 2, 44, "<I", 6),
         "{path}: section 2 .rela.text: the relocations' sh_info is no section: found section 6, expected one below 6"),
        (lambda path: set_relocation(path, 12, "<I", 3),
         "{path}: section 2 .rela.text: a relocation names no symbol of this file: found symbol 3, expected less than "
         "3"),
    ],
    ids=["st_name", "st_shndx", "sh_info of symbols", "sh_link", "sh_link of rela", "sh_info of rela", "r_info"],
)  # fmt: skip
def test_a_file_whose_gaps_new_things_would_fill_is_refused(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    """A symbol of section 6, where there are 6, would be found in the first new one; and so on."""
    path = plain(tmp_path)
    change(path)
    with pytest.raises(ElfError) as refused:
        editor_of(path)
    assert str(refused.value) == message.format(path=path)


def test_a_stripped_file_is_refused(tmp_path: Path) -> None:
    elf = Elf(ET_REL)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC)
    path = written(tmp_path / "a.o", elf.build())
    with pytest.raises(ElfError) as refused:
        editor_of(path)
    assert str(refused.value) == (
        f"{path}: no symbol table: found a stripped file, expected .symtab – modules cannot be loaded without one"
    )


@pytest.mark.parametrize("align", [3, MAX_ALIGN << 1, 1 << 63, (1 << 64) - 1])
def test_a_table_that_no_alignment_fits_is_refused(tmp_path: Path, align: int) -> None:
    """An alignment of 2⁶³ asked for as many zeros in front of the table."""
    path = plain(tmp_path)
    set_field(path, 3, 48, "<Q", align)
    editor = editor_of(path)
    editor.symbol("g", 0)
    with pytest.raises(ElfError) as refused:
        editor.finish()
    assert str(refused.value) == (
        f"{path}: section 3 .symtab must move, and cannot be aligned: found {align:#x}, "
        "expected a power of two up to 0x10000"
    )


# -- other readers -----------------------------------------------------------------------------------------------------

Rows = dict[str, list[tuple[int, int, str, int]]]  # offset, type, symbol, addend; by the name of the table

NUMBER = {f"{describe_reloc_type(number, elf)}": number
          for elf in (parsed(FIXTURES[index].read_bytes()) for index in (0, 5))
          for number in range(1100)} | {"R_PPC64_ENTRY": 118}  # fmt: skip


def by_pyelftools(file: bytes) -> Rows:
    found: Rows = {}
    for name, rows in relocations_by_table(file):
        if rows:
            found.setdefault(name, []).extend((one.offset, one.type, one.symbol, one.addend) for one in rows)
    return found


def quiet(*command: str) -> str:
    """stdout of a command that has nothing to complain about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ROW = re.compile(r"([0-9a-f]{16}) +([0-9a-f]{16}) \S+ +(?:[0-9a-f]{16} +(\S+) ([+-]) )?([0-9a-f]+)")


def readelf_relocations(path: str) -> Rows:
    found: Rows = {}
    name = ""
    quiet("readelf", "-SsW", path)
    for line in quiet("readelf", "-rW", path).splitlines():
        if header := re.match(r"Relocation section '(.*)' at offset", line):
            name = header[1]
        elif row := ROW.match(line):
            addend = int(row[5], 16) * (-1 if row[4] == "-" else 1)
            kind = int(row[2], 16) & 0xFFFF_FFFF
            found.setdefault(name, []).append((int(row[1], 16), kind, row[3] or "", addend))
    return found


def lief_relocations(path: str) -> Rows:
    binary, found = lief.parse(path), dict[str, list[tuple[int, int, str, int]]]()
    assert isinstance(binary, lief.ELF.Binary)
    for one in binary.object_relocations:
        symbol = one.symbol
        assert one.section is not None and symbol is not None
        name = str(symbol.name)
        if symbol.type == lief.ELF.Symbol.TYPE.SECTION:
            name = str(list(binary.sections)[symbol.shndx].name)
        row = (int(one.address), int(one.type) & 0xFFFF, name, int(one.addend))
        found.setdefault(".rela" + str(one.section.name), []).append(row)
    return found


VALUE = re.compile(r"([0-9a-f]{16}) (R_\S+) +(\S+?)([+-]0x[0-9a-f]+)?$")


def objdump_relocations(tool: str, path: str) -> Rows:
    found: Rows = {}
    name = ""
    for line in quiet(tool, "-r", path).splitlines():
        if header := re.match(r"RELOCATION RECORDS FOR \[(.*)\]:", line):
            name = f".rela{header[1]}"
        elif row := VALUE.match(line):
            addend = int(row[4] or "0", 16)
            symbol = "" if row[3] == "*ABS*" else row[3]
            found.setdefault(name, []).append((int(row[1], 16), NUMBER[row[2]], symbol, addend))
    quiet(tool, "-dr", path)
    return found


def objdump_of(machine: int) -> str:
    """An objdump that knows the machine; skips without one."""
    name = {183: "aarch64", 21: "powerpc64le"}[machine] + "-linux-gnu"
    tool = shutil.which(f"{name}-objdump")
    if tool is None:
        pytest.skip(f"apt-get install binutils-{name} runs this")
    return tool


def cut_some(editor: Editor) -> None:
    """Take the first and the last record out."""
    secs = editor.image.sections_named("__patchable_function_entries", "__mcount_loc")
    secs = [sec for sec in secs if editor.image.has_bytes[sec]]
    for sec in [secs[0], *([secs[-1]] if len(secs) > 1 else [])] if secs else []:
        n = int(editor.image.shdr["sh_size"][sec]) // 8
        editor.cut_slots(sec, np.isin(np.arange(n), (0, n - 1)), 0)


def merged(rows: Rows) -> dict[str, list[tuple[int, int, str, int]]]:
    """Rows in an order that does not matter: several tables may share a name."""
    return {name: sorted(one) for name, one in rows.items()}


@pytest.mark.filterwarnings("ignore:.* is not a valid TYPE")  # lief does not know R_PPC64_ENTRY
@fixtures
@pytest.mark.parametrize("reader", ["readelf", "lief", "objdump"])
def test_other_readers_see_the_same_relocations(tmp_path: Path, path: Path, reader: str) -> None:
    editor = editor_of(path)
    everything(editor)
    cut_some(editor)
    file = result(editor)
    out = written(tmp_path / path.name, file)
    mine = merged(by_pyelftools(file))
    if reader == "readelf":
        assert merged(readelf_relocations(out)) == mine
    elif reader == "lief":
        assert merged(lief_relocations(out)) == mine
    else:
        assert merged(objdump_relocations(objdump_of(editor.image.e_machine), out)) == mine


@fixtures
def test_other_readers_see_the_same_sections_and_symbols(tmp_path: Path, path: Path) -> None:
    editor = editor_of(path)
    everything(editor)
    cut_some(editor)
    file = result(editor)
    out, elf = written(tmp_path / path.name, file), parsed(file)
    mine = [(one.name, one["sh_offset"], one["sh_size"], one["sh_addralign"]) for one in elf.iter_sections()]
    image, binary = open_image(out), lief.parse(out)
    assert isinstance(binary, lief.ELF.Binary)
    columns = (image.shdr[key].tolist() for key in ("sh_offset", "sh_size", "sh_addralign"))
    assert list(zip(image.names, *columns, strict=True)) == mine
    assert [(one.name, one.offset, one.size, one.alignment) for one in binary.sections] == mine
    shown = re.findall(r"\[ *\d+\] (\S*) +\S+ +[0-9a-f]{16} ([0-9a-f]{6}) ([0-9a-f]{6}) ", quiet("readelf", "-SW", out))
    assert [(name, int(pos, 16), int(size, 16)) for name, pos, size in shown][1:] == [one[:3] for one in mine][1:]
    symbols = [(one.name, one["st_value"], one["st_size"]) for one in elf.get_section(symtab(file)).iter_symbols()]
    assert [(one.name, one.value, one.size) for one in binary.symtab_symbols] == symbols
    rows = image.symbols.rows
    found = zip(range(len(rows)), rows["st_value"].tolist(), rows["st_size"].tolist(), strict=True)
    assert [(image.symbols.name(row), value, size) for row, value, size in found] == symbols


# -- any sequence of changes -------------------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(
        st.just("section"), st.sampled_from([".text.ftpatch", ".a", ".x" * 40]), st.binary(max_size=40),
        st.sampled_from([0, 1, 2, 4, 8, 16, 4096]),
    ),
    st.tuples(st.just("symbol"), st.sampled_from(["f", "ftpatch_call", "ä"]), st.integers(0, 99)),
    st.tuples(st.just("relocate"), st.integers(0, 99), st.integers(0, 32), st.integers(0, 200), st.integers(-9, 9)),
    st.tuples(st.just("patch"), st.integers(0, 99), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("cut"), st.integers(0, 255)),
)  # fmt: skip


class Model:
    """An editor, and what its file must hold in the end."""

    def __init__(self, path: Path) -> None:
        self.before = path.read_bytes()
        self.editor = editor_of(path)
        image = self.image = self.editor.image
        records = image.sections_named("__patchable_function_entries", "__mcount_loc")
        self.records = [sec for sec in records if image.has_bytes[sec]]
        plain = np.flatnonzero(image.shdr["sh_type"] == PROGBITS).tolist()
        self.plain = [sec for sec in plain if sec not in records]
        self.symbols = [image.symbols.name(row) for row in range(len(image.symbols.rows))]
        self.n_symbols = len(self.symbols)
        self.sections: list[tuple[int, str, bytes]] = []
        self.homes: list[int] = []
        self.rows = [one for one in relocated(self.before) if one.section not in self.records]
        self.patched: dict[int, bytes] = {}
        self.cut_once = False

    def section(self, name: str, data: bytes, align: int) -> None:
        self.sections.append((self.editor.section(name, PROGBITS, ALLOC, data, align), name, data))

    def symbol(self, name: str, which: int) -> None:
        secs = [0, *(one[0] for one in self.sections)]
        self.homes.append(secs[which % len(secs)])
        assert self.editor.symbol(name, self.homes[-1], which, 0, NOTYPE) == len(self.symbols)
        self.symbols.append(name)

    def relocate(self, which: int, off: int, row: int, addend: int) -> None:
        secs, row = [*self.plain, *(one[0] for one in self.sections)], row % len(self.symbols)
        sec, kind = secs[which % len(secs)], ABS64[self.image.e_machine]
        self.editor.relocate(sec, off, kind, row, addend)
        name = self.symbols[row]
        if row < self.n_symbols and self.image.symbols.type[row] == SECTION:
            name = self.image.names[int(self.image.symbols.shndx[row])]
        self.rows.append(Relocation(sec, off, kind, name, addend))

    def patch(self, which: int, new: bytes) -> None:
        sec = self.plain[which % len(self.plain)]
        if sec not in self.patched and int(self.image.shdr["sh_size"][sec]) >= len(new):
            self.editor.patch(sec, 0, new, "site", 0)
            self.patched[sec] = new

    def cut(self, bits: int) -> None:
        for sec in self.records if not self.cut_once else ():
            n = int(self.image.shdr["sh_size"][sec]) // 8
            self.editor.cut_slots(sec, np.array([bits >> slot & 1 for slot in range(n)], dtype=bool), 0)
        self.cut_once = True

    def check(self, folder: Path) -> None:
        after = result(self.editor)
        elf, image = parsed(after), open_image(written(folder / "out", after))
        for sec, name, data in self.sections:
            assert (elf.get_section(sec).name, content(after, sec)) == (name, data)
        for sec in self.plain:
            new = self.patched.get(sec, b"")
            assert content(after, sec) == new + content(self.before, sec)[len(new) :]
        found = [one for one in relocated(after) if one.section not in self.records]
        for sec in {one.section for one in self.rows} | {one.section for one in found}:
            assert [one for one in found if one.section == sec] == [one for one in self.rows if one.section == sec]
        rows = list(elf.get_section(symtab(after)).iter_symbols())
        assert [one.name for one in rows] == self.symbols
        assert content(after, symtab(after)).startswith(content(self.before, symtab(self.before)))
        assert image.symbols.shndx[self.n_symbols :].tolist() == self.homes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(FIXTURES), steps=st.lists(STEP, max_size=12))
def test_any_changes_leave_the_rest_as_it_was(tmp_path: Path, path: Path, steps: list[tuple[Any, ...]]) -> None:
    model = Model(path)
    for name, *rest in steps:
        getattr(model, name)(*rest)
    model.check(tmp_path)


def test_a_section_more_in_a_hand_made_file_is_read_by_everyone(mini: Path) -> None:
    """The helper that other tests make modules with."""

    file = extended((mini / "pfe2.o").read_bytes(), [Section(".modinfo", b"license=GPL\0", flags=ALLOC)])
    assert content(file, len(heads(file)) - 1) == b"license=GPL\0"
    assert index_of(file, ".modinfo") == len(heads(file)) - 1
