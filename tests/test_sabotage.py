"""Damage that is no slip of a bit: whole parts added, grown or exchanged, and a seeded campaign of anything at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from ftpatch.cli import run
from ftpatch.container.wrappings import MARKER
from ftpatch.elf import tables as t
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file
from tools.sabotage import grown
from tools.sabotage.__main__ import quietly
from tools.sabotage.campaign import ROOT, Result, campaign, fixtures, results
from tools.sabotage.layout import Layout, layout_of

ARM64, PPC64LE = ROOT / "mini/mini.ko", ROOT / "mini-ppc64le/mini.ko"
HOOK = ("--func", "row:0", "--func", "row:1", "--hook", "_printk")
CODE = {"sh_type": t.SHT_PROGBITS, "sh_flags": t.SHF_ALLOC | t.SHF_EXECINSTR, "sh_addralign": 16}
DATA = {"sh_type": t.SHT_PROGBITS, "sh_flags": t.SHF_ALLOC | t.SHF_WRITE, "sh_addralign": 8}
RET = 0xD65F03C0.to_bytes(4, "little")


def patched(folder: Path, before: Path, *options: str) -> Path:
    after = folder / "after.ko"
    assert run(["enable", str(before), *options, "-o", str(after)]) == 0
    return after


def found(before: Path, after: Path) -> list[str]:
    """What `verify` says against a file, without the emulator."""
    proof = prove(scan_file(str(before)), open_image(str(after)), checks=Checks(execute=False))
    return [f"{finding.rule}: {finding.message}" for finding in proof.findings]


def put(layout: Layout, row: int, field: str, value: int) -> None:
    rows = np.frombuffer(bytes(layout.grow(layout.symtab)), t.SYM).copy()
    rows[field][row] = value
    layout.grow(layout.symtab)[:] = rows.tobytes()


def named(layout: Layout, name: str) -> int:
    """The section of a name, by the names that it has now."""
    names = bytes(layout.grow(layout.shstrtab))
    starts = [int(head["sh_name"]) for head in layout.shdr]
    return next(sec for sec, at in enumerate(starts) if names[at : names.find(b"\0", at)] == name.encode())


def text_again(layout: Layout) -> None:
    layout.section(".text.ftpatch", CODE, RET * 4)


def text_again_with_symbol(layout: Layout) -> None:
    layout.symbol("ftpatch_call", layout.section(".text.ftpatch", CODE, RET * 4), 0, 16, 0x12)


def data_again(layout: Layout) -> None:
    layout.symbol("ftpatch_ops", layout.section(".data.ftpatch", DATA, bytes(256)), 0, 256, 0x11)


def code_grown(layout: Layout) -> None:
    layout.content[named(layout, ".text.ftpatch")] += RET


def code_and_symbol_grown(layout: Layout) -> None:
    code_grown(layout)
    rows = np.frombuffer(bytes(layout.grow(layout.symtab)), t.SYM)
    put(layout, len(rows) - 1, "st_size", int(rows["st_size"][-1]) + 4)


def last_symbol(field: str, value: int) -> Callable[[Layout], None]:
    return lambda layout: put(layout, len(layout.grow(layout.symtab)) // t.SYM.itemsize - 1, field, value)


def header(section: str, field: str, value: int) -> Callable[[Layout], None]:
    def change(layout: Layout) -> None:
        layout.shdr[named(layout, section)][field] = value

    return change


def numbers(layout: Layout) -> None:
    layout.section(".symtab_shndx", {"sh_type": 18, "sh_link": layout.symtab, "sh_addralign": 4, "sh_entsize": 4},
                   b"payload." * (len(layout.grow(layout.symtab)) // 48))  # fmt: skip


def strings(layout: Layout) -> None:
    layout.grow(layout.strtab).extend(b"payload\0")


def section_names(layout: Layout) -> None:
    layout.grow(layout.shstrtab).extend(b"payload\0")


def undefined(layout: Layout) -> None:
    layout.symbol("evil", 0)


def behind(layout: Layout) -> None:
    layout.behind = b"payload."


def in_front(layout: Layout) -> None:
    layout.between[min(layout.content)] = b"payload."


def modinfo(old: bytes, new: bytes) -> Callable[[Layout], None]:
    def change(layout: Layout) -> None:
        content = layout.grow(named(layout, ".modinfo"))
        assert old in content
        content[:] = content.replace(old, new)

    return change


def words_of_records(layout: Layout) -> None:
    layout.grow(named(layout, "__patchable_function_entries"))[:8] = b"payload."


# (what is done to a module whose sites call a hook, one thing that verify says)
DONE: dict[str, tuple[Callable[[Layout], object], str]] = {
    "another .text.ftpatch": (text_again,
                              "verify-stub: .text.ftpatch: 16 bytes at the end belong to no code of the patch"),
    "… with a symbol": (text_again_with_symbol, "verify-symbol: new symbol 47 ftpatch_call is used by nothing"),
    "another .data.ftpatch": (data_again, "verify-symbol: new symbol 47 ftpatch_ops is used by nothing"),
    "more code": (code_grown, "verify-stub: .text.ftpatch: 4 bytes at the end belong to no code of the patch"),
    "more code, a larger symbol": (code_and_symbol_grown,
                                   "verify-stub: .text.ftpatch: ftpatch_call has 88 bytes, expected 84"),
    "st_size": (last_symbol("st_size", 80), "verify-stub: .text.ftpatch: ftpatch_call has 80 bytes, expected 84"),
    "st_info": (last_symbol("st_info", 0x22), "verify-symbol: new symbol 46 ftpatch_call is not simply global"),
    "st_type": (last_symbol("st_info", 0x1A), "verify-symbol: new symbol 46 ftpatch_call has type 10, expected 2"),
    "st_other": (last_symbol("st_other", 2), "verify-symbol: new symbol 46 ftpatch_call is not simply global"),
    "st_shndx": (last_symbol("st_shndx", 0xFFF1),
                 "verify-symbol: new symbol 46 ftpatch_call lies in no section of the file (st_shndx 0xfff1)"),
    "a symbol": (undefined, "verify-symbol: new symbol 47 evil is used by nothing"),
    "section numbers": (numbers, "verify-section: .symtab_shndx is new, and no new symbol needs it"),
    "a string": (strings, "verify-symbol: .strtab: 8 bytes at 0xef are not the name of one new symbol or section"),
    "a section's name": (section_names,
                         "verify-symbol: .shstrtab: 8 bytes at 0xfe are not the name of one new symbol or section"),
    "bytes behind the headers": (behind, "verify-byte: 8 bytes at the end, from 0x21e0 on, belong to no section"),
    "bytes in front of a table": (in_front, "verify-byte: not all of the 3680 bytes at file position 0x1380 belong to "
                                  "a section or to a patch that was made before"),
    "an alignment": (header(".text.ftpatch", "sh_addralign", 8), "verify-section: new section 23 .text.ftpatch is none "
                     "that a patch makes: type 1, flags 0x6, address, alignment, link, info, entry size 0x0, 0x8, 0x0, "
                     "0x0, 0x0"),
    "writable code": (header(".text.ftpatch", "sh_flags", 7), "verify-section: new section 23 .text.ftpatch is none "
                      "that a patch makes: type 1, flags 0x7, address, alignment, link, info, entry size 0x0, 0x10, "
                      "0x0, 0x0, 0x0"),
    "a string in .modinfo": (modinfo(b"license=GPL\0", b"license=GPL\0softdep=pre: evil\0"),
                             "verify-section: .modinfo: string 5 was '', is 'softdep=pre: evil'"),
    "a name in depends=": (modinfo(b"depends=\0", b"depends=evil\0"),
                           "verify-section: .modinfo: depends= became depends=evil, for 0 new symbols of other files"),
    "words under records": (words_of_records, "verify-record: section 14 __patchable_function_entries has words that "
                            "it did not have, under its relocations"),
}  # fmt: skip


@pytest.mark.parametrize("name", DONE)
def test_what_nobody_planned_is_found_wherever_it_is(name: str, tmp_path: Path) -> None:
    change, says = DONE[name]
    after = patched(tmp_path, ARM64, *HOOK)
    layout = layout_of(open_image(str(ARM64)), open_image(str(after)))
    change(layout)
    after.write_bytes(layout.assembled())
    assert says in found(ARM64, after)


def test_a_module_that_is_taken_apart_and_not_changed_is_as_it_was(tmp_path: Path) -> None:
    """What the tests above change is all that differs."""
    for before in (ARM64, PPC64LE):
        after = patched(tmp_path, before, *HOOK)
        assert layout_of(open_image(str(before)), open_image(str(after))).assembled() == after.read_bytes()
        assert found(before, after) == []


@pytest.mark.parametrize("seed", range(4))
def test_headers_of_a_patch_that_never_was_hide_nothing(seed: int, tmp_path: Path) -> None:
    """The bytes behind the original ones were taken for those of an earlier patch, where section headers named them."""
    after = patched(tmp_path, ARM64, *HOOK)
    result = next(results([("", ARM64, (("enable", *HOOK),))], tmp_path))
    layout = layout_of(result.victim.before, result.victim.after)
    assert grown.fake_tail(layout, result.victim, Random(seed))
    after.write_bytes(layout.assembled())
    assert found(ARM64, after)


# -- several steps on one file -----------------------------------------------------------------------------------------

STEPS = {name: steps for name, _, steps in fixtures() if len(steps) > 1}


@pytest.mark.parametrize("name", STEPS)
def test_several_steps_are_sound_against_the_first_file(name: str, tmp_path: Path) -> None:
    """Tables of earlier patches, which nothing names any more, are what a patch can have left."""
    (made,) = results([fixture for fixture in fixtures() if fixture[0] == name], tmp_path)
    proof = prove(made.before, open_image(str(made.victim.path)), checks=Checks(execute=False))
    assert proof.findings == ()
    left = "code of an earlier patch that no site calls any more leads to _printk"
    assert (left in proof.notes) == ("disabled" in name)


def test_a_byte_in_what_an_earlier_patch_left_is_found(tmp_path: Path) -> None:
    (made,) = results([fixture for fixture in fixtures() if fixture[0] == "mini/mini.ko twice"], tmp_path)
    start, missed = len(made.before.image.data), []
    for pos in range(start, len(made.sound), 37):
        made.victim.path.write_bytes(made.sound[:pos] + bytes([made.sound[pos] ^ 0x11]) + made.sound[pos + 1 :])
        try:
            if not prove(
                made.before, open_image(str(made.victim.path)), checks=Checks(execute=False, deep=None)
            ).findings:
                missed.append(pos)
        except Exception as error:
            assert type(error).__name__ == "ElfError"
    assert missed == []


# -- the verdict -------------------------------------------------------------------------------------------------------


def verdict(before: Path, after: Path, *options: str) -> tuple[dict[str, object], str]:
    """The proof of a verify as JSON, and its lines of text."""
    code, text = quietly(["verify", str(before), str(after), "--format", "json", *options])
    assert code == 0
    return json.loads(text)["images"][0]["proof"], quietly(["verify", str(before), str(after), *options])[1]


@pytest.mark.parametrize(("before", "options", "callees", "line"), [
    (ARM64, HOOK, {"_printk": 2}, "  callees    _printk 2"),
    (ARM64, HOOK[:4], {"ftrace_caller": 2}, "  callees    ftrace_caller 2"),
    (PPC64LE, HOOK, {"_printk": 2}, "  callees    _printk 2"),
    (ROOT / "mini/vmlinux-exec", ("--func", "row:8", "--target", "ftrace_regs_caller"), {"ftrace_regs_caller": 1},
     "  callees    ftrace_regs_caller 1"),
    (ROOT / "mini/vmlinux-callops", ("--func", "row:8", "--func", "row:9"), {"ftrace_caller": 2},
     "  callees    ftrace_caller 2"),
])  # fmt: skip
def test_the_verdict_names_what_is_called(
    before: Path, options: tuple[str, ...], callees: dict[str, int], line: str, tmp_path: Path
) -> None:
    proof, text = verdict(before, patched(tmp_path, before, *options))
    assert proof["callees"] == callees
    assert line in text.splitlines()
    assert proof["ops"] == ({"ftrace_list_ops": 2} if before.name == "vmlinux-callops" else {})


@pytest.mark.parametrize("before", [ARM64, PPC64LE], ids=lambda path: path.parent.name)
@pytest.mark.parametrize("name", ["panic", "do_exit"])
def test_a_stub_that_calls_panic_is_found_by_name(name: str, before: Path, tmp_path: Path) -> None:
    """The symbol that the patch imported gets another name; it is as long as its string table lets it be."""
    after = patched(tmp_path, before, *HOOK)
    layout = layout_of(open_image(str(before)), open_image(str(after)))
    symbols = open_image(str(after)).symbols
    row = int(symbols.rows_named("_printk")[0])
    put(layout, row, "st_name", layout.string(layout.strtab, name))
    after.write_bytes(layout.assembled())
    assert any(f"it calls {name}, which never returns" in line for line in found(before, after))


# -- signatures --------------------------------------------------------------------------------------------------------


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes(max((len(body).bit_length() + 7) // 8, 1), "big")
    return bytes([tag, *([len(body)] if len(body) < 128 else [0x80 | len(size), *size])]) + body


OID_SIGNED, OID_DATA = (bytes.fromhex(f"2a864886f70d0107{end}") for end in ("02", "01"))
SHA256 = der(0x30, der(6, bytes.fromhex("608648016503040201")))
RSA = der(0x30, der(6, bytes.fromhex("2a864886f70d010101")), der(5))
NAME = der(0x30, der(0x31, der(0x30, der(6, bytes.fromhex("550403")), der(0x0C, b"somebody"))))
VERSION = der(2, b"\1")


def signature(*, signer: bytes = b"", content: bytes = b"", more: bytes = b"", value: bytes = bytes(256)) -> bytes:
    """An appended signature as sign-file makes it, but for what is given."""
    signer = signer or der(0x30, VERSION, der(0x30, NAME, der(2, b"\7")), SHA256, RSA, der(4, value), more)
    data = der(0x30, der(6, OID_DATA), content)
    message = der(0x30, der(6, OID_SIGNED), der(0xA0, der(0x30, VERSION, der(0x31, SHA256), data, der(0x31, signer))))
    return message + bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(message).to_bytes(4, "big") + MARKER


BLOB = der(0x30, bytes(100_000))
NOT_SIGNED = "verify-signature: the appended signature is no PKCS#7 message as the kernel takes it: "


@pytest.mark.parametrize(("trailer", "why"), [
    (BLOB + bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(BLOB).to_bytes(4, "big") + MARKER,
     "it has the parts 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0, expected 0x6, 0xa0"),
    (signature(content=der(0xA0, der(4, bytes(100_000)))), "it has data of its own"),
    (signature(more=der(0xA1, bytes(100_000))), "what it says of its signer is more, or less, than who and how"),
    (signature(value=bytes(100_000)), "its signature has 100000 bytes"),
    (signature(signer=der(0x30, VERSION)), "it does not say who signed"),
    (signature(signer=der(0x30, VERSION, der(0x30, NAME, der(2, b"\7")), RSA, RSA, der(4, bytes(256)))),
     "it names no digest that the kernel knows"),
    (signature(signer=der(0x30, VERSION, der(0x30, NAME, der(2, bytes(3000))), SHA256, RSA, der(4, bytes(256)))),
     "what it says of its signer is more, or less, than who and how"),
    (signature(signer=der(0x30, VERSION, der(0x30, NAME, der(2, b"\7")), SHA256,
               der(0xA0, der(0x30, der(6, bytes.fromhex("2a864886f70d010904")), der(0x31, der(4, bytes(32))))), RSA,
               der(4, bytes(256)))), "the digest that it states is not that of the file"),
])  # fmt: skip
def test_what_is_no_signature_is_told_by_its_content(trailer: bytes, why: str, tmp_path: Path) -> None:
    """A blob of 100 KB with the frame of a signature around it was taken for one."""
    after = patched(tmp_path, ARM64, *HOOK)
    after.write_bytes(after.read_bytes() + trailer)
    assert found(ARM64, after) == [NOT_SIGNED + why]


def test_a_signature_by_an_unknown_key_is_said_to_be_not_checked(tmp_path: Path) -> None:
    after = patched(tmp_path, ARM64, *HOOK)
    after.write_bytes(after.read_bytes() + signature())
    proof, _ = verdict(ARM64, after)
    who = "signed with sha256 by somebody, serial 0x7"
    assert proof["notes"] == [f"{who}: not checked, as the certificate is in neither file"]


# -- anything at all ---------------------------------------------------------------------------------------------------

SOME = ("mini/mini.ko hook", "mini/mini.ko twice", "mini/mini.ko jump", "mini-ppc64le/mini.ko hook",
        "mini-ppc64le/mini.ko enabled, disabled, enabled", "mini/vmlinux-callops two", "mini/vmlinux-exec all",
        "mini-ppc64le/vmlinux-ool two", "mini-ppc64le/vmlinux-far all", "mini/vmlinux-pfe2 dropped",
        "x86_64/vmlinux-fentry two", "x86_64/vmlinux-rela all but one", "x86_64/mini.ko twice")  # fmt: skip


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    made = list(results([fixture for fixture in fixtures() if fixture[0] in SOME], tmp_path_factory.mktemp("some")))
    assert [result.name for result in made] == [name for name, *_ in fixtures() if name in SOME]
    assert len(made) == len(SOME)
    return made


def test_of_random_damage_nothing_is_accepted_but_other_requests(some: list[Result]) -> None:
    """The seeded campaign in small; `python -m tools.sabotage --seed N --runs M` runs it at any length."""
    score = campaign(some, seed=5, runs=300)
    assert (score.runs, score.missed, score.crashed) == (300, [], [])
    assert len(score.found) >= 12
