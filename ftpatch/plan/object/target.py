"""What the sites of an object call: a function of the object itself, or one that a linker will find elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import U32, U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.plan.request import Draft, EnableRequest

ELSEWHERE = "{name} is not in this object: whether it keeps the contract of the sites ({contract}) cannot be told here"
LONGEST = 1 << 12  # bytes of a symbol's name
FAR = 1 << 12  # bytes to where a call goes whose function is not here: no walk follows it


@dataclass(frozen=True)
class ObjectTarget:
    """A function by its symbol."""

    name: str
    row: int  # of its symbol; −1 where it is to be made
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def resolve_object_target(draft: Draft, request: EnableRequest) -> ObjectTarget:
    """The target that the request names. Raises SelectionError or PolicyError where it cannot be one."""
    image, name, where = draft.scan.image, request.target, f"--target {request.target}"
    if not name:
        raise PolicyError("nothing says what the sites call", image.path, expected="--target SYMBOL",
                          todo="ftrace_caller is the kernel's own, and keeps what its entries keep")  # fmt: skip
    if name[:2] in ("0x", "0X"):
        raise SelectionError("an object has no addresses yet", where, expected="a symbol")
    if not name.isprintable() or len(name.encode()) > LONGEST or name != name.strip():
        raise SelectionError("not a symbol's name", where)
    if name in NORETURN:
        raise PolicyError("the target never returns", where, found=name, expected="code that returns to its site")
    rows = image.symbols.rows_named(name)
    defined = rows[image.symbols.shndx[rows] != t.SHN_UNDEF]
    if len(defined):
        return _own(draft, request, where, defined.tolist())
    weak = [row for row in rows.tolist() if image.symbols.bind[row] == t.STB_WEAK]
    if weak and not request.force_target:
        raise PolicyError("the target may be missing", where, found="a weak symbol that this object does not define",
                          expected="one that a linker must find",
                          todo="--force-target takes it nevertheless")  # fmt: skip
    note = ELSEWHERE.format(name=name, contract=draft.scan.arch.contract_of(draft.shape))
    return ObjectTarget(name, int(rows[0]) if len(rows) else -1, notes=(note,))


def _own(draft: Draft, request: EnableRequest, where: str, rows: list[int]) -> ObjectTarget:
    """A target that the object defines."""
    image, symbols = draft.scan.image, draft.scan.image.symbols
    places = {(int(symbols.shndx[row]), int(symbols.rows["st_value"][row])) for row in rows}
    if len(places) > 1:
        raise SelectionError("several symbols of that name", where, found=f"{len(places)} places in this object",
                             expected="one")  # fmt: skip
    row, (sec, value) = rows[0], next(iter(places))
    kind = int(symbols.type[row])
    code = 0 < sec < len(image.names) and bool(image.executable[sec]) and value < int(image.shdr["sh_size"][sec])
    if kind not in (t.STT_FUNC, 0) or not code:
        place = image.names[sec] if 0 < sec < len(image.names) else "no section of this file"
        raise PolicyError("the target is no function", where, found=f"symbol type {kind} in {place}",
                          expected="code")  # fmt: skip
    _require_not_chosen(draft, where, image.base[sec] + np.uint64(value))
    if image.names[sec].startswith(".init") and not request.force_target:
        stays = [at for at in draft.open().tolist() if not image.names[draft.scan.sites.sec[at]].startswith(".init")]
        if stays:
            raise PolicyError("the target is init text, which is freed after boot", where,
                              found="chosen sites outside", expected="a target that stays",
                              todo="--force-target takes it nevertheless")  # fmt: skip
    reason = why_not_kept(draft, row)
    if reason and not request.force_target:
        raise PolicyError("the target does not behave as a trampoline for patch sites", where, found=reason,
                          expected=draft.scan.arch.contract_of(draft.shape),
                          todo="--force-target takes it nevertheless")  # fmt: skip
    name = request.target
    warning = f"target {name} was not shown to keep the contract of a patch site ({reason}); forced"
    return ObjectTarget(name, row, warnings=(warning,) if reason else ())


def _require_not_chosen(draft: Draft, where: str, va: np.uint64) -> None:
    """Refuse a function that would call itself."""
    sites = draft.scan.sites
    mine = draft.request.chosen & (sites.func < sites.func_end) & (sites.entry_va == va)
    if mine.any():
        raise PolicyError("the target is itself among the chosen sites", where,
                          found="a call that leads back to itself", expected="another function",
                          todo=f"--func '!{draft.scan.sites.name(int(np.argmax(mine)))}' leaves it out")  # fmt: skip


def why_not_kept(draft: Draft, row: int) -> str:
    """Why a function of the object is not known to keep the contract of the sites; empty where it is."""
    image, shape, symbols = draft.scan.image, draft.shape, draft.scan.image.symbols
    va = int(image.base[symbols.shndx[row]] + symbols.rows["st_value"][row])
    if image.arch.local_entry is not None:
        va += int(image.arch.local_entry(symbols.rows["st_other"][row : row + 1])[0])
    code = _LinkedCode(image)
    return image.arch.keeps_contract(code.read, va, shape.out_of_line, library=shape.library)


class _LinkedCode:
    """The code of an object with its branches as a linker would fill them in, as far as they stay in it."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._sections: dict[int, U32] = {}

    def read(self, va: int, n: int) -> U32:
        """Up to n units of code at `va`."""
        sec, off = self.image.place(np.array([va & (1 << 64) - 1], dtype=np.uint64))
        number, start = int(sec[0]), int(off[0])
        if number < 0 or not self.image.executable[number] or start % self.image.arch.unit:
            return np.zeros(0, dtype=np.uint32)
        if number not in self._sections:
            self._sections[number] = self._linked(number)
        return self._sections[number][start // self.image.arch.unit :][:n]

    def _linked(self, sec: int) -> U32:
        image, call = self.image, self.image.arch.call
        content = image.content(sec)
        code = (content if call.unit == 1 else content[: len(content) & ~3].view("<u4")).astype(np.uint32)
        rows, to = relocations_of(image, sec), self._targets(sec)
        kinds = (*image.arch.direct_calls, image.arch.modules.jump_type if image.arch.modules else 0)
        for at in np.flatnonzero(np.isin(rows.kind, np.array(kinds, dtype=np.uint64))).tolist():
            start = int(rows.off[at]) - call.relocated_at
            distance = np.array([int(to[at]) - int(image.base[sec]) - start], dtype=np.int64)
            if start < 0 or start + call.size > len(content) or start % call.unit:
                continue
            if not call.reaches(distance)[0]:
                distance[:] = FAR
            field, first = call.encode(distance), start // call.unit
            if call.n_units == 1:
                mask = np.uint32(call.word.mask)
                code[first] = code[first] & mask | field[0] & ~mask
            else:
                code[first + 1 : first + call.n_units] = field[0, 1:]
        return code

    def _targets(self, sec: int) -> U64:
        """va that each branch relocation of a section leads to; far away for what is not here."""
        image, rows = self.image, relocations_of(self.image, sec)
        symbols = image.symbols
        addend = np.zeros(len(rows.off), dtype=np.int64)
        for table in np.unique(rows.table).tolist():
            mine = rows.table == table
            addend[mine] = image.rows(table, t.RELA)["r_addend"][rows.row[mine]]
        shndx = symbols.shndx[rows.symbol]
        here = (shndx > 0) & (shndx < len(image.base))
        value = symbols.rows["st_value"][rows.symbol] + image.base[np.where(here, shndx, 0)]
        local = image.arch.local_entry
        if local is not None:
            value = value + local(symbols.rows["st_other"][rows.symbol])
        with np.errstate(over="ignore"):
            to = value + (addend - image.arch.call.relocated_by).view(np.uint64)
            away = image.base[sec] + rows.off.view(np.uint64) + np.uint64(FAR)
        return np.where(here, to, away)
