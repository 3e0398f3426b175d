"""One site from bytes to verdict: symbols, record, place, words as they are and as `enable` would write them.

Nothing is written: the plan is the one that `enable` would make for this site alone, laid over the words of the file.
Where it is refused, the refusal is part of the explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.explain import live_patching
from ftpatch.explain.code import code_rows
from ftpatch.explain.untraceable import TEXTS
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.decide import make_plan, read_against
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.sites.records import RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.explained import CodeBlock, EntrySymbol, ExplainedRow, SlotObject

BEFORE, AFTER = 96, 8  # bytes that are shown in front of the call, at most, and behind it
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
    call, end = int(table.branch_va[index]), int(table.branch_va[index]) + found.arch.call.size
    first = max(first, call - BEFORE)
    literal = None if table.shape.literal is None else int(table.va[index]) + table.shape.literal
    names: dict[int, str] = {}
    local = [("local entry", table.local_va)] if table.local_va[index] != table.entry_va[index] else []
    for name, column in (("entry", table.entry_va), *local, ("record", table.va), ("call", table.branch_va)):
        at = int(column[index])
        names[at] = f"{names[at]}, {name}" if at in names else name
    edits = None if isinstance(plan, FtpatchError) else plan.edits
    if found.arch.unit == 1:  # so that a row starts behind the call, whatever the disassembler knows
        names.setdefault(end, "")
    rows = code_rows(image, first, end + AFTER - first, edits, names, literal)
    return {"what": "site", "words": rows}


def _stub_code(found: Scan, plan: Plan) -> list[CodeBlock]:
    """The words of the stubs that the call goes through, in a linked kernel."""
    stubs: list[CodeBlock] = []
    slot, through, own = int(plan.calls.slot[0]), int(plan.calls.through[0]), found.arch.site_stub
    if slot and own is not None:
        literal = int(plan.calls.branch_to[0]) - slot
        words = code_rows(found.image, slot, literal + own.size, plan.edits, {}, slot if literal else None)
        stubs.append({"what": "out-of-line stub", "words": words})
    if through >= 0:
        stub = plan.calls.shared[through]
        words = code_rows(found.image, stub.va, 4 * len(stub.words), plan.edits, {})
        stubs.append({"what": "shared stub", "words": words})
    return stubs


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
