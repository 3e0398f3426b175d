"""Rules about the keys of static calls, and about their trampolines, which must lead to what the key holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import RecordError
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import KEY, TRAMPOLINE, Named
from ftpatch.sites.static_pairs import Pairs, read_pairs


def static_call_trampoline(case: Case) -> Iterator[Hit]:
    """Keys without a trampoline, and trampolines without a key."""
    table = _table(case)
    own, trampoline = table.keys.sec >= 0, table.trampolines[0] >= 0
    for row in np.flatnonzero(own & (table.keys.symbol >= 0) & (table.keys.trampoline < 0)).tolist():
        yield _of_key(table, row, f"{KEY}{table.keys.name[row]} has no trampoline")
    for row in np.flatnonzero(trampoline & (table.keys.symbol < 0)).tolist():
        yield _of_trampoline(table, row, f"{TRAMPOLINE}{table.keys.name[row]} has no key")


def static_call_signature(case: Case) -> Iterator[Hit]:
    """Trampolines by whose bytes the kernel does not know them as such."""
    table = _table(case)
    own, signed = table.trampolines[0] >= 0, table.signed()
    unknown, unsigned = own & (table.keys.form < 0), ~signed
    if case.image.linked and not signed[own & ~unknown].any():  # a kernel older than the signature (Linux 5.16)
        unsigned &= unknown
    for row in np.flatnonzero(unknown | unsigned).tolist():
        what = "no code of a trampoline" if unknown[row] else "no signature behind its jump"
        yield _of_trampoline(table, row, f"{TRAMPOLINE}{table.keys.name[row]} has {what}: {_code(table, row)}")


def _code(table: StaticCallTable, row: int) -> str:
    """The code of a trampoline in hex."""
    sec, off = (column[row : row + 1] for column in table.trampolines)
    forms, arch = table.image.arch.static_calls, table.image.arch
    units = table.image.words(sec, off, 0, forms.size // arch.unit if forms else 0)[0].tolist()
    return " ".join(f"{unit:0{2 * arch.unit}x}" for unit in units)


def static_call_function(case: Case) -> Iterator[Hit]:
    """Trampolines that lead elsewhere than to what their key holds."""
    table = _table(case)
    image, keys = table.image, table.keys
    judged = (keys.sec >= 0) & (keys.symbol >= 0) & (table.trampolines[0] >= 0) & (keys.form >= 0)
    kinds = np.array(table.trampoline_kinds(), dtype=object)
    null, return0 = is_null(keys.func), table.is_return0()
    to, func = keys.leads_to, keys.func
    fits = ((to.sec >= 0) & (to.sec == func.sec) & (to.off == func.off)) | (
        (to.symbol >= 0) & (to.symbol == func.symbol) & (to.sec < 0) & (func.sec < 0) & (to.off == func.off)
    )
    fits |= (null & np.isin(kinds, ("null", "thunk"))) | (return0 & (kinds == "return0"))
    if not _has_null_form(table):
        fits |= null & (kinds == "return0")  # both forms are one there
    for row in np.flatnonzero(judged & ~fits).tolist():
        held = "NULL" if null[row] else name_of(image, func, row) or "no place of this file"
        leads = name_of(image, to, row) or {"null": "nothing", "return0": "0"}.get(str(kinds[row]), "no place of it")
        yield _of_trampoline(table, row, f"{KEY}{keys.name[row]} holds {held}, its trampoline leads to {leads}")


def _has_null_form(table: StaticCallTable) -> bool:
    """Whether trampolines of NULL keys differ from those that return 0."""
    forms = table.image.arch.static_calls
    return forms is not None and (bool(forms.thunk) or any(form.kind == "null" for form in forms.trampolines))


def static_call_pair(case: Case) -> Iterator[Hit]:
    """Pairs of a trampoline and another's key; trampolines that a module names and its kernel has no pair of."""
    if case.kind == "vmlinux":
        yield from _wrong_pairs(case)
    elif case.kernel is not None:
        yield from _without_pair(_table(case), case.kernel.image)


def _wrong_pairs(case: Case) -> Iterator[Hit]:
    table, image = _table(case), case.image
    try:
        pairs = read_pairs(image)
    except RecordError as error:
        yield Hit(error.what + (f": {error.found}" if error.found else ""))
        return
    keys = {int(va): row for row, va in enumerate(image.va(table.keys.sec, table.keys.off).tolist())}
    trampolines = {int(va): row for row, va in enumerate(image.va(*table.trampolines).tolist())}
    for number, (trampoline, key) in enumerate(zip(pairs.trampoline.tolist(), pairs.key.tolist(), strict=True)):
        at, of = trampolines.get(trampoline), keys.get(key)
        if at is None or at != of:
            first, second = (f"{prefix}{table.keys.name[row]}" if row is not None else f"{va:#x}"
                             for prefix, row, va in ((TRAMPOLINE, at, trampoline), (KEY, of, key)))  # fmt: skip
            yield Hit(f"pair {number} of trampoline and key has {first} and {second}")


def _without_pair(table: StaticCallTable, kernel: Image) -> Iterator[Hit]:
    """Trampolines that stand in a key's place and that the loader will not find."""
    if not len(table.keys):
        return
    named = table.calls.names
    trampoline = table.keys.trampoline[table.calls.key]
    alone = (table.calls.key >= 0) & (named.sec < 0) & (named.symbol >= 0) & (named.symbol == trampoline)
    names = sorted({table.keys.name[row] for row in table.calls.key[alone].tolist()})
    pairs = read_pairs(kernel) if names else Pairs(np.zeros(0, np.uint64), np.zeros(0, np.uint64), False)
    known = set(pairs.trampoline.tolist())
    for name in names if pairs.named else ():
        if kernel.symbols.value(f"{TRAMPOLINE}{name}") not in known:
            yield Hit(f"{TRAMPOLINE}{name} stands in a key's place, and the kernel has no pair of it and a key")


def is_null(func: Named) -> Mask:
    """Which of these pointers hold NULL."""
    return np.asarray((func.sec < 0) & (func.symbol < 0) & (func.off == 0))


def is_place(named: Named, place: tuple[I64, I64], index: I64) -> Mask:
    """Which fields name the place of their row of a table."""
    sec, off = (column[index] for column in place)
    return np.asarray((named.sec >= 0) & (named.sec == sec) & (named.off == off) & (index >= 0))


def name_of(image: Image, named: Named, row: int, inside: bool = False) -> str:
    """Name of what a field names, with the distance from it unless the whole function is meant; "" where unknown."""
    sec, off, symbol = (int(column[row]) for column in named)
    if sec < 0:
        return (image.symbols.name(symbol) + (f"+{off:#x}" if off > 0 else "")) if symbol >= 0 else ""
    va = image.va(np.array([sec]), np.array([off]))
    at = int(image.functions.containing(va)[0])
    if at < 0:
        return "" if inside else f"{image.names[sec]}+{off:#x}"
    distance = int(va[0]) - int(image.functions.va[at])
    name = image.symbols.name(int(image.functions.row[at]))
    return name + (f"+{distance:#x}" if distance and not inside else "")


def _table(case: Case) -> StaticCallTable:
    assert case.static_calls is not None
    return case.static_calls


def _of_key(table: StaticCallTable, row: int, text: str) -> Hit:
    sec = int(table.keys.sec[row])
    return Hit(
        text, function=f"{KEY}{table.keys.name[row]}", section=table.image.names[sec], offset=int(table.keys.off[row])
    )


def _of_trampoline(table: StaticCallTable, row: int, text: str) -> Hit:
    sec, off = (int(column[row]) for column in table.trampolines)
    return Hit(text, function=f"{TRAMPOLINE}{table.keys.name[row]}", section=table.image.names[sec], offset=off)
