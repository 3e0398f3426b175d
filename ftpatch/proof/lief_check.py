"""The files read a second time, by lief: what it sees of the second file must be what we see, and what it saw of the
first must still be there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import UnsupportedError
from ftpatch.proof.case import Case
from ftpatch.sites.records import STOP

RULE_SECTION, RULE_SYMBOL, RULE_RELOCATION = "verify-section", "verify-symbol", "verify-relocation"
MOST_CHARACTERS = 16  # of all names together, for each byte of the file; kernels and modules have less than one
TYPE = (1 << 27) - 1  # lief adds a number for the machine to a relocation's type
NOT_INSTALLED = "lief is not installed: pip install lief"
Rows = list[tuple[Any, ...]]


def read_again(case: Case, deep: bool | None) -> str:
    """Who read the files a second time, or why nobody did; findings where the two readers differ.

    deep: kernels too; None: nothing at all. Raises UnsupportedError where it was asked for and lief is missing.
    """
    if deep is None:
        return "none"
    if case.before.image.linked and not deep:
        return "none (--deep reads a kernel a second time, by lief)"
    try:
        import lief
    except ImportError:
        if deep:
            raise UnsupportedError("no second reader", found=NOT_INSTALLED) from None
        return f"none ({NOT_INSTALLED})"
    if any(_names_too_long(side.image) for side in (case.before, case.after)):
        return "none (lief reads each name to its end, and they have too many characters)"
    lief.logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that lief has no name for
        return _hold(case, lief)


def _names_too_long(image: Image) -> bool:
    """Whether the symbols' names have far more characters together than the file: many share one of millions."""
    text = np.frombuffer(image.symbols.strtab, np.uint8)
    ends = np.append(np.flatnonzero(text == 0), len(text))
    start = np.minimum(image.symbols.rows["st_name"].astype(np.int64), len(text))
    return bool((ends[np.searchsorted(ends, start)] - start).sum() > MOST_CHARACTERS * max(len(image.data), 1))


def _hold(case: Case, lief: Any) -> str:
    old, new = (_parsed(lief, side.image) for side in (case.before, case.after))
    if old is None:
        return "none (lief cannot read the first file)"
    if new is None:
        case.say(RULE_SECTION, "lief cannot read the second file")
        return "lief"
    _agree(case, (RULE_SECTION, "section"), (old, new), _sections, _own_sections)
    _agree(case, (RULE_SYMBOL, "symbol"), (old, new), _symbols, _own_symbols)
    _kept(case, _sections(old), _sections(new), _symbols(old), _symbols(new))
    if not case.after.image.linked:
        _agree(case, (RULE_RELOCATION, "relocation"), (old, new), _relocations, _own_relocations)
    return "lief"


def _parsed(lief: Any, image: Image) -> Any:
    whole = image.wrapping == "none" and image.linked
    return lief.ELF.parse(image.path) if whole else lief.ELF.parse(image.data.tobytes())


def _agree(
    case: Case, told: tuple[str, str], files: tuple[Any, Any], by_lief: Callable[[Any], Rows],
    by_us: Callable[[Image], Rows],
) -> None:  # fmt: skip
    """A finding where the two readers see other rows in the second file. told: its rule, and what a row is."""
    rule, what = told
    theirs, ours = by_lief(files[1]), by_us(case.after.image)
    if theirs == ours:
        return
    if by_lief(files[0]) != by_us(
        case.before.image
    ):  # damaged input, which lief repairs: no witness of what became of it
        case.notes.append(f"lief reads the {what}s of the first file in another way, so they were not compared")
        return
    if len(theirs) != len(ours):
        case.say(rule, f"lief reads {len(theirs)} {what}s of the second file, we {len(ours)}")
        return
    at = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
    case.say(rule, f"lief reads {what} {at} of the second file as {theirs[at]}, we as {ours[at]}")


def _kept(case: Case, sections: Rows, new_sections: Rows, symbols: Rows, new_symbols: Rows) -> None:
    """What must not change, by lief alone: sections but for place and size, symbols but for the record table's end."""
    was, is_ = ([(row[0], *row[4:]) for row in rows] for rows in (sections, new_sections))
    if is_[: len(was)] != was:
        at = next((i for i, pair in enumerate(zip(was, is_, strict=False)) if pair[0] != pair[1]), len(is_))
        case.say(RULE_SECTION, f"by lief, section {at} is not what it was")
    for at, (old, new) in enumerate(zip(symbols, new_symbols, strict=False)):
        if old != new and not (old[0] == STOP and (old[0], *old[2:]) == (new[0], *new[2:])):
            case.say(RULE_SYMBOL, f"by lief, symbol {at} was {old}, is {new}")
    if len(new_symbols) < len(symbols):
        case.say(RULE_SYMBOL, f"by lief, there are {len(new_symbols)} symbols, there were {len(symbols)}")


def _sections(binary: Any) -> Rows:
    """(name, address, position, size, link, info, alignment, entry size, flags)"""
    return [(_text(section.name), section.virtual_address, section.offset, section.size, section.link,
             section.information, section.alignment, section.entry_size, int(section.flags))
            for section in binary.sections]  # fmt: skip


def _own_sections(image: Image) -> Rows:
    fields = ("sh_addr", "sh_offset", "sh_size", "sh_link", "sh_info", "sh_addralign", "sh_entsize", "sh_flags")
    return [(_text(name), *(int(head[field]) for field in fields)) for name, head in zip(image.names, image.shdr,
             strict=True)]  # fmt: skip


def _symbols(binary: Any) -> Rows:
    """(name, value, size, type, binding, section, other)"""
    return [(_text(symbol.name), symbol.value, symbol.size, _number(symbol.type), _number(symbol.binding), symbol.shndx,
             symbol.other) for symbol in binary.symtab_symbols]  # fmt: skip


def _own_symbols(image: Image) -> Rows:
    symbols = image.symbols
    columns = [symbols.rows["st_value"].tolist(), symbols.rows["st_size"].tolist(), symbols.type.tolist(),
               symbols.bind.tolist(), symbols.rows["st_shndx"].tolist(), symbols.rows["st_other"].tolist()]  # fmt: skip
    names = [_text(symbols.name(row)) for row in range(len(symbols.rows))]
    return list(zip(names, *columns, strict=True))


def _relocations(binary: Any) -> Rows:
    """(section, offset, type, symbol, addend), sorted."""
    return sorted((_text(row.section.name) if row.has_section else "", row.address, _number(row.type) & TYPE, row.info,
                   row.addend) for row in binary.relocations)  # fmt: skip


def _own_relocations(image: Image) -> Rows:
    own: Rows = []
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        rows, target = image.rows(sec, t.RELA), int(image.shdr["sh_info"][sec])
        name = _text(image.names[target]) if 0 < target < len(image.names) else ""
        info = rows["r_info"].tolist()
        own += [(name, off, number & 0xFFFF_FFFF, number >> 32, addend) for off, number, addend in zip(
                  rows["r_offset"].tolist(), info, rows["r_addend"].tolist(), strict=True)]  # fmt: skip
    return sorted(own)


def _text(name: str | bytes) -> str:
    """A name as far as it is ASCII: the readers show other bytes in ways of their own."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return text if text.isascii() and "\\" not in text else ""


def _number(value: Any) -> int:
    """The number behind one of lief's enumerations; one that it has no name for is a number already."""
    return int(getattr(value, "value", value))
