"""Symbols are found by their names wherever those lie in the string table."""

from __future__ import annotations

import numpy as np
import pytest

from ftpatch.elf import tables as t

# strings that share their beginnings and tails; the last one has no NUL behind it
STRTAB = b"\0printk\0vfs_read\0vfs_readlink\0vfs_readahead\0__pfx_vfs_read\0__pf\0\xff\0__pfx_"
STARTS = [0, 1, 8, 17, 30, 44, 50, 59, 64, 66, len(STRTAB) - 2, len(STRTAB), len(STRTAB) + 100, 8]


def symbols(starts: list[int] = STARTS, strtab: bytes = STRTAB) -> t.Symbols:
    rows = np.zeros(len(starts), t.SYM)
    rows["st_name"] = starts
    return t.Symbols(rows, strtab, np.ones(len(starts), np.int64))


@pytest.mark.parametrize(
    "name",
    ["", "printk", "rintk", "vfs_read", "vfs_readlink", "vfs_readahead", "vfs_readahea", "vfs_rea", "__pfx_vfs_read",
     "__pfx_", "__pf", "x_", "\udcff", "a" * 5000],
)  # fmt: skip
def test_a_name_ends_at_a_nul(name: str) -> None:
    wanted = name.encode("utf-8", "surrogateescape") + b"\0"
    assert symbols().rows_named(name).tolist() == [n for n, at in enumerate(STARTS) if STRTAB.startswith(wanted, at)]


@pytest.mark.parametrize("prefix", ["p", "vfs_", "vfs_read", "vfs_reada", "vfs_readlink", "__pf", "__pfx_", "_", "z"])
def test_names_begin_with_a_prefix(prefix: str) -> None:
    begin = [STRTAB.startswith(prefix.encode(), at) for at in STARTS]
    assert symbols().rows_beginning(prefix).tolist() == np.flatnonzero(begin).tolist()
    some = np.array([13, 2, 5, 9])
    assert symbols().begin_with(some, prefix).tolist() == [begin[row] for row in some.tolist()]


@pytest.mark.parametrize("strtab", [b"", b"\0", b"a", b"a\0"])
def test_tables_of_a_few_bytes_have_names_too(strtab: bytes) -> None:
    starts = [0, 1, 2]
    assert symbols(starts, strtab).rows_named("a").tolist() == ([0] if strtab == b"a\0" else [])
    assert symbols([], strtab).rows_named("a").tolist() == []
