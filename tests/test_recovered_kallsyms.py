"""Symbols out of kallsyms: every form that Linux 4.4 to 7.3 write, and what is not one."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from kallsymswriter import (
    BANNER,
    FORMS,
    LINK,
    Form,
    Kernel,
    Symbol,
    banner_pos,
    changed,
    kernel,
    symbols_for,
    tokens_of,
)

from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms import NO_ADDENDS, Addends, Kallsyms, find_tables, kallsyms_of
from ftpatch.recovered.memory import Memory

FEW = ["4.4", "4.6-x86", "6.2", "6.4", "7.0"]  # one of each kind and order


def memory(data: bytes, link: int = LINK) -> Memory:
    return Memory(FileBytes.of(data), np.array([link], np.uint64), np.array([0]), np.array([len(data)]))


def listed(kallsyms: Kallsyms | None) -> list[Symbol]:
    """The symbols as `kallsymswriter` has them."""
    assert kallsyms is not None
    rows = zip(kallsyms.letter.tolist(), kallsyms.starts.tolist(), kallsyms.va.tolist(), strict=True)
    strings = kallsyms.strings
    return [(chr(letter), strings[at : strings.index(b"\0", at)].decode("latin-1"), va) for letter, at, va in rows]


def refusal(data: bytes, addends: Addends = NO_ADDENDS) -> str:
    with pytest.raises(ElfError) as refused:
        kallsyms_of(memory(data), addends)
    return str(refused.value)


# -- every form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [5, 255, 256, 257, 1025])
def test_symbols_of_every_form(form: str, n: int) -> None:
    made = kernel(n, FORMS[form])
    assert listed(kallsyms_of(memory(made.data))) == made.symbols


@pytest.mark.parametrize("form", FEW)
@pytest.mark.parametrize("align", [4, 16, 32, 64])
def test_tables_at_any_alignment(form: str, align: int) -> None:
    made = kernel(300, replace(FORMS[form], align=align))
    assert listed(kallsyms_of(memory(made.data))) == made.symbols


@pytest.mark.parametrize("kind", ["absolute", "base", "percpu", "own"])
@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("ranks_last", [True, False])
def test_orders_that_no_kernel_has_yet(kind: str, behind: bool, ranks_last: bool) -> None:
    for align, word in ((4, 4), (8, 4), (8, 8)):
        made = kernel(301, Form(kind, behind, ranks_last, align, word))
        assert listed(kallsyms_of(memory(made.data))) == made.symbols


@pytest.mark.parametrize("form", FEW)
def test_what_is_not_loaded_has_no_tables(form: str) -> None:
    made = kernel(300, FORMS[form])
    rest = kernel(400, FORMS[form]).data
    all_bytes = Memory(FileBytes.of(made.data + rest), *(np.array([n]) for n in (np.uint64(LINK), 0, len(made.data))))
    assert listed(kallsyms_of(all_bytes)) == made.symbols


@pytest.mark.parametrize("form", FEW)
def test_tables_are_where_the_writer_put_them(form: str) -> None:
    made = kernel(600, FORMS[form])
    (tables,) = find_tables(FileBytes.of(made.data))
    found = {
        "num_syms": tables.names.count_pos, "names": tables.names.pos, "markers": tables.names.markers_pos,
        "token_table": tables.tokens.pos, "token_index": tables.tokens.index_pos, "offsets": tables.values.pos,
        "relative_base": tables.values.base_pos, "seqs_of_names": tables.values.ranks_pos,
    }  # fmt: skip
    assert {table: pos for table, pos in found.items() if pos >= 0} == made.at
    assert (tables.n, tables.kind) == (600, FORMS[form].kind)


@pytest.mark.parametrize("form", FEW)
def test_what_aligns_the_tables_may_be_anything_but_a_name(form: str) -> None:
    for padding in (0x7F, 0xFF):
        made = kernel(301, replace(FORMS[form], padding=padding))
        assert listed(kallsyms_of(memory(made.data))) == made.symbols
    assert "not where its token table is" in refusal(kernel(301, replace(FORMS[form], padding=1)).data)


@pytest.mark.parametrize("form", ["6.2", "6.4-x86", "7.0"])
def test_names_of_more_than_127_tokens(form: str) -> None:
    symbols = symbols_for(400, FORMS[form])
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz_0123456789", k=500))
    symbols[200] = ("t", long, symbols[200][2])
    single = [bytes([code]) if 0x20 < code < 0x7F else b"" for code in range(256)]
    made = kernel(400, FORMS[form], symbols, tokens=single)
    assert listed(kallsyms_of(memory(made.data))) == symbols


def test_a_length_over_127_is_one_byte_before_61() -> None:
    symbols = symbols_for(400, FORMS["4.20"])
    symbols[200] = ("t", "x" * 200, symbols[200][2])
    single = [bytes([code]) if 0x20 < code < 0x7F else b"" for code in range(256)]
    made = kernel(400, FORMS["4.20"], symbols, tokens=single)
    assert listed(kallsyms_of(memory(made.data))) == symbols


@pytest.mark.parametrize("form", FEW)
def test_tokens_that_are_no_character_are_found_by_structure(form: str) -> None:
    """No digit, no letter of its own place: every character is another byte's token."""
    made = kernel(300, FORMS[form])
    tokens = tokens_of([letter.encode() + name.encode() for letter, name, _ in made.symbols], letters=False)
    moved = kernel(300, FORMS[form], tokens=tokens)
    assert moved.data != made.data
    assert listed(kallsyms_of(memory(moved.data))) == made.symbols


@pytest.mark.parametrize("form", FEW)
def test_names_without_a_digit(form: str) -> None:
    letters = str.maketrans("0123456789", "ghijklmnop")
    symbols = [(letter, name.translate(letters), va) for letter, name, va in symbols_for(300, FORMS[form])]
    made = kernel(300, FORMS[form], symbols)
    assert b"\x000\x001\x00" not in made.data
    assert listed(kallsyms_of(memory(made.data))) == symbols


@pytest.mark.parametrize("suffix", [".llvm.1234567", ".llvm.99"])
@pytest.mark.parametrize("cut", [".llvm.", "."])
def test_ranks_of_a_kernel_that_clang_linked(suffix: str, cut: str) -> None:
    """Names are ranked without what LTO appends, so "a.cold" may be before or behind "a.llvm.1"."""
    symbols = symbols_for(300, FORMS["6.4"], data=False)
    names = ["get", "get.cold", "get" + suffix, "get_a" + suffix, "get_a.part.0"]
    for row, name in enumerate(names):
        symbols[100 + row] = ("t", name, symbols[100 + row][2])
    symbols[-1] = ("D", "linux_banner", LINK + banner_pos(300))
    order = sorted(range(300), key=lambda row: (symbols[row][1].split(cut)[0].encode(), row))
    made = kernel(300, FORMS["6.4"], symbols)
    ranks = b"".join(row.to_bytes(3, "big") for row in order)
    made = changed(made, made.at["seqs_of_names"], ranks)
    assert listed(kallsyms_of(memory(made.data))) == symbols


# -- what addresses are from ----------------------------------------------------------------------------------------


def base_kernel(base: int | None = None, data: bool = True) -> Kernel:
    return kernel(300, FORMS["6.2"], symbols_for(300, FORMS["6.2"], data), base=base)


@pytest.mark.parametrize("form", ["4.6", "4.6-x86", "4.20"])
@pytest.mark.parametrize("data", [True, False])
def test_a_base_of_a_symbol_that_is_left_out(form: str, data: bool) -> None:
    """Without CONFIG_KALLSYMS_ALL older kernels have the address of _text, and _stext as the first symbol."""
    made = kernel(300, FORMS[form], symbols_for(300, FORMS[form], data), below=0x1000)
    assert listed(kallsyms_of(memory(made.data))) == made.symbols


def addend(made: Kernel, value: int = LINK) -> Addends:
    place = np.array([LINK + 0x10, LINK + made.at["relative_base"]], np.uint64)
    return Addends(place[::-1].copy(), np.array([value, LINK + 0x20], np.uint64))


def test_a_base_that_a_relocation_writes() -> None:
    made = base_kernel(0)
    assert listed(kallsyms_of(memory(made.data), addend(made))) == made.symbols


def test_a_base_of_0_that_nothing_writes_is_not_known() -> None:
    made = base_kernel(0)
    assert refusal(made.data) == (
        f"position {made.at['relative_base']:#x}: kallsyms_relative_base is no address of a kernel, and no relocation "
        "tells it: found 0x0 – addresses of symbols cannot be told from this file")  # fmt: skip


@pytest.mark.parametrize("form", ["4.4", "6.4", "6.4-x86", "6.4-ia64"])
def test_a_dump_of_a_kernel_that_was_moved_is_read_where_it_ran(form: str) -> None:
    slide = 0x1234_0000
    symbols = symbols_for(300, FORMS[form])
    moved = [(letter, name, va + slide if va >> 63 else va) for letter, name, va in symbols]
    made = kernel(300, FORMS[form], moved)
    assert listed(kallsyms_of(memory(made.data, LINK + slide))) == moved
    assert "functions of kallsyms are at addresses that the file does not have: found 2" in refusal(made.data)


def test_addresses_that_relocations_write() -> None:
    """kallsyms_addresses of arm64 kernels that Android moves (4.4): 0 in the file."""
    made = kernel(300, FORMS["4.4"])
    place = LINK + made.at["offsets"] + 8 * np.arange(300, dtype=np.uint64)
    addends = Addends(place.astype(np.uint64), np.array([va for _, _, va in made.symbols], np.uint64))
    empty = changed(made, made.at["offsets"], bytes(8 * 300))
    assert listed(kallsyms_of(memory(empty.data), addends)) == made.symbols
    assert "functions of kallsyms are at addresses that the file does not have: found 240 of 240" in refusal(empty.data)


def test_offsets_from_their_own_place_follow_the_image() -> None:
    made = kernel(300, FORMS["7.0"])
    kallsyms = kallsyms_of(memory(made.data, LINK + 0x20_0000))
    assert listed(kallsyms) == [(letter, name, va + 0x20_0000) for letter, name, va in made.symbols]


@pytest.mark.parametrize("by", [4, 64, 0x1000, 0x20_0000, -0x1000])
def test_a_base_that_is_another_is_refused(by: int) -> None:
    assert refusal(base_kernel(LINK + by).data).split(":")[0] in (
        "functions of kallsyms are at addresses that the file does not have",
        f"{LINK + by + banner_pos(300):#x}",  # of linux_banner
    )


def with_pointers(made: Kernel, moved: int = 0) -> bytes:
    """The kernel with a table of its functions behind it."""
    functions = [va + moved for letter, _, va in made.symbols if letter in "tT"]
    return made.data + bytes(-len(made.data) % 8) + struct.pack(f"<{len(functions)}Q", *functions)


def test_pointers_prove_a_kernel_without_symbols_of_data() -> None:
    chance, larger = random.Random(1), bytes(0x2000)
    symbols = [(letter, name, va + 4 * chance.randrange(4) * ("_text" != name != "_stext"))
               for letter, name, va in symbols_for(2000, FORMS["6.2"], data=False)]  # fmt: skip
    made = kernel(2000, FORMS["6.2"], symbols)
    assert listed(kallsyms_of(memory(with_pointers(made) + larger))) == made.symbols
    moved = [(letter, name, va + 0x1000) for letter, name, va in made.symbols]
    assert refusal(with_pointers(kernel(2000, FORMS["6.2"], moved), -0x1000) + larger).startswith(
        "pointers of the file do not agree with the addresses that kallsyms has of functions: found "
    )


def test_pointers_prove_where_offsets_from_their_own_place_are() -> None:
    """A banner would be at its place under any address of the image."""
    chance = random.Random(2)
    symbols = [(letter, name, va + 4 * chance.randrange(4) * (name not in ("_text", "_stext", "linux_banner")))
               for letter, name, va in symbols_for(2000, FORMS["7.0"])]  # fmt: skip
    data = with_pointers(kernel(2000, FORMS["7.0"], symbols))
    assert listed(kallsyms_of(memory(data))) == symbols
    with pytest.raises(ElfError, match=r"^pointers of the file do not agree with the addresses"):
        kallsyms_of(memory(data, LINK + 0x1000))


def test_the_start_proves_a_kernel_with_hardly_any_pointer() -> None:
    made = base_kernel(data=False)
    assert listed(kallsyms_of(memory(made.data))) == made.symbols
    symbols = [(letter, {"_text": "head", "_stext": "start"}.get(name, name), va) for letter, name, va in made.symbols]
    assert refusal(kernel(300, FORMS["6.2"], symbols).data) == (
        "nothing in the file proves the addresses that kallsyms has: found no linux_banner, no _text or _stext at the "
        "start, pointers to functions: 1 – symbols cannot be told from this file")  # fmt: skip


def test_a_second_banner_changes_nothing() -> None:
    made = kernel(300, FORMS["6.4"])
    assert listed(kallsyms_of(memory(made.data + BANNER))) == made.symbols
    assert listed(kallsyms_of(memory(changed(made, 0, BANNER).data))) == made.symbols


# -- decoys and copies ----------------------------------------------------------------------------------------------


def test_a_token_table_alone_changes_nothing() -> None:
    made = kernel(300, FORMS["6.4"])
    alone = made.data[made.at["token_table"] : made.at["token_index"] + 512]
    for data in (made.data + alone, alone + bytes(-len(alone) % 64) + made.data):
        link = LINK - data.index(made.data)
        assert listed(kallsyms_of(memory(data, link))) == made.symbols
    assert refusal(alone) == (
        "position 0x0: names and addresses of kallsyms are not where its token table is: expected kallsyms_names and "
        "kallsyms_markers before it, and addresses beside these – the file is damaged, or a kernel of a form that is "
        "not known")  # fmt: skip


@pytest.mark.parametrize("form", ["4.4", "6.4"])
def test_a_copy_of_the_tables_changes_nothing(form: str) -> None:
    made = kernel(300, FORMS[form])
    copy = made.data[min(made.at.values()) :]
    assert listed(kallsyms_of(memory(made.data + bytes(64) + copy))) == made.symbols


def test_another_kernel_in_the_image_is_told_from_it_or_refused() -> None:
    made, other = kernel(300, FORMS["6.4"]), kernel(400, FORMS["6.4"])
    assert listed(kallsyms_of(memory(made.data + other.data))) == made.symbols
    other = kernel(300, FORMS["6.4"], [(letter, name + "x" * (name[0] == "_" != name[1]), va)
                                       for letter, name, va in made.symbols[:-1]] + made.symbols[-1:])  # fmt: skip
    assert "the file has more than one kallsyms, and they differ: found names at " in refusal(made.data + other.data)


def test_an_image_at_any_place_in_a_file() -> None:
    made = kernel(300, FORMS["6.4"])
    part = FileBytes.of(b"\xff" * 3 + made.data).part(3, len(made.data))
    found = Memory(part, np.array([LINK], np.uint64), np.array([0]), np.array([len(part)]))
    assert listed(kallsyms_of(found)) == made.symbols


@pytest.mark.parametrize(
    "data", [b"", b"\0", bytes(4096), bytes(range(256)) * 40, b"\xff" * 4096, b"0\x001\x002\0" * 500]
)
def test_no_kallsyms(data: bytes) -> None:
    assert kallsyms_of(memory(data)) is None


def test_an_index_of_empty_tokens_is_none() -> None:
    assert kallsyms_of(memory(bytes(1024) + struct.pack("<256H", *range(256)) + bytes(64))) is None


# -- damage ---------------------------------------------------------------------------------------------------------


def as_a_kernel_reads(made: Kernel, data: bytes) -> list[Symbol] | None:
    """The symbols that the kernel itself would list of changed bytes, by the plainest code; None where it would not."""
    form, at = made.form, made.at
    index = struct.unpack_from("<256H", data, at["token_index"])
    base = struct.unpack_from("<Q", data, at["relative_base"])[0] if "relative_base" in at else 0
    pos, symbols = at["names"], []
    try:
        for row in range(min(int.from_bytes(data[at["num_syms"] :][: form.word], "little"), 2 * len(made.symbols))):
            size, pos = data[pos], pos + 1
            if form.two_bytes and size & 128:
                size, pos = size & 127 | data[pos] << 7, pos + 1
            starts = [at["token_table"] + index[code] for code in data[pos : pos + size]]
            text = b"".join(data[start : data.index(0, start)] for start in starts).decode("latin-1")
            symbols.append((text[0], text[1:], _address(form, data, at["offsets"], row, base)))
            pos += size
    except (IndexError, ValueError, struct.error):
        return None
    return symbols


def _address(form: Form, data: bytes, pos: int, row: int, base: int) -> int:
    width, letter = {"absolute": (8, "Q"), "base": (4, "I"), "percpu": (4, "i"), "own": (4, "i")}[form.kind]
    pos += row * width
    value: int = struct.unpack_from("<" + letter, data, pos)[0]
    if form.kind == "percpu":
        return value if value >= 0 else base - 1 - value
    return value + {"absolute": 0, "base": base, "own": LINK + pos}[form.kind]


def flipped(data: bytes, pos: int, bit: int) -> bytes:
    return data[:pos] + bytes([data[pos] ^ 1 << bit]) + data[pos + 1 :]


@pytest.mark.parametrize("form", FEW)
def test_a_flipped_bit_gives_what_the_kernel_reads_or_is_refused(form: str) -> None:
    made = kernel(270, FORMS[form])
    chance = random.Random(form)
    ends = [*sorted(made.at.values()), len(made.data) - 256]
    for start, end in itertools.pairwise(ends):
        data = flipped(made.data, chance.randrange(start, end), chance.randrange(8))
        try:
            kallsyms = kallsyms_of(memory(data))
        except ElfError:
            continue
        if kallsyms is not None:
            assert listed(kallsyms) in (as_a_kernel_reads(made, data), made.symbols)


@pytest.mark.parametrize("form", FEW)
def test_a_file_that_ends_in_a_table_has_none_or_is_refused(form: str) -> None:
    made = kernel(270, FORMS[form])
    for table, pos in made.at.items():
        data = made.data[: pos + (2 if table in ("num_syms", "markers", "relative_base") else 60)]
        try:
            assert kallsyms_of(memory(data)) is None, table
        except ElfError as error:
            assert "not where its token table is" in str(error)


DAMAGES: list[tuple[str, Callable[[Kernel], tuple[int, bytes]], str]] = [
    ("a marker", lambda one: (one.at["markers"] + 4, b"\xff"), "not where its token table is"),
    ("an address", lambda one: (one.at["offsets"] + 40, b"\xff\xff\xff"), "not where its token table is"),
    ("a rank", lambda one: (one.at["seqs_of_names"] + 3, b"\0\0\0"), "not where its token table is"),
    ("two ranks", lambda one: _swapped_ranks(one), "kallsyms_seqs_of_names does not have the names in their order"),
    ("a token that is no text", lambda one: (one.at["token_table"] + _token(one, b"e"), b"\x07"), "no symbol has"),
]


def _token(made: Kernel, token: bytes) -> int:
    return made.data[made.at["token_table"] :].index(b"\0" + token + b"\0") + 1


def _swapped_ranks(made: Kernel) -> tuple[int, bytes]:
    pos = made.at["seqs_of_names"] + 300
    return pos, made.data[pos + 3 : pos + 6] + made.data[pos : pos + 3]


@pytest.mark.parametrize(("how", "said"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damage_that_is_seen(how: Callable[[Kernel], tuple[int, bytes]], said: str) -> None:
    made = kernel(300, FORMS["6.4"])
    assert said in refusal(changed(made, *how(made)).data)


@pytest.mark.parametrize("symbol", [("!", "name"), ("t", "")], ids=["no type", "no name"])
def test_a_symbol_that_is_none_is_refused(symbol: tuple[str, str]) -> None:
    symbols = symbols_for(300, FORMS["4.20"])
    symbols[100] = (*symbol, symbols[100][2])
    said = f"row 100: a symbol of kallsyms has no name or no type of symbol: found b'{''.join(symbol)}"
    assert said in refusal(kernel(300, FORMS["4.20"], symbols).data)


# -- hostile --------------------------------------------------------------------------------------------------------


def test_a_name_that_would_fill_memory_is_refused() -> None:
    """Tokens of 250 characters, in names of thousands of tokens each."""
    form = FORMS["6.4"]
    tokens = [b"x" * 250] * 255 + [b"t"]
    made = kernel(256, form, symbols_for(256, form), tokens=[b"", *_single()])
    names = b"".join(bytes([0xFF, 3, 0xFF]) + bytes(510) for _ in range(256))
    at = made.at["names"]
    head = made.data[:at] + names + bytes(-len(names) % 8) + bytes(8)
    table = b"".join(token + b"\0" for token in tokens)
    index = struct.pack("<256H", *(251 * code for code in range(256)))
    tail = table + bytes(-len(table) % 8) + index + made.data[made.at["offsets"] :]
    data = head + bytes(-len(head) % 8) + tail
    assert "names of kallsyms are longer than any kernel's: found 127501 characters in one" in refusal(data)


def _single() -> list[bytes]:
    return [bytes([code]) if 0x20 < code < 0x7F else b"" for code in range(1, 256)]


def test_more_indices_than_any_kernel_has_are_refused() -> None:
    index = struct.pack("<256H", *(2 * code for code in range(256)))
    assert refusal(index * 4200) == (
        "more places look like kallsyms_token_index than in any kernel: found 4200, expected at most 4096"
    )


def test_a_number_of_symbols_that_the_file_cannot_hold() -> None:
    made = kernel(300, FORMS["6.4"])
    assert "not where its token table is" in refusal(changed(made, made.at["num_syms"], b"\xff\xff\xff\xff").data)


@pytest.mark.parametrize(
    ("before", "n_tables", "said"),
    [(b"", 17, "kallsyms_token_table than in any kernel: found 17, expected at most 16"),
     (struct.pack("<I", 100) * 40000 + bytes(8), 1, "kallsyms_num_syms than in any kernel: found "),
     (bytes(8 << 10), 1, "")],
)  # fmt: skip
def test_made_up_tables_cost_little(before: bytes, n_tables: int, said: str) -> None:
    tokens = tokens_of([b"tname"])
    table = b"".join(token + b"\0" for token in tokens)
    starts = np.cumsum([0, *(len(token) + 1 for token in tokens[:-1])])
    pair = table + bytes(-len(table) % 8) + starts.astype("<u2").tobytes() + bytes(64)
    head = "more places look like " + said if said else f"position {len(before):#x}: names and addresses of kallsyms"
    assert refusal(before + pair * n_tables).startswith(head)
