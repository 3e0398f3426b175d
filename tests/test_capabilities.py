"""The table of docs/limits.md, capability by machine: each cell is tried on a small file, and says what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ftpatch.cli import run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "limits.md").read_text()
MACHINES = ("arm64", "ppc64le", "x86_64")
REFUSED = (4, 5)  # exit codes
KERNELS = ("mini/vmlinux-callops", "mini-ppc64le/vmlinux-pfe2", "x86_64/vmlinux-fentry")
PG_KERNELS = ("mini/vmlinux-pg", "mini-ppc64le/vmlinux-pg", "x86_64/vmlinux-fentry")
MODULES = ("mini/mini.ko", "mini-ppc64le/mini.ko", "x86_64/mini.ko")
PROGRAMS = tuple(f"programs/small/{machine}-pie" for machine in MACHINES)
OBJECTS = tuple(f"pg/{machine}.o" for machine in MACHINES)
LOST = ("record/arm64-pg.o", "pg/ppc64le.o", "record/x86_64-fentry.o")
FAR = ("far/vmlinux", "mini-ppc64le/vmlinux-far", "x86_64/vmlinux-fentry")
STATIC = ("static_calls_arm64/vmlinux-relr", KERNELS[1], "static_calls/vmlinux")
READ = "read a kernel (`scan`, `explain`, `check`, `diff`)"

# (what it is, how it begins in the table's rows, a file of each machine, command line without -o)
CASES = (
    (READ, KERNELS, "scan FILE"),
    (READ, KERNELS, "explain vfs_read FILE"),
    (READ, KERNELS, "check FILE --exit-zero"),
    (READ, KERNELS, "diff FILE FILE"),
    ("enable a function of a kernel", KERNELS, "enable FILE --func vfs_read"),
    ("… that is beyond a branch's reach", FAR, "enable FILE --func FAR"),
    ("drop all records of a kernel", KERNELS, "drop FILE --func *"),
    ("redirect a function of a kernel", KERNELS, "redirect FILE --func vfs_read --to vfs_write"),
    ("… of a kernel of `-pg`", PG_KERNELS, "redirect FILE --func vfs_read --to vfs_write"),
    ("enable a function of a module, with `ftrace_caller`", MODULES, "enable FILE --func mini_work"),
    ("… with `--hook`", MODULES, "enable FILE --func mini_work --hook _printk"),
    ("redirect a function of a module (`--with` too)", MODULES, "redirect FILE --func mini_work --to mini_util"),
    ("let tracers see a patched site of a module (`--ops list`)", MODULES,
     "enable FILE --func mini_work --hook _printk --ops list"),
    ("show and set static calls", STATIC, "static-calls FILE"),
    ("show and set static calls", STATIC, "static-calls FILE --set KEY=clock_fast"),
    ("make records of lost calls (`record`)", LOST, "record FILE"),
    ("… in a linked kernel", KERNELS, "record FILE --func vfs_read"),
    ("let an object's calls of `-pg` go elsewhere", OBJECTS, "enable FILE --func * --target tracer"),
    ("let a program call a hook", PROGRAMS, "enable FILE --func work --hook hook"),
    ("redirect a function of a program", PROGRAMS, "redirect FILE --func work --to nothing"),
    ("make what boots (`image`)", KERNELS, "image FILE"),
)  # fmt: skip
NAMES = {  # what FAR and KEY are in some files
    ("FAR", FAR[0]): "far_a", ("FAR", FAR[1]): "b_mid", ("FAR", FAR[2]): "vfs_read",
    ("KEY", STATIC[0]): "clock_read", ("KEY", STATIC[1]): "clock", ("KEY", STATIC[2]): "clock",
}  # fmt: skip
ELSEWHERE = {  # rows that other tests try
    "… of a kernel of `-pg`, calls behind the prologue": "test_pg_kernels.py",
    "… with `--stub-asm`, on x86-64 hosts": "test_stubasm.py",
    "… by a pad in front of the function (pad-before)": "test_pads.py",
    "execute patched sites (`verify`)": "test_emulate.py",
    "put a patched kernel back into the file that boots, without a vmlinux": "test_images_patch.py",
}


def rows() -> dict[str, tuple[str, ...]]:
    """Capability → what its cell says for each machine."""
    table = PAGE.partition("\n## What works on which machine\n")[2].partition("\n## ")[0]
    lines = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")]
    assert tuple(lines[0]) == MACHINES
    return {what: (first, second, third) for what, first, second, third in lines[1:]}


def test_every_row_is_tried_somewhere() -> None:
    assert set(rows()) == {what for what, _, _ in CASES} | set(ELSEWHERE)
    assert all((ROOT / "tests" / name).exists() for name in ELSEWHERE.values())


def test_a_cell_begins_with_one_of_four_words() -> None:
    for cells in rows().values():
        assert all(
            re.match(r"(yes|refused( without `--against`| for a bzImage)?:|not known:|not needed:)", cell)
            for cell in cells
        ), cells


@pytest.mark.parametrize("machine", range(len(MACHINES)), ids=MACHINES)
@pytest.mark.parametrize(("what", "files", "command"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_cell_says_what_happens(
    what: str, files: tuple[str, ...], command: str, machine: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = files[machine]
    for word in ("FAR", "KEY"):
        command = command.replace(word, NAMES.get((word, file), word))
    words = [str(ROOT / "testdata" / file) if word == "FILE" else word for word in command.split()]
    writes = words[0] not in ("scan", "explain", "check", "diff") and words[:1] + words[2:] != ["static-calls"]
    code = run([*words, *(["-o", str(tmp_path / "out")] if writes else [])])
    cell = rows()[what][machine]
    said = capsys.readouterr().err
    assert code in (REFUSED if cell.startswith("refused") else (0,)), f"{code}: {cell}\n{said}"
    assert (tmp_path / "out").exists() == (writes and code == 0)
