"""The pictures of what a kernel has besides sites: records, boot, slots, far calls, static calls."""

from __future__ import annotations

from collections.abc import Callable

import ftpatch
from ftpatch.arch import Arch
from ftpatch.document.explained import ExplainedRow
from ftpatch.sites.table import SiteTable
from tools.pictures.code import (
    TESTDATA,
    addresses,
    count_at,
    explained,
    plain,
    record_values,
    static_call_words,
    text_records,
)
from tools.pictures.svg import Arrow, Block, Cell, Picture, Point

MIB = 1 << 20
SLOT = 24  # bytes of a stub with its ops pointer
MINUS4 = (1 << 64) - 4
SHOWN = (*range(5), *range(10, 19))  # slots of the record tables


def record_table() -> Picture:
    picture = Picture(
        "How a record leaves the table",
        "Two tables of slots. With null, one more slot at the front is zero and the other records keep their "
        "order. With minus4 "
        "the slot holds -4 and everything else stays. With shrink the record is cut out and the last slot is "
        "not read.",
    )
    _add_slots(picture, "a sorted table that begins with zeros (callops)", "mini/vmlinux-callops", ("null", "shrink"))
    _add_slots(picture, "a table in the order of the link (pfe2)", "mini/vmlinux-pfe2", ("minus4", "shrink"))
    picture.note(
        "What the kernel reads of each slot: the last four digits of the address, after vfs_read was enabled.",
        "Yellow: differs from the stock file.",
    )
    return picture


def _add_slots(picture: Picture, heading: str, file: str, ways: tuple[str, ...]) -> None:
    stock, *tables = [record_values(file, "vfs_read", way) for way in ("", *ways)]
    sites = ftpatch.scan(str(TESTDATA / file)).sites
    picture.heading(heading)
    rows = []
    for slot in SHOWN:
        if slot and slot - 1 not in SHOWN:
            rows.append([Cell("…", "")] + [Cell("")] * (len(ways) + 2))
        values = [_value(table, slot) for table in (stock, *tables)]
        cells = [Cell(value, "box" if value == values[0] else "new") for value in values]
        rows.append([Cell(f"slot {slot}", ""), Cell(_name(sites, slot), ""), *cells])
    picture.table(["", "", "stock", *(f"--records {way}" for way in ways)], rows)


def _name(sites: SiteTable, slot: int) -> str:
    return sites.name(slot) or ("left of a weak function" if sites.va[slot] else "empty")


def _value(table: list[int], slot: int) -> str:
    if slot >= len(table):
        return "not read"
    return {0: "0", MINUS4: "-4"}.get(table[slot], f"…{table[slot] & 0xFFFF:04x}")


def boot() -> Picture:
    picture = Picture(
        "What the kernel does with the records at boot",
        "ftrace_init reads the slots, skips empty ones, adjusts the others to the address of the call and "
        "compares the code there with "
        "what a compiler leaves. If it is that, the site becomes a NOP and is listed. If not, an ftrace bug "
        "is printed and ftrace is off.",
    )
    picture.blocks(
        [
            Block(0, 0, "ftrace_init()", ("for each slot from __start_mcount_loc", "to __stop_mcount_loc")),
            Block(0, 1, "slot value", ("relocation or packed table applied",)),
            Block(0, 2, "ftrace_call_adjust()", ("record -> address of the call",)),
            Block(0, 3, "ftrace_init_nop()", ("is the code what the compiler leaves?",)),
            Block(0, 4, "NOPs written, function listed", ("in available_filter_functions",)),
            Block(1, 1, "skipped", ("0; on some kernels -4",)),
            Block(
                1,
                3,
                "ftrace_bug()",
                ("a warning, and ftrace is switched off", "for every function, until the next boot"),
                "new",
            ),
            Block(
                1,
                4,
                "a site that ftpatch enabled",
                ("its record has left the table:", "never looked at, called from the start"),
            ),
        ],
        [Arrow(0, 1), Arrow(1, 2), Arrow(2, 3), Arrow(3, 4, "yes"), Arrow(1, 5, "empty"), Arrow(3, 6, "no")],
    )
    return picture


def far_ppc64le() -> Picture:
    file = "mini-ppc64le/vmlinux-far"
    arch, _, site = explained(file, "b_mid")
    picture = Picture(
        "Far calls of ppc64le",
        "A map: init text begins 32 MiB behind the start of the text, out of a branch's reach from "
        "ftrace_caller. A site there calls "
        "ftrace_tramp_text or ftrace_tramp_init, five words that jump on by r12 and ctr.",
    )
    _add_map(picture, file, ("ftrace_caller", "ftrace_tramp_text", "b_mid", "b_late", "ftrace_tramp_init"), arch)
    _add_stub(picture, "ftrace_tramp_text, as the kernel and ftpatch fill it", arch, site)
    return picture


def far_arm64() -> Picture:
    file = "far/vmlinux"
    arch, _, site = explained(file, "far_a")
    picture = Picture(
        "Far calls of arm64",
        "A map of a kernel whose text spans 450 MiB: from ftrace_caller a branch gets 128 MiB far. A site "
        "beyond calls a veneer of "
        "three words nearby, which jumps by x16.",
    )
    _add_map(picture, file, ("ftrace_caller", "near_a", "mid_a", "far_a", "init_a"), arch)
    _add_stub(picture, "the veneer of far_a, in padding between two functions", arch, site)
    return picture


def _add_map(picture: Picture, file: str, names: tuple[str, ...], arch: Arch) -> None:
    image, places = ftpatch.scan(str(TESTDATA / file)).image, addresses(file)
    numbers = [number for number in range(len(image.names)) if image.executable[number]]
    sections = [(image.names[n], int(image.base[n]), int(image.base[n]) + len(image.content(n))) for n in numbers]
    reach = f"from ftrace_caller a branch gets {(arch.call.high + arch.call.scale) // MIB} MiB far"
    points = [Point(places[name], name) for name in names]
    picture.map(sections, points, (places["ftrace_caller"], arch.call.high, reach))


def _add_stub(picture: Picture, heading: str, arch: Arch, site: ExplainedRow) -> None:
    _, stub = site["code"]
    picture.heading(heading)
    rows = [[Cell(word["new_word"][2:], "new"), Cell(plain(word["new_text"] or ""), "")]
            for word in stub["words"] if word["new_word"]]  # fmt: skip
    picture.table(["", ""], rows)


def slots() -> Picture:
    """Text records get the slots of the first area, then those of the second, in the order of their addresses."""
    file = "mini-ppc64le/vmlinux-ool"
    _, _, site = explained(file, "vfs_read")
    places, stock, patched = addresses(file), text_records(file, ""), text_records(file, "vfs_read")
    assert site["patch"]
    first = places["ftrace_ool_stub_text_end_count"]
    near = len(stock) - count_at(file, first)
    own = (int(site["patch"]["stub"] or "0", 16) - places["ftrace_ool_stub_text_end"]) // SLOT
    picture = Picture(
        "Which slot belongs to which record",
        "A table of the slots of ftrace_ool_stub_text_end. In the stock kernel each is given to one record, in order. "
        "When vfs_read is enabled its record is gone, later records move up by one, and the last slot, which is then "
        "free, holds its call.",
    )
    rows = []
    for slot in range(len(stock) - near):
        before = stock[near + slot]
        after = "the call of vfs_read" if slot == own else patched[near + slot]
        cells = [Cell(before), Cell(after, "box" if before == after else "new")]
        rows.append([Cell(f"slot {slot}", ""), *cells])
    picture.table(["", "stock", "vfs_read enabled"], rows)
    picture.note(
        f"{near} more text records have the slots of ftrace_ool_stub_text. Yellow: differs from the stock kernel."
    )
    return picture


def static_call() -> Picture:
    old, new = (static_call_words(function) for function in ("", "clock_fast"))
    picture = Picture(
        "A static call, and how it is set",
        "A site calls the trampoline; the trampoline jumps to the function; the key holds the function's "
        "address. Setting the call "
        "changes the key and the trampoline's jump together. At boot the kernel rewrites each site from the key.",
    )
    picture.blocks(
        [
            Block(0, 0, "site, in the function lines", (f"{old[0]}  call __SCT__clock",)),
            Block(1, 0, "trampoline __SCT__clock", (f"{old[1]}  jmp clock_slow", f"{new[1]}  jmp clock_fast"), "new"),
            Block(2, 0, "the function", ("clock_slow, then clock_fast",)),
            Block(0, 1, "the kernel, at boot", ("reads the key, and lets each", "site call the function itself")),
            Block(1, 1, "key __SCK__clock", (f"{old[2]}  clock_slow", f"{new[2]}  clock_fast"), "new"),
        ],
        [Arrow(0, 1), Arrow(1, 2), Arrow(4, 3), Arrow(3, 0)],
    )
    picture.note("First line of a yellow box: the stock file; second line: after --set clock=clock_fast.")
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "ppc64le-slots": slots,
    "static-call": static_call,
    "record-table": record_table,
    "boot": boot,
    "far-ppc64le": far_ppc64le,
    "far-arm64": far_arm64,
}
