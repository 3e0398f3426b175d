"""What a patch makes a module use, held against the kernel that will load it: `verify BEFORE AFTER --against KERNEL`.

A module is patched for one kernel and held against others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_module import ARM64, Export, helper_module, kernel, versioned

from ftpatch.cli import run

PRINTK = Export("_printk", crc=0x12345678)
HOOK = Export("hook", crc=0xABCDEF01)
MINE = (PRINTK, HOOK)


class Made:
    """A module whose new import was taken from a kernel, with its CRC."""

    def __init__(
        self, folder: Path, *options: str, exports: tuple[Export, ...] = MINE, licence: bytes = b"GPL"
    ) -> None:
        self.folder, self.before, self.after = folder, versioned(folder, _printk=PRINTK.crc), folder / "after.ko"
        self.before.write_bytes(self.before.read_bytes().replace(b"license=GPL\0", b"license=" + licence + b"\0"))
        self.kernel = self.build("mine", *exports)
        wanted = ("--func", "mini_work", *(options or ("--hook", "hook")), "--against", str(self.kernel))
        assert run(["enable", str(self.before), *wanted, "-o", str(self.after)]) == 0

    def build(self, name: str, *exports: Export, crcs: bool = True, magic: str = "") -> Path:
        (self.folder / name).mkdir()
        return kernel(self.folder / name, "vmlinux-callops", *exports, crcs=crcs, magic=magic)

    def verify(self, capsys: pytest.CaptureFixture[str], *against: Path) -> dict[str, Any]:
        capsys.readouterr()
        given = [word for path in against for word in ("--against", str(path))]
        code = run(["verify", str(self.before), str(self.after), *given, "--format", "json"])
        image: dict[str, Any] = json.loads(capsys.readouterr().out)["images"][0]
        assert code == bool(image["findings"])
        return image


def messages(image: dict[str, Any]) -> list[str]:
    return [f"{row['rule']}: {row['message']}" for row in image["findings"]]


@pytest.mark.parametrize(("exports", "told"), [
    (MINE, []),
    ((PRINTK, Export("hook", crc=0xABCDEF02)),
     ["verify-symbol: the new symbol hook has the version 0xabcdef01, the kernel's is 0xabcdef02"]),
    ((PRINTK, Export("hook", crc=HOOK.crc, gpl=True)),
     ["verify-symbol: the new symbol hook is exported to GPL modules only, the module's licence is BSD"]),
    ((PRINTK, Export("hook", crc=HOOK.crc, namespace="SPACE")),
     ["verify-symbol: the new symbol hook is of the namespace SPACE, which the module does not import"]),
    ((PRINTK,), ["verify-symbol: the new symbol hook is exported by nothing that --against names"]),
])  # fmt: skip
def test_a_new_import_is_held_against_the_kernel(
    exports: tuple[Export, ...], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path, licence=b"BSD")
    image = made.verify(capsys, made.build("other", *exports))
    assert messages(image) == told
    assert image["proof"]["imports"] == [
        {"name": "hook", "crc": "0xabcdef01", "exporter": "vmlinux" if HOOK.name in {e.name for e in exports} else None}
    ]
    assert image["proof"]["missing"] == []


def test_versions_do_not_count_in_a_kernel_that_compares_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path)
    image = made.verify(capsys, made.build("other", PRINTK, HOOK, crcs=False))
    assert messages(image) == []
    assert image["proof"]["notes"][-1].startswith("the module is not of the kernel given by --against: ")


def test_without_a_kernel_the_verdict_says_that_nobody_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CRC that was changed passed, and nothing said that it had not been checked."""
    made, unlooked = Made(tmp_path), "1 new import not held against a kernel: no --against tells one"
    assert made.verify(capsys)["proof"]["missing"] == [unlooked]
    assert run(["verify", str(made.before), str(made.after)]) == 0
    said = capsys.readouterr().out
    assert f"every change is accounted for; {unlooked}\n" in said and "hook (0xabcdef01)\n" in said
    assert run(["verify", str(made.before), str(made.after), "--against", str(made.kernel)]) == 0
    said = capsys.readouterr().out
    assert "every change is accounted for\n" in said and "hook (0xabcdef01, of vmlinux)\n" in said


HELPER = Export("helper_hook")
LOST = "verify-section: depends= does not name help_er, which exports the new symbol helper_hook"


@pytest.mark.parametrize(("depends", "exports", "given", "told", "missing"), [
    (b"help_er", (), True, [], []),
    (b"help-er", (), True, [], []),
    (b"foreign", (), True,
     [LOST, "verify-section: depends= gained foreign, which exports none of the new symbols"], []),
    (b"help_er", (HELPER,), False,
     ["verify-section: depends= gained help_er, which exports none of the new symbols"], []),
    (b"help_er", (HELPER,), True,
     ["verify-section: depends= gained help_er, which exports none of the new symbols"], []),
    (b"help_er", (), False, [], ["helper_hook left to help_er: not given by --against"]),
    (b"foreign", (), False, [], ["helper_hook left to foreign: not given by --against"]),
])  # fmt: skip
def test_depends_names_the_exporters_of_what_is_new_and_nobody_else(
    depends: bytes, exports: tuple[Export, ...], given: bool, told: list[str], missing: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A name too many passed: modprobe fails where there is no such module."""
    helper, after = helper_module(tmp_path), tmp_path / "after.ko"
    (tmp_path / "mine").mkdir()
    mine = kernel(tmp_path / "mine", "vmlinux-callops", Export("_printk"))
    wanted = ("--func", "mini_work", "--hook", "helper_hook", "--against", str(mine), "--against", str(helper))
    assert run(["enable", str(ARM64), *wanted, "-o", str(after)]) == 0
    after.write_bytes(after.read_bytes().replace(b"depends=help_er\0", b"depends=" + depends + b"\0"))
    vmlinux = kernel(tmp_path, "vmlinux-callops", Export("_printk"), *exports)
    against = [word for path in (vmlinux, *([helper] if given else [])) for word in ("--against", str(path))]
    capsys.readouterr()
    assert run(["verify", str(ARM64), str(after), *against, "--format", "json"]) == bool(told)
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert (messages(image), image["proof"]["missing"]) == (told, missing)


def test_an_exporter_without_versions_gives_none_to_a_module_that_states_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The import was made without a version, and the check of the result asked to report that: exit code 70."""
    module, helper = versioned(tmp_path, _printk=PRINTK.crc), helper_module(tmp_path)
    vmlinux = kernel(tmp_path, "vmlinux-callops", PRINTK, crcs=True)
    wanted = ("--func", "mini_work", "--hook", "helper_hook", "--against", str(vmlinux), "--against", str(helper))
    assert run(["enable", str(module), *wanted, "-o", str(tmp_path / "after.ko")]) == 5
    assert capsys.readouterr().err == (
        "ftpatch: --hook helper_hook: the symbol has no version, and the module states one for each of its others: "
        "found no CRC in help_er, expected a symbol with a CRC – build its exporter with CONFIG_MODVERSIONS\n"
    )


@pytest.mark.parametrize(("against", "message"), [
    ("helper", "BEFORE: --against names no kernel: found HELPER, expected the vmlinux that will load the module, and "
               "modules beside it"),
    ("before", "BEFORE: --against names no kernel: found BEFORE, expected the vmlinux that will load the module, and "
               "modules beside it"),
])  # fmt: skip
def test_a_kernel_is_needed(against: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"helper": str(helper_module(tmp_path)), "before": str(ARM64)}
    assert run(["verify", str(ARM64), str(ARM64), "--against", files[against]]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    for name, path in files.items():
        said = said.replace(path, name.upper())
    assert said == f"ftpatch: {message}"


def test_a_kernel_is_loaded_by_none(capsys: pytest.CaptureFixture[str]) -> None:
    vmlinux = str(ARM64.parent / "vmlinux-callops")
    assert run(["verify", vmlinux, vmlinux, "--against", vmlinux]) == 2
    assert capsys.readouterr().err == (f"ftpatch: {vmlinux}: --against is for modules: found a vmlinux\n")
