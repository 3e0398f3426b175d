"""Whether kallsyms agrees with what the kernel exports: tables that are well-formed and wrong are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.export_rows import FORMATS
from ftpatch.errors import ElfError
from ftpatch.recovered.image import open_image
from ftpatch.recovered.kallsyms_exports import require_exports
from ftpatch.recovered.kallsyms_listing import Listing, find_tables, read
from ftpatch.recovered.memory import Memory
from tools import kernels

LINK = 0xFFFF_8000_8000_0000
TODO = " – the file is damaged, or not whole"
NAMES = [b"vfs_read", b"read", b"vfs_write", b"jiffies"]  # in the file `read` is the tail of the first
TEXT_AT = {b"vfs_read": 0, b"vfs_write": 0x40, b"read": 0x80, b"jiffies": 0x8000}
STRINGS, LIST = 0x1000, 0x2000
Row = tuple[int, int, bytes]  # letter, va, name


def exporting(form: tuple[int, int], exports: list[bytes] = NAMES) -> tuple[bytes, list[Row]]:
    """A file with a list of exports in one of the forms, and the symbols that kallsyms should have."""
    width, fields = form
    data = bytearray(0x3000)
    data[STRINGS : STRINGS + 28] = b"vfs_read\0vfs_write\0jiffies\0\0"
    at = {b"vfs_read": 0, b"read": 4, b"vfs_write": 9, b"jiffies": 19}
    here = LIST
    for name in exports:
        for to in (TEXT_AT[name], STRINGS + at[name], STRINGS + 27)[:fields]:
            value = to - here if width == 4 else LINK + to
            data[here : here + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
            here += width
    symbols = [(ord("T"), LINK + TEXT_AT[name], name) for name in sorted(NAMES[:3], key=TEXT_AT.__getitem__)]
    symbols += [(ord("D"), LINK + LIST, b"__start___ksymtab"), (ord("D"), LINK + here, b"__stop___ksymtab")]
    return bytes(data), symbols


def require(data: bytes, symbols: list[Row]) -> None:
    va = np.array([row[1] for row in symbols], np.uint64)
    starts = np.cumsum([0, *(len(row[2]) + 1 for row in symbols[:-1])])
    strings = np.frombuffer(b"\0".join(row[2] for row in symbols) + b"\0", np.uint8)
    letters = np.array([row[0] for row in symbols], np.uint8)
    listing = Listing("base", va.view(np.int64), np.zeros(len(va), bool), letters, starts, strings)
    memory = Memory(FileBytes.of(data), np.array([LINK], np.uint64), np.array([0]), np.array([len(data)]))
    require_exports(memory, listing, va)


def refusal(data: bytes, symbols: list[Row]) -> str:
    with pytest.raises(ElfError) as refused:
        require(data, symbols)
    return str(refused.value)


def renamed(symbols: list[Row], first: int, second: int) -> list[Row]:
    """The symbols with the names of two exchanged: what an exchange of two addresses looks like."""
    names = [row[2] for row in symbols]
    names[first], names[second] = names[second], names[first]
    return [(letter, va, name) for (letter, va, _), name in zip(symbols, names, strict=True)]


@pytest.mark.parametrize("form", FORMATS)
def test_a_kernel_whose_tables_agree_passes(form: tuple[int, int]) -> None:
    require(*exporting(form))


@pytest.mark.parametrize("form", FORMATS)
def test_exchanged_functions_are_refused(form: tuple[int, int]) -> None:
    data, symbols = exporting(form)
    assert refusal(data, renamed(symbols, 0, 2)) == (
        f"vfs_read: kallsyms and the list of exported symbols disagree: found read at {LINK:#x}, "
        f"expected vfs_read there{TODO}"
    )


def test_a_name_that_only_begins_alike_is_another() -> None:
    data, symbols = exporting((4, 3))
    symbols[0] = (ord("T"), LINK, b"vfs_readv")
    assert refusal(data, symbols).startswith(
        "vfs_read: kallsyms and the list of exported symbols disagree: found vfs_r"
    )


def test_a_function_without_any_symbol_at_its_address_is_refused() -> None:
    data, symbols = exporting((4, 3))
    assert f"found no symbol at {LINK + 0x40:#x}" in refusal(data, [symbols[0], *symbols[2:]])


def test_rotated_addresses_put_the_list_where_none_is() -> None:
    data, symbols = exporting((4, 3))
    symbols[3] = (ord("D"), LINK + LIST - 0x30, b"__start___ksymtab")
    assert refusal(data, symbols) == (
        f"{LINK + LIST - 0x30:#x}: exported symbols are not where kallsyms has their list: found no list of names at "
        f"__start___ksymtab{TODO}"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda data, symbols: (data, symbols[:3]),  # a kernel that names no data
        lambda data, symbols: (data[:LIST] + bytes(0x1000), symbols),  # relocations fill it
        lambda data, symbols: (data[:LIST], symbols),  # the file ends in front of it
        lambda data, symbols: (data[: LIST + 16], symbols),  # or within
        lambda data, symbols: (data, [*symbols[:4], (ord("D"), LINK + LIST, b"__stop___ksymtab")]),  # nothing exported
        lambda data, symbols: (data, [*symbols, *symbols[3:]]),  # it is not known which
        lambda data, symbols: (data, [*symbols[:4], (ord("D"), LINK + (1 << 40), b"__stop___ksymtab")]),
    ],
)
def test_a_list_that_tells_nothing_refutes_nothing(
    change: Callable[[bytes, list[Row]], tuple[bytes, list[Row]]],
) -> None:
    data, symbols = exporting((8, 3))
    require(*change(data, renamed(symbols, 0, 2)))


def test_exported_data_may_have_no_symbol() -> None:
    data, symbols = exporting((4, 2), [b"jiffies"])
    require(data, symbols)


@pytest.mark.corpus
def test_a_real_kernel_with_addresses_moved_by_a_row_is_refused(
    kernel: Callable[[str], kernels.Kernel], tmp_path: Path
) -> None:
    """A word of kallsyms_offsets taken out in front of vfs_read, another doubled behind it: addresses still ascend."""
    kernel("arm64-6.12")
    plain = open_image(str(kernels.boot_file("arm64-6.12")))
    data = bytearray(plain.data[:].tobytes())
    (tables,) = find_tables(plain.data)
    (row,) = read(plain.data, tables).rows_of(b"vfs_read").tolist()
    at = tables.values.pos + 4 * (row - 20)
    data[at : at + 160] = data[at + 4 : at + 164]
    (tmp_path / "Image").write_bytes(data)
    with pytest.raises(ElfError, match="kallsyms and the list of exported symbols disagree"):
        open_image(str(tmp_path / "Image"))
