"""One function from bytes to verdict, the class of every edit, and why a name has no site."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from elfwriter import MINI

from ftpatch import api
from ftpatch.arch import Arch, architectures
from ftpatch.cli import run
from ftpatch.elf import debug_names
from ftpatch.elf.clone_names import base_name
from ftpatch.explanation.code import name_at
from ftpatch.plan import liveness
from tools.kernels import Kernel

MINI_PPC = MINI.parent / "mini-ppc64le"
SPLATS = MINI.parent / "splats"
SCHEMA = json.loads((Path(api.__file__).parents[1] / "report" / "schema.json").read_text())


@pytest.fixture
def explained(ftpatch: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """The IMAGE object of one `explain`."""

    def call(*arguments: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ftpatch("explain", *arguments, "--format", "json"))["images"][0]
        return found

    return call


def test_the_whole_story_of_one_function(ftpatch: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MINI)
    assert ftpatch("explain", "direct_only", "vmlinux-callops-bti") == STORY


STORY = """\
direct_only@a.c: traceable: a live record names its site, which is as the kernel expects it
  file       vmlinux-callops-bti, arm64 vmlinux
  symbol     direct_only, local of a.c, at 0xffff8000800007b0, 28 bytes
  record     row 10: slot at 0xffff800080020060, file position 12384, worth 0xffff8000800007a8
             its value is the word itself, moved by the packed table (RELR); the word there is 0xffff8000800007a8
  place      .text+0x3b0, file position 6064
  addresses  entry 0xffff8000800007b0, site 0xffff8000800007b0, call 0xffff8000800007b4
  layout     callops: two NOPs behind the entry, an ops pointer in front of it (-fpatchable-function-entry=4,2)
  site
    ffff8000800007a8  d503201f  pointer               ->  80000a30  pointer   <- record
    ffff8000800007ac  d503201f  pointer               ->  ffff8000  pointer
    ffff8000800007b0  d503201f  nop                   ->  aa1e03e9  mov x9, x30   <- entry
    ffff8000800007b4  d503201f  nop                   ->  97ffff13  bl 0xffff800080000400 <ftrace_caller>   <- call
    ffff8000800007b8  a9408002  ldp x2, x0, [x0, #8]
    ffff8000800007bc  cb000040  sub x0, x2, x0
  enable     call ftrace_caller, -0x3b4 bytes away
  ops        ftrace_list_ops by literal
  record     null: the table has 3 null slots already
  live       pair: not in one step: the first word everywhere, and only then the call
             ops pointer 0xd503201fd503201f -> 0xffff800080000a30: literal, yes: one aligned store of eight
             bytes; it has to be there before the call is
             word in front of the call 0xd503201f -> 0xaa1e03e9: boot-only, no: this word may be changed only
             where nobody executes it; the kernel does it before other processors run, or before a module's code
             does
             call 0xd503201f -> 0x97ffff13: single, yes: one aligned word, and these instructions may be
             exchanged while others execute them; then the caches are cleaned and invalidated
  in all     no: nop -> mov x9, x30 may be changed only where nobody executes it. But for that, in this order:
             1. ops pointers, one aligned store of eight bytes each
             2. the first word of each site, where nobody executes it: before other processors run or the code
             does, or with all of them stopped; then every processor synchronises its instruction fetch
             3. the call of each site, one aligned word
"""


@pytest.mark.parametrize(
    ("path", "name", "texts"),
    [
        (MINI / "vmlinux-callops", "vfs_read", ["mov x9, x30", "bl 0x{ftrace_caller:x} <ftrace_caller>"]),
        (MINI / "vmlinux-pfe2-bti", "vfs_read", ["mov x9, x30", "bl 0x{ftrace_caller:x} <ftrace_caller>"]),
        (MINI_PPC / "vmlinux-pfe2", "vfs_read", ["mflr r0", "bl 0x{ftrace_caller:x} <ftrace_caller>"]),
        (MINI_PPC / "vmlinux-mprofile", "vfs_read", ["bl 0x{ftrace_caller:x} <ftrace_caller>"]),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_the_words_that_enable_would_write_are_those_that_it_writes(
    explained: Callable[..., dict[str, Any]], tmp_path: Path, path: Path, name: str, texts: list[str]
) -> None:
    (told,) = explained(name, path)["explained"]
    words = told["code"][0]["words"]
    image = api.scan(str(path)).image
    symbols = {"ftrace_caller": image.symbols.value("ftrace_caller")}
    new = [one["new_text"] for one in words if one["new_word"] and one["new_text"] != "pointer"]
    assert new == [text.format(**symbols) for text in texts]
    out = tmp_path / "out"
    assert run(["enable", str(path), "--func", name, "-o", str(out)]) == 0
    after = api.scan(str(out)).image
    for one in words:
        pos = after.pos_of_va(int(one["va"], 16))
        assert int(after.word_at(np.array([pos]))[0]) == int(one["new_word"] or one["word"], 16)


def test_the_record_tells_where_its_value_lives(explained: Callable[..., dict[str, Any]]) -> None:
    kinds = {"vmlinux-callops": "relr", "vmlinux-pfe2": "rela", "vmlinux-exec": "word", "mini.ko": "section"}
    for file, carrier in kinds.items():
        name = "vfs_read" if file != "mini.ko" else "mini_step"
        (told,) = explained(name, MINI / file)["explained"]
        assert (told["slot"]["carrier"], told["slot"]["relocation"] is not None) == (carrier, carrier == "rela")


def test_functions_of_one_name_are_all_explained_and_told_apart(
    ftpatch: Callable[..., str], explained: Callable[..., dict[str, Any]]
) -> None:
    found = explained("init_once", MINI / "vmlinux-callops")
    assert [one["symbols"][0]["file"] for one in found["explained"]] == ["b.c", "a.c"]
    assert [site["row"] for site in found["sites"]] == [one["row"] for one in found["explained"]]
    (one,) = explained("init_once@b.c", MINI / "vmlinux-callops")["explained"]
    assert one["symbols"][0]["file"] == "b.c"


def test_init_text_is_listed_for_a_while_only(explained: Callable[..., dict[str, Any]]) -> None:
    (told,) = explained("a_setup", MINI / "vmlinux-callops")["explained"]
    assert told["verdict"].endswith("; listed until init memory is freed at the end of boot")


def test_a_refusal_is_part_of_the_explanation(explained: Callable[..., dict[str, Any]]) -> None:
    (told,) = explained("vfs_read", MINI_PPC / "vmlinux-gcc12")["explained"]
    assert told["patch"] is told["concurrency"] is None
    assert "layout pfe2-global cannot be enabled on disk" in told["refused"]


def test_a_patched_site_is_explained_as_such(explained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for way, text in (
        ("auto", "without a record"),
        ("keep", "its record is live: the kernel will raise an ftrace bug"),
    ):
        out = tmp_path / way
        assert (
            run(["enable", str(MINI / "vmlinux-callops"), "--func", "vfs_read", "--records", way, "-o", str(out)]) == 0
        )
        (told,) = explained("vfs_read", out)["explained"]
        assert told["verdict"].startswith("enabled on disk, ")
        assert text in told["verdict"]


def test_a_leftover_has_no_name_but_one_in_the_kernels_list(explained: Callable[..., dict[str, Any]]) -> None:
    one = api.scan(str(MINI / "vmlinux-pfe2"))
    row = int(np.flatnonzero(one.sites.func == one.sites.func_end)[0])
    found = explained(f"row:{row}", MINI / "vmlinux-pfe2")
    assert found["explained"][0]["verdict"].startswith("code of a dead weak function")
    assert found["sites"][0]["listed_as"]


def test_an_out_of_line_site_shows_its_stub(explained: Callable[..., dict[str, Any]]) -> None:
    (told,) = explained("vfs_read", MINI_PPC / "vmlinux-ool")["explained"]
    site, stub = told["code"]
    assert [one["new_text"] for one in stub["words"]][2:5:2] == ["mflr r0", "mtlr r0"]
    assert told["concurrency"] == {"class": "single", "live": True, "text": liveness.LIVE["single"][1]}
    assert [one["class"] for one in told["edits"]] == ["literal", "single"]
    assert site["what"] == "site"


def test_an_address_has_the_name_of_its_function_and_the_offset_in_it() -> None:
    image = api.scan(str(MINI / "vmlinux-callops")).image
    va = int(image.symbols.value("vfs_read") or 0)
    assert [name_at(image, va + off) for off in (0, 4)] == ["vfs_read", "vfs_read+0x4"]
    assert name_at(image, 0x1234) == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("explain", "init_once", MINI / "vmlinux-callops"), 0),
        (("explain", "vfs_read", MINI / "vmlinux-pg"), 0),
        (("explain", "vfs_read", MINI_PPC / "vmlinux-far"), 0),
        (("explain", "mini_step", MINI / "mini.ko"), 0),
        (("explain", "row:0", MINI / "vmlinux-callops"), 0),
        (("explain", "ftrace_caller", MINI / "vmlinux-callops"), 0),
        (("explain", "nobody", MINI / "vmlinux-callops"), 5),
        (("explain", "--splat", SPLATS / "arm64-6.12.txt", MINI / "vmlinux-callops"), 0),
        (("explain", "--splat", SPLATS / "ppc64le-6.1.txt", MINI / "mini.ko"), 0),
        (("diff", MINI / "vmlinux-callops", MINI / "vmlinux-pfe2"), 1),
        (("diff", MINI, MINI_PPC), 2),
        (("diff", MINI, MINI), 0),
    ],
    ids=lambda value: " ".join(str(getattr(one, "name", one)) for one in value) if isinstance(value, tuple) else "",
)
def test_the_json_of_diff_and_explain_keeps_the_schema(
    arguments: tuple[object, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*map(str, arguments), "--format", "json"]) == code
    out = capsys.readouterr().out
    if code != 2:
        jsonschema.validate(json.loads(out), SCHEMA)


# -- classes -------------------------------------------------------------------------------------------------------


def arch_named(name: str) -> Arch:
    return next(arch for arch in architectures() if arch.name == name)


NOP, MOV, BL, B = 0xD503201F, 0xAA1E03E9, 0x97FF0000, 0x14000001
PNOP, MFLR, PBL, PB = 0x60000000, 0x7C0802A6, 0x4BFF0001, 0x48000010


@pytest.mark.parametrize(
    ("arch", "old", "new", "kind"),
    [
        ("arm64", NOP, BL, "single"), ("arm64", BL, NOP, "single"), ("arm64", BL, B, "single"),
        ("arm64", NOP, 0xD4200000, "single"), ("arm64", NOP, MOV, "boot-only"), ("arm64", MOV, NOP, "boot-only"),
        ("ppc64le", PNOP, PB, "single"), ("ppc64le", PBL, PBL ^ 0x100, "single"), ("ppc64le", PNOP, MFLR, "boot-only"),
    ],
)  # fmt: skip
def test_only_a_few_instructions_may_be_exchanged_under_execution(arch: str, old: int, new: int, kind: str) -> None:
    assert liveness.of_word(arch_named(arch), 0x1000, old, new) == kind


def test_a_misaligned_word_is_no_single_store() -> None:
    assert liveness.of_word(arch_named("arm64"), 0x1002, NOP, BL) == "boot-only"
    assert liveness.of_literal(0x1004) == "unsafe"
    assert liveness.of_literal(0x1008) == "literal"


@pytest.mark.parametrize(
    ("arch", "va", "words", "kind"),
    [
        ("arm64", 0x1000, 2, "pair"), ("arm64", 0x103C, 2, "cross-line"), ("arm64", 0x1038, 2, "pair"),
        ("ppc64le", 0x103C, 2, "pair"), ("ppc64le", 0x107C, 2, "cross-line"), ("ppc64le", 0x107C, 1, ""),
    ],
)  # fmt: skip
def test_a_pair_in_two_cache_lines_is_told(arch: str, va: int, words: int, kind: str) -> None:
    assert liveness.of_site(arch_named(arch), va, words) == kind


# -- why not -------------------------------------------------------------------------------------------------------


def test_a_function_without_site_is_said_to_be_compiled_so(explained: Callable[..., dict[str, Any]]) -> None:
    absent = explained("ftrace_caller", MINI / "vmlinux-callops")["absent"]
    assert absent["text"] == "compiled without a patch site: notrace, assembly, or a file without the tracer's flags"


def test_nops_without_a_record_are_told(explained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "dropped"
    assert run(["drop", str(MINI / "vmlinux-callops"), "--func", "vfs_read", "-o", str(out)]) == 0
    absent = explained("vfs_read", out)["absent"]
    assert [one["state"] for one in absent["symbols"]] == ["unlisted"]
    assert "no record names it: dropped from the table" in absent["text"]


def test_data_is_no_function(explained: Callable[..., dict[str, Any]]) -> None:
    absent = explained("ftrace_list_ops", MINI / "vmlinux-callops")["absent"]
    assert absent["text"] == "no function symbol but data, in .rodata"


def test_a_typo_brings_near_names_and_exit_code_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "vfs_raed", str(MINI / "vmlinux-callops")]) == 5
    out, err = capsys.readouterr()
    assert "  near       vfs_read\n" in out
    assert err.startswith("ftpatch: vfs_raed: nothing of that name")


def test_a_name_that_a_module_only_uses_is_elsewhere(explained: Callable[..., dict[str, Any]]) -> None:
    image = api.scan(str(MINI / "mini.ko")).image
    used = next(image.symbols.name(row) for row in np.flatnonzero(image.symbols.shndx == 0).tolist() if row)
    assert explained(used, MINI / "mini.ko")["absent"]["imported"]


def test_a_tree_of_modules_is_searched(explained: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "mini.ko").write_bytes((MINI / "mini.ko").read_bytes())
    absent = explained("mini_step", MINI / "vmlinux-callops", "--modules", tmp_path)["absent"]
    assert absent["modules"] == [str(tmp_path / "mini.ko")]
    assert absent["text"] == f"it is in {tmp_path / 'mini.ko'}"


def test_selectors_that_name_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for selector in ("none_*", "row:99999", "0x1"):
        assert run(["explain", selector, str(MINI / "vmlinux-callops")]) == 5
    assert run(["explain"]) == run(["explain", "a", "b", "c"]) == 2
    capsys.readouterr()


def test_a_name_in_a_file_without_debug_information_may_be_inlined(explained: Callable[..., dict[str, Any]]) -> None:
    image = api.scan(str(MINI / "vmlinux-callops")).image
    assert debug_names.find(image, "anything") == debug_names.DebugMention(
        "no debug information in this file", False, ()
    )


@pytest.mark.parametrize(
    ("name", "base"),
    [("f", "f"), ("f.isra.0", "f"), ("f.part.0.isra.1", "f"), ("f.constprop.2", "f"), ("f.cold", "f"), ("a.b", "a.b"),
     ("f.llvm.12345", "f"), ("f.island", "f.island")],
)  # fmt: skip
def test_the_compilers_suffixes_are_taken_off(name: str, base: str) -> None:
    assert base_name(name) == base


# -- real kernels --------------------------------------------------------------------------------------------------


@pytest.mark.corpus
def test_debug_information_of_a_real_kernel_tells_what_is_inlined(kernel: Callable[[str], Kernel]) -> None:
    image = api.scan(str(kernel("arm64-6.12").vmlinux)).image
    found = debug_names.find(image, "list_add")
    assert len(found.functions) > 100
    assert all(one.inlined and one.line for one in found.functions)
    assert sum(one.copies for one in found.functions) > 500
    assert debug_names.find(image, "no_such_function") == debug_names.DebugMention("", False, ())


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid"])
def test_a_renamed_function_of_a_real_kernel_is_found(
    kernel: Callable[[str], Kernel], ftpatch: Callable[..., str], name: str
) -> None:
    vmlinux = kernel(name).vmlinux
    image = api.scan(str(vmlinux)).image
    names = {image.symbols.name(int(row)) for row in image.functions.row}
    cut = sorted({base_name(one) for one in names if ".part." in one} - names)
    told = ftpatch("explain", cut[0], vmlinux)
    assert f"only {cut[0]}.part." in told or told.startswith(f"{cut[0]}: traceable as {cut[0]}.")


@pytest.mark.corpus
def test_a_real_site_has_its_source_line(kernel: Callable[[str], Kernel], ftpatch: Callable[..., str]) -> None:
    told = ftpatch("explain", "vfs_read", kernel("arm64-6.12").vmlinux)
    assert "  source     fs/read_write.c:" in told
    assert "bl 0x" in told and "<ftrace_caller>" in told


def test_a_function_that_is_not_of_that_file_is_not_called_traceable(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason why vfs_read@x.c was not found was that a live record names its site."""
    assert run(["explain", "vfs_read@x.c", str(MINI / "vmlinux-callops")]) == 0
    why = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  why "))
    assert why == "  why        the symbol table does not tell that file of it; without @, vfs_read is found"
