"""Two builds, two trees: what is no longer traceable, what is now, and how the figures changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from elfwriter import MINI

from ftpatch.cli import run
from ftpatch.cli.diff import CLASSES
from ftpatch.compare.diff import Compared, compare_files, compare_trees
from ftpatch.compare.digest import Digest, Key, Site, digest_file
from ftpatch.document.request import Request
from ftpatch.document.types import ImageObject
from ftpatch.errors import UsageError
from ftpatch.rules.register import rules_for
from tools.kernels import Kernel

CALLOPS = MINI / "vmlinux-callops"
SUMMARY: dict[str, Any] = {
    "slots": 2, "null": 0, "live": 2, "by_section": {}, "by_status": {}, "without_record": 0, "with_skip": 0,
    "boot": None, "reach": None,
}  # fmt: skip
IMAGE = {"file": "new", "arch": "arm64", "kind": "vmlinux", "layout": "pfe2", "carrier": "rela", "summary": SUMMARY}
READY, BARE = Site("traceable", 1, ".text", 8), Site("siteless", None, ".text", None)


def made(functions: dict[Key, tuple[Site, ...]], path: str = "new", **image: Any) -> Digest:
    return Digest(path, cast(ImageObject, {**IMAGE, "file": path, **image}), functions)


def told(old: Digest, new: Digest) -> list[tuple[str, str]]:
    return [(one.rule, one.message) for one in compare_files(old, new).findings]


def test_a_function_that_both_have_is_lost_and_one_that_is_gone_is_removed() -> None:
    old = made({("f", ""): (READY,), ("g", ""): (READY,), ("h", ""): (BARE,)})
    new = made({("f", ""): (BARE,), ("i", ""): (READY,), ("h", ""): (READY,)})
    assert told(old, new) == [
        ("diff-lost", "f is no longer traceable: compiled without a patch site: notrace, assembly, or a file without "
                      "the tracer's flags"),
        ("diff-removed", "g is gone"),
        ("diff-gained", "h became traceable"),
        ("diff-added", "i is new and traceable"),
    ]  # fmt: skip


def test_equal_names_are_told_apart_by_file() -> None:
    old = made({("show", "a.c"): (READY,), ("show", "b.c"): (READY,)})
    new = made({("show", "a.c"): (READY,), ("show", "b.c"): (BARE,)})
    (one,) = compare_files(old, new).findings
    assert (one.rule, one.function) == ("diff-lost", "show")
    assert one.message.startswith("show@b.c is no longer traceable")


def test_names_alone_count_where_one_file_does_not_tell_source_files() -> None:
    """kallsyms has no source files: each static function of a vmlinux seemed gone from the image made of it."""
    vmlinux = made({("show", "a.c"): (READY,), ("show", "b.c"): (BARE,), ("f", "a.c"): (READY,), ("g", ""): (READY,)})
    image = replace(made({("show", ""): (BARE, READY), ("f", ""): (READY,), ("g", ""): (READY,)}), with_files=False)
    assert told(vmlinux, image) == told(image, vmlinux) == []
    other = replace(made({("show", ""): (BARE, BARE), ("g.isra.0", ""): (READY,)}), with_files=False)
    assert told(vmlinux, other) == [
        ("diff-lost", "show is no longer traceable: compiled without a patch site: notrace, assembly, or a file "
                      "without the tracer's flags"),
        ("diff-removed", "f is gone"),
        ("diff-renamed", "g is g.isra.0 now"),
    ]  # fmt: skip


def test_of_many_functions_with_one_name_and_file_the_number_counts() -> None:
    key = ("init", "core.c")
    (one,) = compare_files(made({key: (READY, READY, READY)}), made({key: (READY, BARE, BARE)})).findings
    assert (one.rule, one.count) == ("diff-lost", 2)
    (one,) = compare_files(made({key: (READY, READY, READY)}), made({key: (READY,)})).findings
    assert (one.rule, one.count) == ("diff-removed", 2)


def test_a_function_that_became_static_or_moved_to_another_file_is_the_same() -> None:
    assert told(made({("f", ""): (READY,)}), made({("f", "a.c"): (READY,)})) == []
    assert told(made({("f", "a.c"): (READY,)}), made({("f", "b.c"): (READY,)})) == []


@pytest.mark.parametrize("suffix", [".isra.0", ".constprop.0", ".part.0.isra.0", ".lto_priv.1", ".llvm.123"])
def test_a_suffix_of_the_compiler_is_a_new_name_and_no_loss(suffix: str) -> None:
    old, new = made({("f", "a.c"): (READY,)}), made({(f"f{suffix}", "a.c"): (READY,)})
    assert told(old, new) == [("diff-renamed", f"f is f{suffix} now")]
    assert told(new, old) == [("diff-renamed", f"f{suffix} is f now")]


def test_a_cold_part_does_not_stand_for_its_function() -> None:
    old, new = made({("f", "a.c"): (READY,)}), made({("f.cold", "a.c"): (BARE,)})
    assert told(old, new) == [("diff-removed", "f@a.c is gone")]


def test_layout_comes_first_and_figures_last() -> None:
    reach = {
        "target": "ftrace_caller",
        "max_distance": 1,
        "limit": 2,
        "beyond": 0,
        "trampolines": {},
        "headroom": 1 << 20,
    }
    far = {**reach, "beyond": 3, "headroom": 0}
    old = made({("f", ""): (READY,)}, summary={**SUMMARY, "reach": reach, "boot": {"allocating": 2, "listed": 0}})
    new = made({("f", ""): (BARE,)}, layout="callops", carrier="relr",
               summary={**SUMMARY, "live": 1, "reach": far, "boot": {"allocating": 1, "listed": 0}})  # fmt: skip
    assert [(one.severity, one.rule) for one in compare_files(old, new).findings] == [
        ("error", "diff-layout"), ("warning", "diff-layout"), ("warning", "diff-lost"), ("warning", "diff-reach"),
        ("note", "diff-reach"), ("note", "diff-count"), ("note", "diff-count"),
    ]  # fmt: skip
    assert told(old, new)[-2:] == [
        ("diff-count", "at boot: allocating: 2 -> 1 (-1)"),
        ("diff-count", "live: 2 -> 1 (-1)"),
    ]


def test_two_machines_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="new: these two cannot be compared: found ppc64le, expected arm64, as old is"):
        compare_files(made({}, "old"), made({}, arch="ppc64le"))


def modules(*names: str, **functions: dict[Key, tuple[Site, ...]]) -> list[Digest]:
    return [
        made(functions.get(name.rsplit("/", 1)[-1].split(".")[0].replace("-", "_"), {}), f"{name}") for name in names
    ]


def rules(compared: list[Compared]) -> list[str]:
    return [one.rule for pair in compared for one in pair.findings]


def test_modules_are_matched_by_name_whatever_their_folder_and_packing() -> None:
    old = modules("old/a/snd-core.ko", snd_core={("f", ""): (READY,)})
    new = modules("new/b/snd_core.ko.xz", snd_core={("f", ""): (READY,)})
    assert compare_trees(old, new, ("old", "new")) == []


def test_modules_of_one_name_are_matched_by_their_path() -> None:
    old, new = modules("old/x/a.ko", "old/y/a.ko"), modules("new/x/a.ko", "new/z/a.ko")
    assert rules(compare_trees(old, new, ("old", "new"))) == ["diff-module-removed", "diff-module-added"]


def test_a_module_that_cannot_be_read_is_not_said_to_be_gone() -> None:
    old = modules("old/a.ko")
    new = [Digest("new/a.ko", None, {}, UsageError("x"))]
    assert compare_trees(old, new, ("old", "new")) == []


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """The small kernel with one function enabled: its record has left the table."""
    assert run(["enable", str(CALLOPS), "--func", "vfs_read", "-o", str(tmp_path / "lost")]) == 0
    return tmp_path / "lost"


def test_equal_builds_have_no_difference_and_exit_code_0(ftpatch: Callable[..., str]) -> None:
    assert ftpatch("diff", CALLOPS, CALLOPS).endswith("  result     no difference for tracing\n")


def test_a_patched_function_is_lost_and_its_place_is_told(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(CALLOPS), str(lost)]) == 1
    out = capsys.readouterr().out
    why = "its site is enabled on disk, and no record names it (.text+0x3b8)"
    assert f"  no longer traceable: 1\n    vfs_read is no longer traceable: {why}\n" in out
    assert "    at boot: listed: 12 -> 11 (-1)\n" in out


def test_fail_on_decides_the_exit_code_alone(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in CLASSES:
        code = run(["diff", str(CALLOPS), str(lost), "--fail-on", name])
        shown[name] = (code, capsys.readouterr().out)
    assert {name for name, (code, _) in shown.items() if code} == {"lost", "count"}
    assert len({out for _, out in shown.values()}) <= 3  # the order follows what fails, the content does not


def test_every_class_of_fail_on_is_one_of_the_rules() -> None:
    assert {rule.id.split("-")[1] for rule in rules_for("diff")} == set(CLASSES)


@pytest.mark.parametrize("format_", ["json", "sarif", "junit", "ktap", "markdown", "github", "csv"])
def test_every_format_ends_with_the_same_exit_code(lost: Path, format_: str) -> None:
    assert run(["diff", str(CALLOPS), str(lost), "--format", format_]) == 1
    assert run(["diff", str(CALLOPS), str(lost), "--format", format_, "--fail-on", "gained"]) == 0


def test_the_json_has_findings_and_what_was_compared(lost: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(CALLOPS), str(lost), "--format", "json", "--fail-on", "lost"]) == 1
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert (image["file"], image["compared"]["file"], image["sites"]) == (str(lost), str(CALLOPS), [])
    assert [one["severity"] for one in image["findings"]] == ["error"] + ["note"] * (len(image["findings"]) - 1)
    assert image["findings"][0]["function"] == "vfs_read"


def test_two_trees_are_compared_module_by_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "kernel").mkdir(parents=True)
        shutil.copyfile(MINI / "mini.ko", tmp_path / name / "kernel" / "same.ko")
    shutil.copyfile(MINI / "mini.ko", tmp_path / "old" / "kernel" / "gone.ko")
    shutil.copyfile(MINI / "mini.ko", tmp_path / "old" / "less.ko")
    assert run(["drop", str(MINI / "mini.ko"), "--func", "mini_step", "-o", str(tmp_path / "new" / "less.ko")]) == 0
    capsys.readouterr()
    assert run(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'new'}: 2 modules changed"
    assert "  modules gone: 1 in 1 modules" in lines
    assert any(line.startswith("    less.ko: mini_step@mini_mod.c is no longer traceable: ") for line in lines)
    assert not any("same.ko" in line for line in lines)


def test_a_tree_and_a_file_are_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(tmp_path), str(CALLOPS)]) == 2
    assert "a tree and a file cannot be compared" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert run(["diff", str(CALLOPS), str(tmp_path / "none")]) == 3


@pytest.mark.corpus
@pytest.mark.parametrize(("old", "new"), [("arm64-6.1", "arm64-6.12"), ("ppc64le-6.1", "ppc64le-6.12")])
def test_two_real_kernels_differ_by_their_figures_and_sum_up(
    kernel: Callable[[str], Kernel], old: str, new: str
) -> None:
    """What came minus what went is the difference of the live records that have a name."""
    sides = [digest_file(Request(), str(kernel(name).vmlinux)) for name in (old, new)]
    found = compare_files(*sides).findings
    assert found[0].rule == "diff-layout"
    names = [sum(site.state == "traceable" for sites in side.functions.values() for site in sites) for side in sides]
    sign = {"diff-added": 1, "diff-gained": 1, "diff-removed": -1, "diff-lost": -1}
    assert sum(sign.get(one.rule, 0) * one.count for one in found) == names[1] - names[0]
