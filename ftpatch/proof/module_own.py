"""What a patch brings along, byte by byte: code that no site comes to, gaps, and relocations of no code are findings.

    .text.ftpatch   [ftpatch_target: a far stub] [ftpatch_call: what the sites call] [ftpatch_stubs: one for each site]

Each piece begins at a multiple of eight behind the one before it, with its data in front of its first instruction, and
the section ends with the last piece. What an earlier patch left, whose sites were disabled since, is looked at as if it
were called.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.proof_tables import NONE
from ftpatch.proof.case import Case
from ftpatch.proof.module_code import Calls, Place
from ftpatch.proof.module_symbols import DATA, INIT_TEXT, OPS_TEXT, STUB, TEXT, plain
from ftpatch.proof.redirect_stubs import wrong_piece
from ftpatch.proof.site_words import stub_faults

FAR_STUB = 20  # bytes
OPS_SIZES = (256,)  # bytes of an ops object; more only where a kernel is known to read further


def check_own(calls: Calls) -> None:
    """Findings for what the new sections hold beyond what the sites need."""
    case, image = calls.case, calls.image
    for sec in range(len(case.before.image.shdr), len(image.shdr)):
        if not image.has_bytes[sec]:
            continue  # which is told
        if plain(image.names[sec]) in (TEXT, INIT_TEXT):
            _check_code(calls, sec)
            _check_fixups(calls, sec)
        elif plain(image.names[sec]) in (OPS_TEXT, DATA):
            _check_whole(calls, sec)


def _symbols(calls: Calls, sec: int) -> list[tuple[int, int, str, int]]:
    """(value, size, name, row) of the new symbols of a section, by value."""
    symbols, n = calls.image.symbols, len(calls.case.before.image.symbols.rows)
    rows = (n + np.flatnonzero(symbols.shndx[n:] == sec)).tolist()
    value, size = symbols.rows["st_value"], symbols.rows["st_size"]
    return sorted((int(value[row]), int(size[row]), symbols.name(row), row) for row in rows)


def _leftover(case: Case, row: int) -> bool:
    """Whether a symbol is of an earlier patch, whose sites may have been disabled since."""
    return row < case.last_symbol


def _check_whole(calls: Calls, sec: int) -> None:
    """A section that is one object: the ops, or the function that they call."""
    case, name = calls.case, calls.image.names[sec]
    size, found = int(calls.image.shdr["sh_size"][sec]), _symbols(calls, sec)
    content = calls.image.content(sec)
    whole = len(found) == 1 and found[0][:2] == (0, size)
    if not whole:
        _say(case, sec, 0, f"{name} has {size} bytes, which are not one object of its only symbol")
    elif plain(name) == DATA and (size not in OPS_SIZES or content.any()):
        _say(case, sec, 0, f"its ops object has {size} bytes, expected {OPS_SIZES[0]} zeros")
    elif plain(name) == OPS_TEXT and tuple(content[: size & ~3].view("<u4").tolist()) not in case.tables.returns:
        _say(case, sec, 0, f"{name} is no function that returns at once")
    wanted = 1 if plain(name) == DATA else 0
    if (n := len(calls.named_at(sec, 0, size))) != wanted:
        _say(case, sec, 0, f"{name} has {n} relocations, expected {wanted}")


def _check_code(calls: Calls, sec: int) -> None:
    """The pieces of a section of code: side by side, each as large as what is in it."""
    content, end = calls.image.content(sec), 0
    found = _symbols(calls, sec)
    for value, size, name, row in found:
        front = value - (end + 7 & ~7)
        if front < 0 or value + size > len(content) or not size:
            _say(calls.case, sec, value, f"{name} has {size} bytes at {value:#x}, which are not behind the piece in "
                 "front of it")  # fmt: skip
            return
        wanted, why = _piece(calls, (sec, value, size), name, _leftover(calls.case, row))
        if why:
            _say(calls.case, sec, value, f"{name} {why}")
        elif wanted >= 0 and (front != wanted or content[end:value].tobytes() != _front(calls, value - end, wanted)):
            _say(calls.case, sec, end, f"there are {value - end} bytes in front of {name} that belong to nothing")
        end = value + size
    names = [name for _, _, name, _ in found if not name.startswith(STUB)]  # two replacements may have one name
    if end != len(content) or len(names) != len(set(names)):
        _say(calls.case, sec, end, f"{len(content) - end} bytes at the end belong to no code of the patch")


def _front(calls: Calls, size: int, wanted: int) -> bytes:
    """What lies in front of a piece: zeros, and what its code begins with in front of its first instruction."""
    return bytes(size - wanted) + calls.hook.content[:wanted]


def _piece(calls: Calls, where: tuple[int, int, int], name: str, leftover: bool) -> tuple[int, str]:
    """(bytes of data in front of its first instruction, −1: any, what is wrong with a piece of code).

    where: section, first byte, bytes; name: of its symbol; leftover: of an earlier patch.
    """
    sec, value, size = where
    starts = sorted(off - value for at, off in calls.reached if at == sec and value <= off < value + size)
    if name.startswith(STUB):
        unused = not starts and not leftover
        if unused:
            return 0, f"of {size} bytes is entered by nothing"
        return 0, wrong_piece(calls, where, name, bool(starts))
    role = name.removesuffix("_init").rpartition("_")[2]
    if role == "stubs":
        return 0, _stubs(calls, where, starts, leftover)
    if not starts and not leftover:
        return 0, f"of {size} bytes is called by nothing"
    if starts and starts[0] and not leftover:
        return 0, f"begins with {starts[0]} bytes that no site comes to"
    kind = calls.kind_of(Place(0, sec, value))
    if kind == "hook" and (why := calls.hook_unfixed(Place(0, sec, value))):
        return 0, f"is left over: {why}"
    if kind in ("far", "hook"):
        size_of_hook = calls.hook.unit * len(calls.hook_code)
        wanted, front = (FAR_STUB, 0) if kind == "far" else (size_of_hook, calls.hook.entry)
        return front, "" if size == wanted else f"has {size} bytes, expected {wanted}"
    if leftover and not starts and (why := calls.why_not_kept(Place(0, sec, value), None)):
        return -1, f"is left over, and was not shown to keep a site's contract: {why}"
    return -1, "" if leftover else _copies(calls, where, starts)


def _copies(calls: Calls, where: tuple[int, int, int], starts: list[int]) -> str:
    """Why a user's stub, of which there may be a copy for each site, is not the same for all."""
    sec, value, size = where
    if len(starts) < 2:
        return ""
    step = starts[1]
    if starts != list(range(0, step * len(starts), step)) or not step * (len(starts) - 1) < size <= step * len(starts):
        return f"has {size} bytes for {len(starts)} copies that sites come to, which do not lie side by side"
    content = calls.image.content(sec)[value : value + size]
    padded = np.concatenate(
        [content, content[size - step * (len(starts) - 1) : step]]
    )  # the last one lacks its padding
    rows = padded[: step * len(starts)].reshape(len(starts), -1)
    return "" if (rows == rows[0]).all() else "has copies for its sites that are not the same"


def _stubs(calls: Calls, where: tuple[int, int, int], starts: list[int], leftover: bool) -> str:
    """Why a row of stubs is not one of those that the sites go through."""
    sec, value, size = where
    for literal in (0, 8):
        width = 16 + literal
        slots = list(range(literal, size, width))
        if size % width == 0 and set(starts) <= set(slots) and (leftover or starts == slots):
            if not leftover:
                return ""
            faults = _leftover_stubs(calls, sec, [value + slot for slot in slots])
            return "" if not any(faults) else f"has a stub that is left over and is none: {next(filter(None, faults))}"
    return f"has {size} bytes for {len(starts)} stubs that sites go through"


def _leftover_stubs(calls: Calls, sec: int, places: list[int]) -> list[str]:
    """Why each stub of sites that were disabled since is none; empty where it is one: by its words, and by what its two
    branches name, code of the patch and the place behind a site."""
    pairs = calls.pairs
    faults, _, _ = stub_faults(calls.case, np.stack([calls.words(sec, off, 4) for off in places]))
    behind = set(zip(pairs.sec.tolist(), (pairs.branch_off + 4).tolist(), strict=True))
    starts = {off for off, _, name, _ in _symbols(calls, sec) if "_call" in name}
    for number, off in enumerate(places):
        inner, back = calls.branch_at(sec, off + 4), calls.branch_at(sec, off + 12)
        if isinstance(inner, str) or isinstance(back, str):
            faults[number] = faults[number] or str(inner if isinstance(inner, str) else back)
        elif (back.sec, back.off) not in behind or not (inner.sec == sec and inner.off in starts):
            faults[number] = faults[number] or f"it goes to {calls.name_of(inner)}, and on to {calls.name_of(back)}"
    return faults


def _check_fixups(calls: Calls, sec: int) -> None:
    """Relocations of the patch's code: of branches and of pointers, each on its own."""
    case, end = calls.case, 0
    branch = (calls.modules.branch, *case.arch.loader.calls)
    size = int(calls.image.shdr["sh_size"][sec])
    content = calls.image.content(sec)
    for off, kind, to in calls.named_at(sec, 0, size):
        half = kind != 0 and kind in case.tables.halves
        width = 4 if kind in branch or half else 8
        if off < end or off + width > size or (off % width and case.arch.unit > 1):
            _say(case, sec, off, f"a relocation of type {kind} lies over another, or outside the code")
            continue
        end = off + width
        word = content[off : off + 4].view("<u4")
        if width == 8:
            if content[off:end].any():
                _say(case, sec, off, "a pointer that the loader fills is not empty before")
        elif half:
            if word[0] & np.uint32(0xFFFF):
                _say(case, sec, off, "a half of a distance that the loader fills is not empty before")
        elif not _is_empty_branch(calls, sec, off):
            _say(case, sec, off, f"a call's relocation is on {int(word[0]):#010x}, which is no branch by 0")
        if calls.is_freed(to) and not calls.image.names[sec].startswith(".init"):
            _say(case, sec, off, f"it names {calls.name_of(to)}, which is freed with init memory, and the code stays")


def _is_empty_branch(calls: Calls, sec: int, off: int) -> bool:
    """Whether a branch whose relocation names a place goes nowhere as long as nothing is filled in."""
    call, (field, behind) = calls.case.arch.call, calls.case.tables.branch_field
    units = calls.words(sec, off - field, call.n_units)
    kind, distance = calls.case.tables.branches(units if call.n_units == 1 else units[None, :])
    return off >= field and bool(kind[0] != NONE and distance[0] == field + behind)


def _say(case: Case, sec: int, off: int, text: str) -> None:
    where = case.after.image.names[sec]
    case.say("verify-stub", text if text.startswith(where) else f"{where}: {text}", sec=sec, off=off)
