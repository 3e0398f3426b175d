"""The sections of a file that `record` wrote: what may be new, what may have grown, and that nothing else is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.recorded import is_loaded
from ftpatch.proof.case import Case
from ftpatch.sites.records import record_names

LINKED, CALLS = "__patchable_function_entries", "__mcount_loc"
WRITE_ALLOC_LINK = t.SHF_WRITE | t.SHF_ALLOC | t.SHF_LINK_ORDER
INFO_LINK = 0x40
WORD = 4
MOVES = ("sh_offset", "sh_size")
MENDED = ("sh_flags", "sh_link", "sh_addralign", "sh_entsize")


def record_secs(image: Image) -> list[int]:
    """The record sections, by number."""
    return image.sections_named(*record_names(image))


def check_old_sections(case: Case, nops: I64) -> None:
    """Every section of the first file: its header, and what moved. nops: places of calls that are NOPs now."""
    old, new = case.before.image, case.after.image
    n = len(old.shdr)
    if old.names != new.names[:n]:
        sec = next(sec for sec in range(n) if old.names[sec] != new.names[sec])
        case.say("verify-section", f"section {sec} {old.names[sec]}: name was {old.names[sec]}, is {new.names[sec]}",
                 sec=sec)  # fmt: skip
        return
    records = np.zeros(n, dtype=bool)
    records[record_secs(old)] = True
    target = np.where(old.shdr["sh_type"] == t.SHT_RELA, old.shdr["sh_info"], 0).astype(np.int64)
    target = np.where(target < n, target, 0)
    of_records = (target > 0) & records[target]
    groups = old.shdr["sh_type"] == t.SHT_GROUP
    names = np.zeros(n, dtype=bool)
    names[case.strings[-1]] = True  # of sections; those of symbols stay
    moves = records | of_records | groups | names
    shrinks = np.zeros(n, dtype=bool)
    coded = np.zeros(n, dtype=bool)
    coded[np.unique(nops >> 40)] = True
    shrinks[(target > 0) & coded[target]] = True
    for field in t.SHDR.names or ():
        differs = old.shdr[field] != new.shdr[field][:n]
        free = moves if field in MOVES else records if field in MENDED else np.zeros(n, dtype=bool)
        free = free | shrinks if field == "sh_size" else free
        if field == "sh_size" and len(new.shdr) >= t.SHN_LORESERVE:
            free = free | (np.arange(n) == 0)
        for sec in np.flatnonzero(differs & ~free).tolist():
            was, is_ = (int(image.shdr[field][sec]) for image in (old, new))
            case.say("verify-section", f"section {sec} {old.names[sec]}: {field} was {was:#x}, is {is_:#x}", sec=sec)
        if field in MENDED:
            case.kinds["section header mended"] += int((differs & records).sum())
    _check_grown(case, groups | names)


def _check_grown(case: Case, grows: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
    """Names and groups begin as they were; groups gained record sections of their own alone."""
    old, new = case.before.image, case.after.image
    for sec in np.flatnonzero(grows).tolist():
        one, two = old.content(sec), new.content(sec)
        if int(old.shdr["sh_offset"][sec]) == int(new.shdr["sh_offset"][sec]) and len(one) == len(two):
            continue
        if len(two) < len(one) or not np.array_equal(one, two[: len(one)]):
            case.say("verify-section", f"section {sec} {old.names[sec]} does not begin as it did", sec=sec)
        elif old.shdr["sh_type"][sec] == t.SHT_GROUP:
            for member in two[len(one) :].view("<u4").tolist() if len(two) % WORD == 0 else (-1,):
                if not len(old.shdr) <= member < len(new.shdr):
                    case.say("verify-section", f"group {sec} gained section {member}, which is none of the new ones",
                             sec=sec)  # fmt: skip


def groups_of(image: Image) -> dict[int, int]:
    """Section of each member → the section that is its group."""
    groups: dict[int, int] = {}
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_GROUP).tolist():
        content = image.content(sec)
        for member in content[WORD : len(content) // WORD * WORD].view("<u4").tolist():
            groups.setdefault(member, sec)
    return groups


def check_new_sections(case: Case, codes: Mapping[int, Sequence[int]]) -> None:
    """New sections are records or their relocations, as compilers make them; and every record section is linked to the
    code that it names. codes: sections of code that the records of each record section name."""
    old, new = case.before.image, case.after.image
    groups = groups_of(new)
    tab = int(np.argmax(new.shdr["sh_type"] == t.SHT_SYMTAB))
    for sec in range(len(old.shdr), len(new.shdr)):
        name, head = new.names[sec], new.shdr[sec]
        got = tuple(int(head[field]) for field in ("sh_type", "sh_flags", "sh_addr", "sh_addralign", "sh_link",
                                                   "sh_info", "sh_entsize"))  # fmt: skip
        in_group = t.SHF_GROUP if sec in groups else 0
        if name in record_names(new):
            flags = WRITE_ALLOC_LINK if name == LINKED else t.SHF_ALLOC
            link = got[4] if name == LINKED else 0  # where it leads to is checked with those of all
            wanted = (t.SHT_PROGBITS, flags | in_group, 0, 8, link, 0, 0)
        else:
            info = got[5]
            known = 0 < info < len(new.shdr) and new.names[info] in record_names(new)
            known = known and name == ".rela" + new.names[info] and groups.get(sec) == groups.get(info)
            wanted = (t.SHT_RELA, INFO_LINK | in_group, 0, 8, tab, info if known else -1, t.RELA.itemsize)
        if got != wanted or not int(head["sh_size"]):
            shown = ", ".join(f"{value:#x}" for value in got)
            case.say("verify-section", f"new section {sec} {name} is none that record makes: type, flags, address, "
                     f"alignment, link, info, entry size {shown}", sec=sec)  # fmt: skip
        case.kinds["new section"] += 1
    _check_homes(case, codes, groups)


def _check_homes(case: Case, codes: Mapping[int, Sequence[int]], groups: Mapping[int, int]) -> None:
    """The link, the group and the relocations of every record section."""
    image, filled = case.after.image, dict[str, list[int]]()
    loaded = is_loaded(image.names)
    tables: dict[int, int] = {}
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        info = int(image.shdr["sh_info"][table])
        if info in codes and info in tables:
            case.say(
                "verify-section", f"section {info} {image.names[info]} has a second table of relocations", sec=info
            )
        tables[info] = table
    for sec, named in codes.items():
        name, head = image.names[sec], image.shdr[sec]
        link, flags = int(head["sh_link"]), int(head["sh_flags"])
        if not int(head["sh_size"]):
            continue
        filled.setdefault(name, []).append(sec)
        ordered = name == LINKED or flags & t.SHF_LINK_ORDER
        if (name == LINKED and flags & WRITE_ALLOC_LINK != WRITE_ALLOC_LINK) or not flags & t.SHF_ALLOC:
            case.say("verify-section", f"section {sec} {name} has flags {flags:#x}: a linker or the loader passes its "
                     "records by", sec=sec)  # fmt: skip
        good = link in named or (loaded and 0 < link < len(image.shdr) and image.executable[link])
        if ordered and named and not good:
            shown = image.names[link] if link < len(image.names) else str(link)
            case.say("verify-section", f"section {sec} {name} is linked to {shown or 'nothing'}, its records name "
                     f"{image.names[named[0]]}", sec=sec)  # fmt: skip
        for code in named if not loaded else ():
            if groups.get(code) != groups.get(sec):
                case.say("verify-section", f"section {sec} {name} has records of {image.names[code]} and is not of its "
                         "group: a linker keeps one without the other", sec=sec)  # fmt: skip
    for name, secs in filled.items() if loaded else ():
        if len(secs) > 1:
            case.say("verify-section", f"the module has {len(secs)} sections {name} with records, and the kernel reads "
                     "the first", sec=secs[1])  # fmt: skip


def check_tail(case: Case) -> None:
    """What follows the first file's bytes: sections that moved or are new, side by side in the order of their numbers,
    and the section headers."""
    old, new = case.before.image, case.after.image
    end, head, shdr = len(old.data), int(new.ehdr["e_shoff"]), new.shdr
    if len(new.data) == end and head == int(old.ehdr["e_shoff"]):
        return
    inside = new.has_bytes & (shdr["sh_offset"] >= np.uint64(end)) & (shdr["sh_size"] > 0)
    for sec in np.flatnonzero(inside).tolist():
        start, align = int(shdr["sh_offset"][sec]), max(int(shdr["sh_addralign"][sec]), 1)
        if start < end or start - end >= align or new.data[end:start].any():
            case.say("verify-byte", f"section {sec} {new.names[sec]} does not follow the one before it: "
                     f"{start:#x}, expected {end:#x}", pos=end)  # fmt: skip
            return
        end = start + int(shdr["sh_size"][sec])
    if head < end or head - end >= 8 or new.data[end:head].any():
        case.say("verify-byte", f"{head - end} bytes at {end:#x} belong to no section", pos=end)
    elif head + shdr.nbytes != len(new.data):
        case.say("verify-byte", f"{len(new.data) - head - shdr.nbytes} bytes at the end belong to nothing", pos=head)
