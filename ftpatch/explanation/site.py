"""One site from bytes to verdict: symbols, record, place, words as they are and as `enable` would write them.

Nothing is written: the plan is the one that `enable` would make for this site alone, laid over the words of the file.
Where it is refused, the refusal is part of the explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import ChangedError, FtpatchError, PolicyError
from ftpatch.explanation import programs, redirected
from ftpatch.explanation.code import code_rows
from ftpatch.explanation.untraceable import TEXTS
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan import liveness
from ftpatch.plan.decide import make_plan, read_against
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import Against, EnableRequest
from ftpatch.sites.records import RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, STATUSES, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.explained import CodeBlock, EditClassRow, EntrySymbol, ExplainedRow, SlotObject

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
    "stripped": "traceable, but not by a name: the symbol of its function is stripped",
    "unnamed": "traceable, but not by a name: the symbol of its function is stripped, or it is left of a dead weak "
    "function; the file does not tell",
    "outside-text": "the record names no text",
    "unrecorded": "not traceable: " + TEXTS["unrecorded"],
    "off": "not traceable: " + TEXTS["off"],
    "unexpected": "the site holds neither what the compiler left nor a call",
}
ENDS = (
    ", without a record: it runs the tracer's entry from the first instruction on, and is not listed",
    ", and its record is live: the kernel will raise an ftrace bug there",
)


def explain_sites(
    scan: Scan, index: Sequence[int], against: Sequence[str] = (), max_size: int | None = None
) -> list[ExplainedRow]:
    """Everything about some sites of a scanned file. index: in the site table; against: what a module meets;
    max_size: bytes that such a file may unpack to."""
    from ftpatch.elf.debug_lines import source_lines, why_no_line

    sites = scan.sites
    placed = [site for site in index if sites.sec[site] >= 0]
    # all at once: debug information is slow to open
    lines = dict(zip(placed, source_lines(scan.image, [int(sites.entry_va[site]) for site in placed]), strict=True))
    missing = why_no_line(scan.image) if None in lines.values() else ""
    beside: Against | FtpatchError
    try:
        beside = read_against(scan, against, max_size)
    except ChangedError:
        raise
    except FtpatchError as error:  # why the files cannot be read is then why enable refuses
        beside = error
    rows = [_explain(scan, site, beside, lines.get(site)) for site in index]
    for row in rows:
        row["source_unknown"] = missing or None if row["source"] is None else None
    return rows


def _explain(scan: Scan, index: int, against: Against | FtpatchError, source: str | None) -> ExplainedRow:
    """Everything about one site. against: the files that a module will meet; source: the line of its function."""
    image, sites = scan.image, scan.sites
    plan = _plan(scan, index, against)
    placed = bool(sites.sec[index] >= 0)
    row, pos = int(sites.row[index]), int(sites.pos[index])
    explained: ExplainedRow = {
        "row": row if row >= 0 else None,
        "function": sites.name(index),
        "symbols": _symbols_at(image, sites, index),
        "source": source,
        "source_unknown": None,
        "slot": _slot(image, scan.records, row) if row >= 0 else None,
        "code": [_site_code(scan, index, plan)],
        "patch": None,
        "refused": str(plan) if isinstance(plan, FtpatchError) else None,
        "edits": [],
        "concurrency": None,
        "verdict": _verdict(scan, index),
        "place": sites.place_text(index) if placed else None,
        "pos": pos if placed and pos >= 0 else None,
        "status": STATUSES[sites.status[index]],
    }
    if not isinstance(plan, FtpatchError):
        _add_patch(explained, scan, index, plan)
    if sites.redirected[index]:
        _add_redirect(explained, scan, index)
    if placed and (here := redirected.leading_to(sites, None, int(sites.entry_va[index]))):
        explained["leads_here"] = here
    return explained


def _add_redirect(explained: ExplainedRow, scan: Scan, index: int) -> None:
    """Where the function leads instead, by which code, and whether a running kernel could be changed so."""
    sites, arch = scan.sites, scan.arch
    redirected.jump_text(scan, index, explained["code"][0]["words"])
    explained["code"] += redirected.stub_code(scan, index)
    explained["redirected"] = redirected.redirected_object(sites, index)
    new, va = int(sites.body()[index, 0]), int(sites.body_va[index])
    kind = liveness.of_word(arch, va, sites.shape.old[0].bits if sites.shape else new, new)
    live, text = liveness.LIVE[kind]
    explained["concurrency"] = {"class": kind, "live": live, "text": liveness.JUMP if live else text}


def _add_patch(explained: ExplainedRow, scan: Scan, index: int, plan: Plan) -> None:
    """What enable would do with the site, and whether it could do that on a running kernel."""
    explained["code"] += _stub_code(scan, plan)
    explained["edits"] = edits = _edit_rows(scan, index, plan)
    kind, live, text = edits[-1]["class"], edits[-1]["live"], edits[-1]["text"]
    n_words = plan.new_words.shape[1] // scan.arch.call.n_units
    if whole := liveness.of_site(scan.arch, int(scan.sites.body_va[index]), n_words):
        kind, (live, text) = whole, liveness.LIVE[whole]
    explained["concurrency"] = {"class": kind, "live": live, "text": text}
    answer = liveness.answer(plan)
    explained["live"] = {"answer": answer.answer, "text": answer.text, "steps": list(answer.steps)}
    summary, distance = plan.summary, plan.distance
    explained["patch"] = {
        "action": plan.action(0), "target": summary.target,
        "distance": None if distance is None else int(distance[0]), "stub": plan.stub[0] or None,
        "reason": plan.stub_why[0] or None, "literal": summary.literal, "ops_via": summary.ops_via,
        "records": summary.records, "records_why": summary.records_why,
    }  # fmt: skip


def _verdict(scan: Scan, index: int) -> str:
    """One sentence on whether the function can be traced."""
    sites = scan.sites
    status = STATUSES[sites.status[index]]
    listed = bool(sites.row[index] >= 0)
    if scan.image.kind in PROGRAMS:
        return programs.verdict(scan, index)
    if sites.redirected[index]:
        return redirected.verdict(sites, index)
    other = sites.calls_another(index)
    told = f"the loader will let its site call another function than {other}" if other else VERDICTS[status]
    text = told + (ENDS[listed] if status in ("enabled", "half", "unexpected") else "")
    text += redirected.veneer_text(sites, index) if status == "enabled" else ""
    if listed and bool(in_init_text(scan.image, sites.va[index : index + 1])[0]):
        text += "; listed until init memory is freed at the end of boot"
    return text


def _symbols_at(image: Image, sites: SiteTable, index: int) -> list[EntrySymbol]:
    """The symbols at the function's entry, the one that kallsyms prefers first."""
    symbols, functions = image.symbols, image.functions
    entry_symbols: list[EntrySymbol] = []
    for at in range(int(sites.func[index]), int(sites.func_end[index])):
        row = int(functions.row[at])
        entry_symbols.append(
            {
                "name": symbols.name(row), "bind": BINDS.get(int(symbols.bind[row]), "other"),
                "file": symbols.file_of(row), "value": _hex(int(symbols.rows["st_value"][row])),
                "size": int(symbols.rows["st_size"][row]) if functions.sized else None,
            }
        )  # fmt: skip
    return entry_symbols


def _slot(image: Image, records: RecordTable, row: int) -> SlotObject:
    """Where the record's value lives."""
    relocation = int(records.rela[row])
    in_rela = not records.in_sections and relocation >= 0
    carrier = "section" if records.in_sections else "rela" if in_rela else "relr" if records.relr[row] else "word"
    return {
        "pos": int(records.slot[row]),
        "va": _hex(records.start + 8 * row) if records.start else None,
        "word": _hex(int(records.word[row])),
        "value": _hex(int(records.value[row])),
        "carrier": carrier,
        "carried": CARRIED[carrier],
        "relocation": relocation if in_rela else None,
        "relocation_pos": int(image.rela[1][relocation]) if in_rela else None,
    }


def _plan(scan: Scan, index: int, against: Against | FtpatchError) -> Plan | FtpatchError:
    """What enable would do with this site alone, or why it would not."""
    sites = scan.sites
    if sites.redirected[index]:
        name = sites.name(index)
        what = f"{name or sites.place_text(index)} is redirected to {sites.redirects[index].name}"
        todo = f"ftpatch disable{f' --func {name}' if name else ''} gives its site back"
        return PolicyError(what, scan.image.path, todo=todo)
    if isinstance(against, FtpatchError):
        return against
    chosen = np.zeros(len(scan.sites), dtype=bool)
    chosen[index] = True
    try:
        return make_plan(scan, EnableRequest(chosen, against=against))
    except ChangedError:  # not a reason of enable alone
        raise
    except FtpatchError as error:
        shape = sites.shape
        asks = scan.image.kind in PROGRAMS and shape is not None and not shape.refusal
        return PolicyError(programs.ASKS) if asks else error


# -- words ---------------------------------------------------------------------------------------------------------


def _site_code(scan: Scan, index: int, plan: Plan | FtpatchError) -> CodeBlock:
    """The words from the record or the entry to behind the call, now and then."""
    image, sites = scan.image, scan.sites
    if sites.sec[index] < 0 or sites.shape is None:
        return {"what": "site", "words": []}
    first = int(min(sites.va[index], sites.entry_va[index], sites.body_va[index]))
    # the NOP or call that a program's site may be is as long as what enabling writes
    whole = sites.shape.program and sites.status[index] != ENABLED
    calls, size = (sites.body_va, sites.shape.size) if whole else (sites.branch_va, scan.arch.call.size)
    call, end = int(calls[index]), int(calls[index]) + size
    first = max(first, call - BEFORE)
    literal = None if sites.shape.literal is None else int(sites.va[index]) + sites.shape.literal
    names: dict[int, str] = {}
    record = [("record", sites.va)] if sites.row[index] >= 0 else []
    local = [("local entry", sites.local_va)] if sites.local_va[index] != sites.entry_va[index] else []
    last = "jump" if sites.redirected[index] else "call"
    for name, column in (("entry", sites.entry_va), *local, *record, (last, calls)):
        at = int(column[index])
        names[at] = f"{names[at]}, {name}" if at in names else name
    edits = None if isinstance(plan, FtpatchError) else plan.edits
    if scan.arch.unit == 1:  # so that a row starts behind the call, whatever the disassembler knows
        names.setdefault(end, "")
    rows = code_rows(image, first, end + AFTER - first, edits, names, literal)
    return {"what": "site", "words": rows}


def _stub_code(scan: Scan, plan: Plan) -> list[CodeBlock]:
    """The words of the stubs that the call goes through, in a linked kernel."""
    stubs: list[CodeBlock] = []
    slot, through, own = int(plan.calls.slot[0]), int(plan.calls.through[0]), scan.arch.site_stub
    if slot and own is not None:
        literal = int(plan.calls.branch_to[0]) - slot
        words = code_rows(scan.image, slot, literal + own.size, plan.edits, {}, slot if literal else None)
        stubs.append({"what": "out-of-line stub", "words": words})
    if through >= 0:
        stub = plan.calls.shared[through]
        words = code_rows(scan.image, stub.va, 4 * len(stub.words), plan.edits, {})
        stubs.append({"what": "shared stub", "words": words})
    return stubs


def _edit_rows(scan: Scan, index: int, plan: Plan) -> list[EditClassRow]:
    """Every edit of code and of its pointer, in the order in which a running kernel would make them."""
    sites, arch = scan.sites, scan.arch
    base = 0 if scan.image.linked else int(scan.image.base[int(sites.sec[index])])
    rows = []
    for group in plan.edits.groups:
        if group.kind == "literal" and len(group.pos):
            old, new = (int.from_bytes(side[0].tobytes(), "little") for side in (group.old, group.new))
            in_code = int(sites.va[index]) + (sites.shape.literal or 0 if sites.shape else 0) - base
            va = int(plan.calls.slot[0]) or in_code
            rows.append(_edit_row("ops pointer", va, old, new, liveness.of_literal(va)))
    if arch.call.n_units > 1:
        va = int(sites.body_va[index]) - base
        old, new = (int(arch.numbers(code)[0, 0]) for code in (sites.body()[index : index + 1], plan.new_words[:1]))
        kind = plan.concurrency(0) or ""
        live, text = liveness.LIVE_BYTES[kind]
        return [*rows, {"what": "call", "va": _hex(va), "old": f"0x{arch.text(old)}", "new": f"0x{arch.text(new)}",
                        "class": kind, "live": live, "text": text}]  # fmt: skip
    words = zip(sites.body()[index].tolist(), plan.new_words[0].tolist(), strict=True)
    last = plan.new_words.shape[1] - 1
    for i, (old, new) in enumerate(words):
        va = int(sites.body_va[index]) - base + 4 * i
        what = "call" if i == last else "word in front of the call"
        rows.append(_edit_row(what, va, old, new, liveness.of_word(arch, va, old, new)))
    return rows


def _edit_row(what: str, va: int, old: int, new: int, kind: str) -> EditClassRow:
    live, text = liveness.LIVE[kind]
    return {
        "what": what, "va": _hex(va), "old": f"0x{old:x}", "new": f"0x{new:x}", "class": kind, "live": live,
        "text": text,
    }  # fmt: skip


def _hex(value: int) -> str:
    return f"0x{value:016x}"
