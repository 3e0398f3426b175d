"""A message of ftrace beside the file that may have printed it: what both say together, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elfwriter import MINI

from ftpatch import api
from ftpatch.cli import run
from ftpatch.explanation.causes import CAUSES
from ftpatch.explanation.diagnosis import Diagnosis, diagnose_in
from ftpatch.explanation.splat import parse
from ftpatch.sites.scan import Scan

KEYS = {id(cause): key for key, cause in CAUSES.items()}
MINI_PPC = MINI.parent / "mini-ppc64le"
X86 = MINI.parent / "x86_64"
KERNEL = MINI / "vmlinux-callops"
MOVED = 0x1234_5678_0000  # by KASLR
ON, INIT = "Setting ftrace call site to call ftrace function", "Initializing ftrace call sites"


def message(
    scan: Scan, name: str, actual: int, phase: str, *, what: str = "failed to modify", by: int = 0, off: int = 0,
    module: str = "", tramp: int = 0,
) -> str:  # fmt: skip
    """What a kernel would print about a function of a file. by: how far it was moved; off: added to the offset."""
    table = scan.sites
    site = next(i for i in range(len(table)) if table.name(i) == name)
    offset = int(table.branch_va[site] - table.entry_va[site]) + off
    ip = (int(table.branch_va[site]) + by + off) & (1 << 64) - 1
    code = ":".join(f"{byte:02x}" for byte in actual.to_bytes(4, "little"))
    return (
        f"------------[ ftrace bug ]------------\nftrace {what}\n[<{ip:016x}>] {name}+{offset:#x}/0x100"
        + (f" [{module}]" if module else "") + (f"\n actual:   {code}" if what.startswith("failed") else "")
        + f"\n{phase}\nftrace record flags: 80000001\n (1)\n" + (f" expected tramp: {tramp:x}\n" if tramp else "")
    )  # fmt: skip


def bl(scan: Scan, name: str, target: int) -> int:
    """The word `bl target` at the call of a function."""
    table = scan.sites
    site = next(i for i in range(len(table)) if table.name(i) == name)
    return 0x94000000 | (target - int(table.branch_va[site])) >> 2 & 0x3FFFFFF


def told_of(text: str, scan: Scan) -> Diagnosis:
    (splat,) = parse(text)
    return diagnose_in(splat, scan)


def causes(told: Diagnosis) -> list[str]:
    return [f"{KEYS[id(one.cause)]} {one.certainty}" for one in told.causes]


@pytest.mark.parametrize("path", [MINI / "vmlinux-callops", MINI / "vmlinux-pfe2", MINI_PPC / "vmlinux-pfe2"],
                         ids=lambda path: f"{path.parent.name}/{path.name}")  # fmt: skip
def test_what_the_kernel_found_is_what_the_file_holds(tmp_path: Path, path: Path) -> None:
    out = tmp_path / "vmlinux"
    assert run(["enable", str(path), "--func", "vfs_read", "--records", "keep", "-o", str(out)]) == 0
    scan = api.scan(str(out))
    site = next(i for i in range(len(scan.sites)) if scan.sites.name(i) == "vfs_read")
    told = told_of(message(scan, "vfs_read", int(scan.sites.body()[site, -1]), INIT, by=MOVED), scan)
    assert causes(told) == ["enabled certain"]
    assert told.foretold
    assert "the file holds the very word there that the kernel found" in told.notes
    assert f"the kernel ran +{MOVED:#x} bytes from where it was linked" in told.notes


def test_the_file_before_it_was_patched_is_not_the_one_that_booted() -> None:
    scan = api.scan(str(KERNEL))
    target = int(scan.image.symbols.value("ftrace_caller") or 0)
    told = told_of(message(scan, "vfs_read", bl(scan, "vfs_read", target), INIT, by=MOVED), scan)
    assert causes(told) == ["enabled likely", "strange possible"]
    assert not told.foretold
    assert told.notes == (
        "the file holds another word there: d503201f",
        "in this file the site is as the compiler left it: it is not the file that booted",
        f"the kernel ran +{MOVED:#x} bytes from where it was linked",
        "that call leads to ftrace_caller of this file",
    )


def test_where_another_call_leads_is_named_after_kaslr() -> None:
    scan = api.scan(str(KERNEL))
    caller, other = (int(scan.image.symbols.value(name) or 0) for name in ("ftrace_caller", "vfs_write"))
    told = told_of(message(scan, "vfs_read", bl(scan, "vfs_read", other), ON, by=MOVED, tramp=caller + MOVED), scan)
    assert causes(told) == ["moved likely"]
    assert told.notes[-2:] == ("that call leads to vfs_write of this file", "ftrace wanted it to lead to ftrace_caller")
    far = told_of(message(scan, "vfs_read", bl(scan, "vfs_read", caller + 0x300_0000), ON, by=MOVED), scan)
    assert far.notes[-1] == "that call leads out of this file's text: to a module, a trampoline or BPF"


def test_kernels_are_moved_by_whole_pages_only() -> None:
    scan = api.scan(str(KERNEL))
    told = told_of(message(scan, "vfs_read", 0xD65F03C0, INIT, by=MOVED + 0x40), scan)
    assert told.notes[-1] == "kernels are moved by whole pages only: another build than this file printed the message"


@pytest.mark.parametrize(("off", "by"), [(4, "-0x4"), (-4, "+0x4"), (8, "-0x8")])
def test_a_site_beside_the_kernels_is_told_by_how_much(off: int, by: str) -> None:
    scan = api.scan(str(KERNEL))
    told = told_of(message(scan, "vfs_read", 0xD65F03C0, INIT, off=off), scan)
    assert causes(told)[0] == "return likely"
    assert (
        "no call of this function is at that offset: another build, or another layout "
        f"(this file has it {by} bytes from there)"
    ) in told.notes


@pytest.mark.parametrize(
    ("file", "text", "note"),
    [
        (KERNEL, "[<ffffa1b2c3d4e5f0>] vfs_read+0x4/0x40 [frob]\n actual:   c0:03:5f:d6\n",
         "the message is about the module frob, the file is a kernel: give that module"),
        (MINI / "mini.ko", "[<ffffa1b2c3d4e5f0>] mini_step+0x4/0x40\n actual:   c0:03:5f:d6\n",
         "the message is about the kernel itself, the file is the module mini: give vmlinux"),
        (MINI / "mini.ko", "[<ffffa1b2c3d4e5f0>] mini_step+0x4/0x40 [frob]\n actual:   c0:03:5f:d6\n",
         "the message is about the module frob, the file is the module mini"),
        (KERNEL, "[<ffffffff811c3a50>] vfs_read+0x0/0x4f0\n actual:   e8:1b:49:3c:00\n",
         "the message is from x86-64, the file is for arm64"),
        (KERNEL, "[<c000000000a1b2c4>] vfs_read+0xc/0xe0\n actual:   20:00:80:4e\n",
         "the message is from ppc64le, the file is for arm64"),
        (X86 / "vmlinux-fentry", "[<ffffa1b2c3d4e5f0>] vfs_read+0x4/0x40\n actual:   c0:03:5f:d6\n",
         "the message is from arm64, the file is for x86_64"),
        (MINI_PPC / "vmlinux-pfe2", "[<ffffa1b2c3d4e5f0>] vfs_read+0x4/0x40\n actual:   c0:03:5f:d6\n",
         "the message is from arm64, the file is for ppc64le"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_have_printed_it_is_another(file: Path, text: str, note: str) -> None:
    told = told_of("ftrace failed to modify\n" + text, api.scan(str(file)))
    assert causes(told)[0] == "elsewhere certain"
    assert told.notes == (note,)
    assert not told.index


def test_a_module_by_its_name_is_the_file() -> None:
    scan = api.scan(str(MINI / "mini.ko"))
    told = told_of(message(scan, "mini_step", 0xD65F03C0, INIT, module="mini"), scan)
    assert causes(told) == ["strange likely", "return possible"]
    assert [scan.sites.name(site) for site in told.index] == ["mini_step"]


def test_a_function_without_a_record_is_told_apart_from_none(tmp_path: Path) -> None:
    out = tmp_path / "vmlinux"
    assert run(["drop", str(KERNEL), "--func", "vfs_read", "-o", str(out)]) == 0
    text = message(api.scan(str(KERNEL)), "vfs_read", 0xD65F03C0, INIT)
    assert causes(told_of(text, api.scan(str(out)))) == ["dropped likely", "return possible"]
    assert causes(told_of(text.replace("vfs_read", "nobody"), api.scan(str(out)))) == [
        "elsewhere likely", "return possible",
    ]  # fmt: skip


def test_a_file_tells_the_machine_where_the_message_does_not() -> None:
    text = "ftrace failed to modify\n[<(____ptrval____)>] vfs_read+0x4/0x8\n actual:   20:00:80:52\n"
    told = told_of(text, api.scan(str(KERNEL)))
    assert (told.origin.name, told.origin.by, told.origin.actual.text) == ("arm64", "file", "mov w0, #1")


def test_init_text_is_told_where_text_was_gone() -> None:
    scan = api.scan(str(KERNEL))
    told = told_of(message(scan, "a_setup", 0, ON, what="faulted on modifying"), scan)
    assert causes(told) == ["gone certain"]
    assert "the site is in init text of this file, which is freed when boot or loading ends" in told.notes
    told = told_of(message(scan, "vfs_read", 0, ON, what="faulted on modifying"), scan)
    assert not any("init text" in note for note in told.notes)


def test_an_address_without_a_name_is_found_by_ftraces_entry() -> None:
    """Where the kernel names nothing, how far it was moved is told by where its own trampoline is."""
    scan = api.scan(str(KERNEL))
    caller = int(scan.image.symbols.value("ftrace_caller") or 0)
    read = int(scan.image.symbols.value("vfs_read") or 0)
    text = "ftrace faulted on modifying\n[<{0:016x}>] 0x{0:016x}\nftrace record flags: 0\n expected tramp: {1:x}\n"
    told = told_of(text.format(read + 4 + MOVED, caller + MOVED), scan)
    section, off = scan.image.place(np.array([read], dtype=np.uint64))
    assert f"that address is {scan.image.names[int(section[0])]}+{int(off[0]) + 4:#x}, vfs_read+0x4" in told.notes
    told = told_of(text.format(MOVED + 0xFFFF800000000000, caller + MOVED), scan)
    assert "no section of this file is at that address" in told.notes


def test_five_bytes_are_told_with_the_file_that_has_them(tmp_path: Path) -> None:
    """Logs name the machine x86-64, files x86_64: a file of it was called another machine's."""
    stock = api.scan(str(X86 / "vmlinux-fentry"))
    site = next(i for i in range(len(stock.sites)) if stock.sites.name(i) == "vfs_read")
    va, entry, caller = int(stock.sites.branch_va[site]), *(
        int(stock.image.symbols.value(name) or 0) for name in ("__fentry__", "ftrace_caller")
    )  # fmt: skip
    calls = [b"\xe8" + (target - va - 5).to_bytes(4, "little", signed=True) for target in (entry, caller)]
    data, pos = (X86 / "vmlinux-fentry").read_bytes(), int(stock.sites.pos[site])
    assert data[pos : pos + 5] == calls[0]
    (tmp_path / "vmlinux").write_bytes(data[:pos] + calls[1] + data[pos + 5 :])
    text = (
        f"ftrace failed to modify \n[<{va + 0x1C000000:016x}>] vfs_read+0x4/0x60\n actual:   {calls[1].hex(':')}\n"
        f" expected: {calls[0].hex(':')}\n{INIT}\nftrace record flags: 0\n expected tramp: {caller + 0x1C000000:x}\n"
    )
    kept = told_of(text, api.scan(str(tmp_path / "vmlinux")))
    assert (causes(kept), kept.foretold, kept.origin.name) == (["enabled certain"], True, "x86-64")
    assert kept.expected == int.from_bytes(calls[0]) and kept.found == int.from_bytes(calls[1])
    assert kept.notes[-2:] == (
        "that call leads to ftrace_caller of this file", "ftrace wanted it to lead to ftrace_caller",
    )  # fmt: skip
    assert causes(told_of(text, stock)) == ["enabled likely", "strange possible"]


def test_the_json_of_a_message_says_how_sure_it_is(ftpatch: Callable[..., str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "ftrace failed to modify\n[<ffffffff811c3a50>] frob+0x0/0x4f0\n actual:   e9:1b:49:3c:00\n"
        "ftrace record flags: 90000002\n (2)\ttramp: ftrace_x+0x0/0x98 (frob_fn+0x0/0x1d0)\n"
    )
    (splat,) = json.loads(ftpatch("explain", "--splat", log, KERNEL, "--format", "json"))["splats"]
    assert (splat["machine"], splat["machine_by"], splat["actual"], splat["actual_text"], splat["actual_to"]) == (
        "x86-64", "bytes", "0xe91b493c00", "jmp 0xffffffff81588370", "0xffffffff81588370",
    )  # fmt: skip
    assert splat["flags"] == {"value": "0x90000002", "names": ["enabled", "wants a trampoline"], "users": 2}
    assert splat["tramps"] == ["ftrace_x+0x0/0x98 (frob_fn+0x0/0x1d0)"]
    assert [(cause["certainty"], cause["rule"]) for cause in splat["causes"]] == [
        ("certain", None), ("possible", None), ("possible", "unexpected-words"),
    ]  # fmt: skip
    assert (splat["certainty"], splat["cause"]) == ("certain", CAUSES["elsewhere"].text)
