"""What sites may call, by the kind of its symbol: `--hook` of a module, `--target` of a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_module import ARM64, Export, helper_module, kernel

from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image

VMLINUX = ARM64.parent / "vmlinux-callops"
GLOBAL = 0x10
ABS, COMMON = 0xFFF1, 0xFFF2


def changed(source: Path, name: str, path: Path, **fields: int) -> Path:
    """A file with other values in one symbol."""
    image, data = open_image(str(source)), bytearray(source.read_bytes())
    sec = image.shdr["sh_type"].tolist().index(t.SHT_SYMTAB)
    row = image.symbols.defined(name)
    rows = image.rows(sec, t.SYM).copy()
    for field, value in fields.items():
        rows[field][row] = value
    start = int(image.shdr["sh_offset"][sec])
    data[start : start + rows.nbytes] = rows.tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("fields", "told"), [
    ({"st_info": GLOBAL | 1}, "data in .text"),  # data
    ({"st_info": GLOBAL | 3}, "a section's symbol in .text"),  # a section
    ({"st_info": GLOBAL | 6}, "thread-local data in .text"),  # TLS
    ({"st_info": GLOBAL | 10}, "an indirect function (IFUNC), which nothing in a kernel resolves, in .text"),  # IFUNC
    ({"st_shndx": 11}, "data in .rodata"),  # .rodata
    ({"st_shndx": ABS}, "an absolute number"),
    ({"st_shndx": COMMON}, "data without a section (COMMON)"),
    ({"st_value": 0x64}, "a place inside mini_work"),
    ({"st_value": 0x64, "st_info": GLOBAL}, "a place inside mini_work"),  # an inner label
    ({"st_value": 0x42}, "no instruction at .text+0x42"),
    ({"st_value": 0xFFFF_FFFF_FFFF_FFF8}, "no instruction at .text+0xfffffffffffffff8"),
])  # fmt: skip
def test_a_hook_is_the_beginning_of_a_function(
    fields: dict[str, int], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels and places inside functions were taken, as were parts that compilers split off."""
    module = changed(ARM64, "mini_untraced", tmp_path / "m.ko", **fields)
    assert (
        run(["enable", str(module), "--func", "mini_util", "--hook", "mini_untraced", "-o", str(tmp_path / "o")]) == 5
    )
    assert capsys.readouterr().err == (
        f"ftpatch: --hook mini_untraced: the hook is no function: found {told}, expected code\n"
    )


@pytest.mark.parametrize(("name", "told"), [
    ("mini_unt.cold", "the unlikely part of a function, which goes back into it"),
    ("mini_unta.isr", None),
    ("mini.coldness", None),
])  # fmt: skip
def test_a_cold_part_is_no_function(
    name: str, told: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "m.ko"
    module.write_bytes(ARM64.read_bytes().replace(b"mini_untraced\0", name.encode() + b"\0"))
    code = run(["enable", str(module), "--func", "mini_util", "--hook", name, "-o", str(tmp_path / "o")])
    assert code == (5 if told else 0)
    if told:
        assert capsys.readouterr().err == (
            f"ftpatch: --hook {name}: the hook is no function: found {told}, expected code\n"
        )


def test_several_functions_of_one_name_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first was taken, which may be another file's."""
    module = tmp_path / "m.ko"
    module.write_bytes(ARM64.read_bytes().replace(b"mini_untraced\0", b"mini_exit\0\0\0\0\0"))
    assert run(["enable", str(module), "--func", "mini_util", "--hook", "mini_exit", "-o", str(tmp_path / "o")]) == 5
    assert capsys.readouterr().err == (
        "ftpatch: --hook mini_exit: the hook is no function: found 2 symbols of that name, expected code\n"
    )


def test_a_hook_that_is_enabled_itself_could_call_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two functions, each the hook of the other."""
    once = tmp_path / "once.ko"
    assert run(["enable", str(ARM64), "--func", "mini_util", "--hook", "mini_work", "-o", str(once)]) == 0
    capsys.readouterr()
    assert run(["enable", str(once), "--func", "mini_work", "--hook", "mini_util", "-o", str(tmp_path / "twice")]) == 5
    assert capsys.readouterr().err == (
        "ftpatch: --hook mini_util: the hook is itself enabled: found a call at its own entry, expected a function "
        "that calls nothing there – ftpatch disable --func mini_util gives its entry back\n"
    )


def test_data_of_another_module_is_no_hook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a file exported was taken for a function."""
    helper, vmlinux = helper_module(tmp_path), kernel(tmp_path, "vmlinux-callops", Export("_printk"))
    data = bytearray(helper.read_bytes())
    headers = int.from_bytes(data[40:48], "little")
    data[headers + 64 + 8] = t.SHF_ALLOC
    helper.write_bytes(data)
    wanted = ("--func", "mini_work", "--hook", "helper_hook", "--against", str(vmlinux), "--against", str(helper))
    assert run(["enable", str(ARM64), *wanted, "-o", str(tmp_path / "o")]) == 5
    assert capsys.readouterr().err == (
        "ftpatch: --hook helper_hook: the symbol is no function: found data in .text, expected code\n"
    )


@pytest.mark.parametrize(("fields", "told"), [
    ({"st_info": GLOBAL | 1}, "symbol type 1 in section 2"),
    ({"st_info": GLOBAL | 6}, "symbol type 6 in section 2"),
    ({"st_info": GLOBAL | 10}, "symbol type 10 in section 2"),
    ({"st_shndx": ABS}, "symbol type 2 in section -1"),
])  # fmt: skip
@pytest.mark.parametrize("force", [(), ("--force-target",)])
def test_a_target_is_a_function(
    fields: dict[str, int], told: str, force: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its value alone decided."""
    vmlinux = changed(VMLINUX, "ftrace_caller", tmp_path / "vmlinux", **fields)
    wanted = ("--func", "vfs_read", "--target", "ftrace_caller", *force)
    assert run(["enable", str(vmlinux), *wanted, "-o", str(tmp_path / "o")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: --target ftrace_caller: the target is no function: found {told}, expected code\n"
    )
