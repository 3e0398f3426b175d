"""A relocatable file that grew: every old section as it was, every new byte accounted for.

original bytes │ grown copies of tables │ new sections │ section headers
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.modinfo import section_of
from ftpatch.proof import linked
from ftpatch.proof.case import Case
from ftpatch.proof.module_metadata import GROWN_NAMES, check_modinfo, check_versions
from ftpatch.proof.module_symbols import DATA, INIT_TEXT, OPS_TEXT, TEXT, check_symbols, code_table_sections, plain
from ftpatch.proof.steps import read_steps
from ftpatch.sites.records import SLOT, record_names

CODE, WRITABLE = t.SHF_ALLOC | t.SHF_EXECINSTR, t.SHF_ALLOC | t.SHF_WRITE
NEW = {TEXT: (t.SHT_PROGBITS, CODE), INIT_TEXT: (t.SHT_PROGBITS, CODE), OPS_TEXT: (t.SHT_PROGBITS, CODE),
       DATA: (t.SHT_PROGBITS, WRITABLE), ".symtab_shndx": (t.SHT_SYMTAB_SHNDX, 0)}  # fmt: skip
GROWS = (t.SHT_SYMTAB, t.SHT_RELA, t.SHT_SYMTAB_SHNDX)
NAMES = (t.SHT_STRTAB, t.SHT_SYMTAB_SHNDX)
INFO_LINK = 0x40
ALIGN = {DATA: 8}


def check_sections(case: Case) -> bool:
    """Headers, contents of tables, and what was appended; False where the sections do not even match."""
    old, new = case.before.image, case.after.image
    n = len(old.shdr)
    check_header(case)
    if len(new.shdr) < n:
        case.say("verify-section", f"{len(new.shdr)} sections, there were {n}")
        return False
    case.steps, stray = read_steps(old, new)
    if stray is not None:
        case.say(stray.rule, stray.text, pos=stray.pos)
    case.kinds["appended part"] += sum(len(step.moved) for step in case.steps)
    case.kinds["earlier patch"] += len(case.steps[1:])
    for sec in range(n):
        _check_section(case, sec)
    for sec in range(n, len(new.shdr)):
        _check_new(case, sec)
    check_symbols(case)
    check_modinfo(case)
    check_versions(case)
    return True


def check_header(case: Case) -> None:
    """The ELF header: where the section headers are, and how many, and nothing else may differ."""
    old, new = case.before.image.ehdr, case.after.image.ehdr
    for field in old.dtype.names or ():
        if field not in ("e_shoff", "e_shnum") and np.any(old[field] != new[field]):
            case.say("verify-section", f"ELF header: {field} was {old[field]}, is {new[field]}", pos=0)
    case.account_for("header", [40], 8)  # e_shoff
    case.account_for("header", [60], 2)  # e_shnum


def _check_section(case: Case, sec: int) -> None:
    """One section of the first file: what its header may say now, and that a moved copy begins as it was."""
    old, new = case.before.image, case.after.image
    one, two, name = old.shdr[sec], new.shdr[sec], old.names[sec]
    record = name in record_names(old)
    grows = int(one["sh_type"]) in GROWS or record or sec in case.strings
    grows |= name in GROWN_NAMES and sec == section_of(old, name)
    table = sec in case.linked.grown or sec in code_table_sections(case)
    grows |= table
    free = {"sh_offset"} if grows else set()
    free |= {"sh_addralign"} if sec in case.linked.grown and two["sh_addralign"] in linked.ALIGNMENTS else set()
    free |= {"sh_size"} if grows or (sec == 0 and len(new.shdr) >= t.SHN_LORESERVE) else set()
    wrong = [field for field in one.dtype.names or () if field not in free and one[field] != two[field]]
    if wrong or name != new.names[sec]:
        field = wrong[0] if wrong else "name"
        was, is_ = (name, new.names[sec]) if not wrong else (hex(int(one[field])), hex(int(two[field])))
        case.say("verify-section", f"section {sec} {name}: {field} was {was}, is {is_}", sec=sec)
        return
    moved = one["sh_offset"] != two["sh_offset"]
    if moved and int(two["sh_offset"]) < len(old.data):
        case.say("verify-section", f"section {sec} {name} moved over other bytes: {int(two['sh_offset']):#x}", sec=sec)
    may_shrink = record or int(one["sh_type"]) == t.SHT_RELA
    is_count = sec == 0 and "sh_size" in free  # the number of sections, where the ELF header has no room for it
    if (
        not (moved or is_count)
        and two["sh_size"] != one["sh_size"]
        and not (may_shrink and two["sh_size"] < one["sh_size"])
    ):
        case.say("verify-section", f"section {sec} {name} has {int(two['sh_size'])} bytes where it had "
                 f"{int(one['sh_size'])}", sec=sec)  # fmt: skip
    if moved and record and not np.isin(_words(new, sec), np.append(_words(old, sec), np.uint64(0))).all():
        case.say(
            "verify-record", f"section {sec} {name} has words that it did not have, under its relocations", sec=sec
        )
    if moved and (table or int(one["sh_type"]) in (t.SHT_SYMTAB, t.SHT_STRTAB, t.SHT_SYMTAB_SHNDX)):
        _check_prefix(case, sec)


def _words(image: Image, sec: int) -> U64:
    """The slots of a section of records."""
    content = image.content(sec)
    words: U64 = content[: len(content) // SLOT * SLOT].view("<u8")
    return words


def _check_prefix(case: Case, sec: int) -> None:
    old, new = case.before.image.content(sec), case.after.image.content(sec)[: len(case.before.image.content(sec))]
    if np.array_equal(old, new):
        return
    at = int(np.argmax(old[: len(new)] != new)) if len(new) == len(old) else len(new)
    image = case.before.image
    if image.shdr["sh_type"][sec] == t.SHT_SYMTAB:
        row = at // t.SYM.itemsize
        what = f"symbol {row} {image.symbols.name(row)} is not what it was"
    elif image.shdr["sh_type"][sec] != t.SHT_STRTAB:
        what = f"what the module had in it differs at offset {at:#x}"
    else:
        what = f"the names differ at offset {at:#x}"
    rule = "verify-section" if int(image.shdr["sh_type"][sec]) not in (t.SHT_SYMTAB, *NAMES) else "verify-symbol"
    case.say(rule, f"{image.names[sec]}: {what}", sec=sec, off=at)


def _check_new(case: Case, sec: int) -> None:
    """One section that was added: of a known name, type and flags."""
    image = case.after.image
    name, head = image.names[sec], image.shdr[sec]
    kind, flags = int(head["sh_type"]), int(head["sh_flags"])
    fields = tuple(int(head[field]) for field in ("sh_addr", "sh_addralign", "sh_link", "sh_info", "sh_entsize"))
    tab = next(iter(np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB).tolist()), -1)
    if kind == t.SHT_RELA:
        info = fields[3]
        right = flags == INFO_LINK and 0 < info < len(image.shdr) and name == ".rela" + image.names[info]
        same = (image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == info)
        # what an object's sites needed that were disabled since leaves an empty table
        right &= int(same.sum()) == 1 and (int(head["sh_size"]) > 0 or image.kind == "object")
        right &= fields == (0, 8, tab, info, t.RELA.itemsize)
    elif sec in case.linked.sections:
        right = linked.is_right(image, sec) and fields[2:] == (0, 0, 0) and not fields[0]
    else:
        right = NEW.get(plain(name)) == (kind, flags) and int(head["sh_size"]) > 0
        right &= fields == (
            (0, 4, tab, 0, 4) if kind == t.SHT_SYMTAB_SHNDX else (0, ALIGN.get(plain(name), 16), 0, 0, 0)
        )
    if not right:
        shown = ", ".join(f"{value:#x}" for value in fields)
        case.say("verify-section", f"new section {sec} {name} is none that a patch makes: type {kind}, flags "
                 f"{flags:#x}, address, alignment, link, info, entry size {shown}", sec=sec)  # fmt: skip
    elif flags & t.SHF_ALLOC and name in image.names[:sec]:
        case.say("verify-section", f"new section {sec} is a second one of the name {name}: newer kernels do not load "
                 "the module (EEXIST)", sec=sec)  # fmt: skip
    case.kinds["new section"] += 1
