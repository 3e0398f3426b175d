"""The check after a module was written: the result is read from zero and held against the plan and the input.

Every original section, symbol and relocation must be there still, but for those that the plan names. What is new is
followed from every site as a loader would: through relocation, symbol and section to the code that the plan wants, and
from there to the hook, back behind the site, and to the ops object and its function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import Arch, Fixup, Modules
from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ApplyError
from ftpatch.kernel.modinfo import read_modinfo, read_versions
from ftpatch.plan.module.build import DATA, INIT_TEXT, TEXT
from ftpatch.plan.plan import Callee, Plan
from ftpatch.plan.stubasm.text import SITE, TARGET
from ftpatch.sites.records import SECTIONS, read_records
from ftpatch.write.verify import check_bytes, failed, second_decoder

Place = tuple[int, int]  # section, offset

TABLES = (t.SHT_SYMTAB, t.SHT_STRTAB, t.SHT_SYMTAB_SHNDX)
FIXED = ("sh_name", "sh_type", "sh_flags", "sh_addr", "sh_link", "sh_info", "sh_addralign", "sh_entsize")
HEADER = tuple(name for name in t.EHDR.names or () if name not in ("e_shoff", "e_shnum"))
CODE = re.compile(r"(\.init)?\.text\.ftpatch")
CODE_FLAGS, DATA_FLAGS, TABLE_FLAGS = t.SHF_ALLOC | t.SHF_EXECINSTR, t.SHF_ALLOC | t.SHF_WRITE, 0x40
GLOBAL = t.STB_GLOBAL


def check_module(before: Image, after: Image, arch: Arch, plan: Plan) -> None:
    """Raise ApplyError where the written module is not what the plan says."""
    check_bytes(before, after, plan.edits)
    _check_old_sections(before, after)
    _check_new_sections(before, after)
    _check_symbols(before, after, plan)
    _check_metadata(before, after, plan)
    _check_records(after, arch, plan)
    _check_words(after, arch, plan)
    loaded = _Loaded(after, arch, _changed_relocations(before, after))
    for at in range(len(plan.index)):  # a loader looks at every site, too
        _check_site(loaded, plan, at)
    unused = set(loaded.rows) - loaded.seen
    if unused:
        raise failed(after, "the relocations", f"{len(unused)} that nothing asks for, {_at(after, min(unused))}")


# -- what was there before ---------------------------------------------------------------------------------------------


def _check_old_sections(before: Image, after: Image) -> None:
    """Old sections keep number, name, kind and place; only tables and metadata may move, and only to the end."""
    n = len(before.shdr)
    for key in HEADER:
        if np.any(before.ehdr[key] != after.ehdr[key]):
            raise failed(after, f"{key} of the ELF header", str(after.ehdr[key]))
    if len(after.shdr) < n or after.names[:n] != before.names:
        raise failed(after, "the sections", "other names or fewer sections")
    for key in FIXED:
        differs = np.flatnonzero(before.shdr[key] != after.shdr[key][:n])
        if len(differs):
            raise failed(after, f"{key} of section {differs[0]}", str(after.shdr[key][differs[0]]))
    old, new = before.shdr, after.shdr[:n]
    same = (old["sh_offset"] == new["sh_offset"]) & (old["sh_size"] == new["sh_size"])
    same[0] |= old["sh_offset"][0] == new["sh_offset"][0] and new["sh_size"][0] == len(after.shdr) >= t.SHN_LORESERVE
    for sec in np.flatnonzero(~same).tolist():
        cut = old["sh_offset"][sec] == new["sh_offset"][sec] and old["sh_size"][sec] > new["sh_size"][sec]
        if not (_of_records(before, sec) if cut else _has_grown(before, after, sec)):
            raise failed(after, "the sections", f"section {sec} {before.names[sec]} moved")


def _has_grown(before: Image, after: Image, sec: int) -> bool:
    """Whether a table or metadata lies behind the original bytes, aligned, its old content in front."""
    old, new, name = before.shdr[sec], after.shdr[sec], before.names[sec]
    size, pos = int(old["sh_size"]), int(new["sh_offset"])
    if pos < len(before.data) or pos % max(int(new["sh_addralign"]), 1) or int(new["sh_size"]) <= size:
        return False
    if name == ".modinfo" or name.startswith("__version") or old["sh_type"] == t.SHT_RELA:
        return True  # which are compared row by row
    return old["sh_type"] in TABLES and np.array_equal(before.content(sec), after.content(sec)[:size])


def _of_records(image: Image, sec: int) -> bool:
    """Whether a section holds records, or their relocations."""
    if image.shdr["sh_type"][sec] == t.SHT_RELA:
        sec = int(image.shdr["sh_info"][sec])
    return image.names[sec] in SECTIONS


def _check_symbols(before: Image, after: Image, plan: Plan) -> None:
    """Old symbols are as before; new ones are global, the plan's by name, and inside a section."""
    n, found = len(before.symbols.rows), after.symbols
    same = np.array_equal(before.symbols.rows, found.rows[:n])
    if not same or not np.array_equal(before.symbols.shndx, found.shndx[:n]):
        raise failed(after, "the symbols", "an old symbol changed")
    if not found.strtab.startswith(before.symbols.strtab):
        raise failed(after, "the symbols", "an old name changed")
    imports = {name for _, name in _callee(plan).names}
    for row in range(n, len(found.rows)):  # a handful
        name, sec, symbol = found.name(row), int(found.shndx[row]), found.rows[row]
        if sec == t.SHN_UNDEF:
            kind, sound = 0, name in imports and not symbol["st_value"] and not symbol["st_size"]
        else:
            ours, size = sec >= len(before.shdr), int(after.shdr["sh_size"][sec])
            kind = 0 if not ours else t.STT_OBJECT if after.names[sec] == DATA else t.STT_FUNC
            inside = int(symbol["st_value"]) + int(symbol["st_size"]) <= size
            sound = name.startswith("ftpatch_") and (inside if ours else not symbol["st_size"])
        if not sound or symbol["st_other"] or int(symbol["st_info"]) != GLOBAL << 4 | kind:
            raise failed(after, "the symbols", f"new symbol {row} {name}")


def _check_metadata(before: Image, after: Image, plan: Plan) -> None:
    """`.modinfo` names other modules in depends= at most; versions are as before, with those of the plan's imports."""
    old, new = read_modinfo(before), read_modinfo(after)
    other = [[(one.key, one.value) for one in info.entries if one.key != "depends"] for info in (old, new)]
    if other[0] != other[1] or new.depends[: len(old.depends)] != old.depends:
        raise failed(after, ".modinfo", "other strings than before")
    one, two = read_versions(before), read_versions(after)
    added = {bytes(name).decode("utf-8", "backslashreplace") for name in two.names[len(one) :]}
    same = np.array_equal(one.names, two.names[: len(one)]) and np.array_equal(one.crc, two.crc[: len(one)])
    if not same or not added <= {name for _, name in _callee(plan).names}:
        raise failed(after, "the symbol versions", "other rows than before")


# -- records and words -------------------------------------------------------------------------------------------------


def _check_records(after: Image, arch: Arch, plan: Plan) -> None:
    records = read_records(after)
    stays = ~plan.gone
    if not (
        np.array_equal(records.sec, plan.scan.records.sec[stays])
        and np.array_equal(records.value, plan.scan.records.value[stays])
    ):
        raise failed(after, "the records", f"{len(records)} records that are not the planned {int(stays.sum())}")


def _check_words(after: Image, arch: Arch, plan: Plan) -> None:
    """Every site's words are the planned ones, and a direct branch of no distance for another decoder, too."""
    table, index = plan.scan.sites, plan.index
    if not len(index):
        return
    words = after.words(table.sec[index], table.off[index] + table.site[index], 0, plan.new_words.shape[1])
    if not np.array_equal(words, plan.new_words):
        raise failed(after, "the site words", "other words than planned")
    texts, distance = second_decoder(arch, words)
    if len(set(texts)) != 1 or texts[0] == "?" or np.any(distance):
        raise failed(after, "a site", f"{sorted(set(texts))} (capstone)")


# -- what is new -------------------------------------------------------------------------------------------------------


def _check_new_sections(before: Image, after: Image) -> None:
    """New sections are code, the ops object, or tables that belong to them, each with the header of its kind."""
    symtab = int(np.flatnonzero(after.shdr["sh_type"] == t.SHT_SYMTAB)[0]) if len(after.shdr) > len(before.shdr) else 0
    for sec in range(len(before.shdr), len(after.shdr)):
        head, name = after.shdr[sec], after.names[sec]
        info, align = int(head["sh_info"]), int(head["sh_addralign"])
        found = tuple(int(head[key]) for key in ("sh_type", "sh_flags", "sh_addr", "sh_link", "sh_entsize"))
        if CODE.match(name) or name == DATA:
            flags, least = (DATA_FLAGS, 8) if name == DATA else (CODE_FLAGS, 16)
            sound = found == (t.SHT_PROGBITS, flags, 0, 0, 0) and info == 0 and align == least
        elif name.startswith(".rela"):
            sound = found == (t.SHT_RELA, TABLE_FLAGS, 0, symtab, t.RELA.itemsize) and align == 8
            sound &= info < len(after.shdr) and name == ".rela" + after.names[info]
        else:
            sound = name == ".symtab_shndx" and found == (t.SHT_SYMTAB_SHNDX, 0, 0, symtab, 4)
        if not sound or int(head["sh_offset"]) < len(before.data) or int(head["sh_offset"]) % align:
            raise failed(after, "the sections", f"new section {sec} {name}")


Relocation = tuple[int, int, int]  # type, symbol, addend


def _changed_relocations(before: Image, after: Image) -> dict[Place, Relocation]:
    """Relocations that are not as before, by place; those of records, which were compared, left out."""
    found: dict[Place, Relocation] = {}
    for table in np.flatnonzero(after.shdr["sh_type"] == t.SHT_RELA).tolist():
        sec = int(after.shdr["sh_info"][table])
        if after.names[sec] in SECTIONS:
            continue
        rows = after.rows(table, t.RELA)
        old = before.rows(table, t.RELA) if table < len(before.shdr) else rows[:0]
        if len(rows) < len(old):
            raise failed(after, "the relocations", f"fewer of section {sec} {after.names[sec]}")
        changed = np.flatnonzero(rows[: len(old)] != old)
        if np.any(rows["r_offset"][changed] != old["r_offset"][changed]):
            raise failed(after, "the relocations", f"one of section {sec} {after.names[sec]} moved")
        for row in [*changed.tolist(), *range(len(old), len(rows))]:
            place, info = (sec, int(rows["r_offset"][row])), int(rows["r_info"][row])
            if place in found:
                raise failed(after, "the relocations", f"two at {_at(after, place)}")
            found[place] = info & 0xFFFF_FFFF, info >> 32, int(rows["r_addend"][row])
    return found


@dataclass(frozen=True)
class _Loaded:
    """The result as a loader sees it. rows: the changed relocations by place; seen: those that were followed; sound:
    code and ops objects that were proven, which many sites share."""

    image: Image
    arch: Arch
    rows: dict[Place, Relocation]
    seen: set[Place] = field(default_factory=set)
    sound: set[Place] = field(default_factory=set)

    @property
    def modules(self) -> Modules:
        assert self.arch.modules is not None
        return self.arch.modules

    def row(self, place: Place, kind: int) -> tuple[int, int]:
        """(symbol, addend) of the relocation at a place, which must be of one type."""
        found = self.rows.get(place)
        if found is None or found[0] != kind or found[1] >= len(self.image.symbols.rows):
            text = "none" if found is None else f"type {found[0]}, symbol {found[1]}"
            raise self.wrong(place, text)
        self.seen.add(place)
        return found[1:]

    def leads(self, place: Place, kind: int) -> Place:
        """Where the relocation at a place leads."""
        symbol, addend = self.row(place, kind)
        symbols = self.image.symbols
        return int(symbols.shndx[symbol]), int(symbols.rows["st_value"][symbol]) + addend

    def holds(self, place: Place, words: tuple[int, ...]) -> bool:
        """Whether code of exactly these words stands at a place."""
        sec, off = place
        if sec <= 0 or not self.image.executable[sec] or not 0 <= off <= int(self.image.shdr["sh_size"][sec]):
            return False
        at: list[I64] = [np.array([one], dtype=np.int64) for one in place]
        return bool(np.array_equal(self.image.words(at[0], at[1], 0, len(words))[0], words))

    def wrong(self, place: Place, found: str) -> ApplyError:
        return failed(self.image, f"the relocation at {_at(self.image, place)}", found)


def _check_site(loaded: _Loaded, plan: Plan, at: int) -> None:
    """From one site to all that it calls and reads."""
    shape, branch = plan.scan.sites.shape, _branch(plan, at)
    assert shape is not None
    if _callee(plan).ops_size and shape.literal is not None:
        _check_ops(loaded, plan, (branch[0], int(plan.scan.sites.off[plan.index[at]]) + shape.literal))
    if not shape.out_of_line:
        _check_callee(loaded, plan, at, branch)
        return
    stub, start = loaded.arch.site_stub, loaded.leads(branch, loaded.modules.branch)
    assert stub is not None
    none = np.zeros(1, dtype=np.int64)
    words = tuple(stub.code(none, none)[0].tolist())
    if not loaded.holds(start, words) or not _in_text(loaded, start, _is_init(plan, at)):
        raise loaded.wrong(branch, f"leads to {_at(loaded.image, start)}, which is no stub")
    if _callee(plan).ops_size:
        _check_ops(loaded, plan, (start[0], start[1] - stub.literal))
    _check_callee(loaded, plan, at, (start[0], start[1] + stub.call_at))
    back = (start[0], start[1] + stub.back_at)
    behind = loaded.leads(back, loaded.modules.branch)
    if behind != (branch[0], branch[1] + 4):
        raise loaded.wrong(back, f"leads to {_at(loaded.image, behind)}")


def _in_text(loaded: _Loaded, place: Place, init: bool) -> bool:
    """Whether a place is in the patch's code for sites of that kind: what is freed with init text serves no other."""
    return loaded.image.names[place[0]] == (INIT_TEXT if init else TEXT)


def _check_callee(loaded: _Loaded, plan: Plan, at: int, place: Place) -> None:
    """The call at a place, made for the at-th site, leads to what the plan's sites call."""
    target = loaded.leads(place, loaded.modules.branch)
    _check_code(loaded, plan, at, _callee(plan), place, target)


def _check_code(loaded: _Loaded, plan: Plan, at: int, callee: Callee, place: Place, target: Place) -> None:
    """What a relocation at a place leads to is the loader's jump, or the planned code with all its own relocations."""
    init, code = _is_init(plan, at), callee.code
    if code is None:
        names = [name for name in loaded.modules.trampolines if name in loaded.image.names]
        if target != (loaded.image.names.index(names[-1 if init else 0]), callee.jump):
            raise loaded.wrong(place, f"leads to {_at(loaded.image, target)}")
        return
    start = (target[0], target[1] - code.entry)
    if not _in_text(loaded, start, init) or not (start in loaded.sound or loaded.holds(start, code.words)):
        raise loaded.wrong(place, f"leads to {_at(loaded.image, target)}, which is not the planned code")
    if start in loaded.sound and not callee.per_site:
        return
    loaded.sound.add(start)
    for one in code.fixups:
        _check_fixup(loaded, plan, at, callee, one, (start[0], start[1] + one.off))


def _check_fixup(loaded: _Loaded, plan: Plan, at: int, callee: Callee, one: Fixup, place: Place) -> None:
    """A relocation of the code itself: it names the plan's symbol, or leads to the at-th site, or to where the code
    goes on to."""
    symbols = loaded.image.symbols
    symbol, addend = loaded.row(place, one.kind)
    target = loaded.leads(place, one.kind)
    if one.symbol == TARGET and callee.target is not None:
        _check_code(loaded, plan, at, callee.target, place, (target[0], target[1] - one.addend))
        return
    if one.symbol == SITE:
        sec, off = _branch(plan, at)
        sound = target == (sec, off + one.addend)
    else:
        sound = symbol in symbols.rows_named(dict(callee.names)[one.symbol]) and addend == one.addend
    if not sound:
        raise loaded.wrong(place, f"leads to {symbols.name(symbol)}{addend:+#x}")


def _callee(plan: Plan) -> Callee:
    assert plan.callee is not None
    return plan.callee


def _branch(plan: Plan, at: int) -> Place:
    """Where the at-th site's branch is."""
    table, site = plan.scan.sites, int(plan.index[at])
    sec = int(table.sec[site])
    return sec, int(table.branch_va[site] - table.image.base[sec])


def _is_init(plan: Plan, at: int) -> bool:
    return plan.scan.sites.image.names[int(plan.scan.sites.sec[plan.index[at]])].startswith(".init")


def _check_ops(loaded: _Loaded, plan: Plan, place: Place) -> None:
    """The pointer at a place leads to an ops object: zeros, and a pointer to the patch's own function."""
    image, kind = loaded.image, loaded.arch.abs64
    ops = loaded.leads(place, kind)
    if ops in loaded.sound:
        return
    if image.names[ops[0]] != DATA or ops[1]:
        raise loaded.wrong(place, f"leads to {_at(image, ops)}")
    content = image.content(ops[0])
    if len(content) < _callee(plan).ops_size or content.any():
        raise failed(image, "the ops object", f"{len(content)} bytes, or not zero")
    if not loaded.holds(loaded.leads(ops, kind), loaded.modules.ops_function.words):
        raise failed(image, "the ops object", "its function is not the patch's own")
    loaded.sound.add(ops)


def _at(image: Image, place: Place) -> str:
    sec, off = place
    return f"{image.names[sec] if 0 < sec < len(image.names) else 'nowhere'}+{off:#x}"
