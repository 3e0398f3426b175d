"""The files read a second time, by lief: what it sees of the second file must be what we see, and what it saw of the
first must still be there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ftpatch.arrays import Rows as Table
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import UnsupportedError
from ftpatch.proof.case import Case
from ftpatch.sites.records import STOP

RULE_SECTION, RULE_SYMBOL, RULE_RELOCATION = "verify-section", "verify-symbol", "verify-relocation"
MOST_CHARACTERS = 16  # of all names together, for each byte of the file; kernels and modules have less than one
# Bytes that reading both files takes for a row of each: lief's object, and what is compared.
ROW, RELOCATION_ROW = 512, 128
FREE_MEMORY = 100 << 20  # bytes that this may take for files of any size
MEMORY_PER_BYTE = 2  # and so many more for each byte of both; of Debian's files the largest amdgpu.ko takes most
TYPE = (1 << 27) - 1  # lief adds a number for the machine to a relocation's type
OTHER_READING = "lief reads the {}s of the first file in another way, so they were not compared"
NOT_INSTALLED = "lief is not installed: pip install lief"
Rows = list[tuple[Any, ...]]
RELOCATION = np.dtype([("section", "<i4"), ("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])


def read_again(case: Case, deep: bool | None) -> str:
    """Who read the files a second time, or why nobody did; findings where the two readers differ.

    deep: kernels too; None: nothing at all. Raises UnsupportedError where it was asked for and lief is missing.
    """
    if deep is None:
        return "none"
    if case.before.image.linked and not deep:
        what = "program" if case.before.image.kind in PROGRAMS else "kernel"
        return f"none (--deep reads a {what} a second time, by lief)"
    try:
        import lief
    except ImportError:
        if deep:
            raise UnsupportedError("no second reader", found=NOT_INSTALLED) from None
        return f"none ({NOT_INSTALLED})"
    if any(side.image.recovered is not None for side in (case.before, case.after)):
        return "none (lief reads no kernel without a symbol table)"
    if any(not int(side.image.ehdr["e_shnum"]) for side in (case.before, case.after)):
        return "none (lief does not read the relocations of a file with more than 65,279 sections)"
    if any(_names_too_long(side.image) for side in (case.before, case.after)):
        return "none (lief reads each name to its end, and they have too many characters)"
    if (n := _rows_beyond_memory(case)) is not None:
        return f"none (lief makes an object of each symbol and relocation, and {n} are too many for files of this size)"
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


def _rows_beyond_memory(case: Case) -> int | None:
    """How many symbols, sections and relocations both files have, where lief would need too much memory for them."""
    n_rows = n_relocations = size = 0
    for image in (case.before.image, case.after.image):
        shdr = image.shdr
        of = [np.isin(shdr["sh_type"], kinds) for kinds in ((t.SHT_SYMTAB, t.SHT_DYNSYM), (t.SHT_RELA, t.SHT_REL))]
        n_rows += len(shdr) + sum(n // t.SYM.itemsize for n in shdr["sh_size"][of[0]].tolist())
        if not image.linked:  # those that the link kept in a kernel are not read
            n_relocations += sum(n // t.RELA.itemsize for n in shdr["sh_size"][of[1]].tolist())
        size += len(image.data)
    needed = ROW * n_rows + RELOCATION_ROW * n_relocations
    return n_rows + n_relocations if needed > FREE_MEMORY + MEMORY_PER_BYTE * size else None


def _hold(case: Case, lief: Any) -> str:
    linked = case.after.image.linked
    old, new = _parsed(lief, case.before.image, False), _parsed(lief, case.after.image, not linked)
    if old is None:
        return "none (lief cannot read the first file)"
    if new is None:
        case.say(RULE_SECTION, "lief cannot read the second file")
        return "lief"
    _agree(case, (RULE_SECTION, "section"), (old, new), _sections, _own_sections)
    _agree(case, (RULE_SYMBOL, "symbol"), (old, new), _symbols, _own_symbols)
    if _sections(old) == _own_sections(case.before.image):
        _kept(case, _sections(old), _sections(new), _symbols(old), _symbols(new))
    else:  # a name that does not end in its table, of which lief reads more
        case.notes.append(OTHER_READING.format("section"))
    if not linked:
        del old  # and what it takes, before the relocations are compared
        _agree_on_relocations(case, lief, new)
    return "lief"


def _parsed(lief: Any, image: Image, relocations: bool) -> Any:
    config = lief.ELF.ParserConfig()
    config.parse_relocations = relocations
    whole = image.wrapping == "none" and not image.layers and image.linked
    return lief.ELF.parse(image.path, config) if whole else lief.ELF.parse(image.data.tobytes(), config)


def _agree_on_relocations(case: Case, lief: Any, new: Any) -> None:
    """As `_agree`, in columns: a module has hundreds of thousands. The first file's are read where they are needed."""
    before, after = case.before.image, case.after.image
    numbers: dict[str, int] = {}  # of sections' names, as they come
    theirs, ours = _relocations(new, numbers), _own_relocations(after, numbers)
    if np.array_equal(theirs, ours):
        return
    old = _parsed(lief, before, True)
    if not np.array_equal(_relocations(old, numbers), _own_relocations(before, numbers)):
        case.notes.append(OTHER_READING.format("relocation"))
        return
    names = list(numbers)
    _say_difference(case, (RULE_RELOCATION, "relocation"), *([(names[number], *rest) for number, *rest in rows.tolist()]
                    for rows in (theirs, ours)))  # fmt: skip


def _agree(
    case: Case, told: tuple[str, str], files: tuple[Any, Any], by_lief: Callable[[Any], Rows],
    by_us: Callable[[Image], Rows],
) -> None:  # fmt: skip
    """A finding where the two readers see other rows in the second file. told: its rule, and what a row is."""
    theirs, ours = by_lief(files[1]), by_us(case.after.image)
    if theirs == ours:
        return
    if by_lief(files[0]) != by_us(
        case.before.image
    ):  # damaged input, which lief repairs: no witness of what became of it
        case.notes.append(OTHER_READING.format(told[1]))
        return
    _say_difference(case, told, theirs, ours)


def _say_difference(case: Case, told: tuple[str, str], theirs: Rows, ours: Rows) -> None:
    """The finding: how many rows there are, or the first that differs."""
    rule, what = told
    if len(theirs) != len(ours):
        case.say(rule, f"lief reads {len(theirs)} {what}s of the second file, we {len(ours)}")
        return
    at = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
    case.say(rule, f"lief reads {what} {at} of the second file as {theirs[at]}, we as {ours[at]}")


def _kept(case: Case, sections: Rows, new_sections: Rows, symbols: Rows, new_symbols: Rows) -> None:
    """What must not change, by lief alone: sections but for place and size, symbols but for the record table's end."""
    was, is_ = ([(row[0], *row[4:6], 0 if at in case.linked.grown else row[6], *row[7:])
                 for at, row in enumerate(rows) if at not in case.mended]
                for rows in (sections, new_sections))  # fmt: skip
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


def _relocations(binary: Any, numbers: dict[str, int]) -> Table:
    """The relocations as lief reads them, sorted. numbers: of the names of sections, to which new ones are added."""
    number = numbers.setdefault
    rows = ((number(_text(row.section.name) if row.has_section else "", len(numbers)), row.address,
             _number(row.type) & TYPE, row.info, row.addend) for row in binary.relocations)  # fmt: skip
    return _in_order(np.fromiter(rows, RELOCATION))


def _own_relocations(image: Image, numbers: dict[str, int]) -> Table:
    tables = []
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        rows, target = image.rows(sec, t.RELA), int(image.shdr["sh_info"][sec])
        name = _text(image.names[target]) if 0 < target < len(image.names) else ""
        table = np.zeros(len(rows), RELOCATION)
        table["section"] = numbers.setdefault(name, len(numbers))
        table["offset"], table["addend"] = rows["r_offset"], rows["r_addend"]
        table["type"], table["symbol"] = rows["r_info"] & np.uint64(0xFFFF_FFFF), rows["r_info"] >> np.uint64(32)
        tables.append(table)
    return _in_order(np.concatenate(tables)) if tables else np.zeros(0, RELOCATION)


def _in_order(table: Table) -> Table:
    return table[np.lexsort([table[name] for name in reversed(RELOCATION.names or ())])]


def _text(name: str | bytes) -> str:
    """A name as far as it is ASCII: the readers show other bytes in ways of their own."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return text if text.isascii() and "\\" not in text else ""


def _number(value: Any) -> int:
    """The number behind one of lief's enumerations; one that it has no name for is a number already."""
    return int(getattr(value, "value", value))
