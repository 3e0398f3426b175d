"""Functions that compilers renamed: what each suffix means, what explain shows in their place, what is proposed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import TEXT, Kernel

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf.clone_names import meaning
from ftpatch.sites.clones import clones_of


def kernel(folder: Path, *names: str) -> Path:
    """A vmlinux with a site in each of these functions, 32 bytes apart."""
    path = folder / "vmlinux"
    path.write_bytes(Kernel([(name, TEXT + 0x200 + 32 * i) for i, name in enumerate(names)], relocatable=True).build())
    return path


@pytest.mark.parametrize(
    ("clone", "whole", "text"),
    [
        ("f.isra.0", True, "with other parameters (.isra)"),
        ("f.constprop.12", True, "for constant arguments (.constprop)"),
        ("f.constprop.0.isra.0", True, "for constant arguments (.constprop), with other parameters (.isra)"),
        ("f.part.0", False, "a part of it, the rest is inlined (.part)"),
        ("f.part.0.isra.1", False, "a part of it, the rest is inlined (.part), with other parameters (.isra)"),
        ("f.cold", False, "its unlikely code (.cold)"),
        ("f.cold.7", False, "its unlikely code (.cold)"),
        ("f.isra.0.cold", False, "its unlikely code (.cold), with other parameters (.isra)"),
        ("f.lto_priv.0", True, "by link-time optimisation (.lto_priv)"),
        ("f.localalias", True, "by an alias (.localalias)"),
        ("f.localalias.3", True, "by an alias (.localalias)"),
        ("f.llvm.16389254105934218342", True, "by link-time optimisation (.llvm)"),
        ("f.__uniq.123.llvm.45", True,
         "with a name unique in the kernel (.__uniq), by link-time optimisation (.llvm)"),
        ("f.specialized.1", True, "for constant arguments (.specialized)"),
        ("f.argelim", True, "with other parameters (.argelim)"),
        ("f.cfi_jt", False, "its entry in a jump table (.cfi_jt)"),
        ("f.cfi", True, "the body behind its entry in a jump table (.cfi)"),
        ("f.island", False, ""),  # an assembler's label, a static variable, and another function are no clones
        ("f.0", False, ""),
        ("f.isra_x.0", False, ""),
        ("fx.isra.0", False, ""),
        ("f", False, ""),
    ],
)  # fmt: skip
def test_each_suffix_says_what_the_compiler_did(clone: str, whole: bool, text: str) -> None:
    assert meaning("f", clone) == (text, whole)


def test_whole_clones_with_a_site_come_first(tmp_path: Path) -> None:
    """A linker merges tails of strings: `f.isra.0` may begin in the middle of another function's name."""
    path = kernel(tmp_path, "f.part.0", "f.isra.1", "f.isra.0", "f.cold", "xf.isra.2", "f.7")
    found = clones_of(api.scan(str(path)).sites, "f")
    assert [(clone.name, clone.whole) for clone in found] == [
        ("f.isra.0", True), ("f.isra.1", True), ("f.cold", False), ("f.part.0", False),
    ]  # fmt: skip


def test_a_function_under_another_name_is_explained_with_its_site(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    """finish_task_switch of a 6.12 kernel was called not traceable, although it is, as finish_task_switch.isra.0."""
    path = kernel(tmp_path, "finish_task_switch.isra.0", "other")
    told = ftpatch("explain", "finish_task_switch", path)
    assert told.startswith(
        "finish_task_switch: traceable as finish_task_switch.isra.0\n"
        "  compiled   finish_task_switch.isra.0, with other parameters (.isra)\n\n"
        "finish_task_switch.isra.0: traceable: a live record names its site, which is as the kernel expects it\n"
    )
    assert f"addresses  entry 0x{TEXT + 0x200:016x}" in told
    image = json.loads(ftpatch("explain", "finish_task_switch", path, "--format", "json"))["images"][0]
    assert (image["asked"], image["traceable_as"]) == ("finish_task_switch", ["finish_task_switch.isra.0"])
    assert [site["function"] for site in image["sites"]] == ["finish_task_switch.isra.0"]
    assert image["clones"] == [
        {"name": "finish_task_switch.isra.0", "text": "with other parameters (.isra)", "whole": True, "rows": [0],
         "traceable": True},
    ]  # fmt: skip


def test_several_clones_are_all_explained_and_parts_only_mentioned(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    told = ftpatch("explain", "f", kernel(tmp_path, "f.constprop.0", "f.isra.0", "f.part.0"))
    assert told.splitlines()[:4] == [
        "f: traceable as f.constprop.0, f.isra.0",
        "  compiled   f.constprop.0, for constant arguments (.constprop)",
        "  compiled   f.isra.0, with other parameters (.isra)",
        "  compiled   f.part.0, a part of it, the rest is inlined (.part), traceable",
    ]
    assert [line.split(":")[0] for line in told.splitlines() if ": traceable: a live" in line] == [
        "f.constprop.0", "f.isra.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("f.part.0", "a part of it, the rest is inlined (.part)"), ("f.cold", "its unlikely code (.cold)")],
)
def test_a_part_is_not_the_function_itself(tmp_path: Path, ftpatch: Callable[..., str], name: str, text: str) -> None:
    told = ftpatch("explain", "f", kernel(tmp_path, name))
    assert told.startswith("f: not traceable in ")
    assert f"  why        only {name} is left of it, {text}: not the function itself\n" in told
    assert f"  renamed    {name}, {text}, traceable\n" in told


def test_a_function_with_a_site_of_its_own_names_its_clones_beside_it(
    tmp_path: Path, ftpatch: Callable[..., str]
) -> None:
    told = ftpatch("explain", "f", kernel(tmp_path, "f", "f.constprop.0"))
    assert told.startswith(
        "  also       f.constprop.0, for constant arguments (.constprop), traceable\n\nf: traceable: a live record"
    )


@pytest.mark.parametrize("verb", ["enable", "disable", "drop"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("f.isra.0",), "f: no patch site of that name: found f.isra.0, made of it by the compiler – "
         "give --func f.isra.0"),
        (("f.isra.0", "f.isra.0"), "f: no patch site of that name: found f.isra.0 (2 sites), made of it by the "
         "compiler – give --func f.isra.0"),
        (("f.isra.0", "f.constprop.1", "f.part.0"), "f: no patch site of that name: found f.constprop.1, f.isra.0, "
         "made of it by the compiler – give --func f.constprop.1 --func f.isra.0"),
        (("f.part.0", "f.cold"), "f: no patch site of that name: found f.cold, f.part.0, parts of it only, entered by "
         "some of its callers – give --func f.cold --func f.part.0"),
        (tuple(f"f.isra.{i}" for i in range(5)), "f: no patch site of that name: found f.isra.0, f.isra.1, f.isra.2 "
         "and 2 more, made of it by the compiler – give --func f.isra.0 --func f.isra.1 --func f.isra.2"),
        (("f.0", "fx.isra.0"), "f: nothing of that name: found no patch site, expected a function, see ftpatch scan "
         "--sites – it may be inlined, renamed by the compiler (.isra, .constprop), or in a module"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_refusal_proposes_the_exact_selector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, names: tuple[str, ...], message: str
) -> None:
    assert run([verb, str(kernel(tmp_path, *names)), "--func", "f", "-o", str(tmp_path / "out")]) == 5
    assert capsys.readouterr().err == f"ftpatch: {message}\n"
    assert not (tmp_path / "out").exists()


def test_what_is_proposed_is_taken(tmp_path: Path) -> None:
    path = kernel(tmp_path, "f.isra.0", "g")
    assert run(["enable", str(path), "--func", "f.isra.0", "-o", str(tmp_path / "out")]) == 0
