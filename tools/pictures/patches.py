"""The pictures of what a patch adds: the code of modules, and the jump of a redirect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ftpatch.arch import architectures
from tools.pictures.code import addresses, decoded, explained, hook_lines, plain
from tools.pictures.svg import Arrow, Block, Cell, Picture


def module_arm64() -> Picture:
    _, _, site = explained("mini/mini.ko", "mini_work")
    words = [
        f"{word['new_word'][2:]}  {plain(word['new_text'] or '')}"
        for word in site["code"][0]["words"]
        if word["new_word"]
    ]
    picture = Picture(
        "A site of an arm64 module",
        "The call in the module goes, by a relocation, to the jump that the module loader lays down in "
        ".text.ftrace_trampoline, and that "
        "goes to ftrace_caller. The ops pointer in front of the function points to an object that the patch "
        "brought along.",
    )
    picture.blocks(
        [
            Block(0, 0, "mini_work in mini.ko", tuple(words), "new"),
            Block(
                1,
                0,
                ".text.ftrace_trampoline",
                ("filled by the loader:", "adrp x16, ftrace_caller", "add  x16, x16, …", "br   x16"),
            ),
            Block(2, 0, "ftrace_caller", ("in the kernel, not exported",)),
            Block(0, 1, "ftpatch_ops, in the module", ("func: a function that does nothing",), "new"),
        ],
        [Arrow(0, 1, "R_AARCH64_CALL26"), Arrow(1, 2), Arrow(0, 3, "ops pointer, R_AARCH64_ABS64")],
    )
    return picture


def hook(machine: str) -> Picture:
    """The stub by which a site of a module calls a C function."""
    arch = next(arch for arch in architectures() if arch.name == machine)
    lines = hook_lines(arch)
    half = (len(lines) + 1) // 2
    picture = Picture(
        f"The stub that calls a hook, {machine}",
        "Two columns of instructions, the second goes on where the first ends: the registers that hold arguments are "
        "saved, the hook is called with the address of the site and of its caller, the registers are loaded again, and "
        "the function goes on.",
    )
    rows = []
    for left, right in zip(lines[:half], [*lines[half:], ("", "")], strict=False):
        rows.append([cell for at, code in (left, right)
                     for cell in (Cell(at, ""), Cell(code, "new" if code.endswith(" hook") else "box"))])  # fmt: skip
    picture.table(["", "", "", ""], rows)
    return picture


def redirect() -> Picture:
    arch, _, site = explained("mini/vmlinux-callops", "vfs_read")
    entry = int(site["symbols"][0]["value"], 16)
    target = addresses("mini/vmlinux-callops")["vfs_write"]
    assert arch.jump is not None
    word = int(arch.jump.encode(np.array([target - entry]))[0])
    text = decoded(arch, word.to_bytes(4, "little")).split()[0]
    picture = Picture(
        "A redirect",
        "Callers of vfs_read arrive at its entry, where the first NOP of the site has become a branch to "
        "vfs_write. vfs_write returns to "
        "the caller. The old body is never run.",
    )
    picture.blocks(
        [
            Block(0, 0, "any caller", ("bl vfs_read",)),
            Block(
                1,
                0,
                "vfs_read",
                (f"{word:08x}  {text} vfs_write", f"{arch.nop:08x}  nop", "the old body: never run"),
                "new",
            ),
            Block(2, 0, "vfs_write", ("its own site and record stay", "ret   to the caller")),
        ],
        [Arrow(0, 1), Arrow(1, 2, f"{target - entry:+#x}")],
    )
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "module-arm64": module_arm64,
    **{f"{machine}-hook": partial(hook, machine) for machine in ("arm64", "ppc64le", "x86_64")},
    "redirect": redirect,
}
