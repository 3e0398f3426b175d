"""`enable` and `disable` on programs and shared objects: what is written, run again, undone, and refused."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_verify import enabled

from ftpatch import api
from ftpatch.elf import tables as t
from ftpatch.elf.program_editor import MAX_ZEROS, SECTION, new_segment
from ftpatch.errors import FtpatchError
from ftpatch.journal.restore import RestoreRequest, restore
from ftpatch.recovered.image import open_image

PROGRAMS = Path(__file__).parent.parent / "testdata" / "programs"
SMALL, HOOKS = PROGRAMS / "small", PROGRAMS / "hooks"
FILES = [SMALL / f"{machine}-{kind}" for machine in ("arm64", "x86_64") for kind in ("pie", "exec", "so")]


def enable(path: Path, out: Path, *funcs: str, **options: object) -> api.Written:
    """Enable, without a command line. options: of `enable`."""
    return api.enable(str(path), api.Delivery(str(out)), api.by_selectors(funcs), **options)  # type: ignore[arg-type]


def refusal(path: Path, *funcs: str, **options: object) -> str:
    """The message by which a request is refused, without the file's own folder."""
    with pytest.raises(FtpatchError) as caught:
        scan = api.scan(str(path))
        chosen, _ = api.by_selectors(funcs)(scan)
        api.plan_enable(scan, chosen, **options)  # type: ignore[arg-type]
    return f"{caught.value.exit_code} {caught.value}".replace(str(path.parent) + "/", "")


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_hook_is_called_by_a_stub_and_all_of_it_can_be_undone(path: Path, tmp_path: Path) -> None:
    after, journal = enabled(path, tmp_path, "--func", "*", "--hook", "hook")
    back, _ = enabled(after, tmp_path, "--func", "*", verb="disable", out="back")
    old, new, off = (open_image(str(file)) for file in (path, after, back))
    assert (new.names, len(new.shdr)) == ((*old.names, SECTION), len(old.shdr) + 1)
    header = slice(t.EHDR.itemsize, len(old.data))
    assert off.data[header].tobytes() == old.data[header].tobytes()
    restored = tmp_path / "restored"
    restore(RestoreRequest(str(after), str(journal), str(restored)))
    assert restored.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_new_segment_is_what_kernels_and_loaders_want(path: Path, tmp_path: Path) -> None:
    enable(path, tmp_path / "out", "*", hook="hook")
    old, new = open_image(str(path)), open_image(str(tmp_path / "out"))
    loads = new.phdr[new.phdr["p_type"] == t.PT_LOAD]
    segment, before = loads[-1], loads[:-1]
    assert np.array_equal(before, old.phdr[old.phdr["p_type"] == t.PT_LOAD])
    assert int(segment["p_flags"]) == 5 and int(segment["p_align"]) == int(before["p_align"].max())
    assert int(segment["p_vaddr"]) - int(segment["p_offset"]) == int(before["p_vaddr"][0]) - int(before["p_offset"][0])
    assert int(segment["p_vaddr"]) >= int((before["p_vaddr"] + before["p_memsz"]).max())
    assert int(new.ehdr["e_phoff"]) == int(segment["p_offset"])
    own = new.phdr[new.phdr["p_type"] == 6]
    assert own["p_vaddr"].tolist() == [int(segment["p_vaddr"])] * len(own) and own["p_filesz"].tolist() == [
        new.phdr.nbytes
    ] * len(own)
    others = [(image.phdr[~np.isin(image.phdr["p_type"], (1, 6))]).tobytes() for image in (old, new)]
    assert others[0] == others[1]
    sec = new.sections_named(SECTION)[0]
    start, size = int(new.base[sec]), int(new.shdr["sh_size"][sec])
    assert start + size == int(segment["p_vaddr"] + segment["p_memsz"])


@pytest.mark.parametrize("machine", ["arm64", "x86_64"])
def test_a_second_patch_uses_the_stub_that_is_there_and_another_hook_gets_another(machine: str, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    path = HOOKS / f"{machine}-so"
    enable(path, first, "inner", hook="hook")
    written = enable(first, second, "outer", hook="hook")
    assert second.stat().st_size == first.stat().st_size and written.plan.stub_why == ("an earlier patch put it there",)
    enable(second, third, "traced_hook", hook="other_hook")
    image = open_image(str(third))
    stubs = [int(image.base[sec]) for sec in image.sections_named(SECTION)]
    assert len(stubs) == 2 and image.code(stubs[0], 8).tolist() == image.code(stubs[1], 8).tolist()
    assert sorted(set(image.phdr["p_vaddr"][image.phdr["p_type"] == 1].tolist())) == (
        image.phdr["p_vaddr"][image.phdr["p_type"] == 1].tolist()
    )


def test_functions_compiled_for_avx_get_the_stub_that_keeps_wide_registers(tmp_path: Path) -> None:
    xsave = bytes.fromhex("480fae2424")
    for name, wide in (("x86_64-so", False), ("x86_64-avx-so", True)):
        enable(HOOKS / name, tmp_path / name, "inner", hook="hook")
        image = open_image(str(tmp_path / name))
        assert (xsave in image.content(image.sections_named(SECTION)[0]).tobytes()) == wide


def test_notes_of_a_program_speak_of_no_kernel(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    out = ftpatch("enable", str(SMALL / "arm64-pie"), "-o", str(tmp_path / "out"), "--func", "work", "--hook", "hook")
    back = ftpatch("disable", str(tmp_path / "out"), "-o", str(tmp_path / "back"), "--func", "work")
    for word in ("ftrace", "kernel", "Secure Boot", "list"):
        assert word not in out + back
    assert "records    keep: a program's records are read by tools alone, and stay" in out
    assert "the segment that the patch added stays in the file, unused" in back


# -- what is refused ---------------------------------------------------------------------------------------------------

A64_KEPT = "x0-x8, x18-x29, v0-v15 and sp kept, x30 := x9, return to the old x30"
X86_KEPT = "all registers but r11 kept, xmm0-xmm7 too, returns behind the call"
STUB = "--hook calls it by a stub that saves them"
NEVER = "the sites would call a function that never returns"
NO_FUNCTION = "no function that a site can call"
OF_FILE = "expected a function of this file"

# (file, functions, options, message)
REFUSED: list[tuple[str, str, dict[str, object], str]] = [
    ("hooks/{}-so", "*", {"hook": "circle"}, "5 --hook circle: what the sites would call comes back to one of them, "
     "without end: found circle -> between -> outer, expected a function that calls none of them – --func '!outer' "
     "leaves that one out"),
    ("hooks/{}-so", "inner", {"hook": "circle"}, "5 --hook circle: what the sites would call comes back to one of "
     "them, without end: found circle -> between -> outer -> inner, expected a function that calls none of them – "
     "--func '!inner' leaves that one out"),
    ("hooks/{}-so", "*", {"hook": "traced_hook"}, "5 --hook traced_hook: what the sites would call is itself among "
     "the chosen ones: found a call that leads back to itself, expected a function that stays as it is – "
     "--func '!traced_hook' leaves it out"),
    ("hooks/{}-so", "inner", {"hook": "stops"}, f"5 --hook stops: {NEVER}: found no instruction of it leaves it, "
     "expected one that returns"),
    ("hooks/{}-so", "inner", {"hook": "_exit"}, f"5 --hook _exit: {NEVER}: found _exit, expected one that returns"),
    ("hooks/{}-so", "inner", {"hook": "absent"}, "5 --hook absent: the imported hook is weak: the program starts "
     "without it, and would call address 0: found a weak undefined symbol, expected one that must be there – "
     "--force-target takes it nevertheless"),
    ("hooks/{}-so", "inner", {"hook": "hits"}, f"5 --hook hits: {NO_FUNCTION}: found data in .bss, {OF_FILE}"),
    ("hooks/{}-so", "inner", {"hook": "chosen"}, f"5 --hook chosen: {NO_FUNCTION}: found an IFUNC: the program decides "
     f"when it starts which function that is, {OF_FILE}"),
    ("hooks/{}-so", "inner", {"hook": "0x10"}, f"5 --hook 0x10: {NO_FUNCTION}: found no instruction at 0x10, "
     f"{OF_FILE}"),
    ("hooks/{}-so", "inner", {"hook": "0xzz"}, "5 --hook 0xzz: not an address: expected 0x and up to 16 hexadecimal "
     "digits"),
    ("hooks/{}-so", "inner", {"hook": "nowhere"}, "5 --hook nowhere: no such function: found nothing of that name in "
     ".symtab, and no slot in a .got or .plt, expected a function of this file, or one that it imports and uses "
     "already – give 0xVA, or link the program with a use of it"),
    ("small/{}-so", "work", {"target": "outside", "force_target": True}, "5 --target outside: the imported target is "
     "looked up when it is first called, which changes registers: found a slot of the .plt without BIND_NOW, expected "
     f"a program linked with -z now – {STUB}"),
    ("small/{}-pie", "work", {"hook": "hook", "target": "direct"}, "2 {}-pie: --target and --hook exclude each other"),
    ("small/{}-pie", "work", {}, "5 {}-pie: nothing says what the sites call: expected --target or --hook – "
     "ftrace_caller, the usual target, is the kernel's"),
    ("small/{}-pie", "work", {"hook": "hook", "records": "null"}, "2 {}-pie: the records of a program stay: found "
     "--records null, expected auto or keep – leave the option out: no kernel reads them"),
    ("small/{}-pie", "work", {"hook": "hook", "ops": "nop"}, "2 {}-pie: --ops is for kernels and modules: found a file "
     "of kind program"),
    ("small/{}-pie", "work", {"hook": "hook", "ops_via": "thunk"}, "2 {}-pie: --ops-via is for kernels: found a file "
     "of kind program"),
    ("small/{}-pie", "work", {"hook": "hook", "force_early": True}, "2 {}-pie: --force-early is for kernels: found a "
     "file of kind program"),
    ("small/{}-pie", "work", {"hook": "hook", "stub_asm": "none.S"}, "2 {}-pie: --stub-asm is for modules: found a "
     "file of kind program"),
    ("small/{}-so", "work", {"hook": "hook", "against": ["none"]}, "2 {}-so: --against is for modules: found a file of "
     "kind shared-object"),
]  # fmt: skip


@pytest.mark.parametrize("machine", ["arm64", "x86_64"])
@pytest.mark.parametrize(("file", "func", "options", "message"), REFUSED)
def test_refusals(machine: str, file: str, func: str, options: dict[str, object], message: str) -> None:
    assert refusal(PROGRAMS / file.format(machine), func, **options) == message.replace("{}", machine)


@pytest.mark.parametrize("machine", ["arm64", "x86_64"])
def test_no_hook_runs_while_the_program_is_relocated(machine: str, tmp_path: Path) -> None:
    path = HOOKS / f"{machine}-so"
    message = refusal(path, "*", hook="hook")
    assert message.startswith(f"5 {path.name}: 1 of 4 chosen sites cannot be patched: found chooses (row")
    assert "it runs while the program is being relocated, to choose another function (an IFUNC's resolver)" in message
    assert len(enable(path, tmp_path / "out", "*", "!chooses", hook="hook").plan.index) == 3


# What differs from machine to machine.
OWN_WORDS = {
    "arm64 hook": ("hooks/arm64-so", {"target": "hook"}, "it does not return with the old x9 in x30, so the traced "
                   "function would never return", A64_KEPT),
    "arm64 spoils": ("small/arm64-pie", {"target": "spoils"}, "it changes v9", A64_KEPT),
    "x86_64 hook": ("hooks/x86_64-so", {"target": "hook"}, "it changes rax, rcx, rdx", X86_KEPT),
    "ppc64le hook": ("hooks/ppc64le-so", {"target": "hook"}, "it does not return with the old r0 in LR, so the traced "
                     "function would never return", "r1-r11, f1-f13 and v2-v13 kept, LR := r0, return to the old LR"),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_WORDS)
def test_a_function_of_c_is_no_direct_target(name: str) -> None:
    file, options, found, kept = OWN_WORDS[name]
    func = "work" if file.startswith("small") else "inner"
    assert refusal(PROGRAMS / file, func, **options) == (
        f"5 --target {options['target']}: the target is not shown to keep what a function is called with: found "
        f"{found}, expected {kept} – {STUB}; --force-target takes it nevertheless"
    )


def test_an_address_without_a_symbol_is_no_function() -> None:
    """A stripped program's hook cannot be told from the middle of another function."""
    path = HOOKS / "arm64-so"
    va = api.scan(str(path)).image.symbols.value("hook")
    assert va is not None
    assert refusal(path, "inner", hook=hex(va + 4)) == (
        f"5 --hook {va + 4:#x}: no function is known there: found no symbol at {va + 4:#x}, expected the address of a "
        "function's symbol – give the program before it was stripped"
    )


def test_an_imported_target_must_be_forced_and_is_called_by_its_stub_then(tmp_path: Path) -> None:
    path = SMALL / "arm64-pie"
    assert refusal(path, "work", target="outside") == (
        "5 --target outside: what an imported target does cannot be judged: found a function of another file, expected "
        f"{A64_KEPT} – {STUB}; --force-target takes it nevertheless"
    )
    written = enable(path, tmp_path / "out", "work", target="outside", force_target=True)
    assert written.plan.warnings == ("what imported target outside does is not known; forced",)
    assert (tmp_path / "out").stat().st_size == path.stat().st_size


def test_no_site_of_ppc64le_calls_a_stub_of_the_plt() -> None:
    """It writes r2 to 24(r1) of the caller's frame, from where the caller loads another TOC again."""
    assert refusal(HOOKS / "ppc64le-so", "inner", target="outside").startswith(
        "5 --target outside: no site may call a stub of the .plt: found a stub that writes r2 to the caller's frame"
    )


# -- files that take no new code ---------------------------------------------------------------------------------------


def changed(path: Path, out: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    out.write_bytes(content)
    return out


def _last_load(content: bytearray, field: int, value: int) -> None:
    """Change a field of the last PT_LOAD."""
    start, n = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    rows = [start + 56 * i for i in range(n) if struct.unpack_from("<I", content, start + 56 * i)[0] == 1]
    struct.pack_into("<Q", content, rows[-1] + field, value)


def test_an_archive_behind_the_program_is_not_moved_from_the_end(tmp_path: Path) -> None:
    path = changed(SMALL / "arm64-exec", tmp_path / "sfx", lambda content: content.extend(b"PK\5\6" * 8))
    message = refusal(path, "work", hook="hook")
    assert message.startswith("4 sfx: the file goes on behind its ELF part")
    assert "found 32 bytes of an archive or the like" in message
    assert enable(path, tmp_path / "out", "work", target="direct").plan.edits.n_bytes() == 8  # nothing is appended


def test_memory_far_beyond_the_file_is_refused(tmp_path: Path) -> None:
    def grow(content: bytearray) -> None:
        _last_load(content, 40, MAX_ZEROS + (1 << 20))

    message = refusal(changed(SMALL / "arm64-exec", tmp_path / "huge", grow), "work", hook="hook")
    assert message.startswith("5 huge: the program's memory reaches too far beyond its bytes for code to be added")
    assert "expected at most 0x4000000" in message


def test_what_is_out_of_reach_is_the_new_code_and_not_the_hook(tmp_path: Path) -> None:
    path = changed(SMALL / "ppc64le-exec", tmp_path / "bss", lambda content: _last_load(content, 40, 40 << 20))
    assert re.search(
        r"out of reach: \+0x28[0-9a-f]{5} bytes to new code that calls hook hook, a call spans -0x2",
        refusal(path, "work", hook="hook"),
    )


def test_sections_behind_the_last_segment_keep_their_addresses(tmp_path: Path) -> None:
    """A damaged p_vaddr: new code lay at the addresses of .data, and the result could not be read back."""
    path = changed(SMALL / "arm64-pie", tmp_path / "low", lambda content: _last_load(content, 16, 0x2E70))
    message = refusal(path, "work", hook="hook")
    assert message.startswith("4 low: sections lie behind the program's last segment: found 0x")


def test_an_odd_alignment_is_refused(tmp_path: Path) -> None:
    path = changed(SMALL / "arm64-exec", tmp_path / "odd", lambda content: _last_load(content, 48, 0x3000))
    assert refusal(path, "work", hook="hook") == (
        "4 odd: the program's segments have no usual alignment: found 0x3000, expected a power of two up to 0x4000000"
    )


def test_zeros_behind_the_program_are_nothing(tmp_path: Path) -> None:
    path = changed(SMALL / "arm64-exec", tmp_path / "padded", lambda content: content.extend(bytes(100)))
    assert new_segment(open_image(str(path))).pos >= path.stat().st_size


# -- sites that are calls in the file ----------------------------------------------------------------------------------

PROFILED = ("x86_64-fentry-so", "x86_64-fentry-records-so", "x86_64-mcount-so", "x86_64-mcount-records-so")


@pytest.mark.parametrize("name", PROFILED)
def test_calls_of_a_profiler_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    """With and without records, at entries and behind prologues; one site is left to tell what the others were."""
    path = PROGRAMS / "reading" / name
    scan = api.scan(str(path))
    names = [scan.sites.name(site) for site in range(len(scan.sites))]
    first, *others = [name for name in names if name]
    hook = f"{int(scan.sites.entry_va[names.index(first)]):#x}"
    enable(path, tmp_path / "out", *others, hook=hook)
    written = api.disable(str(tmp_path / "out"), api.Delivery(str(tmp_path / "back")), api.by_selectors(others))
    assert len(written.plan.index) == len(others) and not written.plan.gone.any()
    start, end = t.EHDR.itemsize, path.stat().st_size
    assert (tmp_path / "back").read_bytes()[start:end] == path.read_bytes()[start:end]
