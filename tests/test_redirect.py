"""Redirects in kernels, planned: which word becomes which jump, by which way, and what stands in the way."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from elfwriter import BTI_C, MINI, TEXT, Kernel, add, adrp, as_code, pos_of, symbol, words_at, written
from test_callable import changed

from ftpatch import api
from ftpatch.cli import run
from ftpatch.errors import FtpatchError
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect.pairs import Pair, read_pairs

PPC = MINI.parent / "mini-ppc64le"
BR_X16, NOP_A64, NOP_PPC = 0xD61F0200, 0xD503201F, 0x60000000


def planned(path: str | Path, *pairs: tuple[str, str], **options: Any) -> Plan:
    scan = api.scan(str(path))
    chosen, _ = api.by_selectors([func for func, _ in pairs])(scan)
    return api.plan_redirect(scan, chosen, pairs, **options)


def result(path: str | Path, plan: Plan) -> bytes:
    """The file with the plan's edits in place, whose old bytes must be the file's."""
    file = bytearray(Path(path).read_bytes())
    for pos, old, new, _, _ in plan.edits:
        assert file[pos : pos + len(old)] == old
        file[pos : pos + len(new)] = new
    return bytes(file)


def b_a64(site: int, target: int) -> int:
    """The word `b target` at va `site`, by the Arm ARM (C6.2, B)."""
    return 0x1400_0000 | (target - site >> 2) & 0x03FF_FFFF


def b_ppc(site: int, target: int) -> int:
    """The word `b target` at va `site`, by the Power ISA (book I, 2.4)."""
    return 0x4800_0000 | (target - site) & 0x03FF_FFFC


# -- arm64 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("vmlinux-pfe2", 0),
        ("vmlinux-pfe2-bti", 4),
        ("vmlinux-exec", 0),
        ("vmlinux-kcfi", 0),
        ("vmlinux-callops", 0),
        ("vmlinux-callops-bti", 4),
    ],
)
def test_arm64_changes_one_word_behind_a_bti(name: str, lead: int) -> None:
    """In front of the function nothing changes either: an ops pointer has no reader any more."""
    plan = planned(MINI / name, ("vfs_read", "vfs_write"), force_signature=True)
    before, after = (MINI / name).read_bytes(), result(MINI / name, plan)
    foo, bar = symbol(before, "vfs_read"), symbol(before, "vfs_write")
    assert words_at(after, foo + lead, 2) == [b_a64(foo + lead, bar), NOP_A64]
    assert words_at(after, foo - 16, 4) == words_at(before, foo - 16, 4)
    assert words_at(after, foo, lead // 4) == words_at(before, foo, lead // 4)
    assert (plan.action(0), plan.concurrency(0), plan.stub) == ("redirect", "single", ("",))
    assert plan.distance is not None and plan.distance.tolist() == [bar - foo - lead]
    assert [(to.name, to.va) for to in plan.redirects] == [("vfs_write", bar)]


FAR = TEXT + 0x200 + (1 << 28)  # 256 MB from the others


def far_kernel(path: Path, **rest: Any) -> str:
    functions = [("near", TEXT + 0x200), ("near2", TEXT + 0x240), ("far", FAR)]
    return written(path, Kernel(functions, table=TEXT + 0x40_0000, **rest).build())


def test_beyond_the_jumps_reach_a_veneer_stands_behind_the_text(tmp_path: Path) -> None:
    """Both functions go through one: they have the same replacement."""
    path = far_kernel(tmp_path / "vmlinux")
    plan = planned(path, ("near", "far"), ("near2", "far"))
    after = result(path, plan)
    stub = int(plan.stub[0], 16)
    assert plan.stub == (f"0x{stub:016x}",) * 2 and TEXT + 0x240 + 12 <= stub < TEXT + 0x300
    assert words_at(after, TEXT + 0x200, 2) == [b_a64(TEXT + 0x200, stub), NOP_A64]
    assert words_at(after, TEXT + 0x240, 2) == [b_a64(TEXT + 0x240, stub), NOP_A64]
    assert words_at(after, stub, 3) == [adrp(16, stub, FAR), add(16, 16, FAR), BR_X16]


def test_a_veneer_of_an_earlier_patch_is_used_again(tmp_path: Path) -> None:
    path = far_kernel(tmp_path / "vmlinux")
    first = planned(path, ("near", "far"))
    again = written(tmp_path / "again", result(path, first))
    second = planned(again, ("near2", "far"))
    assert second.stub == first.stub and not [kind for _, _, _, kind, _ in second.edits if kind == "thunk"]


def test_veneers_of_two_replacements_stand_side_by_side(tmp_path: Path) -> None:
    functions = [("near", TEXT + 0x200), ("near2", TEXT + 0x240), ("far", FAR), ("far2", FAR + 0x1000)]
    path = written(tmp_path / "vmlinux", Kernel(functions, table=TEXT + 0x40_0000).build())
    plan = planned(path, ("near", "far"), ("near2", "far2"))
    one, two = (int(stub, 16) for stub in plan.stub)
    assert abs(one - two) == 16
    assert words_at(result(path, plan), two, 3) == [adrp(16, two, FAR + 0x1000), add(16, 16, FAR + 0x1000), BR_X16]


def test_no_room_for_a_veneer_is_a_refusal_with_the_distance(tmp_path: Path) -> None:
    path = far_kernel(tmp_path / "vmlinux", padding=0, full=True)
    with pytest.raises(FtpatchError) as error:
        planned(path, ("near", "far"))
    assert str(error.value) == (
        f"{path}: 1 of 1 chosen sites cannot be patched: found near (row 0, .text+0x200): out of reach: +0x10000000 "
        "bytes to far, and no room for a stub within -0x8000000..+0x7fffffc, expected all of them, or nothing is "
        "written – --skip-unpatchable patches the others"
    )


def test_a_kernel_that_guards_indirect_jumps_wants_a_pad_at_the_far_end(tmp_path: Path) -> None:
    """`br x16` into a function without `bti c` would be an exception; a direct jump needs none."""
    file = Kernel([("near", TEXT + 0x204), ("far", FAR)], table=TEXT + 0x40_0000).build()
    # the layout tells that the kernel guards: a BTI in front of the site of some function
    guarded = bytearray(file)
    pos = pos_of(file, TEXT + 0x204)
    guarded[pos - 4 : pos + 12] = as_code((BTI_C, NOP_A64, NOP_A64, 0xD65F03C0))
    start = symbol(file, "near")
    at = file.index(struct.pack("<QQ", start, 12))
    guarded[at : at + 8] = struct.pack("<Q", start - 4)
    path = written(tmp_path / "vmlinux", guarded)
    with pytest.raises(FtpatchError, match=r"far is beyond the jump's reach, and begins with no bti c for an "):
        planned(path, ("near", "far"))


# -- ppc64le -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "site", "new"),
    [("vmlinux-mprofile", 4, ()), ("vmlinux-pfe2", 0, (NOP_PPC,)), ("vmlinux-ool", 0, ())],
)
def test_ppc64le_jumps_to_the_local_entry_where_both_have_two(name: str, site: int, new: tuple[int, ...]) -> None:
    plan = planned(PPC / name, ("vfs_read", "vfs_write"), force_signature=True)
    file = (PPC / name).read_bytes()
    foo, bar = symbol(file, "vfs_read") + 8, symbol(file, "vfs_write") + 8
    after = result(PPC / name, plan)
    assert words_at(after, foo + site, 1 + len(new)) == [b_ppc(foo + site, bar), *new]
    assert words_at(after, foo - 8, 2 + site // 4) == words_at(file, foo - 8, 2 + site // 4)
    assert plan.stub == ("",) and not plan.edits.tail


@pytest.mark.parametrize("name", ["vmlinux-mprofile", "vmlinux-pfe2", "vmlinux-ool"])
def test_ppc64le_enters_a_global_entry_with_its_address_in_r12(name: str) -> None:
    """direct_only has one entry: nobody knows whose TOC r2 is there. vfs_read computes its own from r12."""
    plan = planned(PPC / name, ("direct_only", "vfs_read"), force_signature=True)
    file, after = (PPC / name).read_bytes(), result(PPC / name, plan)
    foo, bar, stub = symbol(file, "direct_only"), symbol(file, "vfs_read"), int(plan.stub[0], 16)
    site = foo + (4 if name == "vmlinux-mprofile" else 0)
    assert words_at(after, site, 1) == [b_ppc(site, stub)]
    distance = bar - symbol(file, ".TOC.")
    load, high, low, *jump = words_at(after, stub, 5)
    assert load & 0xFFFF0003 == 0xE98D0000  # ld r12,X(r13)
    assert (high, low) == (0x3D8C0000 | (distance + 0x8000) >> 16 & 0xFFFF, 0x398C0000 | distance & 0xFFFF)
    assert jump == [0x7D8903A6, 0x4E800420]  # mtctr r12; bctr


def test_ppc64le_needs_no_stub_where_the_replacement_has_one_entry() -> None:
    for foo in ("direct_only", "vfs_read"):
        plan = planned(PPC / "vmlinux-pfe2", (foo, "slot_probe"), force_signature=True)
        file = (PPC / "vmlinux-pfe2").read_bytes()
        site = symbol(file, foo) + (8 if foo == "vfs_read" else 0)
        after = result(PPC / "vmlinux-pfe2", plan)
        assert words_at(after, site, 2) == [b_ppc(site, symbol(file, "slot_probe")), NOP_PPC]
        assert plan.stub == ("",)


def test_ppc64le_callers_need_their_toc_pointer_back() -> None:
    """pcrel_read may use r2 for anything, as its symbol says; who calls vfs_read from the kernel relies on r2."""
    with pytest.raises(FtpatchError, match="pcrel_read does not keep the TOC pointer, which its callers rely on"):
        planned(PPC / "vmlinux-pfe2", ("vfs_read", "pcrel_read"), force_signature=True)


def test_a_stub_that_reads_the_paca_is_refused_before_there_is_one() -> None:
    """The boot CPU comes to fixup_boot_paca with r13 = 0. A jump without a stub works there."""
    with pytest.raises(FtpatchError) as error:
        planned(PPC / "vmlinux-pfe2", ("fixup_boot_paca", "vfs_read"), force_signature=True)
    assert "before setup_paca is done, when the stub to its replacement finds no paca (--force-early overrides)" in str(
        error.value
    )
    forced = planned(PPC / "vmlinux-pfe2", ("fixup_boot_paca", "vfs_read"), force_signature=True, force_early=True)
    assert (
        "forced: 1 sites run before setup_paca is done, when the stub to its replacement finds no paca" in forced.notes
    )
    straight = planned(PPC / "vmlinux-pfe2", ("fixup_boot_paca", "slot_probe"), force_signature=True)
    assert straight.stub == ("",)


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maps", "pairs"),
    [
        (["a=b"], [Pair("a", "b")]),
        (["a=b", "c=d", "a=b"], [Pair("a", "b"), Pair("c", "d")]),
        (["a@f.c=b@g.c"], [Pair("a@f.c", "b@g.c")]),
        ([" a = b "], [Pair("a", "b")]),
        (["/x=y/=b"], [Pair("/x=y/", "b")]),
        (["row:3=0xffff800080010200"], [Pair("row:3", "0xffff800080010200")]),
    ],
)
def test_pairs(maps: list[str], pairs: list[Pair]) -> None:
    assert list(read_pairs(maps)) == pairs


def test_pairs_in_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "list", b"# what is mended\na=b  # why\n\n c = d\r\n")
    assert list(read_pairs([f"@{path}"])) == [Pair("a", "b"), Pair("c", "d")]
    path = written(tmp_path / "list", b"\xef\xbb\xbfa=b\r\n")  # as some editors begin a text
    assert list(read_pairs([f"@{path}"])) == [Pair("a", "b")]


@pytest.mark.parametrize("text", ["a", "=b", "a=", "=", "", " = "])
def test_half_a_pair_is_a_usage_error(text: str) -> None:
    with pytest.raises(FtpatchError) as error:
        read_pairs([text])
    assert error.value.exit_code == 2
    assert str(error.value) == (
        f"--map {text}: not a pair: found {text!r}, expected FOO=BAR, a function and its replacement"
    )


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("vfs_read", "vfs_read")], "its replacement is the function itself"),
        ([("vfs_read", "vfs_write"), ("vfs_write", "vfs_read")], "its replacement is redirected in turn, and the way "
         "comes back"),
        ([("vfs_read", "nobody")], "--to nobody: no such function: found nothing of that name in .symtab, expected a "
         "function of this kernel: name, name@file.c or 0xVA"),
        ([("vfs_read", "vfs_write@other.c")], "--to vfs_write@other.c: no such function"),
        ([("vfs_read", "linux_banner")], "--to linux_banner: the replacement is no function: found data in "
         ".rodata, expected the beginning of a function"),
        ([("vfs_read", "_stext")], "--to _stext: the replacement is no function: found what patch sites call"),
        ([("vfs_read", "rest_init")], "rest_init never returns, expected"),
        ([("vfs_read", "0x123")], "--to 0x123: no such function"),
        ([("vfs_read", "vfs_write"), ("row:0", "vfs_write"), ("vfs_r*", "sys_getppid")],
         "vfs_read: a function is to become two others: found vfs_write and sys_getppid, expected one replacement"),
    ],
)  # fmt: skip
def test_refusals(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(FtpatchError) as error:
        planned(MINI / "vmlinux-pfe2", *pairs, force_signature=True)
    assert error.value.exit_code == 5
    assert message in str(error.value)


def test_a_replacement_without_a_type_is_compared_by_nothing(tmp_path: Path) -> None:
    path = changed(MINI / "vmlinux-pfe2", "slot_probe", tmp_path / "vmlinux", st_info=0x10)
    plan = planned(path, ("vfs_read", "slot_probe"))
    assert [to.name for to in plan.redirects] == ["slot_probe"]


def test_only_modules_get_code_from_an_object() -> None:
    with pytest.raises(FtpatchError) as error:
        planned(MINI / "vmlinux-pfe2", ("vfs_read", "vfs_write"), patch="patch.o")
    assert error.value.exit_code == 2
    assert str(error.value).endswith(
        "--with and --keep-original are for modules: found a vmlinux – build the replacement into the kernel, or into "
        "a module"
    )


def test_a_replacement_may_be_redirected_in_turn_as_long_as_the_way_ends() -> None:
    plan = planned(MINI / "vmlinux-pfe2", ("vfs_read", "vfs_write"), ("vfs_write", "sys_getppid"), force_signature=True)
    assert [to.name for to in plan.redirects] == ["vfs_write", "sys_getppid"]


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing is chosen: expected --func FOO --to BAR, or --map FOO=BAR"),
        (["--func", "vfs_read"], 2, "--func and --to belong together: found --func alone, expected --func FOO --to "
         "BAR, or --map FOO=BAR"),
        (["--to", "vfs_read"], 2, "--func and --to belong together: found --to alone, expected --func FOO --to BAR, or "
         "--map FOO=BAR"),
        (["--map", "vfs_read"], 2, "--map vfs_read: not a pair: found 'vfs_read', expected FOO=BAR, a function and its "
         "replacement"),
        (["--map", "@nowhere"], 3, "nowhere: the list of pairs cannot be read: No such file or directory"),
        (["--map", "nobody=vfs_read"], 5, "nobody: nothing of that name"),
        (["--map", "vfs_read=vfs_write", "--keep-original", "old"], 2, "--with and --keep-original are for modules"),
        (["--map", "vfs_read=vfs_write", "--against", "{path}"], 2, "--against is for modules: found a vmlinux"),
        (["--map", "a=b", "--with", "a.o", "--with", "b.o"], 2, "--with is given twice: found a.o, b.o, expected one "
         "object – ld -r makes one of several"),
        (["--func", "vfs_read", "--to", ""], 2, "--to: an empty value – leave the option out, or give it one"),
        (["--map", "vfs_read=vfs_write", "-o", "{list}", "--map", "@{list}"], 2,
         "the output would replace another file of this run"),
    ],
)  # fmt: skip
def test_the_command_line_refuses(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "vmlinux", (MINI / "vmlinux-pfe2").read_bytes())
    names = written(tmp_path / "list", b"vfs_read=vfs_write\n")
    there = sorted(tmp_path.iterdir())
    filled = [argument.format(path=path, list=names) for argument in arguments]
    assert run(["redirect", path, *filled]) == code
    out, err = capsys.readouterr()
    assert out == "" and message in err and sorted(tmp_path.iterdir()) == there


def test_the_other_names_of_a_function_are_told(tmp_path: Path) -> None:
    """Compilers merge functions of equal code: 14 of arm64's cpu_show_ functions are one, and one site."""
    functions = [("near", TEXT + 0x200), ("near2", TEXT + 0x240), ("bar", TEXT + 0x280)]
    source = Path(written(tmp_path / "source", Kernel(functions).build()))
    path = changed(source, "near2", tmp_path / "vmlinux", st_value=TEXT + 0x200)
    plan = planned(path, ("near", "bar"))
    assert "near is redirected under its other names, too: near2" in plan.warnings
