"""Rules about the entries of static calls and the instructions that they name.

At boot, and when a module is loaded, the kernel writes each site anew from what its key holds. It looks at the
instruction first, and stops at once where it is none that it could have written.
Source: kernel/static_call_inline.c, arch/x86/kernel/static_call.c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.static_call_keys import is_null, is_place, name_of
from ftpatch.sites.elsewhere import DISCARDED
from ftpatch.sites.static_calls import INIT, StaticCallTable
from ftpatch.sites.static_keys import KEY, Named, is_symbol

TAILS = ("tail", "conditional", "return")  # forms of a site that is flagged as a tail call
NULLS = ("nop", "return")  # forms of a site whose key holds NULL
FORMS = {"call": "a call", "tail": "a jump", "conditional": "a conditional jump", "nop": "a NOP",
         "return0": "xor %eax, %eax", "return": "a return"}  # fmt: skip
PLACES = (  # why the kernel must not write at a site; 0: it may
    "",
    "names no place",
    "names {place}, which is no code",
    "names {place}: its {size} bytes run over the end of the section",
    "names {place}, in a section that the kernel leaves out",
    "names {place}, which is outside the kernel's text",
)


def static_call_table(case: Case) -> Iterator[Hit]:
    """A table of static calls that cannot be read."""
    error = case.static_call_trouble
    if error is not None:
        yield Hit(error.what + (f": {error.found}" if error.found else ""))


def static_call_place(case: Case) -> Iterator[Hit]:
    """Entries whose instruction is not where a kernel can write it."""
    table = _table(case)
    reason = _places(table)
    sizes = _sizes(table)
    for row in np.flatnonzero(reason).tolist():
        text = PLACES[int(reason[row])].format(place=_place(table, row), size=int(sizes[row]))
        yield _hit(table, row, f"entry {row} {text}")


def _places(table: StaticCallTable) -> I64:
    """For each site why it must not be written, an index of PLACES."""
    image, calls = table.image, table.calls
    reason = np.zeros(len(calls), dtype=np.int64)
    outside = _outside_text(image, image.va(calls.sec, calls.off)) if image.linked else np.zeros(len(calls), bool)
    left_out = np.array([name.startswith(DISCARDED) for name in image.names])
    ends = calls.off + _sizes(table) > image.shdr["sh_size"].astype(np.int64)[calls.sec]
    for number, wrong in ((5, outside), (4, left_out[calls.sec]), (3, ends), (2, ~image.executable[calls.sec]),
                          (1, calls.sec < 0)):  # fmt: skip
        reason[wrong] = number
    reason[calls.off < 0] = 1
    return reason


def _outside_text(image: Image, va: U64) -> Mask:
    """Which addresses no kernel takes for its own code: it writes only where kernel_text_address() or init text is."""
    inside, known = np.zeros(len(va), dtype=bool), True
    for low, high in (("_stext", "_etext"), ("__init_begin", "__init_end")):
        start, end = image.symbols.value(low), image.symbols.value(high)
        known = known and start is not None and end is not None
        inside |= (va >= np.uint64(start or 0)) & (va < np.uint64(end or 0))
    return ~inside & known


def _sizes(table: StaticCallTable) -> I64:
    """Bytes that the kernel writes at each site; those of a call where no known form stands there."""
    forms = table.image.arch.static_calls
    lengths = [len(form.code) * table.image.arch.unit for form in forms.sites] if forms else []
    return np.array([*lengths, table.image.arch.call.size])[table.calls.form]


def static_call_key(case: Case) -> Iterator[Hit]:
    """Entries that name no key, or one that the kernel cannot write."""
    table = _table(case)
    for row, why in sorted(_wrong_keys(table).items()):
        yield _hit(table, row, f"entry {row} ({_place(table, row)}) {why}")


def _wrong_keys(table: StaticCallTable) -> dict[int, str]:
    """Row of each entry that names no key, and why not. A linked file without symbols tells of none."""
    image, calls, keys = table.image, table.calls, table.keys
    if not len(keys):
        return {} if image.linked else dict.fromkeys(range(len(calls)), "names no key")
    index, named = calls.key, calls.names
    nobody, place = index < 0, (keys.sec[index] >= 0) & (index >= 0)
    wrong: dict[int, str] = {}

    def say(rows: Mask, why: str) -> None:
        wrong.update(dict.fromkeys(np.flatnonzero(rows).tolist(), why))

    writable = image.shdr["sh_flags"] & t.SHF_WRITE != 0
    say(place & ~writable[keys.sec[index]], "names a key in memory that is never written: the kernel writes into it")
    at_key = is_place(named, (keys.sec, keys.off), index) & (keys.symbol[index] >= 0)
    if image.linked:
        told = bool((keys.symbol >= 0).any())
        say((nobody | ~at_key) & told, "names no key: no symbol __SCK__… has that address")
        return wrong
    at_key |= ~nobody & (_same(named, keys.symbol[index]) | _same(named, keys.trampoline[index]))
    say(nobody | ~at_key, "names no key")
    say(is_place(named, table.trampolines, index), "names a trampoline of its own file, not a key")
    return wrong


def static_call_form(case: Case) -> Iterator[Hit]:
    """Sites that hold nothing that the kernel would replace."""
    table = _table(case)
    sound = _places(table) == 0
    for row in np.flatnonzero(sound & (table.words_at() < 0) & _relocated(table)).tolist():
        yield _hit(table, row, f"entry {row} ({_place(table, row)}): a relocation writes into bytes that are no branch")
    rows = np.flatnonzero((table.calls.form < 0) & sound & ~_relocated(table))
    for row, code in zip(rows.tolist(), table.codes(rows), strict=True):
        yield _hit(table, row, f"entry {row} ({_place(table, row)}) has {code}, no call or jump of a static call")


def _relocated(table: StaticCallTable) -> Mask:
    """Sites of a relocatable file that the loader writes into."""
    image, calls = table.image, table.calls
    hit = np.zeros(len(calls), dtype=bool)
    for sec in np.unique(calls.sec[calls.sec >= 0]).tolist() if not image.linked else ():
        mine = np.flatnonzero(calls.sec == sec)
        hit[mine] = touched(relocations_of(image, sec), calls.off[mine], image.arch.call.size)
    return hit


def static_call_flag(case: Case) -> Iterator[Hit]:
    """Entries whose flags are wrong for the instruction or for where it is."""
    table = _table(case)
    sound, kinds, flags = _places(table) == 0, np.array(table.kinds(), dtype=object), table.calls.flags
    jumps = np.isin(kinds, TAILS)
    for row in np.flatnonzero(sound & (table.calls.form >= 0) & (jumps != table.calls.tail)).tolist():
        what = "is flagged as a tail call" if table.calls.tail[row] else "has no flag of a tail call"
        yield _hit(table, row, f"entry {row} ({_place(table, row)}) {what}, its instruction is {FORMS[kinds[row]]}")
    for row in np.flatnonzero(sound & (flags & INIT != 0) & ~_init(table)).tolist():
        yield _hit(
            table, row, f"entry {row} ({_place(table, row)}) is flagged as init text, and stays: updates pass it by"
        )


def _init(table: StaticCallTable) -> Mask:
    """Sites in code that is freed once the kernel or module has started; all of them where that is not known."""
    image, calls = table.image, table.calls
    if not image.linked:
        return np.array([name.startswith(".init") for name in image.names])[calls.sec]
    low, high = image.symbols.value("__init_begin"), image.symbols.value("__init_end")
    if low is None or high is None:
        return np.ones(len(calls), dtype=bool)
    va = image.va(calls.sec, calls.off)
    return np.asarray((va >= np.uint64(low)) & (va < np.uint64(high)))


def static_call_destination(case: Case) -> Iterator[Hit]:
    """Sites that go elsewhere than to the trampoline of their key, or to what the key holds."""
    table = _table(case)
    calls, keys = table.calls, table.keys
    if not len(keys):
        return
    kinds, index = np.array(table.kinds(), dtype=object), calls.key
    judged = (calls.form >= 0) & (_places(table) == 0) & (index >= 0)
    judged[list(_wrong_keys(table))] = False
    judged &= keys.trampoline[index] >= 0
    null = is_null(keys.func)[index] & (keys.sec[index] >= 0)
    away = keys.sec[index] < 0  # what a key of another file holds is not known
    fits = is_place(calls.destination, table.trampolines, index) | _same(calls.destination, keys.trampoline[index])
    fits |= is_place(calls.destination, (keys.func.sec, keys.func.off), index)
    fits |= np.isin(kinds, NULLS) & (null | away)
    fits |= (kinds == "return0") & (table.is_return0()[index] | away)
    fits |= is_symbol(table.image, calls.destination, _thunk(table)) & (kinds == "tail") & (null | away)
    for row in np.flatnonzero(judged & ~fits).tolist():
        name = keys.name[int(index[row])]
        what = FORMS[kinds[row]] + (f" to {where}" if (where := name_of(table.image, calls.destination, row)) else "")
        yield _hit(table, row, f"entry {row} ({_place(table, row)}) is {what}, its key is {KEY}{name}")


def _thunk(table: StaticCallTable) -> str:
    """The function that a tail call of NULL jumps to."""
    forms = table.image.arch.static_calls
    return forms.thunk if forms else ""


def _same(named: Named, symbol: I64) -> Mask:
    """Which fields name the start of these symbols of another file."""
    return np.asarray((named.symbol >= 0) & (named.symbol == symbol) & (named.sec < 0) & (named.off == 0))


def static_call_twice(case: Case) -> Iterator[Hit]:
    """Entries whose instruction is one that another entry names too, or part of it."""
    table = _table(case)
    rows = np.flatnonzero(_places(table) == 0)
    va = table.image.va(table.calls.sec[rows], table.calls.off[rows])
    order = np.argsort(va, kind="stable")
    rows, va = rows[order], va[order]
    gap = (va[1:] - va[:-1]).astype(np.int64)
    for at in np.flatnonzero(gap < _sizes(table)[rows[:-1]]).tolist():
        first, second = sorted(rows[at : at + 2].tolist())
        how = "name the same instruction" if gap[at] == 0 else f"name instructions {gap[at]} bytes apart"
        yield _hit(table, second, f"entries {first} and {second} {how}, {_place(table, second)}")


def _table(case: Case) -> StaticCallTable:
    assert case.static_calls is not None
    return case.static_calls


def _hit(table: StaticCallTable, row: int, text: str) -> Hit:
    """What a rule found at a site."""
    calls, sec = table.calls, int(table.calls.sec[row])
    if sec < 0:
        return Hit(text)
    here = Named(calls.sec, calls.off, np.full(len(calls), -1))
    function = name_of(table.image, here, row, inside=True) or None
    return Hit(text, function=function, section=table.image.names[sec], offset=int(calls.off[row]))


def _place(table: StaticCallTable, row: int) -> str:
    """Where a site is, for people."""
    calls, sec = table.calls, int(table.calls.sec[row])
    return f"{table.image.names[sec]}+{int(calls.off[row]):#x}" if sec >= 0 else "no place"
