"""Sites without a name: left of a weak function, or their symbols stripped, and what every verb does with them.

`strip --strip-unneeded`, as embedded distributions run it over modules, takes every local symbol that no relocation
needs. All static functions then looked like code of overridden weak functions, and the advice was to drop them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from elfedit import MINI, MINI_PPC, without_symbols

from ftpatch.cli import run

Gone = Callable[[str, int, int, bool], bool]
LOCAL, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4  # bind 0; types


def unneeded(name: str, info: int, shndx: int, needed: bool) -> bool:
    """strip --strip-unneeded of a relocatable file."""
    return info >> 4 == LOCAL and info & 15 != SECTION and not needed


def discarded(name: str, info: int, shndx: int, needed: bool) -> bool:
    """strip -x: names of files stay; in a linked file no relocation needs a symbol."""
    return info >> 4 == LOCAL and info & 15 not in (SECTION, FILE) and not needed and not name.startswith("$")


def but(*kept: str) -> Gone:
    """strip --strip-unneeded -K NAME …"""
    return lambda name, *rest: unneeded(name, *rest) and name not in kept


def only(*taken: str) -> Gone:
    """objcopy -N NAME …"""
    return lambda name, *rest: name in taken


def written(path: Path, file: Path, gone: Gone) -> str:
    path.write_bytes(without_symbols(file.read_bytes(), gone))
    return str(path)


def statuses(path: str, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    capsys.readouterr()
    assert run(["scan", path, "--format", "json"]) == 0
    return dict(Counter(site["status"] for site in json.loads(capsys.readouterr().out)["images"][0]["sites"]))


CASES = [  # file, what is taken, what its sites then are
    (MINI / "mini.ko", unneeded, {"ready": 4, "stripped": 2}),
    (MINI / "mini.ko", discarded, {"ready": 4, "stripped": 2}),
    (MINI / "mini.ko", but("mini_step"), {"ready": 5, "stripped": 1}),
    (MINI / "mini.ko", only("mini_step"), {"ready": 5, "stripped": 1}),
    (MINI / "pfe2.o", unneeded, {"ready": 6, "stripped": 2}),
    (MINI / "callops.o", unneeded, {"ready": 6, "stripped": 2}),
    # nobody calls it, and the names of static functions are there: what a linker leaves of a weak function
    (MINI / "pfe2.o", only("arch_hook_power"), {"ready": 7, "weak-leftover": 1}),
    (MINI / "callops.o", only("arch_hook_power"), {"ready": 7, "weak-leftover": 1}),
    (MINI_PPC / "pfe2.o", only("arch_hook_power"), {"ready": 8, "weak-leftover": 1}),
    (MINI / "pfe2.o", lambda *symbol: only("arch_hook_power")(*symbol) or unneeded(*symbol),
     {"ready": 5, "stripped": 2, "unnamed": 1}),
    (MINI / "vmlinux-pfe2", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-exec", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-pg", discarded, {"ready": 12, "stripped": 4, "unnamed": 3}),
    (MINI / "vmlinux-pfe2", only("direct_only"), {"ready": 15, "weak-leftover": 3, "stripped": 1}),
    # a table that the build sorted has no slot for a weak function: whatever has no name there had one
    (MINI / "vmlinux-callops", discarded, {"null": 3, "ready": 12, "stripped": 4}),
    (MINI / "vmlinux-callops-bti", discarded, {"null": 3, "ready": 12, "stripped": 4}),
    (MINI_PPC / "mini.ko", unneeded, {"ready": 8}),
    (MINI_PPC / "vmlinux-pfe2", discarded, {"ready": 24, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "vmlinux-ool", discarded, {"ready": 22, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "vmlinux-mprofile", discarded, {"ready": 22, "stripped": 6, "unnamed": 4}),
    (MINI_PPC / "pfe2.o", unneeded, {"ready": 7, "stripped": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "gone", "expected"), CASES)
def test_a_stripped_name_is_no_weak_leftover(
    file: Path, gone: Gone, expected: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert statuses(written(tmp_path / file.name, file, gone), capsys) == expected
