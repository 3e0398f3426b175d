"""What a kernel will do and say with its record table when it boots, by its file.

`ftrace: allocating N entries in M pages` counts slots: kernels that print it before they read the table count all of
them, newer ones print it behind that and leave out the null ones. Which of the two a kernel is stands in ftrace_init:
how often it can print before it calls ftrace_process_locs (that there are no functions to be traced always comes
first). available_filter_functions lists the live ones, once those of init text are freed with it.

Every record's site is compared with what the compiler left there. At the first that differs the kernel prints an
ftrace bug, looks at no other, and switches ftrace off for good: nothing can be listed then.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U32, U64, Mask, distinct, is_in
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.kallsyms import printed_as
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import OUTSIDE, STRIPPED, UNNAMED, SiteTable

INIT, LOOP, PRINTS = "ftrace_init", "ftrace_process_locs", ("_printk", "printk")
MAX_CODE = 1 << 20  # bytes of a function that are read
PAGE = "empty_zero_page"  # an array of one page in every kernel of these machines
RECORD, MEMBERS = "dyn_ftrace", ["ip", "flags"]  # what the kernel allocates per entry
BTF_MAGIC, BTF_STRUCT = b"\x9f\xeb", 4


class Bug(NamedTuple):
    """One ftrace bug that a boot would raise. Code is given in the numbers of `Arch.numbers`."""

    site: int  # index in the site table
    function: str
    offset: int  # bytes from the function's symbol to the call
    row: int  # slot of the record
    place: str  # section and offset of the site
    ip: int  # va of the call, which the kernel names
    va: int  # of the first code that is not as the kernel wants it
    expected: int  # what the kernel wants at `va`
    found: int  # what the file has at `va`
    actual: int  # what is at the call, which the kernel prints too
    digits: int = 8  # hex digits of one of these numbers

    def __str__(self) -> str:
        return (
            f"{self.function}+{self.offset:#x} (row {self.row}, {self.place}): at {self.va:#x} expected "
            f"{self.expected:0{self.digits}x}, found {self.found:0{self.digits}x}; the call belongs at {self.ip:#x}"
        )


class Oracle(NamedTuple):
    """What the kernel will print and list."""

    allocating: int  # entries that it says it allocates
    pages: int | None  # for them; None where page or record size are not in the file
    listed_before: tuple[str, ...]  # lines of available_filter_functions; none where there is a bug
    listed_after: tuple[str, ...]  # the same once init memory is freed
    bugs: tuple[Bug, ...]  # in the order in which the kernel comes to them; it prints the first alone


def at_boot(scan: Scan, live: Mask) -> dict[str, int] | None:
    """`allocating` and `listed`; None where the file is no kernel or has no record table. live: over the site table."""
    n, table = _allocating(scan), scan.sites
    if n is None:
        return None
    listed = live & (table.status != OUTSIDE) & ~in_init_text(scan.image, table.va)
    return {"allocating": n, "listed": int(listed.sum())}


def _allocating(scan: Scan) -> int | None:
    if scan.image.kind != "vmlinux" or not len(scan.records):
        return None
    return len(scan.records) if counts_null_slots(scan.image) else int(scan.records.live.sum())


def bugs_of(scan: Scan) -> tuple[Bug, ...]:
    """Every site of a kernel or module that would raise an ftrace bug where its records are read."""
    return tuple(_bugs(scan.sites, _in_order(scan)))


def oracle(scan: Scan) -> Oracle | None:
    """Everything that a boot of this kernel will show; None where the file is no kernel or has no record table."""
    n = _allocating(scan)
    if n is None:
        return None
    index = _in_order(scan)
    bugs = tuple(_bugs(scan.sites, index))
    before = () if bugs else tuple(listed_names(scan.sites, index))
    freed = in_init_text(scan.image, scan.sites.va[index]).tolist()
    after = tuple(name for name, gone in zip(before, freed, strict=False) if not gone)
    return Oracle(n, pages_of(scan.image, n), before, after, bugs)


def _in_order(scan: Scan) -> I64:
    """Rows of the sites whose code the kernel looks at, as it sorts them."""
    table, n = scan.sites, len(scan.records)
    rows = np.flatnonzero(scan.records.live & (table.status[:n] != OUTSIDE))
    return rows[np.argsort(table.va[rows], kind="stable")]


def listed_names(table: SiteTable, index: I64) -> list[str]:
    """The lines of available_filter_functions for these sites; for one whose name this file lost, its place."""
    names = [table.name(site) for site in index.tolist()]
    nameless = index[[name is None for name in names]]
    called = printed_as(table.image, table.branch_va[nameless])
    lost = is_in(table.status[nameless], (STRIPPED, UNNAMED)).tolist()
    listed = iter([table.place_text(site) if gone else name
                   for site, gone, name in zip(nameless.tolist(), lost, called, strict=True)])  # fmt: skip
    return [next(listed) if name is None else name for name in names]


# -- what the kernel's own code does -----------------------------------------------------------------------------------


def tests_zero_first(image: Image) -> bool:
    """Whether this kernel tests a record before it adjusts it, so that it passes over zeros; False where its code does
    not say. Older kernels adjust first, and take a zero for an address a few bytes further.

    Source: kernel/trace/ftrace.c ftrace_process_locs(), Linux commit 6eeca746fa5f ("ftrace: Test mcount_loc addr
    before calling ftrace_call_addr()").
    """
    return image.arch.skips_zero is not None and bool(image.arch.skips_zero(_code_of(image, LOOP)[1]))


def counts_null_slots(image: Image) -> bool:
    """Whether the kernel prints the number of its records before it reads them; False where its code does not say."""
    va, code = _code_of(image, INIT)
    at, distance = image.arch.call.find(code)
    target = np.uint64(va) + (at + distance).view(np.uint64)
    reads, prints = (is_in(target, _entries(image, target, names)) for names in ((LOOP,), PRINTS))
    return bool(reads.any()) and int(prints[: int(np.argmax(reads))].sum()) > 1


def _code_of(image: Image, name: str) -> tuple[int, U32]:
    """(va, code) of a function; none where it has no symbol."""
    row = image.symbols.defined(name)
    if row is None:
        return 0, np.zeros(0, dtype=np.uint32)
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    return va, image.code(va, min(size, MAX_CODE) // image.arch.unit)


def _entries(image: Image, called: U64, names: tuple[str, ...]) -> U64:
    """Those of the addresses called that are an entry of a function of one of these names.

    The names of what is called are read, a few dozen: a search for each wanted one takes longer than all of them.
    """
    functions, called = image.functions, distinct(called)
    entries: list[int] = []
    for find in (functions.at, functions.at_local):
        low, high = find(called)
        for va, first, behind in zip(called.tolist(), low.tolist(), high.tolist(), strict=True):
            if any(image.symbols.name(row) in names for row in functions.row[first:behind].tolist()):
                entries.append(va)
    return np.array(entries, dtype=np.uint64)


# -- the pages of the allocation -----------------------------------------------------------------------------------


def pages_of(image: Image, n: int) -> int | None:
    """Pages that the kernel says it needs for n records; None where the file does not give their size.

    Kernels that count before they read the table divide by the records that fit a page, newer ones by the bytes.
    Source: kernel/trace/ftrace.c ftrace_init(), ftrace_process_locs() (Linux 6.1, 6.12.107).
    """
    row, record = image.symbols.defined(PAGE), record_size(image)
    if image.recovered is not None:
        return None  # kallsyms has no sizes
    page = 0 if row is None else int(image.symbols.rows["st_size"][row])
    if record is None or not 0 < record <= page:
        return None
    return -(-n // (page // record)) if counts_null_slots(image) else -(-n * record // page)


def record_size(image: Image) -> int | None:
    """sizeof(struct dyn_ftrace), by the kernel's own type information; None without it.

    Not every type is read: a struct of this name whose first members have the right names is found by its words.
    Source: Documentation/bpf/btf.rst.
    """
    for sec in image.sections_named(".BTF"):
        data = image.content(sec).tobytes()
        if len(data) < 24 or data[:2] != BTF_MAGIC:
            continue
        start, type_off, type_len, str_off, str_len = struct.unpack_from("<5I", data, 4)
        strings, types = data[start + str_off :][:str_len], data[start + type_off :][: type_len & ~3]
        words = np.frombuffer(types[: len(types) & ~3], "<u4").astype(np.int64)
        name = strings.find(b"\0" + RECORD.encode() + b"\0") + 1
        for at in np.flatnonzero(words[:-9] == name).tolist() if name else ():
            offsets = words[at + 3 : at + 9 : 3][: len(MEMBERS)].tolist()  # a member is name, type, place
            members = [strings[off:].partition(b"\0")[0].decode("ascii", "replace") for off in offsets]
            if words[at + 1] >> 24 & 0x1F == BTF_STRUCT and members == MEMBERS:
                return int(words[at + 2])
    return None


# -- ftrace bugs ---------------------------------------------------------------------------------------------------


def _bugs(table: SiteTable, index: I64) -> list[Bug]:
    """The sites at which the kernel will not find what it expects. index: the live ones, as the kernel sorts them.

    Source: arch/arm64/kernel/ftrace.c, arch/powerpc/kernel/trace/ftrace.c and ftrace_64_pg.c, ftrace_init_nop().
    """
    shape, arch = table.shape, table.image.arch
    if shape is None or not len(index):
        return []
    code = table.body()[index]
    found, expected = arch.numbers(code), arch.numbers(_expected(table.image, shape, table.body_va[index], code))
    wrong = found != expected
    if arch.compares_first and not shape.called:
        wrong[:, 1:] = False
    if not shape.out_of_line:  # of two records of one site, the second finds what the first made of it
        twice = np.concatenate(([False], table.body_va[index[1:]] == table.body_va[index[:-1]]))
        found[twice, 0], wrong[twice, 0] = arch.nop if shape.called else shape.new[0].bits, True
    bad = np.flatnonzero(wrong.any(axis=1))
    names = listed_names(table, index[bad])
    bugs = []
    for at, site, name in zip(bad.tolist(), index[bad].tolist(), names, strict=True):
        word, ip = int(np.argmax(wrong[at])), int(table.body_va[site]) + shape.call_at
        bugs.append(
            Bug(site, name, ip - int(table.entry_va[site]), int(table.row[site]), table.place_text(site), ip,
                int(table.body_va[site]) + arch.unit * word, int(expected[at, word]), int(found[at, word]),
                int(found[at, -1]), 2 * arch.call.size)
        )  # fmt: skip
    return bugs


def _expected(image: Image, shape: Shape, body_va: U64, found: U32) -> U32:
    """(n, units) of code that the kernel wants to see; where any of several would do, what is there."""
    mask = np.array([word.mask & 0xFFFF_FFFF for word in shape.old], dtype=np.uint32)
    bits = np.array([word.bits for word in shape.old], dtype=np.uint32)
    call, n = image.arch.call, image.arch.call.n_units
    expected = np.broadcast_to(bits, found.shape).copy() if not shape.called or n == 1 else bits | found & ~mask
    target = image.symbols.value(shape.called) if shape.called else None
    if target is not None:
        distance = np.uint64(target).astype(np.int64) - (body_va.view(np.int64) + shape.call_at)
        near = call.reaches(distance)
        if shape.also:  # what is left need not be a call
            near &= shape.branch.ends(found)
            left = shape.is_left(found) & ~near
            expected[left] = found[left]
        expected[near, -n:] = call.encode(distance[near]).reshape(-1, n)
        any_call = ~near & shape.branch.ends(found)
        expected[any_call, -n:] = found[any_call, -n:]
    return expected
