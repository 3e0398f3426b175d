"""How records leave the table, read back by `struct` and pyelftools; and where each way is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elfwriter import BASE, MINI, RET, TEXT, Kernel, add, adrp, parsed, pos_of, symbol, words_at, written

from ftpatch import api
from ftpatch.errors import PolicyError
from ftpatch.plan.decide import make_plan
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.sites.select import select

MINUS4 = (1 << 64) - 4


def planned(path: str | Path, *func: str, way: str) -> Plan:
    scan = api.scan(str(path))
    request = replace(EnableRequest(select(scan.sites, func).mask), records=way)
    return make_plan(scan, request)


def result(path: str | Path, plan: Plan) -> bytes:
    file = bytearray(Path(path).read_bytes())
    for pos, old, new, _, _ in plan.edits:
        assert file[pos : pos + len(old)] == old
        file[pos : pos + len(new)] = new
    return bytes(file)


def dropped(name: str, *func: str, way: str) -> tuple[bytes, bytes, Plan]:
    """The fixture before and after, and what was decided."""
    plan = planned(MINI / name, *func, way=way)
    return (MINI / name).read_bytes(), result(MINI / name, plan), plan


def words(file: bytes, start: int, n: int) -> list[int]:
    return list(struct.unpack_from(f"<{n}Q", file, pos_of(file, start)))


def table(file: bytes) -> list[int]:
    """The words between the two symbols."""
    start, stop = symbol(file, "__start_mcount_loc"), symbol(file, "__stop_mcount_loc")
    return words(file, start, (stop - start) // 8)


def relocations(file: bytes) -> dict[int, int]:
    """r_offset → r_addend of the RELATIVE rows."""
    section = parsed(file).get_section_by_name(".rela.dyn")
    rows = [] if section is None else section.iter_relocations()
    return {one["r_offset"]: one["r_addend"] % (1 << 64) for one in rows if one["r_info_type"] == 1027}


def values(file: bytes) -> list[int]:
    """What the kernel finds at load bias 0, slot by slot."""
    start, addends = symbol(file, "__start_mcount_loc"), relocations(file)
    return [addends.get(start + 8 * i, word) for i, word in enumerate(table(file))]


@pytest.mark.parametrize(
    ("name", "way", "why"),
    [
        ("vmlinux-callops", "null", "the table has 3 null slots already"),
        ("vmlinux-kcfi", "null", "the table has 3 null slots already"),
        ("vmlinux-pfe2", "minus4", "the kernel adds 4 to a record, and its values are R_*_RELATIVE addends"),
        ("vmlinux-pfe2-bti", "minus4", "the kernel adds 4 to a record, and its values are R_*_RELATIVE addends"),
        ("vmlinux-exec", "shrink", "nothing in the file shows that the kernel skips null slots"),
    ],
)
def test_auto_takes_the_way_that_the_file_suits(name: str, way: str, why: str) -> None:
    found = dropped(name, "vfs_read", way="auto")[2]
    assert (found.summary.records, found.summary.records_why) == (way, why)


@pytest.mark.parametrize(("name", "lead"), [("vmlinux-callops", 8), ("vmlinux-callops-bti", 8), ("vmlinux-kcfi", 0)])
def test_null_moves_the_zeros_to_the_front_and_keeps_the_order(name: str, lead: int) -> None:
    before, after, _ = dropped(name, "vfs_read", "b_late", way="null")
    gone = {symbol(before, one) - lead for one in ("vfs_read", "b_late")}
    assert table(after) == [0] * 5 + [value for value in table(before) if value and value not in gone]
    assert symbol(after, "__stop_mcount_loc") == symbol(before, "__stop_mcount_loc")


def test_null_leaves_relr_as_it_is() -> None:
    before, after, _ = dropped("vmlinux-callops", "vfs_read", way="null")
    head = parsed(before).get_section_by_name(".relr.dyn")
    span = slice(head["sh_offset"], head["sh_offset"] + head["sh_size"])
    assert before[span] == after[span]


@pytest.mark.parametrize(("name", "lead"), [("vmlinux-pfe2", 0), ("vmlinux-pfe2-bti", 4)])
def test_minus4_writes_minus_4_and_takes_the_relocation_away(name: str, lead: int) -> None:
    before, after, _ = dropped(name, "vfs_read", way="minus4")
    record = symbol(before, "vfs_read") + lead
    slot = values(before).index(record)
    assert values(after) == [MINUS4 if value == record else value for value in values(before)]
    assert table(after) == [MINUS4 if i == slot else 0 for i in range(19)]
    left = relocations(before)
    del left[symbol(before, "__start_mcount_loc") + 8 * slot]
    assert relocations(after) == left


def test_minus4_takes_plain_words_too() -> None:
    before, after, _ = dropped("vmlinux-exec", "vfs_read", way="minus4")
    record = symbol(before, "vfs_read")
    assert table(after) == [MINUS4 if value == record else value for value in table(before)]


SHRINKABLE = [
    ("vmlinux-pfe2", 0),
    ("vmlinux-pfe2-bti", 4),
    ("vmlinux-exec", 0),
    ("vmlinux-kcfi", 0),
    ("vmlinux-callops", -8),
]


@pytest.mark.parametrize(("name", "lead"), SHRINKABLE)
def test_shrink_cuts_the_record_out_and_moves_the_end(name: str, lead: int) -> None:
    before, after, _ = dropped(name, "vfs_read", way="shrink")
    record = symbol(before, "vfs_read") + lead
    assert values(after) == [value for value in values(before) if value != record]
    stop = symbol(before, "__stop_mcount_loc")
    assert symbol(after, "__stop_mcount_loc") == stop - 8
    assert words(after, stop - 8, 1) == [0]
    assert stop - 8 not in relocations(after)


@pytest.mark.parametrize(("name", "n"), [(name, n) for name, _ in SHRINKABLE for n in (1, 2)])
def test_shrink_lowers_exactly_the_add_immediate_of_ftrace_init(name: str, n: int) -> None:
    before, after, _ = dropped(name, *("vfs_read", "vfs_write")[:n], way="shrink")
    section = parsed(before).get_section_by_name(".init.text")
    start, size = section["sh_addr"], section["sh_size"]
    pairs = zip(words_at(before, start, size // 4), words_at(after, start, size // 4), strict=True)
    ((at, old, new),) = [(start + 4 * i, one, two) for i, (one, two) in enumerate(pairs) if one != two]
    init = parsed(before).get_section_by_name(".symtab").get_symbol_by_name("ftrace_init")[0]
    assert init["st_value"] <= at < init["st_value"] + init["st_size"]
    assert old & 0xFFC0_0000 == 0x9100_0000  # add Xd, Xn, #imm12
    assert old >> 10 & 0xFFF == symbol(before, "__stop_mcount_loc") & 0xFFF
    assert new == old - (8 * n << 10)


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-exec", "vmlinux-callops"])
def test_keep_touches_no_record_and_warns(name: str) -> None:
    before, after, found = dropped(name, "vfs_read", way="keep")
    assert values(after) == values(before)
    assert found.warnings == (
        "the records of the patched sites stay: at boot the kernel will print an ftrace bug at the first of them "
        "and switch ftrace off for good (no tracing, no kprobes on ftrace, no live patching)",
    )


def test_an_empty_table_is_a_warning() -> None:
    plan = planned(MINI / "vmlinux-exec", "*", "row:4", "row:15", "row:18", way="shrink")
    assert plan.warnings == (
        "no record is left: the kernel will say that there are no functions to be traced, and ftrace is then off",
    )
    assert values(result(MINI / "vmlinux-exec", plan)) == []


@pytest.mark.parametrize(
    ("name", "way", "found", "expected"),
    [
        ("vmlinux-pfe2", "null", "nothing that shows that the kernel skips null slots", "null slots in its table"),
        ("vmlinux-exec", "null", "nothing that shows that the kernel skips null slots", "null slots in its table"),
        ("vmlinux-callops", "minus4", "layout callops", "a layout whose records the kernel moves by 4"),
        (
            "vmlinux-kcfi",
            "minus4",
            "slots moved by RELR, so that −4 would not stay −4",
            "R_*_RELATIVE or unrelocated slots",
        ),
    ],
)
def test_a_way_that_does_not_suit_the_file_is_refused(name: str, way: str, found: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        planned(MINI / name, "vfs_read", way=way)
    assert str(caught.value) == (
        f"{MINI / name}: --records {way} does not suit this kernel: found {found}, expected {expected} – "
        "--records auto takes the way that does"
    )


def test_minus4_then_minus4_keeps_both(tmp_path: Path) -> None:
    one = written(tmp_path / "one", dropped("vmlinux-pfe2", "vfs_read", way="minus4")[1])
    after = result(one, planned(one, "vfs_write", way="auto"))
    assert values(after).count(MINUS4) == 2


def test_shrink_after_minus4_leaves_no_minus_4_under_a_relocation(tmp_path: Path) -> None:
    """enable vfs_write (minus4), then enable init_once --records shrink: −4 moves one slot up, onto a slot whose
    relocation adds the KASLR offset. The next record loses its own and is not relocated at all.
    """
    one = written(tmp_path / "one", dropped("vmlinux-pfe2", "vfs_write", way="minus4")[1])
    try:
        after = result(one, planned(one, "init_once", way="shrink"))
    except PolicyError:
        return  # a refusal is as good
    start, moved = symbol(after, "__start_mcount_loc"), relocations(after)
    for i, value in enumerate(values(after)):
        assert (start + 8 * i in moved) == (value != MINUS4), f"slot {i}: {value:#x}"


# -- the code that computes the end --------------------------------------------------------------------------------

INIT = Kernel.INIT
TABLE = BASE + 0x20_0FF0  # three slots: the end is on the next page, and comes back with the second drop
STOP = TABLE + 24
FUNCTIONS = [("f", TEXT + 0x200), ("g", TEXT + 0x210), ("h", TEXT + 0x220)]
PRIVATE = (adrp(1, INIT, STOP), add(1, 1, STOP), RET)


def kernel(tmp_path: Path, *init: int) -> str:
    return written(tmp_path / "v", Kernel(FUNCTIONS, table=TABLE, init=init).build())


def after_dropping(path: str, *func: str) -> list[int]:
    """The words of ftrace_init after the functions' records were cut out."""
    after = result(path, planned(path, *func, way="shrink"))
    n = parsed(after).get_section_by_name(".symtab").get_symbol_by_name("ftrace_init")[0]["st_size"]
    return words_at(after, INIT, n // 4)


def test_shrink_within_the_page_keeps_the_adrp(tmp_path: Path) -> None:
    assert after_dropping(kernel(tmp_path, *PRIVATE), "f") == [PRIVATE[0], add(1, 1, STOP - 8), RET]


def test_shrink_crosses_a_page_where_the_adrp_is_private(tmp_path: Path) -> None:
    new = STOP - 16
    assert new >> 12 == (STOP >> 12) - 1
    assert after_dropping(kernel(tmp_path, *PRIVATE), "f", "g") == [adrp(1, INIT, new), add(1, 1, new), RET]


def test_shrink_crosses_a_page_with_other_registers_in_between(tmp_path: Path) -> None:
    init = (PRIVATE[0], adrp(0, INIT + 4, TABLE), add(0, 0, TABLE), add(1, 1, STOP), RET)
    new = STOP - 16
    assert after_dropping(kernel(tmp_path, *init), "f", "g") == [adrp(1, INIT, new), *init[1:3], add(1, 1, new), RET]


@pytest.mark.parametrize(
    "init",
    [
        pytest.param((adrp(1, INIT, STOP), add(0, 1, STOP), RET), id="the add keeps the page register"),
        pytest.param((adrp(1, INIT, STOP), 0xF9400022, add(1, 1, STOP), RET), id="ldr x2, [x1]"),
        pytest.param((adrp(1, INIT, STOP), 0xAA0103E2, add(1, 1, STOP), RET), id="mov x2, x1"),
        pytest.param((0xB4000040, adrp(1, INIT + 4, STOP), add(1, 1, STOP), RET), id="cbz x0 lands on the add"),
        pytest.param((adrp(1, INIT, STOP), add(0, 1, STOP - 0x10), add(1, 1, STOP), RET), id="an add before"),
    ],
)
def test_shrink_over_a_page_is_refused_where_the_adrp_serves_others(init: tuple[int, ...], tmp_path: Path) -> None:
    """An adrp whose result an earlier add has read for another address once counted as private."""
    path = kernel(tmp_path, *init)
    with pytest.raises(PolicyError) as caught:
        planned(path, "f", "g", way="shrink")
    assert str(caught.value) == (
        f"{path}: ftrace_init: the table cannot shrink so far: found new end {STOP - 16:#x} on another page than "
        f"{STOP:#x}, expected a page register of its own in the code – drop fewer records"
    )


@pytest.mark.parametrize(
    ("init", "n"),
    [
        pytest.param((RET,), 0, id="none"),
        pytest.param((adrp(1, INIT, STOP), add(1, 1, STOP + 8), RET), 0, id="another address"),
        pytest.param((*PRIVATE[:2], adrp(2, INIT + 8, STOP), add(2, 2, STOP), RET), 2, id="two pairs"),
        pytest.param((adrp(1, INIT, STOP), add(2, 1, STOP), add(3, 1, STOP), RET), 2, id="one adrp, two adds"),
    ],
)
def test_shrink_is_refused_unless_one_pair_forms_the_end(init: tuple[int, ...], n: int, tmp_path: Path) -> None:
    path = kernel(tmp_path, *init)
    with pytest.raises(PolicyError) as caught:
        planned(path, "f", way="shrink")
    assert str(caught.value) == (
        f"{path}: ftrace_init: the table cannot shrink: found {n} places that form its end {STOP:#x}, "
        "expected exactly one – --records null or minus4, if this kernel accepts them"
    )


@pytest.mark.parametrize("between", [0x54000040, 0xD503201F, 0xD5384105], ids=["b.eq", "nop", "mrs x5, sp_el0"])
def test_shrink_is_refused_where_a_second_pair_has_something_between(between: int, tmp_path: Path) -> None:
    """Only one of two computations of the end would be lowered: once the search stopped at a conditional branch or a
    system instruction, and the second pair went unseen.
    """
    path = kernel(
        tmp_path, adrp(1, INIT, STOP), between, add(1, 1, STOP), adrp(2, INIT + 12, STOP), add(2, 2, STOP), RET
    )
    with pytest.raises(PolicyError):
        planned(path, "f", way="shrink")


def test_shrink_is_refused_without_ftrace_init(tmp_path: Path) -> None:
    file = Kernel(FUNCTIONS).build().replace(b"\0ftrace_init\0", b"\0xtrace_init\0")
    path = written(tmp_path / "v", file)
    with pytest.raises(PolicyError) as caught:
        planned(path, "f", way="shrink")
    assert str(caught.value) == (
        f"{path}: ftrace_init: the table cannot shrink: found no such function, expected its code, to lower the end"
    )


def test_shrink_is_refused_where_words_and_addends_are_mixed(tmp_path: Path) -> None:
    file = bytearray(Kernel(FUNCTIONS, relocatable=True).build())
    at = pos_of(bytes(file), BASE + 0x40_0000)
    file[at : at + 24] = bytes(24)
    slot = pos_of(bytes(file), BASE + 0x20_0000)
    file[slot : slot + 8] = struct.pack("<Q", FUNCTIONS[0][1])
    path = written(tmp_path / "v", file)
    with pytest.raises(PolicyError) as caught:
        planned(path, "g", way="shrink")
    assert str(caught.value) == (
        f"{path}: --records shrink does not suit this kernel: found slots that are filled in different ways, "
        "expected the same way everywhere – --records auto takes the way that does"
    )


def test_a_relocated_table_with_addends_echoed_in_the_file_stays_echoed(tmp_path: Path) -> None:
    """ppc64le-style tables repeat the addend in the word; both must tell the same after a shrink."""
    file = bytearray(Kernel(FUNCTIONS, relocatable=True).build())
    slot = pos_of(bytes(file), BASE + 0x20_0000)
    file[slot : slot + 24] = struct.pack("<3Q", *(va for _, va in FUNCTIONS))
    path = written(tmp_path / "v", file)
    after = result(path, planned(path, "f", way="shrink"))
    assert table(after) == values(after) == [FUNCTIONS[1][1], FUNCTIONS[2][1]]


def test_a_table_with_zeros_in_the_middle_is_nulled_in_place(tmp_path: Path) -> None:
    file = bytearray(Kernel(FUNCTIONS).build())
    slot = pos_of(bytes(file), BASE + 0x20_0008)
    file[slot : slot + 8] = bytes(8)
    path = written(tmp_path / "v", file)
    after = result(path, planned(path, "h", way="auto"))
    assert table(after) == [FUNCTIONS[0][1], 0, 0]


def test_the_values_of_the_decision_are_those_of_the_file() -> None:
    """By what is known of each way: the others keep their values and their order."""
    for name, way in (("vmlinux-callops", "null"), ("vmlinux-pfe2", "minus4"), ("vmlinux-kcfi", "shrink")):
        before, after, plan = dropped(name, "vfs_read", way=way)
        old = np.array(values(before), dtype=np.uint64)
        stays = old[~plan.gone]
        expected = {
            "null": np.concatenate([np.zeros(len(old) - len(stays), np.uint64), stays]),
            "minus4": np.where(plan.gone, MINUS4, old), "shrink": stays,
        }[way]  # fmt: skip
        assert plan.gone.sum() == 1
        assert np.array_equal(expected, np.array(values(after), dtype=np.uint64))
