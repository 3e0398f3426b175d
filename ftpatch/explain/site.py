"""One site from bytes to verdict: symbols, record, place, words as they are and as `enable` would write them.

Nothing is written: the plan is the one that `enable` would make for this site alone, laid over the words of the file.
Where it is refused, the refusal is part of the explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch import Arch, constants
from ftpatch.arrays import U8
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.explain import live_patching
from ftpatch.explain.untraceable import TEXTS
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.decide import make_plan, read_against
from ftpatch.plan.edits import Edits
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.sites.records import RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.explained import CodeBlock, EntrySymbol, ExplainedRow, SlotObject, WordRow

BEFORE, AFTER = 24, 2  # words that are shown in front of the call, at most, and behind it
BINDS, CARRIED = {0: "local", 1: "global", 2: "weak"}, {
    "rela": "the addend of a relative relocation", "relr": "the word itself, moved by the packed table (RELR)",
    "word": "the word itself", "section": "the relocation of its section",
}  # fmt: skip
VERDICTS = {
    "ready": "traceable: " + TEXTS["traceable"],
    "enabled": "enabled on disk",
    "half": "half enabled: its first word is rewritten, the call is not there",
    "null": "an empty slot: the kernel skips it",
    "weak-leftover": "code of a dead weak function: it has no name, and nothing calls it",
    "outside-text": "the record names no text",
    "unexpected": "the site holds neither what the compiler left nor a call",
}
ENDS = (
    ", without a record: it runs the tracer's entry from the first instruction on, and is not listed",
    ", and its record is live: the kernel will raise an ftrace bug there",
)


def explain(found: Scan, index: int, against: Sequence[str] = ()) -> ExplainedRow:
    """Everything about one site of a scanned file. index: in the site table."""
    image, table = found.image, found.sites
    plan = _plan(found, index, against)
    refused = isinstance(plan, FtpatchError)
    what: ExplainedRow = {
        "row": int(table.row[index]) if table.row[index] >= 0 else None,
        "function": table.name(index),
        "symbols": symbols_at(image, table, index),
        "source": _source(image, table, index),
        "slot": _slot(image, found.records, int(table.row[index])),
        "code": [_site_code(found, index, plan)],
        "patch": None,
        "refused": str(plan) if refused else None,
        "edits": [],
        "concurrency": None,
        "verdict": verdict(found, index),
        "place": table.place_text(index) if table.sec[index] >= 0 else None,
        "pos": int(table.pos[index]) if table.sec[index] >= 0 and table.pos[index] >= 0 else None,
        "status": STATUSES[table.status[index]],
    }
    if not isinstance(plan, FtpatchError):
        _add_patch(what, found, index, plan)
    return what


def _add_patch(what: ExplainedRow, found: Scan, index: int, plan: Plan) -> None:
    """What enable would do with the site, and whether it could do that on a running kernel."""
    table = found.sites
    what["code"] += _stub_code(found, plan)
    classes = classify(found, index, plan)
    whole = live_patching.of_site(found.arch, int(table.body_va[index]), plan.new_words.shape[1])
    kind = whole or classes[-1].kind
    live, text = live_patching.LIVE[kind]
    summary, distance = plan.summary, plan.distance
    what["patch"] = {
        "action": plan.action(0), "target": summary.target,
        "distance": None if distance is None else int(distance[0]), "stub": plan.stub[0] or None,
        "reason": plan.stub_why[0] or None, "literal": summary.literal, "ops_via": summary.ops_via,
        "records": summary.records, "records_why": summary.records_why,
    }  # fmt: skip
    what["edits"] = [
        {"what": one.what, "va": _hex(one.va), "old": f"0x{one.old:x}", "new": f"0x{one.new:x}", "class": one.kind,
         "live": one.live, "text": one.text} for one in classes
    ]  # fmt: skip
    what["concurrency"] = {"class": kind, "live": live, "text": text}


def verdict(found: Scan, index: int) -> str:
    """One sentence on whether the function can be traced."""
    table = found.sites
    status = STATUSES[table.status[index]]
    text = VERDICTS[status]
    listed = bool(table.row[index] >= 0)
    if status in ("enabled", "half", "unexpected"):
        text += ENDS[listed]
    if listed and bool(in_init_text(found.image, table.va[index : index + 1])[0]):
        text += "; listed until init memory is freed at the end of boot"
    return text


def symbols_at(image: Image, table: SiteTable, index: int) -> list[EntrySymbol]:
    """The symbols at the function's entry, the one that kallsyms prefers first."""
    symbols, functions = image.symbols, image.functions
    found: list[EntrySymbol] = []
    for at in range(int(table.func[index]), int(table.func_end[index])):
        row = int(functions.row[at])
        found.append(
            {
                "name": symbols.name(row), "bind": BINDS.get(int(symbols.bind[row]), "other"),
                "file": symbols.file_of(row), "value": _hex(int(symbols.rows["st_value"][row])),
                "size": int(symbols.rows["st_size"][row]),
            }
        )  # fmt: skip
    return found


def _source(image: Image, table: SiteTable, index: int) -> str | None:
    from ftpatch.elf.debug_lines import source_lines

    if table.sec[index] < 0:
        return None
    return source_lines(image, [int(table.entry_va[index])])[0]


def _slot(image: Image, records: RecordTable, row: int) -> SlotObject | None:
    """Where the record's value lives."""
    if row < 0:
        return None
    carrier = "section" if records.in_sections else "rela" if records.rela[row] >= 0 else "relr"
    carrier = "word" if carrier == "relr" and not records.relr[row] else carrier
    relocation = int(records.rela[row])
    known = carrier == "rela"
    return {
        "pos": int(records.slot[row]),
        "va": _hex(records.start + 8 * row) if records.start else None,
        "word": _hex(int(records.word[row])),
        "value": _hex(int(records.value[row])),
        "carrier": carrier,
        "carried": CARRIED[carrier],
        "relocation": relocation if known else None,
        "relocation_pos": int(image.rela[1][relocation]) if known else None,
    }


def _plan(found: Scan, index: int, against: Sequence[str]) -> Plan | FtpatchError:
    chosen = np.zeros(len(found.sites), dtype=bool)
    chosen[index] = True
    try:
        return make_plan(found, EnableRequest(chosen, against=read_against(found, against)))
    except FtpatchError as error:
        return error


# -- words ---------------------------------------------------------------------------------------------------------


def _site_code(found: Scan, index: int, plan: Plan | FtpatchError) -> CodeBlock:
    """The words from the record or the entry to behind the call, now and then."""
    image, table = found.image, found.sites
    if table.sec[index] < 0 or table.shape is None:
        return {"what": "site", "words": []}
    first = int(min(table.va[index], table.entry_va[index], table.body_va[index]))
    first = max(first, int(table.branch_va[index]) - 4 * BEFORE)
    n = (int(table.branch_va[index]) - first) // 4 + 1 + AFTER
    literal = None if table.shape.literal is None else int(table.va[index]) + table.shape.literal
    names: dict[int, str] = {}
    local = [("local entry", table.local_va)] if table.local_va[index] != table.entry_va[index] else []
    for name, column in (("entry", table.entry_va), *local, ("record", table.va), ("call", table.branch_va)):
        at = int(column[index])
        names[at] = f"{names[at]}, {name}" if at in names else name
    edits = None if isinstance(plan, FtpatchError) else plan.edits
    return {"what": "site", "words": code(image, found.arch, first, n, edits, names, literal)}


def _stub_code(found: Scan, plan: Plan) -> list[CodeBlock]:
    """The words of the stubs that the call goes through, in a linked kernel."""
    stubs: list[CodeBlock] = []
    slot, through, own = int(plan.calls.slot[0]), int(plan.calls.through[0]), found.arch.site_stub
    if slot and own is not None:
        literal = int(plan.calls.branch_to[0]) - slot
        words = code(found.image, found.arch, slot, (literal + own.size) // 4, plan.edits, {},
                     slot if literal else None)  # fmt: skip
        stubs.append({"what": "out-of-line stub", "words": words})
    if through >= 0:
        stub = plan.calls.shared[through]
        words = code(found.image, found.arch, stub.va, len(stub.words), plan.edits, {}, None)
        stubs.append({"what": "shared stub", "words": words})
    return stubs


def code(
    image: Image, arch: Arch, va: int, n: int, edits: Edits | None, names: dict[int, str], literal: int | None
) -> list[WordRow]:
    """n words from `va`, as they are and with the edits; `literal`: where eight bytes are a pointer."""
    sec, off = image.place(np.array([va], dtype=np.uint64))
    pos = int(image.pos(sec, off)[0]) if image.linked is False or sec[0] >= 0 else image.pos_of_va(va)
    chunk = np.array(image.data[pos : pos + 4 * n] if pos >= 0 else [], dtype=np.uint8)
    after = chunk.copy()
    if edits is not None and len(chunk):
        _overlay(edits, pos, after)
    base = 0 if image.linked else int(image.base[int(sec[0])])
    old, new = (piece[: len(piece) & ~3].view("<u4").tolist() for piece in (chunk, after))
    found: list[WordRow] = []
    for i, (one, two) in enumerate(zip(old, new, strict=True)):
        at = va + 4 * i
        data = literal is not None and literal <= at < literal + 8
        found.append(
            {
                "va": _hex(at - base), "word": f"0x{one:08x}", "new_word": f"0x{two:08x}" if one != two else None,
                "text": "pointer" if data else disassembled(image, arch, at, one),
                "new_text": None if one == two else "pointer" if data else disassembled(image, arch, at, two),
                "at": names.get(at),
            }
        )  # fmt: skip
    return found


def _overlay(edits: Edits, start: int, chunk: U8) -> None:
    """Put what the edits write into the bytes of the file from `start`."""
    for one in edits.groups:
        width = one.new.shape[1]
        for at in np.flatnonzero((one.pos > start - width) & (one.pos < start + len(chunk))).tolist():
            first = int(one.pos[at]) - start
            low, high = max(first, 0), min(first + width, len(chunk))
            chunk[low:high] = one.new[at][low - first : high - first]


def disassembled(image: Image, arch: Arch, va: int, word: int) -> str:
    """One instruction by capstone; a direct branch with the name of where it goes."""
    import capstone

    decoded = list(capstone.Cs(*constants(capstone, arch.capstone)).disasm_lite(word.to_bytes(4, "little"), va))
    if not decoded:
        return f".word 0x{word:08x}"
    _, _, mnemonic, operands = decoded[0]
    text = f"{mnemonic} {operands}".strip()
    if mnemonic in ("b", "bl") and image.linked:
        target = int(operands.removeprefix("#"), 16)
        name = name_at(image, target)
        return f"{mnemonic} 0x{target:x}" + (f" <{name}>" if name else "")
    return "bl (the loader fills in where)" if mnemonic == "bl" and not image.linked else text


def name_at(image: Image, va: int) -> str:
    """`function` or `function+0x8` of an address; "" where none is known."""
    where = np.array([va], dtype=np.uint64)
    at = int(image.functions.containing(where)[0])
    if at < 0:
        rows = np.flatnonzero((image.symbols.rows["st_value"] == np.uint64(va)) & (image.symbols.shndx > 0))
        names = [image.symbols.name(row) for row in rows.tolist()]
        return next((name for name in names if name and not name.startswith(("$", "."))), "")
    at = int(image.functions.at(image.functions.va[at : at + 1])[0][0])
    off = va - int(image.functions.va[at])
    return image.symbols.name(int(image.functions.row[at])) + (f"+{off:#x}" if off else "")


def classify(found: Scan, index: int, plan: Plan) -> list[live_patching.EditClass]:
    """The class of every edit of code and of its pointer, in the order in which a running kernel would make them."""
    table, arch = found.sites, found.arch
    base = 0 if found.image.linked else int(found.image.base[int(table.sec[index])])
    classes = []
    for group in plan.edits.groups:
        if group.kind == "literal" and len(group.pos):
            old, new = (int.from_bytes(side[0].tobytes(), "little") for side in (group.old, group.new))
            va = (
                int(plan.calls.slot[0])
                or int(table.va[index]) + (table.shape.literal or 0 if table.shape else 0) - base
            )
            classes.append(live_patching.of_literal("ops pointer", va, old, new))
    old_words, va = table.body()[index].tolist(), int(table.body_va[index]) - base
    for i, (old, new) in enumerate(zip(old_words, plan.new_words[0].tolist(), strict=True)):
        what = "call" if i == len(old_words) - 1 else "word in front of the call"
        classes.append(live_patching.of_word(arch, what, va + 4 * i, old, new))
    return classes


def _hex(value: int) -> str:
    return f"0x{value:016x}"
