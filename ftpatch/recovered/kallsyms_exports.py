"""Whether kallsyms and the kernel's list of exported symbols agree: two tables that different tools made.

    __start___ksymtab  value − here, name − here, [namespace − here]     4 bytes each, where the machine allows it
                       value, name, [namespace]                         8 bytes each; zeros where relocations fill them

A table of addresses whose words were exchanged or moved by a row is as well-formed as before. But what a kernel
exports has its name and its address here once more. Source: include/linux/export.h, include/asm-generic/export.h
(Linux 4.4 to 7.2). Only kernels that name their data (CONFIG_KALLSYMS_ALL) say where the list is.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U8, U64, is_in
from ftpatch.elf.export_rows import FORMATS
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_listing import Listing
from ftpatch.recovered.kallsyms_proof import TODO
from ftpatch.recovered.memory import Memory

LISTS = ((b"__start___ksymtab", b"__stop___ksymtab"), (b"__start___ksymtab_gpl", b"__stop___ksymtab_gpl"))
LARGEST = 1 << 24  # bytes of a list; Debian's have 200 KB
LONGEST = 512  # bytes of a name
ANYWHERE = np.uint64((1 << 64) - 1)
FUNCTION, LOWER = b"tw", 0x20  # letters of functions, small or capital


def require_exports(memory: Memory, listing: Listing, va: U64) -> None:
    """ElfError where an exported function is at another address than kallsyms has of its name.

    va: of each symbol of the listing. A list that the file does not fill, or a kernel that names none, tells nothing.
    """
    for first, last in LISTS:
        start, stop = listing.rows_of(first), listing.rows_of(last)
        if len(start) != 1 or len(stop) != 1:
            continue
        low, high = int(va[start[0]]), int(va[stop[0]])
        pos = int(memory.pos_of(va[start])[0])
        if not 0 < high - low <= LARGEST or pos < 0:
            continue
        content = memory.data[pos : pos + high - low]
        if len(content) < high - low or not content.any():
            continue
        _require_listed(memory, listing, va, _exports(memory, low, content, first))


def _exports(memory: Memory, low: int, content: U8, list_name: bytes) -> tuple[U64, I64]:
    """The address of each exported symbol, and the file position of its name."""
    for width, fields in FORMATS:
        if len(content) % (width * fields):
            continue
        row = content.view("<i4" if width == 4 else "<i8").astype(np.int64).reshape(-1, fields)
        here = np.uint64(low) + np.arange(0, len(content), 4, dtype=np.uint64).reshape(-1, fields) if width == 4 else 0
        values = row.view(np.uint64) + here
        names = memory.pos_of(values[:, 1])
        if (names >= 0).all() and _are_names(memory, names):
            return values[:, 0], names
    raise ElfError("exported symbols are not where kallsyms has their list", f"{low:#x}",
                   found=f"no list of names at {list_name.decode()}", todo=TODO)  # fmt: skip


def _are_names(memory: Memory, names: I64) -> bool:
    """Whether each position is the beginning of a string."""
    return bool(((memory.data[names] > 0x20) & (memory.data[names] < 0x7F)).all())


def _require_listed(memory: Memory, listing: Listing, va: U64, exports: tuple[U64, I64]) -> None:
    """ElfError where kallsyms has a function's address under other names only."""
    functions = va[is_in(listing.letter | LOWER, list(FUNCTION))]
    address, name_pos = exports
    in_text = (address >= functions.min(initial=ANYWHERE)) & (address <= functions.max(initial=0))
    address, name_pos = address[in_text], name_pos[in_text]
    first, end = np.searchsorted(va, address), np.searchsorted(va, address, side="right")
    low, high = int(name_pos.min(initial=0)), int(name_pos.max(initial=0)) + LONGEST
    texts, strings, starts = memory.data[low:high].tobytes(), listing.strings.tobytes(), listing.starts.tolist()
    rows = zip(address.tolist(), (name_pos - low).tolist(), first.tolist(), end.tolist(), strict=True)
    for at, pos, row, stop in rows:  # some 10,000
        name = texts[pos : texts.find(b"\0", pos) + 1]
        if not any(strings.startswith(name, start) for start in starts[row:stop]):
            raise _disagree(name[:-1].decode("utf-8", "backslashreplace"), at, _names_at(listing, row, stop))


def _disagree(name: str, va: int, others: str) -> ElfError:
    return ElfError("kallsyms and the list of exported symbols disagree", name, found=f"{others} at {va:#x}",
                    expected=f"{name} there", todo=TODO)  # fmt: skip


def _names_at(listing: Listing, row: int, stop: int) -> str:
    names = [listing.name(row).decode("utf-8", "backslashreplace") for row in range(row, stop)]
    return ", ".join(names[:3]) or "no symbol"
