"""The stubs that a patch brings for a module's redirected functions: every word, every relocation, and where they lead.

Which there are is in the machine's table. Code that is none of them is a finding, which says what it would do wrong
where that can be told.
"""

from __future__ import annotations

from dataclasses import replace

from ftpatch.arch.proof_tables import NONE, Halves, RedirectStub
from ftpatch.elf import tables as t
from ftpatch.proof.module_code import Calls, Place
from ftpatch.proof.redirects import Landing, function_at, what_is_at

NEARLY = 3  # words in which a damaged stub may differ from what it was
FOREIGN = (
    "the loader's stub for it writes the TOC pointer into a frame of the caller's, which may hold another one there"
)
READ = 64  # words of unknown code that are looked at


def read_stub(calls: Calls, sec: int, off: int) -> tuple[Landing, RedirectStub | None]:
    """Where the stub at a place leads, or why it is none; and which it is."""
    known = [(_differences(calls, sec, off, stub), stub) for stub in calls.case.tables.redirect_stubs]
    wrong, stub = min(known, key=lambda pair: (len(pair[0]), -len(pair[1].words)), default=([], None))
    if stub is None or wrong:
        return Landing(why=_why_none(calls, (sec, off), wrong, stub), stub=(sec, off)), None
    if why := _wrong_relocations(calls, sec, off, stub):
        return Landing(why=why, stub=(sec, off)), None
    landing = _entered(calls, sec, off, stub.enters) if stub.enters else _called(calls, sec, off, stub)
    return replace(landing, stub=(sec, off), by_global=True), stub


def _why_none(calls: Calls, place: tuple[int, int], wrong: list[int], stub: RedirectStub | None) -> str:
    """Why code is no stub: what it does, or which word is not that of the stub that it is nearly. wrong: the numbers of
    all such words."""
    if why := _hazard(calls, *place):
        return why
    if stub is None or len(wrong) > NEARLY:
        return "that is no stub of a redirected function"
    word, text, loss = stub.words[wrong[0]]
    there = int(calls.words(place[0], place[1] + 4 * wrong[0], 1)[0])
    return f"its stub has {there:#010x} at +{4 * wrong[0]:#x}, expected {word:#010x} ({text}): {loss}"


def _differences(calls: Calls, sec: int, off: int, stub: RedirectStub) -> list[int]:
    """The numbers of the words that are not those of a stub."""
    words = calls.words(sec, off, len(stub.words)).tolist()
    return [number for number, (word, known) in enumerate(zip(words, stub.words, strict=True)) if word != known.word]


def _wrong_relocations(calls: Calls, sec: int, off: int, stub: RedirectStub) -> str:
    """Why the relocations of a stub are not those that it needs; empty where they are."""
    high, low = calls.case.tables.halves
    wanted = [(off + place, kind) for halves in (stub.enters, stub.own_toc) if halves
              for place, kind in ((halves.high, high), (halves.low, low))]  # fmt: skip
    wanted += [(off + stub.call, calls.modules.branch)] if stub.call is not None else []
    there = [(at, kind) for at, kind, _ in calls.named_at(sec, off, 4 * len(stub.words))]
    if there == sorted(wanted):
        return ""
    shown = [
        "; ".join(f"+{at - off:#x} type {kind}" for at, kind in rows) or "none" for rows in (there, sorted(wanted))
    ]
    return f"its stub has relocations {shown[0]}, expected {shown[1]}"


def _address(calls: Calls, sec: int, off: int, halves: Halves) -> Place | str:
    """The address that two halves add up to: symbol, section and offset; or why they do not."""
    rows = {at - off: to for at, _, to in calls.named_at(sec, off, max(halves.high, halves.low) + 4)}
    high, low = rows[halves.high], rows[halves.low]
    ends = [(to.symbol, to.sec, to.off - (place - halves.here)) for to, place in
            ((high, halves.high), (low, halves.low))]  # fmt: skip
    if ends[0] != ends[1]:
        return (f"the halves of a distance in its stub are of two places, {calls.name_of(high)} and "
                f"{calls.name_of(low)}")  # fmt: skip
    return Place(*ends[0])


def _entered(calls: Calls, sec: int, off: int, halves: Halves) -> Landing:
    """The function of the module that a stub goes on to."""
    image = calls.image
    to = _address(calls, sec, off, halves)
    if isinstance(to, str):
        return Landing(why=to)
    name = image.symbols.name(to.symbol)
    if to.sec <= 0:
        return Landing(why=f"its stub enters {name} in another file, and nothing takes its TOC pointer back")
    va = int(image.base[to.sec]) + to.off
    landing = function_at(image, va)
    if landing is None:
        return Landing(why=f"its stub enters {image.names[to.sec]}+{to.off:#x}, {what_is_at(image, va)}")
    if landing.entry != landing.va:
        return Landing(why=f"its stub enters {landing.name} behind its global entry")
    if image.symbols.type[to.symbol] != t.STT_SECTION and to.off == int(image.symbols.rows["st_value"][to.symbol]):
        return replace(landing, name=name, row=to.symbol)
    return landing


def _called(calls: Calls, sec: int, off: int, stub: RedirectStub) -> Landing:
    """The function of another file that a stub calls from a frame of its own."""
    symbols, call = calls.image.symbols, stub.call or 0
    if stub.own_toc is not None:
        toc = _address(calls, sec, off, stub.own_toc)
        if isinstance(toc, str):
            return Landing(why=toc)
        if symbols.name(toc.symbol) != calls.modules.toc or toc.off or toc.sec > 0:
            return Landing(why=f"its stub takes {symbols.name(toc.symbol)}{toc.off:+#x} for the module's TOC pointer")
    to = next(place for at, _, place in calls.named_at(sec, off + call, 4) if at == off + call)
    name = symbols.name(to.symbol)
    if to.sec > 0:
        return Landing(why=f"its stub calls {name} of the module itself, where a jump keeps arguments on the stack")
    if symbols.rows["st_shndx"][to.symbol] != t.SHN_UNDEF or to.off or name == calls.modules.toc or not name:
        return Landing(why=f"its stub calls {name}{to.off:+#x}, which is no function")
    return Landing(name, to.symbol, -1, calls.loaded.fakes.get(name, 0), two_entries=True)


def _hazard(calls: Calls, sec: int, off: int) -> str:
    """What code that is no known stub does to frames of its callers; empty where its words tell nothing of the kind."""
    tables, size = calls.case.tables, int(calls.image.shdr["sh_size"][sec])
    words = calls.words(sec, off, max(min((size - off) // 4, READ), 0))
    kinds = tables.branches(words)[0]
    for number, word in enumerate(words.tolist()):
        if tables.makes_frame is not None and tables.makes_frame(word):
            break
        if tables.writes_toc is not None and tables.writes_toc(word):
            return "its stub writes a TOC pointer into a frame of the caller's, which may hold another one there"
        named = calls.named_at(sec, off + 4 * number, 4) if kinds[number] != NONE else []
        if tables.module_toc and any(to.sec <= 0 for _, _, to in named):
            names = [calls.image.symbols.name(to.symbol) for _, _, to in named if to.sec <= 0]
            return f"its stub goes to {names[0]} in another file without a frame of its own: {FOREIGN}"
        if word in tables.ends:
            break
    return ""


def wrong_piece(calls: Calls, where: tuple[int, int, int], name: str, reached: bool) -> str:
    """Why a piece of code, by section, first byte and bytes, is not the stub of its name; empty where it is.

    reached: sites go there, so that what is wrong with it is told with them.
    """
    sec, off, size = where
    landing, stub = read_stub(calls, sec, off)
    if landing.why or stub is None:
        return "" if reached else f"is no stub: {landing.why}"
    if size != 4 * len(stub.words):
        return f"has {size} bytes, expected {4 * len(stub.words)}"
    init = "_init" if calls.image.names[sec].startswith(".init") else ""
    wanted = f"ftpatch_redirect_{stub.kind}{landing.name}{init}"
    return "" if name == wanted else f"leads to {landing.name}, and should have the name {wanted}"
