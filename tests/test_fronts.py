"""NOPs in front of entries, -fpatchable-function-entry=N,M: small arm64 programs whose code is placed by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from elfwriter import ALLOC, BASE, ET_EXEC, EXEC, NOP, NOTYPE, RET, TEXT, Elf, as_code, written

from ftpatch.cli import run
from ftpatch.errors import ShapeError
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.table import STATUSES

TABLE = BASE + 0x20_0000
BTI, HASH = 0xD503_245F, 0x1234_5678
F, G, H, K = 0x100, 0x180, 0x200, 0x280

ARM64, PPC64LE, X86_64 = 183, 21, 62
P_NOP, BLR, ADDIS, ADDI = 0x6000_0000, 0x4E80_0020, 0x3C4C_0002, 0x3842_7600
TWO_ENTRIES = {2: 3 << 5, 4: 4 << 5}  # words from the global entry to the local one → st_other
ENDBR, RETQ = bytes.fromhex("f30f1efa"), b"\xc3"

Code = Mapping[int, Sequence[int] | bytes]  # offset in the text → words, or bytes


def program(
    path: Path, code: Code, records: Sequence[int], entries: Mapping[str, int], machine: int = ARM64,
    local: Mapping[str, int] = {},
) -> Scan:  # fmt: skip
    """A program with these records and functions, as offsets in the text; local: st_other of functions."""
    text = bytearray(0x400)
    for at, words in code.items():
        content = words if isinstance(words, bytes) else as_code(words)
        text[at : at + len(content)] = content
    elf = Elf(ET_EXEC, machine, other=local)
    sec = elf.section(".text", bytes(text), flags=ALLOC | EXEC, addr=TEXT, align=16)
    slots = struct.pack(f"<{len(records)}Q", *(TEXT + at for at in records))
    elf.section("__patchable_function_entries", slots, flags=ALLOC, addr=TABLE, align=8)
    for name, at in entries.items():
        elf.symbol(name, sec, TEXT + at, 12)
    return scan_file(written(path / "prog", elf.build()))


def stripped(path: Path, code: Code, records: Sequence[int], entries: Sequence[int], machine: int = ARM64) -> Scan:
    """As `program`, without symbols, but with the index of its unwind tables."""
    text = bytearray(0x400)
    for at, words in code.items():
        content = words if isinstance(words, bytes) else as_code(words)
        text[at : at + len(content)] = content
    elf = Elf(ET_EXEC, machine)
    elf.section(".text", bytes(text), flags=ALLOC | EXEC, addr=TEXT, align=16)
    slots = struct.pack(f"<{len(records)}Q", *(TEXT + at for at in records))
    elf.section("__patchable_function_entries", slots, flags=ALLOC, addr=TABLE, align=8)
    index = bytes((1, 0x1B, 3, 0x3B)) + struct.pack("<iI", 0, len(entries))
    index += b"".join(struct.pack("<ii", TEXT + at - TABLE - 0x1000, 0) for at in entries)
    elf.section(".eh_frame_hdr", index, flags=ALLOC, addr=TABLE + 0x1000, align=4)
    return scan_file(written(path / "prog", elf.build()))


@pytest.mark.parametrize(
    ("code", "record", "entry", "machine", "layout", "front", "site"),
    [
        pytest.param((NOP,) * 2 + (RET,), F, F + 8, ARM64, "pfe2", None, F, id="2"),
        pytest.param(b"\x90" * 16 + b"\xc3", F, F + 16, X86_64, "padding", 16, F + 16, id="16,16-x86"),
        pytest.param(b"\x90" * 10 + b"\xc3", F, F + 5, X86_64, "pfe5-front", 5, F + 5, id="10,5-x86"),
        pytest.param(b"\x90" * 5 + b"\xc3", F, F, X86_64, "pfe5", None, F, id="5-x86"),
    ],
)  # fmt: skip
def test_without_symbols_the_unwind_tables_tell_the_entries(
    code: tuple[int, ...] | bytes, record: int, entry: int, machine: int, layout: str, front: int | None, site: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    """On arm64 gcc begins them behind all NOPs, clang at the entry: there they tell nothing."""
    found = shown(stripped(tmp_path, {F: code}, [record], [entry], machine))
    assert (found[0], found[1], found[2][0][2]) == (layout, front, site)


@pytest.mark.parametrize("n", [3, 6])
def test_nops_of_which_nothing_tells_the_entry_are_refused(n: int, tmp_path: Path) -> None:
    """A stripped arm64 program with 6,5 was `callops`, and one with 3,3 had sites in front of its functions."""
    with pytest.raises(ShapeError) as refusal:
        stripped(tmp_path, {F: (*nops(n), RET)}, [F], [F + 4 * n])
    assert refusal.value.args[0] == (
        f"{tmp_path}/prog: nothing tells where the functions begin: found more than 2 NOPs at each record, and no "
        "symbol at any of them, expected symbols, as some of the NOPs may be in front of the entries – use the program "
        "that it was stripped from; --layout NAME forces one"
    )


def shown(scan: Scan) -> tuple[str, int | None, list[tuple[str | None, str, int]]]:
    """The layout, the NOPs in front of the entries, and of each site its function, status and offset in the text."""
    table, shape = scan.sites, scan.sites.shape
    rows = [(table.name(i), STATUSES[table.status[i]], int(table.off[i] + table.site[i])) for i in range(len(table))]
    return (shape.name, shape.front, rows) if shape else ("none", None, rows)


def nops(n: int) -> tuple[int, ...]:
    return (NOP,) * n


@pytest.mark.parametrize(
    ("code", "records", "entries", "layout", "front", "rows"),
    [
        pytest.param({F: (*nops(6), RET)}, [F], {"f": F + 20}, "pad-before", 5, [("f", "ready", F + 20)], id="6,5"),
        pytest.param({F: (*nops(2), RET)}, [F], {"f": F + 4}, "pad-before", 1, [("f", "ready", F + 4)], id="2,1"),
        pytest.param({F: (*nops(31), RET)}, [F], {"f": F + 120}, "pad-before", 30, [("f", "ready", F + 120)],
                     id="31,30"),
        pytest.param({F: (*nops(5), BTI, NOP, RET)}, [F], {"f": F + 20}, "pad-before", 5, [("f", "ready", F + 24)],
                     id="6,5-with-bti"),
        pytest.param({F - 4: (HASH, *nops(6), RET)}, [F], {"f": F + 20}, "pad-before", 5, [("f", "ready", F + 20)],
                     id="6,5-behind-a-kcfi-hash"),
        pytest.param({F: (*nops(5), BTI, NOP, RET), G: (*nops(6), RET)}, [F, G], {"f": F + 20, "g": G + 20},
                     "pad-before", 5, [("f", "ready", F + 24), ("g", "ready", G + 20)], id="bti-in-some"),
        pytest.param({F: (*nops(6), RET), G: (*nops(7), RET), H: (*nops(6), RET)}, [F, G, H],
                     {"f": F + 20, "g": G + 20, "h": H + 20}, "pad-before", 5,
                     [("f", "ready", F + 20), ("g", "ready", G + 20), ("h", "ready", H + 20)],
                     id="a-nop-of-a-function's-own"),
        pytest.param({F: (*nops(4), RET)}, [F], {"f": F + 8}, "pfe-front", 2, [("f", "ready", F + 8)],
                     id="4,2-of-a-program-has-no-ops"),
        pytest.param({F: (*nops(7), RET)}, [F], {"f": F + 16}, "pfe-front", 4, [("f", "ready", F + 16)], id="7,4"),
        pytest.param({F: (*nops(2), BTI, *nops(2), RET)}, [F], {"f": F + 8}, "pfe-front", 2, [("f", "ready", F + 12)],
                     id="4,2-with-bti"),
        pytest.param({F: (*nops(3), RET)}, [F], {"f": F + 12}, "padding", 3, [("f", "padding", F + 12)], id="3,3"),
        pytest.param({F: (*nops(3), BTI, RET)}, [F], {"f": F + 12}, "padding", 3, [("f", "padding", F + 16)],
                     id="3,3-with-bti"),
        pytest.param({F: (NOP, RET)}, [F], {"f": F}, "pfe1", None, [("f", "ready", F)], id="1"),
        pytest.param({F: (BTI, NOP, RET)}, [F + 4], {"f": F}, "pfe1", None, [("f", "ready", F + 4)], id="1-with-bti"),
        pytest.param({F: (*nops(5), RET)}, [F], {"f": F}, "pfe2", None, [("f", "ready", F)], id="5"),
        pytest.param({F: (*nops(6), RET), G: (*nops(5), RET, RET)}, [F, G], {"f": F + 20, "g": G + 20}, "padding", 5,
                     [("f", "padding", F + 20), ("g", "padding", G + 20)], id="half-of-them-padding"),
    ],
)  # fmt: skip
def test_layouts_of_n_and_m(
    code: Code, records: list[int], entries: dict[str, int], layout: str, front: int | None,
    rows: list[tuple[str, str, int]], tmp_path: Path,
) -> None:  # fmt: skip
    assert shown(program(tmp_path, code, records, entries)) == (layout, front, rows)


def test_functions_with_other_numbers_of_nops_are_refused_with_each_number(tmp_path: Path) -> None:
    """A file of units with =2 and with =6,5 showed `pfe2`, and the sites of the others had no function."""
    code = {F: (*nops(6), RET), G: (*nops(2), RET), H: (*nops(2), RET)}
    with pytest.raises(ShapeError) as refusal:
        program(tmp_path, code, [F, G, H], {"f": F + 20, "g": G, "h": H})
    assert refusal.value.args[0] == (
        f"{tmp_path}/prog: the records have several layouts: found 2 with no NOPs in front of the entry, 1 with 5 NOPs "
        "in front of the entry (pad-before), expected the same -fpatchable-function-entry=N,M for all – "
        "--layout NAME takes those of one layout, and leaves the others"
    )


@pytest.mark.parametrize(
    ("layout", "front", "rows"),
    [
        ("pad-before", 5, [("f", "ready", F + 20), (None, "unexpected", G + 20), (None, "unexpected", H + 20)]),
        ("pfe2", None, [(None, "unnamed", F), (None, "unnamed", G), ("h", "ready", H)]),
        ("padding", 3, [(None, "unexpected", F + 12), ("g", "padding", G + 12), (None, "unexpected", H + 12)]),
    ],
)
def test_a_layout_by_name_takes_the_functions_that_have_it(
    layout: str, front: int | None, rows: list[tuple[str | None, str, int]], tmp_path: Path
) -> None:
    code = {F: (*nops(6), RET), G: (*nops(3), RET, RET), H: (*nops(2), RET)}
    path = tmp_path / "prog"
    with pytest.raises(ShapeError):
        program(tmp_path, code, [F, G, H], {"f": F + 20, "g": G + 12, "h": H})
    assert shown(scan_file(str(path), layout)) == (layout, front, rows)


@pytest.mark.parametrize(
    ("code", "entry", "layout", "front", "status", "site"),
    [
        pytest.param(b"\x90" * 5 + ENDBR + b"\x90" + RETQ, 5, "pfe-short-front", 5, "ready", 9, id="6,5-with-endbr"),
        pytest.param(b"\x90" * 9 + RETQ, 7, "pfe-short-front", 7, "ready", 7, id="9,7"),
        pytest.param(b"\x90" * 7 + b"\x66\x90" + RETQ, 7, "pfe-short-front", 7, "ready", 7, id="9,7-clang"),
        pytest.param(b"\x90" * 10 + RETQ, 5, "pfe5-front", 5, "ready", 5, id="10,5"),
        pytest.param(b"\x90" * 5 + bytes.fromhex("0f1f440008") + RETQ, 5, "nop5-front", 5, "ready", 5, id="10,5-clang"),
        pytest.param(b"\x90" * 5 + bytes.fromhex("0f1f8000020000") + RETQ, 5, "nop7-front", 5, "ready", 5,
                     id="12,5-clang"),
        pytest.param(b"\x90" * 16 + ENDBR + RETQ, 16, "padding", 16, "padding", 20, id="16,16"),
    ],
)  # fmt: skip
def test_layouts_of_n_and_m_on_x86_64(
    code: bytes, entry: int, layout: str, front: int, status: str, site: int, tmp_path: Path
) -> None:
    """All of them were `pfe5` or `pfe-short`, and their functions leftovers of others."""
    scan = program(tmp_path, {F: code}, [F], {"f": F + entry}, X86_64)
    assert shown(scan) == (layout, front, [("f", status, F + site)])


@pytest.mark.parametrize(
    ("code", "entry", "to_local", "layout", "front", "row"),
    [
        pytest.param((P_NOP,) * 4 + (BLR,), 2, 0, "pfe-front", 2, ("f", "ready", F + 8), id="4,2-one-entry"),
        pytest.param((ADDIS, ADDI, *(P_NOP,) * 4, BLR), 0, 4, "pfe-front", 2, ("f", "ready", F + 16),
                     id="4,2-between-the-entries"),
        pytest.param((ADDIS, ADDI, *(P_NOP,) * 3, BLR), 0, 4, "pad-before", 2, ("f", "ready", F + 16),
                     id="3,2-between-the-entries"),
        pytest.param((*(P_NOP,) * 4, ADDIS, ADDI, BLR), 2, 4, "pfe-front-global", 2, ("f", "ready", F + 8),
                     id="4,2-of-gcc-12"),
        pytest.param((*(P_NOP,) * 2, ADDIS, ADDI, BLR), 2, 2, "padding-global", 2, ("f", "padding", F + 8),
                     id="2,2-of-gcc-12"),
        pytest.param((*(P_NOP,) * 3, BLR), 3, 0, "padding", 3, ("f", "padding", F + 12), id="3,3"),
    ],
)  # fmt: skip
def test_layouts_of_n_and_m_on_ppc64le(
    code: tuple[int, ...], entry: int, to_local: int, layout: str, front: int, row: tuple[str, str, int], tmp_path: Path
) -> None:
    record = F + 8 if to_local and entry == 0 else F
    other = {"f": TWO_ENTRIES[to_local]} if to_local else {}
    scan = program(tmp_path, {F: code}, [record], {"f": F + 4 * entry}, PPC64LE, other)
    assert shown(scan) == (layout, front, [row])


def test_a_kernel_with_switches_is_read_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elf = Elf(ET_EXEC)
    sec = elf.section(".text", as_code((*nops(6), RET)), flags=ALLOC | EXEC, addr=TEXT, align=16)
    data = elf.section(".data", struct.pack("<Q", TEXT), flags=ALLOC, addr=TABLE, align=8)
    elf.symbol("f", sec, TEXT + 20, 8)
    elf.symbol("__start_mcount_loc", data, TABLE, type=NOTYPE)
    elf.symbol("__stop_mcount_loc", data, TABLE + 8, type=NOTYPE)
    path = written(tmp_path / "vmlinux", elf.build())
    assert shown(scan_file(path)) == ("pad-before", 5, [("f", "ready", 20)])
    assert run(["enable", path, "--func", "f", "--target", "f", "-o", str(tmp_path / "out")]) == 4
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ftpatch: {path}: layout pad-before cannot be patched in files of kind vmlinux: expected a program or shared "
        "object: no kernel knows such sites – ftpatch scan reads it"
    )
