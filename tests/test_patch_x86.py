"""x86_64's kernels: what enable, disable and drop write, what verify says of it and of damage, what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elfwriter import ALLOC, ET_EXEC, EXEC, NOTYPE, WRITE, Elf

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf.kept_relocations import kept_at, tables_for
from ftpatch.recovered.image import open_image
from ftpatch.sites.table import ENABLED, READY
from tools.kernels import Kernel

X86_64 = Path(__file__).parent.parent / "testdata" / "x86_64"
FENTRY, NOP, RELA = (X86_64 / f"vmlinux-{name}" for name in ("fentry", "nop", "rela"))
NOP5 = bytes.fromhex("0f1f440000")
Run = Callable[..., str]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    return code, capsys.readouterr().err.strip()


def code_at(path: Path, name: str) -> tuple[bytes, int, int]:
    """(bytes of a function's site, its address, the slot of its record in that file)."""
    table = api.scan(str(path)).sites
    index = next(site for site in range(len(table)) if table.name(site) == name)
    pos = int(table.pos[index])
    return path.read_bytes()[pos : pos + 5], int(table.body_va[index]), int(table.row[index])


def call(site: int, target: int) -> bytes:
    return b"\xe8" + struct.pack("<i", target - site - 5)


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [FENTRY, NOP, RELA], ids=lambda path: path.name)
@pytest.mark.parametrize("target", ["ftrace_caller", "ftrace_regs_caller", "ftrace_stub"])
def test_an_enabled_site_is_a_call_of_its_target_and_has_no_record(
    kernel: Path, target: str, tmp_path: Path, ftpatch: Run
) -> None:
    out, image = tmp_path / "out", open_image(str(kernel))
    ftpatch("enable", "--func", "vfs_read", "--target", target, kernel, "-o", out)
    before, va, row = code_at(kernel, "vfs_read")
    assert before == (NOP5 if kernel is NOP else call(va, image.symbols.value("__fentry__") or 0))
    assert row >= 0
    assert code_at(out, "vfs_read") == (call(va, image.symbols.value(target) or 0), va, -1)
    assert "every change is accounted for\n" in ftpatch("verify", kernel, out)


def test_the_report_has_the_bytes_of_a_site_as_one_string(tmp_path: Path, ftpatch: Run) -> None:
    journal = tmp_path / "journal"
    ftpatch("enable", "--func", "vfs_read", FENTRY, "-o", tmp_path / "out", "--report", f"json={journal}")
    site = json.loads(journal.read_text())["images"][0]["sites"][0]
    assert {key: site[key] for key in ("words", "new_words", "action", "distance", "concurrency", "record_fate")} == {
        "words": ["0xe8b7feffff"], "new_words": ["0xe8c7feffff"], "action": "call", "distance": -0x134,
        "concurrency": "single", "record_fate": "null",
    }  # fmt: skip


# -- kernels of a few bytes --------------------------------------------------------------------------------------------

BASE = 0xFFFF_FFFF_8100_0000
CALLER, TABLE, LISTS, INIT = BASE + 0x20, BASE + 0x3000, BASE + 0x4000, BASE + 0x8000
RETURN = 0xC3


def tiny(
    path: Path, sites: dict[str, int], nops: tuple[str, ...] = (), init: tuple[str, ...] = (),
    lists: dict[str, bytes] | None = None,
) -> Path:  # fmt: skip
    """A vmlinux: functions by name at offsets of its text, each a site and a return. nops: those whose site is a NOP;
    init: those in init text; lists: sections of data, from LISTS on."""
    elf = Elf(ET_EXEC, 62)
    text, init_text = bytearray(b"\xcc" * 0x1000), bytearray(b"\xcc" * 0x1000)
    text[0], text[0x20] = RETURN, RETURN
    va = {name: (INIT if name in init else BASE) + off for name, off in sites.items()}
    for name, off in sites.items():
        code = NOP5 if name in nops else call(va[name], BASE)
        (init_text if name in init else text)[off : off + 6] = code + bytes((RETURN,))
    core = elf.section(".text", bytes(text), flags=ALLOC | EXEC, addr=BASE, align=16)
    early = elf.section(".init.text", bytes(init_text), flags=ALLOC | EXEC, addr=INIT, align=16)
    content = struct.pack(f"<{len(va)}Q", *va.values())
    data = elf.section(".init.data", content, flags=ALLOC | WRITE, addr=TABLE, align=8)
    for number, (name, rows) in enumerate((lists or {}).items()):
        elf.section(name, rows, flags=ALLOC, addr=LISTS + 0x100 * number, align=8)
    for name, where in (("__fentry__", BASE), ("ftrace_caller", CALLER)):
        elf.symbol(name, core, where, 1)
    for name, where in va.items():
        elf.symbol(name, early if name in init else core, where, 6)
    for name, sec, where in (("__start_mcount_loc", data, TABLE), ("__stop_mcount_loc", data, TABLE + 8 * len(va)),
                             ("_sinittext", early, INIT), ("_einittext", early, INIT + 0x1000)):  # fmt: skip
        elf.symbol(name, sec, where, type=NOTYPE)
    path.write_bytes(elf.build())
    return path


@pytest.mark.parametrize(
    ("off", "nop", "concurrency"),
    [
        (0x100, False, "single"), (0x13A, False, "single"), (0x13B, False, "single"), (0x13C, False, "cross-line"),
        (0x13E, False, "cross-line"), (0x13F, False, "single"),  # all of the distance lies behind
        (0x100, True, "single"), (0x13B, True, "single"), (0x13C, True, "cross-line"), (0x13F, True, "cross-line"),
        (0x140, True, "single"),
    ],
)  # fmt: skip
def test_whether_the_bytes_that_change_lie_in_one_cache_line_is_told(
    tmp_path: Path, ftpatch: Run, off: int, nop: bool, concurrency: str
) -> None:
    vmlinux = tiny(tmp_path / "vmlinux", {"f": off, "g": 0x200}, nops=("f", "g") if nop else ())
    out = ftpatch("enable", "--func", "f", vmlinux, "-o", tmp_path / "out", "--format", "json")
    assert json.loads(out)["images"][0]["sites"][0]["concurrency"] == concurrency


# -- back again --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [FENTRY, NOP, RELA], ids=lambda path: path.name)
def test_all_sites_but_one_and_back_by_disable_and_by_the_journal(kernel: Path, tmp_path: Path, ftpatch: Run) -> None:
    out, back, journal = tmp_path / "out", tmp_path / "back", tmp_path / "journal"
    chosen = ["--func", "*", "--func", "!_printk"]
    ftpatch("enable", *chosen, kernel, "-o", out, "--report", f"json={journal}")
    scan = api.scan(str(out))
    assert int(scan.records.live.sum()) == 1 + 2 * (kernel is not FENTRY)  # leftovers of weak functions stay as well
    assert int((scan.sites.status == ENABLED).sum()) == 10
    assert "every change is accounted for\n" in ftpatch("verify", kernel, out, "--journal", journal)
    ftpatch("disable", "--func", "*", "--status", "enabled", out, "-o", back)
    if kernel is NOP:  # its table is in no order, and nothing says which slot was whose
        assert sorted(api.scan(str(back)).records.value) == sorted(api.scan(str(kernel)).records.value)
    else:
        assert back.read_bytes() == kernel.read_bytes()
    ftpatch("restore", out, "--journal", journal, "-o", back)
    assert back.read_bytes() == kernel.read_bytes()


def test_neighbours_return_in_their_order_to_a_table_in_no_order(tmp_path: Path, ftpatch: Run) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    ftpatch("enable", "--func", "direct_only", "--func", "vfs_read", NOP, "-o", out)
    ftpatch("disable", "--func", "*", "--status", "enabled", out, "-o", back)
    assert back.read_bytes() == NOP.read_bytes()


@pytest.mark.parametrize("enabled", [False, True])
def test_without_the_name_of_what_sites_call_they_are_as_compiled_if_no_tracer_has_it(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], enabled: bool
) -> None:
    vmlinux, out = tmp_path / "vmlinux", tmp_path / "out"
    vmlinux.write_bytes(FENTRY.read_bytes())
    if enabled:
        ftpatch("enable", "--func", "*", "--records", "keep", vmlinux, "--in-place")
    vmlinux.write_bytes(vmlinux.read_bytes().replace(b"\0__fentry__\0", b"\0__gentry__\0"))
    status = api.scan(str(vmlinux)).sites.status
    assert (status[2:] == (ENABLED if enabled else READY)).all()
    code, said = refused(capsys, "enable", "--func", "vfs_read", vmlinux, "-o", out)
    why = "already enabled" if enabled else "it calls what may be __fentry__: this file has no such symbol"
    assert (code, f"vfs_read (row 3, .text+0x164): {why}, expected" in said) == (5, True), said


def test_disable_puts_the_journal_and_the_file_back_in_place(tmp_path: Path, ftpatch: Run) -> None:
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(FENTRY.read_bytes())
    ftpatch("enable", "--func", "vfs_*", "--in-place", vmlinux)
    assert vmlinux.read_bytes() != FENTRY.read_bytes()
    (tmp_path / "vmlinux.ftpatch.json").unlink()
    ftpatch("disable", "--func", "vfs_*", "--in-place", vmlinux)
    assert vmlinux.read_bytes() == FENTRY.read_bytes()


def test_a_record_that_is_dropped_leaves_the_call_as_it_is(tmp_path: Path, ftpatch: Run) -> None:
    out = tmp_path / "out"
    said = ftpatch("drop", "--func", "vfs_read", FENTRY, "-o", out)
    assert "the sites of this layout are calls of __fentry__ in the file; without a record the kernel leaves" in said
    assert code_at(out, "vfs_read")[0] == code_at(FENTRY, "vfs_read")[0]
    assert "1 record dropped alone" in ftpatch("verify", FENTRY, out)
    assert "are calls of" not in ftpatch("drop", "--func", "vfs_read", NOP, "-o", out)


@pytest.mark.parametrize("nops", [("b",), ("a", "b")])
def test_disable_does_not_guess_whether_a_site_was_a_call(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], nops: tuple[str, ...]
) -> None:
    vmlinux, out = tiny(tmp_path / "vmlinux", {"a": 0x100, "b": 0x110, "c": 0x120}, nops), tmp_path / "out"
    ftpatch("enable", "--func", "a", vmlinux, "-o", out)
    code, said = refused(capsys, "disable", "--func", "a", out, "-o", tmp_path / "back")
    why = "1 other sites are calls of __fentry__ and 1 are NOPs: ftpatch restore with the patch's journal undoes it"
    assert (code, f": {why}, expected" in said) == (5, True), said


@pytest.mark.parametrize("verb", ["enable", "drop"])
def test_a_record_of_core_text_has_to_stay(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    vmlinux = tiny(tmp_path / "vmlinux", {"a": 0x100, "b": 0x110, "early": 0x120}, init=("early",))
    for chosen in (["*"], ["a", "b"]):
        funcs = [word for name in chosen for word in ("--func", name)]
        code, said = refused(capsys, verb, *funcs, vmlinux, "-o", tmp_path / "out")
        assert (code, said) == (5, (
            f"ftpatch: {vmlinux}: no live record would stay in core text: found all 2 of them leave, expected at least "
            "one: when init memory is freed with an empty list, or one of init text alone, the kernel reads beside it, "
            "and who reads available_filter_functions may stop it – leave out one function outside init text: "
            "--func '!NAME'"
        ))  # fmt: skip
    ftpatch(verb, "--func", "a", "--func", "early", vmlinux, "-o", tmp_path / "out")


# -- relocations that the link kept ------------------------------------------------------------------------------------


def kept(path: Path, va: list[int]) -> list[tuple[int, str, int]]:
    """(type, name of the symbol, addend) of the kept relocation of each place."""
    image = open_image(str(path))
    rows = kept_at(image, np.array(va, dtype=np.uint64)).row
    return [(int(row["r_info"]) & 0xFFFF_FFFF, image.symbols.name(int(row["r_info"]) >> 32), int(row["r_addend"]))
            for row in rows]  # fmt: skip


def test_kept_relocations_agree_with_what_is_written(tmp_path: Path, ftpatch: Run) -> None:
    out, third = tmp_path / "out", tmp_path / "third"
    _, va, row = code_at(RELA, "vfs_read")
    places = [va + 1, api.scan(str(RELA)).records.start + 8 * row]
    addend = va - 0xFFFF_FFFF_8100_0000  # the slot's symbol is that of the section
    assert kept(RELA, places) == [(4, "__fentry__", -4), (1, "", addend)]
    ftpatch("enable", "--func", "vfs_read", RELA, "-o", out)
    assert kept(out, places) == [(4, "ftrace_caller", -4), (0, "", addend)]  # NONE: nothing moves the null
    ftpatch("enable", "--func", "vfs_read", "--target", "ftrace_stub", RELA, "-o", third)
    assert kept(third, places) == [(4, "ftrace_stub", -4), (0, "", addend)]
    stub = open_image(str(RELA)).symbols.value("ftrace_stub") or 0
    ftpatch("enable", "--func", "vfs_read", "--target", hex(stub), RELA, "-o", third)
    assert kept(third, places) == [(0, "__fentry__", -4), (0, "", addend)]  # no symbol was named
    ftpatch("disable", "--func", "vfs_read", third, "-o", out)
    assert out.read_bytes() == RELA.read_bytes()
    ftpatch("drop", "--func", "vfs_read", RELA, "-o", out)
    assert kept(out, places) == [(4, "__fentry__", -4), (0, "", addend)]


def test_kept_relocations_are_no_dynamic_ones() -> None:
    image = open_image(str(RELA))
    assert not len(image.rela[0])
    assert [image.names[table] for sec in range(len(image.names)) for table in tables_for(image, sec)] == [
        ".rela.text", ".rela__ksymtab", ".rela.init.text", ".rela.init.data", ".rela.data",
    ]  # fmt: skip
    assert api.scan(str(RELA)).records.carrier == "word"


@pytest.mark.parametrize(("off", "value"), [(8, 10), (8, 1), (16, 0)])
@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_a_site_whose_call_has_another_relocation_is_refused(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], verb: str, off: int, value: int
) -> None:
    vmlinux = tmp_path / "vmlinux"
    vmlinux.write_bytes(RELA.read_bytes())
    if verb == "disable":
        ftpatch("enable", "--func", "vfs_read", RELA, "-o", vmlinux)
    file = bytearray(vmlinux.read_bytes())
    file[relocation_pos(vmlinux, code_at(RELA, "vfs_read")[1] + 1) + off] = value
    vmlinux.write_bytes(file)
    code, said = refused(capsys, verb, "--func", "vfs_read", vmlinux, "-o", tmp_path / "out")
    assert (code, ": the relocation that the link kept of its call is none of a call, expected" in said) == (5, True)


# -- damage ------------------------------------------------------------------------------------------------------------


def relocation_pos(path: Path, va: int) -> int:
    return int(kept_at(open_image(str(path)), np.array([va], dtype=np.uint64)).pos[0])


Damage = Callable[[Path, bytearray], None]


def of_slot(off: int, value: int) -> Damage:
    """Bytes of the relocation of the emptied slot."""

    def damage(path: Path, file: bytearray) -> None:
        scan = api.scan(str(RELA))
        pos = relocation_pos(path, scan.records.start + 8 * code_at(RELA, "vfs_read")[2])
        file[pos + off] = value

    return damage


def of_call(off: int, value: int) -> Damage:
    def damage(path: Path, file: bytearray) -> None:
        file[relocation_pos(path, code_at(RELA, "vfs_read")[1] + 1) + off] = value

    return damage


def of_site(off: int, flip: int, name: str = "vfs_read") -> Damage:
    def damage(path: Path, file: bytearray) -> None:
        table = api.scan(str(RELA)).sites
        file[int(table.pos[next(i for i in range(len(table)) if table.name(i) == name)]) + off] ^= flip

    return damage


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (of_slot(8, 1), "verify-relocation"), (of_slot(8, 10), "verify-relocation"),
        (of_slot(12, 5), "verify-relocation"), (of_slot(16, 0), "verify-relocation"),
        (of_call(12, 0x17), "verify-relocation"), (of_call(12, 0xFF), "verify-relocation"),
        (of_call(8, 10), "verify-relocation"), (of_call(16, 0), "verify-relocation"),
        (of_site(0, 1), "verify-redirect"), (of_site(0, 0x20), "verify-site"), (of_site(1, 0x40), "verify-branch"),
        (of_site(4, 0x80), "verify-branch"), (of_site(1, 1, "vfs_write"), "verify-branch"),
        (of_site(0, 1, "vfs_write"), "verify-redirect"), (of_site(5, 1), "verify-byte"),
        (of_site(-1, 1), "verify-byte"),
    ],
)  # fmt: skip
def test_damage_to_a_patched_kernel_is_found(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], damage: Damage, rule: str
) -> None:
    out = tmp_path / "out"
    ftpatch("enable", "--func", "vfs_read", RELA, "-o", out)
    file = bytearray(out.read_bytes())
    damage(out, file)
    out.write_bytes(bytes(file))
    capsys.readouterr()
    assert run(["verify", str(RELA), str(out)]) == 1
    assert f"    {rule}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kernel", "code", "said"),
    [(FENTRY, NOP5, "it came back as a NOP, and 10 others are not"),
     (NOP, None, "it came back as a call of __fentry__, and 10 others are not")],
    ids=["nop-among-calls", "call-among-nops"],
)  # fmt: skip
def test_a_site_that_came_back_in_another_form_is_told(
    tmp_path: Path, ftpatch: Run, capsys: pytest.CaptureFixture[str], kernel: Path, code: bytes | None, said: str
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    ftpatch("enable", "--func", "vfs_read", kernel, "-o", there)
    ftpatch("disable", "--func", "vfs_read", there, "-o", back)
    file = bytearray(back.read_bytes())
    _, va, row = code_at(back, "vfs_read")
    pos = int(api.scan(str(back)).sites.pos[row])
    file[pos : pos + 5] = code or call(va, open_image(str(kernel)).symbols.value("__fentry__") or 0)
    back.write_bytes(file)
    assert run(["verify", str(there), str(back)]) == 1
    assert f"    verify-site: vfs_read: {said}\n" in capsys.readouterr().out


# -- lists of code that the kernel rewrites at boot --------------------------------------------------------------------


def listing(places: list[int], at: int, row: int) -> bytes:
    """Rows that begin with the distance from themselves to a place."""
    return b"".join(struct.pack("<i", place - (at + row * i)).ljust(row, b"\0") for i, place in enumerate(places))


@pytest.mark.parametrize("offset", [0, 1, 4])
@pytest.mark.parametrize(
    ("section", "row", "what"),
    [
        (".return_sites", 4, "the return that the processor needs"),
        (".retpoline_sites", 4, "an indirect call or jump"),
        (".smp_locks", 4, "a lock prefix, or none where there is one processor"),
        ("static_call_sites", 8, "a call of what the static call's key says"),
        ("__jump_table", 16, "a jump or a NOP, as the static key says"),
    ],
)
def test_a_site_that_the_kernel_rewrites_itself_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, row: int, what: str, offset: int
) -> None:
    rows = listing([BASE, BASE + 0x100 + offset], LISTS, row)
    vmlinux = tiny(tmp_path / "vmlinux", {"a": 0x100, "b": 0x110}, lists={section: rows})
    code, said = refused(capsys, "enable", "--func", "a", vmlinux, "-o", tmp_path / "out")
    text = f"{section} lists its code, which the kernel rewrites at boot: {what}"
    assert (code, f"found a (row 0, .text+0x100): {text}, expected" in said) == (5, True), said
    out = tmp_path / "out"
    file = bytearray(vmlinux.read_bytes())
    table = api.scan(str(vmlinux))
    for pos, new in ((int(table.sites.pos[0]), call(BASE + 0x100, CALLER)), (int(table.records.slot[0]), bytes(8))):
        file[pos : pos + len(new)] = new
    out.write_bytes(file)
    assert run(["verify", str(vmlinux), str(out)]) == 1
    assert f"    verify-site: a: {text}\n" in capsys.readouterr().out


@pytest.mark.parametrize("place", [BASE + 0xFF, BASE + 0x105, BASE + 0x110])
def test_what_lies_beside_a_changed_site_may_be_listed(tmp_path: Path, ftpatch: Run, place: int) -> None:
    rows = listing([place], LISTS, 4)
    vmlinux = tiny(tmp_path / "vmlinux", {"a": 0x100, "b": 0x110}, lists={".return_sites": rows})
    ftpatch("enable", "--func", "a", vmlinux, "-o", tmp_path / "out")


def test_a_call_that_counts_the_depth_of_calls_may_be_a_site(tmp_path: Path, ftpatch: Run) -> None:
    rows = listing([BASE + 0x100, BASE + 0x110, BASE + 0x120], LISTS, 4)
    vmlinux = tiny(tmp_path / "vmlinux", {"a": 0x100, "b": 0x110, "c": 0x120}, lists={".call_sites": rows})
    ftpatch("enable", "--func", "a", "--func", "b", vmlinux, "-o", tmp_path / "out")
    assert "2 of the changed sites are in .call_sites: where the processor" in ftpatch(
        "verify", vmlinux, tmp_path / "out"
    )


# -- what is refused ---------------------------------------------------------------------------------------------------

KEEPS = "expected all registers but r10 and r11 kept, returns behind the call"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["enable", "--records", "minus4"], 5, "{0}: --records minus4 does not suit this kernel: found layout fentry, "
         "expected a layout whose records the kernel moves by 4 – --records auto takes the way that does"),
        (["enable", "--records", "shrink"], 5, "{0}: --records shrink does not suit this kernel: found machine x86_64, "
         "whose ftrace_init is not read, expected arm64 – --records auto takes the way that does"),
        (["drop", "--records", "minus4"], 5, "{0}: --records minus4 does not suit this kernel: found layout fentry, "
         "expected a layout whose records the kernel moves by 4 – --records auto takes the way that does"),
        (["enable", "--ops", "nop"], 5, "{0}: ftrace_caller reads no ops pointer: found --ops or --ops-via, expected a "
         "kernel with one ftrace_ops per site – leave the option out"),
        (["enable", "--ops-via", "literal"], 5, "{0}: ftrace_caller reads no ops pointer: found --ops or --ops-via, "
         "expected a kernel with one ftrace_ops per site – leave the option out"),
        (["enable", "--hook", "dump_stack"], 2, "{0}: --hook, --stub-asm and --against are for modules: found a "
         "vmlinux – in a vmlinux, --target names what the sites call"),
        (["enable", "--target", "__fentry__"], 5, "--target __fentry__: the sites call this target already: found "
         "__fentry__, expected ftrace_caller or ftrace_regs_caller"),
        (["enable", "--target", "vfs_write"], 5, "--target vfs_write: the target is itself a traceable function: found "
         "record in row 4, expected code without a patch site – ftrace would rewrite it, and a traced target would "
         "call itself"),
        (["enable", "--target", "notrace_helper"], 5, "--target notrace_helper: the target does not behave as a "
         "trampoline for patch sites: found it changes rax, rcx, rdx, rsi, rdi, r8, r9, " + KEEPS +
         " – --force-target takes it nevertheless"),
        (["enable", "--target", "0xffffffff81000001"], 5, None),
        (["disable"], 5, "{0}: 1 of 1 chosen sites cannot be patched: found vfs_read (row 3, .text+0x164): not enabled"
         ", expected all of them, or nothing is written – there is nothing to undo; ftpatch scan --sites --status "
         "enabled lists what is enabled"),
        (["redirect", "--to", "vfs_write"], 4, "{0}: redirecting functions of x86_64 is not supported: expected "
         "arm64, ppc64le – ftpatch enable can let their sites call something"),
    ],
)  # fmt: skip
def test_what_x86_64_does_not_have_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str | None
) -> None:
    told = refused(capsys, arguments[0], "--func", "vfs_read", *arguments[1:], FENTRY, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if said is None:
        assert told[0] == code and "the target does not behave as a trampoline for patch sites" in told[1]
    else:
        assert told == (code, f"ftpatch: {said.format(FENTRY)}")


# -- Debian's kernels --------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["x86_64-6.12", "x86_64-6.1"])
def test_all_sites_of_a_kernel_but_one_and_back(
    kernel: Callable[[str], Kernel], tmp_path: Path, ftpatch: Run, name: str
) -> None:
    vmlinux, out, back = kernel(name).vmlinux, tmp_path / "out", tmp_path / "back"
    ftpatch("enable", "--func", "*", "--func", "!vfs_open", vmlinux, "-o", out)
    n = int((api.scan(str(vmlinux)).sites.status == READY).sum()) - 1
    scan = api.scan(str(out))
    assert int((scan.sites.status == ENABLED).sum()) == n
    told = json.loads(ftpatch("verify", vmlinux, out, "--format", "json"))
    assert told["images"][0]["findings"] == []
    ftpatch("disable", "--func", "*", "--status", "enabled", out, "-o", back)
    assert back.read_bytes() == vmlinux.read_bytes()


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["x86_64-6.12", "x86_64-6.1"])
def test_half_of_the_sites_of_a_kernel_and_damage_to_them(
    kernel: Callable[[str], Kernel], tmp_path: Path, capsys: pytest.CaptureFixture[str], ftpatch: Run, name: str
) -> None:
    vmlinux, out, journal = kernel(name).vmlinux, tmp_path / "out", tmp_path / "journal"
    before = api.scan(str(vmlinux))
    random = np.random.default_rng(15)
    ready = np.flatnonzero(before.sites.status == READY)
    half = random.choice(ready, len(ready) // 2, replace=False)
    rows = tmp_path / "rows"
    rows.write_text("".join(f"row:{row}\n" for row in before.sites.row[half].tolist()))
    ftpatch("enable", "--func", f"@{rows}", vmlinux, "-o", out, "--report", f"json={journal}")
    ftpatch("verify", vmlinux, out, "--journal", journal)
    for pos in before.sites.pos[random.choice(half, 2, replace=False)].tolist():
        with out.open("r+b") as file:
            place, bit = pos + int(random.integers(5)), 1 << int(random.integers(8))
            file.seek(place)
            held = file.read(1)[0]
            file.seek(place)
            file.write(bytes((held ^ bit,)))
            file.flush()
            capsys.readouterr()
            assert run(["verify", str(vmlinux), str(out)]) == 1
            file.seek(place)
            file.write(bytes((held,)))
    ftpatch("restore", out, "--journal", journal, "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == vmlinux.read_bytes()
