"""docs/redirects.md: its listings are the code that is written."""

from __future__ import annotations

import re
from pathlib import Path

import capstone

from ftpatch.arch.arm64_veneer import veneer
from ftpatch.arch.ppc64le import ARCH
from ftpatch.arch.ppc64le_module import CALL_ELSEWHERE, ENTER

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "redirects.md").read_text()
LISTING = re.compile(r"^    ([0-9a-f.]{8})   (\S+)(?: {1,4}(\S+))?", re.MULTILINE)


def listings() -> list[list[str]]:
    """The words of each listing."""
    found: list[list[str]] = []
    end = -1
    for match in LISTING.finditer(TEXT):
        if TEXT[end : match.start()].count("\n") != 1:
            found.append([])
        found[-1].append(match[1])
        end = match.start()
    return found


def test_the_listings_are_the_stubs_word_by_word() -> None:
    assert ARCH.far is not None
    far = [f"{word:08x}" for word in ARCH.far.stub(0x1234_5678, 0, 16).tolist()]
    far[1:3] = ["3d8c....", "398c...."]
    own = [[f"{word:08x}" for word in code.words] for code in (ENTER, CALL_ELSEWHERE)]
    assert listings() == [far, *own]


def test_the_words_of_the_listings_are_the_instructions_beside_them() -> None:
    decoder = capstone.Cs(capstone.CS_ARCH_PPC, capstone.CS_MODE_64 | capstone.CS_MODE_LITTLE_ENDIAN)
    rows = LISTING.findall(TEXT)
    assert len(rows) == 24
    for word, mnemonic, operands in rows:
        (instruction,) = decoder.disasm(int(word.replace(".", "0"), 16).to_bytes(4, "little"), 0)
        assert instruction.mnemonic == {"bcl": "bdnzl"}.get(mnemonic, mnemonic)  # which is what capstone calls 20,31
        registers = re.sub(r"\br(?=\d)", "", operands)
        if "@" not in operands and mnemonic not in ("bl", "bcl"):
            shown = re.sub(r"0x[0-9a-f]+", lambda number: str(int(number[0], 16)), instruction.op_str)
            assert shown.replace(" ", "").replace("r", "") == registers


def test_the_veneer_is_the_one_that_is_written() -> None:
    (shown,) = re.findall(r"veneer:((?: +\S+ +x16.*\n)+)", TEXT)
    decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    code = decoder.disasm(veneer(0x1000, 0x12345678).astype("<u4").tobytes(), 0x1000)
    assert [line.split()[0] for line in shown.strip().split("\n")] == [one.mnemonic for one in code]
