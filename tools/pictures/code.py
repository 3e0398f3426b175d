"""What the pictures show of code: a site as the file has it, as the kernel leaves it at boot, and as it is enabled."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

import capstone
import numpy as np

import ftpatch
from ftpatch.arch import Arch
from ftpatch.arch.shape import Shape, Word
from ftpatch.document.explained import ExplainedRow, WordRow
from tools.pictures.svg import Cell

IDLE_OPS = "&ftrace_nop_ops"  # what an ops pointer holds while nobody traces the function
TESTDATA = Path(__file__).parent.parent.parent / "testdata"


@cache
def explained(file: str, function: str) -> tuple[Arch, Shape, ExplainedRow]:
    """The one site of a function in a file of testdata."""
    explanation = ftpatch.explain(str(TESTDATA / file), function)
    (site,) = explanation.sites
    shape = explanation.scan.sites.shape
    assert shape is not None
    return explanation.scan.arch, shape, site


def plain(text: str) -> str:
    """An instruction with names for addresses, numbers as short as they are."""
    text = re.sub(r"0x[0-9a-f]{3,} <(.*?)>", r"\1", text)
    text = text.replace(" (the loader fills in where)", " …")
    return re.sub(r"#?0x([0-9a-f])\b", lambda digit: str(int(digit[1], 16)), text)


def _decoder(arch: Arch) -> capstone.Cs:
    mode = sum(getattr(capstone, name) for name in arch.capstone[1:])
    if arch.capstone[0] == "CS_ARCH_PPC":
        mode |= capstone.CS_MODE_LITTLE_ENDIAN
    return capstone.Cs(getattr(capstone, arch.capstone[0]), mode)


def decoded(arch: Arch, code: bytes) -> str:
    """One instruction as text."""
    (instruction,) = _decoder(arch).disasm(code, 0)
    return f"{instruction.mnemonic} {instruction.op_str}".strip()


def left_at_boot(arch: Arch, shape: Shape) -> list[str]:
    """What each instruction of a site is in a running kernel that does not trace it: the words in front of the call as
    `enable` writes them, and a NOP for the call."""
    if shape.unit == 1:
        return [decoded(arch, bytes(word.bits for word in shape.nops))]
    nop = Word(arch.nop, text="nop")
    return [word.text for word in (*shape.new[:-1], nop)]


def _in_file(arch: Arch, word: WordRow) -> str:
    """What a word is before: of a pointer that is not filled yet, the instruction that is there."""
    if not int(word["word"], 16):
        return "zeros"
    if word["text"] == "pointer":
        return decoded(arch, int(word["word"], 16).to_bytes(4, "little"))
    return plain(word["text"])


def rows(arch: Arch, site: ExplainedRow, block: int, origin: int, at_boot: list[str]) -> list[list[Cell]]:
    """Table rows of one block of code: offset, in the file, at boot, when enabled, marks.

    origin: the address that offsets count from; at_boot: instructions of a running kernel, in order, of what changes.
    """
    table, states, patch = [], iter(at_boot), site["patch"]
    assert patch is not None
    for word in site["code"][block]["words"][:6]:
        offset = int(word["va"], 16) - origin
        label = f"{offset:+d}" if offset else "0"
        before, text = word["word"].removeprefix("0x"), _in_file(arch, word)
        boot, new = Cell(text), Cell(text)
        if word["new_word"] is not None:
            is_pointer = word["text"] == "pointer"
            then = f"&{patch['literal']}" if is_pointer else plain(word["new_text"] or "")
            if patch["stub"]:
                then = then.replace(patch["stub"], "the stub")
            new = Cell(f"{word['new_word'].removeprefix('0x')}  {then}", "new")
            boot_text = IDLE_OPS if is_pointer else next(states)
            boot = Cell(boot_text, "box" if boot_text == text else "new")
        table.append([Cell(label, ""), Cell(f"{before}  {text}"), boot, new, Cell(word["at"] or "", "")])
    return table


@cache
def record_values(file: str, function: str, way: str) -> list[int]:
    """What the kernel reads of each slot after one function was enabled with `--records WAY`; "" as the file is."""
    scan = ftpatch.scan(str(TESTDATA / file))
    if way:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/out"
            choose = ftpatch.by_selectors([function])
            ftpatch.enable(str(TESTDATA / file), ftpatch.Delivery(out), choose, records=way)
            scan = ftpatch.scan(out)
    return [int(value) for value in np.asarray(scan.records.value).tolist()]


@cache
def enabled(file: str, function: str, target: str) -> ExplainedRow:
    """The site of a function after `enable --target`."""
    with tempfile.TemporaryDirectory() as folder:
        out, choose = f"{folder}/out", ftpatch.by_selectors([function])
        ftpatch.enable(str(TESTDATA / file), ftpatch.Delivery(out), choose, target=target)
        (site,) = ftpatch.explain(out, function).sites
        return site


@cache
def addresses(file: str) -> dict[str, int]:
    """The address of each symbol."""
    listed = ftpatch.symbols(str(TESTDATA / file))
    names = [listed.image.symbols.name(row) for row in listed.row.tolist()]
    return dict(zip(names, listed.address.tolist(), strict=True))


@cache
def static_call_words(function: str) -> tuple[str, str, str]:
    """Bytes of the first call of `clock`, of its trampoline's jump, and the key's pointer: before or after `--set`."""
    file = str(TESTDATA / "static_calls/vmlinux")
    places = addresses("static_calls/vmlinux")
    with tempfile.TemporaryDirectory() as folder:
        if function:
            ftpatch.set_static_calls(file, ftpatch.Delivery(f"{folder}/out"), [("clock", function)])
            file = f"{folder}/out"
        table = ftpatch.static_calls(file)
        image = table.image
        key = int(image.pos_of_va(places["__SCK__clock"]))
        held = int.from_bytes(bytes(image.data[key : key + 8]), "little")
        jump = bytes(image.code(places["__SCT__clock"], 5).tolist())
        return table.codes(np.arange(1))[0], jump.hex(), f"{held:x}"


@cache
def text_records(file: str, function: str) -> list[str]:
    """The functions of the records outside init text, in order; after one function was enabled, if it is named."""
    path = str(TESTDATA / file)
    with tempfile.TemporaryDirectory() as folder:
        if function:
            path = f"{folder}/out"
            ftpatch.enable(str(TESTDATA / file), ftpatch.Delivery(path), ftpatch.by_selectors([function]))
        scan = ftpatch.scan(path)
    sites = scan.sites
    rows = [row for row in range(len(sites)) if sites.row[row] >= 0 and sites.va[row]]
    text = [row for row in rows if scan.image.names[int(sites.sec[row])] == ".text"]
    return [sites.name(row) or "left of a weak function" for row in text]


def count_at(file: str, va: int) -> int:
    """The number of eight bytes at an address."""
    image = ftpatch.scan(str(TESTDATA / file)).image
    at = image.pos_of_va(va)
    return int.from_bytes(bytes(image.data[at : at + 8]), "little")


def hook_lines(arch: Arch) -> list[tuple[str, str]]:
    """(offset, instruction) of the stub that calls a hook; what a relocation names is written out."""
    assert arch.modules is not None
    stub = arch.modules.hook(False, ())
    names = {fixup.off: fixup.symbol for fixup in stub.fixups if fixup.off >= stub.entry}
    lines = []
    for instruction in _decoder(arch).disasm(stub.content[stub.entry :], 0):
        at = stub.entry + instruction.address
        named = [name for off, name in names.items() if at <= off < at + instruction.size]
        text = f"{instruction.mnemonic} {named[0] if named else instruction.op_str}".strip()
        if instruction.mnemonic == "bdnzl":  # capstone's name of it
            text = "bcl 20, 31, $+4"
        lines.append((f"+{instruction.address}", plain(text)))
    return lines
