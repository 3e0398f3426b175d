"""What a kernel will say of its record table when it boots, told from its file.

`ftrace: allocating N entries in M pages` counts slots: kernels that print it before they read the table count all of
them, newer ones print it behind that and leave out the null ones. Which of the two a kernel is stands in ftrace_init:
how often it can print before it calls ftrace_process_locs (that there are no functions to be traced always comes
first). available_filter_functions lists the live ones, once those of init text are freed with it.

Every record's site is compared with what the compiler left there. At the first that differs the kernel prints an
ftrace bug, looks at no other, and switches ftrace off for good: nothing can be listed then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U32, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.kallsyms import printed_as
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import OUTSIDE, SiteTable

INIT, READS, PRINTS = "ftrace_init", "ftrace_process_locs", ("_printk", "printk")
MAX_CODE = 1 << 16  # bytes of ftrace_init that are read
PAGE = "empty_zero_page"  # an array of one page in every kernel of these machines
RECORD, MEMBERS = "dyn_ftrace", ("ip", "flags")  # what the kernel allocates per entry
BTF_HEADER, BTF_STRUCT = np.dtype([("head", "<u8"), ("type_off", "<u4"), ("type_len", "<u4"), ("str_off", "<u4"),
                                   ("str_len", "<u4")]), 4  # fmt: skip


class Bug(NamedTuple):
    """One ftrace bug that a boot would raise. Code is given in the numbers of `Arch.numbers`."""

    # index in the site table
    site: int
    function: str
    # bytes from the function's symbol to the call
    offset: int
    row: int
    # section and offset of the site
    place: str
    # the call, which the kernel names
    ip: int
    # what is not as the kernel wants it: where, what it wants, what is there
    va: int
    expected: int
    found: int
    # what is at the call, which the kernel prints too
    actual: int
    # hex digits of one of these numbers
    digits: int = 8

    def __str__(self) -> str:
        return (
            f"{self.function}+{self.offset:#x} (row {self.row}, {self.place}): at {self.va:#x} expected "
            f"{self.expected:0{self.digits}x}, found {self.found:0{self.digits}x}; the call belongs at {self.ip:#x}"
        )


class Oracle(NamedTuple):
    """What the kernel will print and list."""

    # entries that it says it allocates
    allocating: int
    # pages for them; None where page or record size are not in the file
    pages: int | None
    # lines of available_filter_functions, before and after init memory is freed; none where there is a bug
    listed_before: tuple[str, ...]
    listed_after: tuple[str, ...]
    # every site that would raise one, in the order in which the kernel comes to them; it prints the first alone
    bugs: tuple[Bug, ...]


def at_boot(scan: Scan, live: Mask) -> dict[str, int] | None:
    """`allocating` and `listed`; None where the file is no kernel or has no record table. live: over the site table."""
    image, records, table = scan.image, scan.records, scan.sites
    if image.kind != "vmlinux" or not len(records):
        return None
    counted = np.ones(len(records), dtype=bool) if counts_null_slots(image) else records.live
    listed = live & (table.status != OUTSIDE) & ~in_init_text(image, table.va)
    return {"allocating": int(counted.sum()), "listed": int(listed.sum())}


def bugs_of(scan: Scan) -> tuple[Bug, ...]:
    """Every site of a kernel or module that would raise an ftrace bug where its records are read."""
    table = scan.sites
    shown = np.flatnonzero(scan.records.live & (table.status[: len(scan.records)] != OUTSIDE))
    return tuple(_bugs(table, shown[np.argsort(table.va[shown], kind="stable")]))


def oracle(scan: Scan) -> Oracle | None:
    """Everything that a boot of this kernel will show; None where the file is no kernel or has no record table."""
    image, table = scan.image, scan.sites
    live = np.zeros(len(table), dtype=bool)
    live[: len(scan.records)] = scan.records.live
    counts = at_boot(scan, live)
    if counts is None:
        return None
    shown = np.flatnonzero(live & (table.status != OUTSIDE))
    shown = shown[np.argsort(table.va[shown], kind="stable")]
    bugs = tuple(_bugs(table, shown))
    before = () if bugs else tuple(listed_names(table, shown))
    init = in_init_text(image, table.va[shown]).tolist()
    after = tuple(name for name, gone in zip(before, init, strict=False) if not gone)
    return Oracle(counts["allocating"], pages_of(image, counts["allocating"]), before, after, bugs)


def listed_names(table: SiteTable, index: I64) -> list[str]:
    """The lines of available_filter_functions for these sites."""
    names = [table.name(site) for site in index.tolist()]
    nameless = index[[name is None for name in names]]
    called = iter(printed_as(table.image, table.branch_va[nameless]))
    return [next(called) if name is None else name for name in names]


def counts_null_slots(image: Image) -> bool:
    """Whether the kernel prints the number of its records before it reads them; False where its code does not tell."""
    row = image.symbols.defined(INIT)
    if row is None:
        return False
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    at, distance = image.arch.call.find(image.code(va, min(size, MAX_CODE) // image.arch.unit))
    target = np.uint64(va) + (at + distance).view(np.uint64)
    reads, prints = (is_in(target, _entries(image, names)) for names in ((READS,), PRINTS))
    return bool(reads.any()) and int(prints[: int(np.argmax(reads))].sum()) > 1


def _entries(image: Image, names: tuple[str, ...]) -> U64:
    """Both entries of the functions of these names."""
    functions = image.functions
    rows = np.concatenate([image.symbols.rows_named(name) for name in names])
    at = is_in(functions.row, rows)
    return np.concatenate([functions.va[at], functions.local[at]])


# -- the pages of the allocation -----------------------------------------------------------------------------------


def pages_of(image: Image, n: int) -> int | None:
    """Pages that the kernel says it needs for n records; None where the file does not tell their size.

    Kernels that count before they read the table divide by the records that fit a page, newer ones by the bytes.
    Source: kernel/trace/ftrace.c ftrace_init(), ftrace_process_locs() (Linux 6.1, 6.12.107).
    """
    row, record = image.symbols.defined(PAGE), record_size(image)
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
        if len(data) < 24 or data[:2] != b"\x9f\xeb":
            continue
        head = np.frombuffer(data[:24], BTF_HEADER)[0]
        start = int.from_bytes(data[4:8], "little")
        strings = data[start + int(head["str_off"]) : start + int(head["str_off"]) + int(head["str_len"])]
        types = data[start + int(head["type_off"]) : start + int(head["type_off"]) + (int(head["type_len"]) & ~3)]
        words = np.frombuffer(types, "<u4").astype(np.int64)
        name = strings.find(b"\0" + RECORD.encode() + b"\0") + 1
        for at in np.flatnonzero(words[:-9] == name).tolist() if name else ():
            members = [_string(strings, int(words[at + 3 + 3 * i])) for i in range(len(MEMBERS))]
            if words[at + 1] >> 24 & 0x1F == BTF_STRUCT and tuple(members) == MEMBERS:
                return int(words[at + 2])
    return None


def _string(strings: bytes, off: int) -> str:
    return strings[off : strings.find(b"\0", off)].decode("ascii", "replace") if off < len(strings) else ""


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
        word, ip = int(np.argmax(wrong[at])), int(table.branch_va[site])
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
    home = image.symbols.value(shape.called) if shape.called else None
    if home is not None:
        branch = body_va.view(np.int64) + shape.call_at
        distance = np.uint64(home).astype(np.int64) - branch
        near = call.reaches(distance)
        if shape.also:  # what is left need not be a call
            near &= shape.branch.ends(found)
            left = shape.is_left(found) & ~near
            expected[left] = found[left]
        expected[near, -n:] = call.encode(distance[near]).reshape(-1, n)
        any_call = ~near & shape.branch.ends(found)
        expected[any_call, -n:] = found[any_call, -n:]
    return expected
