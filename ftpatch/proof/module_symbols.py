"""The symbols, names and section numbers that a patch adds to a module: each as a patch makes it, and used."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.modinfo import section_of
from ftpatch.proof.case import Case

TEXT, INIT_TEXT, OPS_TEXT, DATA = ".text.ftpatch", ".init.text.ftpatch", ".text.ftpatch.ops", ".data.ftpatch"
# The symbols that a new section of a patch may have, one of each at the most.
IN_SECTION = {
    TEXT: ("ftpatch_target", "ftpatch_call", "ftpatch_stubs"),
    INIT_TEXT: ("ftpatch_target_init", "ftpatch_call_init", "ftpatch_stubs_init"),
    OPS_TEXT: ("ftpatch_ops_function",),
    DATA: ("ftpatch_ops",),
}
NUMBER = re.compile(r"(\.ftpatch(?:\.ops)?)\.\d+$")  # of the sections that a second patch adds
HOME = re.compile(r"ftpatch_home_(\d+)")
STUB, MARK = "ftpatch_redirect_", "ftpatch_redirected_"  # in front of a replacement's name, and of a function's


def plain(name: str) -> str:
    """A section's name as the first patch would give it."""
    return NUMBER.sub(r"\1", name)


def code_table_sections(case: Case) -> frozenset[int]:
    """The sections of the first file that tell of places in its code, and may gain rows for the patch's."""
    tables, image = case.tables.code_tables, case.before.image
    if tables is None or image.linked:
        return frozenset()
    names = (*tables.lists, tables.places, tables.rows)
    return frozenset(sec for name in names if (sec := section_of(image, name)) >= 0)


def check_symbols(case: Case) -> None:
    """Findings for new symbols that are not as a patch makes them."""
    old, new = case.before.image, case.after.image
    n, symbols = len(old.symbols.rows), new.symbols
    tab = next(iter(np.flatnonzero(new.shdr["sh_type"] == t.SHT_SYMTAB).tolist()), -1)
    if tab < 0:
        case.say("verify-section", "there is no symbol table any more")
        return
    used, last = _used_symbols(new), case.last_symbol
    undefined = {old.symbols.name(row) for row in np.flatnonzero(old.symbols.shndx == t.SHN_UNDEF).tolist()}
    for row in range(n, len(symbols.rows)):
        name = symbols.name(row)
        why = _wrong(case, row, name)
        may = name.startswith(MARK) or case.linked.holds(int(symbols.shndx[row]), int(symbols.rows["st_value"][row]))
        if not why and row not in used and row >= last and not may:
            why = "is used by nothing"
        elif not why and symbols.shndx[row] == t.SHN_UNDEF and name in undefined:
            why = "is undefined, as another of its name is"
        undefined |= {name} if symbols.shndx[row] == t.SHN_UNDEF else set()
        if why:
            case.say("verify-symbol", f"new symbol {row} {name} {why}", sec=tab, off=row * t.SYM.itemsize)
    case.kinds["new symbol"] += max(len(symbols.rows) - n, 0)
    _check_names(case)
    _check_numbers(case, tab)


def _wrong(case: Case, row: int, name: str) -> str:
    """Why a new symbol is none that a patch makes; empty where it is one."""
    image, symbols = case.after.image, case.after.image.symbols
    sec, value, size = int(symbols.shndx[row]), *(int(symbols.rows[f][row]) for f in ("st_value", "st_size"))
    if case.linked.holds(sec, value):
        return case.linked.wrong_symbol(image, row)
    if sec == t.SHN_UNDEF and symbols.bind[row] == t.STB_WEAK and case.linked.sections and name:
        return "" if not (value or size or symbols.rows["st_info"][row] & 0xF) else "is weak and has a place"
    if symbols.bind[row] != t.STB_GLOBAL or symbols.rows["st_other"][row]:
        return "is not simply global"
    raw = int(symbols.rows["st_shndx"][row])
    if sec < 0 or sec >= len(image.shdr) or raw != (sec if sec < t.SHN_LORESERVE else t.SHN_XINDEX):
        return f"lies in no section of the file (st_shndx {raw:#x})"
    named = IN_SECTION.get(plain(image.names[sec]), ()) if sec >= len(case.before.image.shdr) else ()
    kind = t.STT_OBJECT if sec and plain(image.names[sec]) == DATA and named else t.STT_FUNC if named else 0
    if symbols.type[row] != kind:
        return f"has type {int(symbols.type[row])}, expected {kind}"
    if named:  # its place and size are those of the code
        stub = name.startswith(STUB) and plain(image.names[sec]) in (TEXT, INIT_TEXT)
        return "" if name in named or stub else f"is no symbol of {image.names[sec]}"
    if size:
        return f"has a size of {size}, expected 0"
    if sec == t.SHN_UNDEF:
        return "is undefined and has a value" if value else "has no name" if not name else ""
    return _wrong_home(case, name, sec, value)


def _wrong_home(case: Case, name: str, sec: int, value: int) -> str:
    """Why a new symbol of an old section is neither one at its start nor one at a jump of the loader's."""
    image, modules, entries = case.after.image, case.modules, case.arch.entries
    if image.names[sec] in modules.trampolines:
        jumps = {f"ftpatch_{entry}{suffix}": modules.jump * at for at, entry in enumerate(entries)
                 for suffix in ("", "_init")}  # fmt: skip
        right = jumps.get(name)
        if right is None:
            return f"is no jump of the loader's in {image.names[sec]}"
        return "" if value == right else f"is at {value:#x}, where the loader's jump is at {right:#x}"
    if name.startswith(MARK) and 0 < sec < len(case.before.image.shdr) and image.executable[sec]:
        return ""  # at which function is looked at with the sites
    home = HOME.fullmatch(name)
    if home is None or int(home[1]) != sec or sec >= len(case.before.image.shdr):
        return "is no symbol of a patch"
    return f"is at {value:#x} and not at the start of its section" if value else ""


def _used_symbols(image: Image) -> set[int]:
    """Rows of the symbols that relocations name."""
    used: set[int] = set()
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        used |= set((image.rows(sec, t.RELA)["r_info"] >> np.uint64(32)).tolist())
    return used


def _check_names(case: Case) -> None:
    """What tables of strings gained: the names of the new symbols and sections, one behind the other."""
    old, new = case.before.image, case.after.image
    tables: dict[int, list[int]] = {}
    for sec, added in zip(case.strings, (new.symbols.rows["st_name"][len(old.symbols.rows) :],
                                          new.shdr["sh_name"][len(old.shdr) :]), strict=True):  # fmt: skip
        tables.setdefault(sec, []).extend(added.tolist())
        if np.any(added[1:] <= added[:-1]):
            case.say("verify-symbol", f"{new.names[sec]}: the names of what is new stand in another order", sec=sec)
    for sec, starts in tables.items():
        content, first = new.content(sec).tobytes(), len(old.content(sec))
        if starts and 0 < first <= len(content) and content[first - 1]:
            first += 1  # the last string had no end
        for start, end in _untiled(content, first, sorted(starts)):
            case.say("verify-symbol", f"{new.names[sec]}: {end - start} bytes at {start:#x} are not the name of one "
                     "new symbol or section", sec=sec, off=start)  # fmt: skip


def _untiled(content: bytes, at: int, starts: list[int]) -> Iterator[tuple[int, int]]:
    """The ranges from `at` on that are no name of those that start there, or more than one's."""
    for start in starts:
        if start != at:
            yield min(start, at), max(start, at)
        at = max(at, content.find(b"\0", start) + 1 or len(content))
    if at < len(content):
        yield at, len(content)


def _check_numbers(case: Case, tab: int) -> None:
    """The table of section numbers that do not fit a symbol: there only where it is needed, and nothing else in it."""
    old, new = case.before.image, case.after.image
    n, rows = len(old.symbols.rows), new.symbols.rows
    wide = np.where(rows["st_shndx"] == t.SHN_XINDEX, new.symbols.shndx, 0)[n:].astype(np.uint32)
    tables = np.flatnonzero((new.shdr["sh_type"] == t.SHT_SYMTAB_SHNDX) & (new.shdr["sh_link"] == tab)).tolist()
    for sec in tables:
        added = sec >= len(old.shdr)
        if not added and new.shdr["sh_size"][sec] == old.shdr["sh_size"][sec]:
            continue  # an old one that is too short for the new symbols is as good as zeros
        if added and (len(tables) > 1 or not wide.any()):
            case.say("verify-section", f"{new.names[sec]} is new, and no new symbol needs it", sec=sec)
        elif len(new.content(sec)) != 4 * len(rows):
            case.say("verify-section", f"{new.names[sec]} has {len(new.content(sec))} bytes, expected 4 for each of "
                     f"{len(rows)} symbols", sec=sec)  # fmt: skip
        elif not np.array_equal(new.content(sec).view("<u4")[n:], wide):
            case.say("verify-section", f"{new.names[sec]} has numbers for symbols that need none", sec=sec)
