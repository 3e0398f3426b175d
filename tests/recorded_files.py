"""Objects and modules whose records are taken out, and what records a file has: read with `struct` and pyelftools,
apart from the program."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

FIXTURES = Path(__file__).parents[1] / "testdata" / "record"
NAMES = ("__patchable_function_entries", "__mcount_loc")
X86_64, RELA, GROUP = 62, 4, 17


class Record(NamedTuple):
    """One record, and the section that it is in."""

    code: str  # section of the place
    number: int  # of that section
    off: int
    section: str
    flags: int
    link: int
    group: int | None  # section that is the group of the record section


def without_records(data: bytes) -> bytes:
    """The file with its record sections and their relocations made sections that say nothing; no byte moves."""
    raw = bytearray(data)
    (shoff,), (n,), (names,) = (
        struct.unpack_from(f"<{kind}", raw, at) for kind, at in (("Q", 40), ("H", 60), ("H", 62))
    )
    n = n or struct.unpack_from("<Q", raw, shoff + 32)[0]
    names = names if names != 0xFFFF else struct.unpack_from("<I", raw, shoff + 40)[0]
    heads = [struct.unpack_from("<IIQQQQIIQQ", raw, shoff + 64 * number) for number in range(n)]
    table = bytes(raw[heads[names][4] : heads[names][4] + heads[names][5]])
    wanted = NAMES[1:] if struct.unpack_from("<H", raw, 18)[0] == X86_64 else NAMES
    gone = {number for number, head in enumerate(heads)
            if table[head[0] : table.index(0, head[0])].decode() in wanted}  # fmt: skip
    for number, head in enumerate(heads):
        if number in gone or (head[1] == RELA and head[7] in gone):
            struct.pack_into("<IIQQQQIIQQ", raw, shoff + 64 * number, 0, 1, 0, 0, head[4], 0, 0, 0, 1, 0)
        if head[1] == GROUP:
            _leave_group(raw, shoff + 64 * number, head, gone, heads)
    return bytes(raw)


def _leave_group(raw: bytearray, at: int, head: tuple[int, ...], gone: set[int], heads: list[tuple[int, ...]]) -> None:
    """Take sections out of a group."""
    members = struct.unpack_from(f"<{head[5] // 4}I", raw, head[4])
    stay = [one for one in members[1:] if one not in gone and not (heads[one][1] == RELA and heads[one][7] in gone)]
    struct.pack_into(f"<{1 + len(stay)}I", raw, head[4], members[0], *stay)
    struct.pack_into("<Q", raw, at + 32, 4 + 4 * len(stay))


def records_of(data: bytes, names: tuple[str, ...] = NAMES) -> list[Record]:
    """Every record, by place; a slot without a relocation has the number −1."""
    elf = ELFFile(io.BytesIO(data))
    sections = list(elf.iter_sections())
    symbols = elf.get_section_by_name(".symtab")
    assert isinstance(symbols, SymbolTableSection)
    groups = {}
    for number, section in enumerate(sections):
        if section["sh_type"] == "SHT_GROUP":
            content = section.data()
            groups.update(dict.fromkeys(struct.unpack(f"<{len(content) // 4}I", content)[1:], number))
    found = []
    for number, section in enumerate(sections):
        if section.name not in names:
            continue
        head: tuple[str, int, int, int | None] = (
            section.name,
            section["sh_flags"],
            section["sh_link"],
            groups.get(number),
        )
        slots: list[tuple[str, int, int]] = [("", -1, 0)] * (section["sh_size"] // 8)
        for table in sections:
            if isinstance(table, RelocationSection) and table["sh_info"] == number:
                for row in table.iter_relocations():
                    symbol = symbols.get_symbol(row["r_info_sym"])
                    code = symbol["st_shndx"]
                    if row["r_info_type"] and isinstance(code, int):
                        slots[row["r_offset"] // 8] = (sections[code].name, code, symbol["st_value"] + row["r_addend"])
        found += [Record(code, at, off, *head) for code, at, off in slots]
    return sorted(found, key=lambda record: record[1:3])


def places(data: bytes, names: tuple[str, ...] = NAMES) -> list[tuple[int, int]]:
    """(section, offset) of every record, ascending."""
    return [(record.number, record.off) for record in records_of(data, names)]
