"""Whether the addresses that kallsyms has are those of this file: what has a name must be there.

    functions      are where the file has something, in any case
    linux_banner   is the text that it is; only kernels with symbols of data (CONFIG_KALLSYMS_ALL) name it
    pointers       else: more of them come out at functions than would if all names were moved by a little; also where
                   all addresses come from that of the table itself, since then a banner is where it is in any case
    _text, _stext  else, in a file with hardly any pointers: they are where what is loaded starts

All four come from the file's content, not from its tables, so that no damaged word of these can pass for another base.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, is_in
from ftpatch.container.file_bytes import is_elf
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_listing import Listing
from ftpatch.recovered.kallsyms_values import OWN
from ftpatch.recovered.memory import Memory

BANNER, BANNER_TEXT = b"linux_banner", b"Linux version "
FIRST = (b"_text", b"_stext")
DATA_END = b"_edata"  # where what a flat kernel's file has ends
LARGEST_PAGE = 1 << 16
TEXT, IN_TEXT, FEW_OTHERS = (b"_stext", b"_etext"), b"tTwWiI", 64  # letters in text; one in so many may be another
FUNCTION = (ord("t"), ord("T"))
FEW_OUTSIDE = 64  # one function in so many may have nothing at its address
FEW_POINTERS = 64  # pointers to functions; fewer tell nothing
ENOUGH = 1 << 14  # pointers that are looked up
MOVED = (1 << 12, 1 << 14, 1 << 16, 1 << 21)  # bytes by which names are moved for comparison: a base is that of a page
CLEAR = 2  # times as many pointers come out at functions as do when names are moved: 3.4 to 12 in seven Debian kernels
TODO = "the file is damaged, or not whole"


def require_proof(memory: Memory, listing: Listing, va: U64, addends: U64) -> None:
    """ElfError where something is not at its address, or where nothing tells whether it is.

    va: of each symbol. addends: addresses that relocations will write.
    """
    functions = np.flatnonzero((listing.letter == FUNCTION[0]) | (listing.letter == FUNCTION[1]))
    _require_whole(memory, listing, va)
    _require_letters(listing, va)
    _require_loaded(memory, listing, va, functions)
    banner = listing.rows_of(BANNER)
    _require_banner(memory, va[banner])
    if len(banner) and listing.kind != OWN:
        return
    pointed_at = _pointed_at(memory, va[functions], addends)
    if len(pointed_at) >= FEW_POINTERS:
        _require_pointers(va[functions], pointed_at[:: len(pointed_at) // ENOUGH + 1])
    if len(pointed_at) >= FEW_POINTERS or len(banner):
        return
    first = [row for name in FIRST for row in listing.rows_of(name).tolist()]
    if not (len(memory.va) and first and int(va[first[0]]) == _first_loaded(memory, va[first[0]])):
        found = f"no linux_banner, no _text or _stext at the start, pointers to functions: {len(pointed_at)}"
        raise ElfError("nothing in the file proves the addresses that kallsyms has", found=found,
                       todo="symbols cannot be told from this file")  # fmt: skip


def _require_whole(memory: Memory, listing: Listing, va: U64) -> None:
    """ElfError where a kernel ends before its data do. An ELF file may leave out zeros, up to the page of _edata."""
    least = LARGEST_PAGE if is_elf(memory.data) else 1
    for end in va[listing.rows_of(DATA_END)].tolist() if len(memory.va) == 1 else ():
        stop = int(memory.va[0]) + int(memory.size[0])
        if int(memory.va[0]) < end and end - stop >= least:
            raise ElfError("the kernel ends before its data do", found=f"{stop:#x}",
                           expected=f"at least {end:#x} {DATA_END.decode()}", todo=TODO)  # fmt: skip


def _require_letters(listing: Listing, va: U64) -> None:
    """ElfError where symbols in the kernel's text have letters of data: a token that many begin with is damaged."""
    start, end = (va[listing.rows_of(name)] for name in TEXT)
    if not len(start) or not len(end):
        return
    low, high = np.searchsorted(va, start[0], side="right"), np.searchsorted(va, end[0])
    letters = listing.letter[low:high]
    others = int(np.count_nonzero(~is_in(letters, np.frombuffer(IN_TEXT, np.uint8))))
    if others * FEW_OTHERS > len(letters):
        raise ElfError("symbols of kallsyms in the kernel's text are none of code", found=f"{others} of {len(letters)}",
                       todo=TODO)  # fmt: skip


def _require_loaded(memory: Memory, listing: Listing, va: U64, functions: I64) -> None:
    """ElfError where functions are where nothing is. Labels of ends may be, where parts have gaps between them."""
    outside = functions[memory.pos_of(va[functions]) < 0]
    if len(outside) * FEW_OUTSIDE > len(functions):
        first = f"{int(va[outside[0]]):#x} {listing.name(int(outside[0])).decode(errors='replace')}"
        raise ElfError("functions of kallsyms are at addresses that the file does not have",
                       found=f"{len(outside)} of {len(functions)}, the first {first}", todo=TODO)  # fmt: skip


def _require_banner(memory: Memory, places: U64) -> None:
    """ElfError where linux_banner is not at its address."""
    for va, pos in zip(places.tolist(), memory.pos_of(places).tolist(), strict=True):
        text = memory.data[pos : pos + len(BANNER_TEXT)].tobytes() if pos >= 0 else b""
        if text != BANNER_TEXT:
            raise ElfError("linux_banner is not at the address that kallsyms has of it", f"{va:#x}",
                           found=repr(text), expected=repr(BANNER_TEXT), todo=TODO)  # fmt: skip


def _pointed_at(memory: Memory, functions: U64, addends: U64) -> U64:
    """The addresses between the first and the last function that words of the file have, or relocations."""
    if not len(functions):
        return functions
    pieces, low, high = [addends], functions[0], functions[-1]
    for pos, size in zip(memory.pos.tolist(), memory.size.tolist(), strict=True):
        for piece in memory.data.pieces(pos + 7 & ~7, pos + size):
            words = piece[: len(piece) & ~7].view("<u8")
            pieces.append(words[(words >= low) & (words <= high)])
    places = np.concatenate(pieces)
    return np.asarray(places[(places >= low) & (places <= high)])


def _require_pointers(functions: U64, pointed_at: U64) -> None:
    """ElfError where pointers come out at functions no more often than they would under other addresses."""
    hits = _hits(functions, pointed_at)
    others = [
        _hits(functions, pointed_at + np.uint64(by & 0xFFFF_FFFF_FFFF_FFFF)) for near in MOVED for by in (near, -near)
    ]
    if hits < CLEAR * max(*others, 1):
        raise ElfError("pointers of the file do not agree with the addresses that kallsyms has of functions",
                       found=f"{hits} of {len(pointed_at)} point at functions, {max(others)} if these are moved",
                       expected=f"{CLEAR} times as many", todo=TODO)  # fmt: skip


def _hits(functions: U64, places: U64) -> int:
    row = np.minimum(np.searchsorted(functions, places), len(functions) - 1)
    return int(np.count_nonzero(functions[row] == places))


def _first_loaded(memory: Memory, va: U64) -> int:
    """The first address of what is loaded in the half of memory in which an address is."""
    same_half = memory.va[memory.va >> np.uint64(63) == va >> np.uint64(63)]
    return int(same_half.min()) if len(same_half) else -1
