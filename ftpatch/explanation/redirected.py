"""What there is to say of a redirected function, and of the one that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.explanation.code import code_rows, disassembled
from ftpatch.sites.evidence import callees_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import READY, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.explained import CodeBlock, RedirectedObject, WordRow

STUBS = {
    "": "directly", "veneer": "through a veneer", "far": "through a stub that sets r12",
    "code": "through code that the patch brought along",
}  # fmt: skip
HIDDEN = 8  # bytes of a stub that are shown where no symbol tells its end


def verdict(table: SiteTable, site: int) -> str:
    """One line on a redirected function: where it leads, by which way, and what of it can still be traced."""
    target, recorded = table.redirects[site], bool(table.row[site] >= 0)
    stub = table.stub_text(site)
    way = STUBS[target.by] + (f" at {stub}" if stub else "")
    if recorded:
        end = "its record is live: the kernel will raise an ftrace bug there"
    elif target.va is None:
        end = f"it cannot be traced; this file does not tell of {target.name}"
    else:
        end = f"it cannot be traced; {target.name} {_traceable(table, target.start)}"
    return f"redirected to {target.name}, {way}: {end}"


def _traceable(table: SiteTable, start: int | None) -> str:
    """Whether the function at an address can be traced, for the end of a sentence."""
    at = np.flatnonzero((table.entry_va == np.uint64(start or 0)) & (table.func < table.func_end)).tolist()
    onward = [table.redirects[site].name for site in at if site in table.redirects]
    if onward:
        return f"is redirected to {onward[0]} in turn"
    return "can" if any(table.row[site] >= 0 and table.status[site] == READY for site in at) else "cannot either"


def redirected_object(table: SiteTable, site: int) -> RedirectedObject:
    """Where a redirected function leads, for reports."""
    target, base = table.redirects[site], 0
    if target.va is not None and not table.image.linked:
        base = int(table.image.base[int(table.image.place(np.array([target.va], np.uint64))[0][0])])
    return {
        "to": target.name, "va": None if target.va is None else f"0x{target.va - base:016x}",
        "entry": target.entry, "way": STUBS[target.by], "stub": table.stub_text(site) or None, "sure": target.sure,
    }  # fmt: skip


def leading_to(table: SiteTable, name: str | None, start: int | None) -> list[str]:
    """The functions whose place another one takes: that at `start`, or the one of that name in another file."""
    wanted = (None, name) if start is None else (start, None)
    leads = {site: (target.start, target.name if target.start is None else None)
             for site, target in table.redirects.items()}  # fmt: skip
    return [table.name(site) or table.place_text(site) for site, end in leads.items() if end == wanted]


def leading_to_named(table: SiteTable, name: str) -> list[str]:
    """As `leading_to`, of every symbol of a name, whether it has a site or not."""
    if not table.redirects:
        return []
    image, symbols = table.image, table.image.symbols
    rows = symbols.rows_named(name)
    inside = rows[symbols.shndx[rows] > 0]
    base = np.zeros(len(image.shdr), np.uint64) if image.linked else image.base
    places = (base[symbols.shndx[inside]] + symbols.rows["st_value"][inside]).tolist()
    outside = [None] * bool((symbols.shndx[rows] == t.SHN_UNDEF).any())
    return list(dict.fromkeys(
        function for start in (*places, *outside) for function in leading_to(table, name, start)
    ))  # fmt: skip


def veneer_text(table: SiteTable, site: int) -> str:
    """Of an enabled site whose call goes through a veneer: what it calls, as the end of a sentence; else nothing."""
    callee = callees_of(table).get(site)
    return f"; it calls {callee.name} through a veneer at {callee.through:#x}" if callee and callee.through else ""


def jump_text(scan: Scan, site: int, rows: list[WordRow]) -> None:
    """Let the jump of a relocatable file's site say where its relocation leads: its own distance is 0."""
    if scan.image.linked:
        return
    sites, target = scan.sites, scan.sites.redirects[site]
    va = int(sites.body_va[site])
    base = int(scan.image.base[int(sites.sec[site])])
    for row in rows:
        if int(row["va"], 16) == va - base:
            mnemonic = disassembled(scan.image, va, int(row["word"], 16).to_bytes(scan.arch.unit, "little")).split()[0]
            row["text"] = f"{mnemonic} (by relocation to {target.name})"


def stub_code(scan: Scan, site: int) -> list[CodeBlock]:
    """The words of the stub that a redirected function's jump goes through."""
    image, target, arch = scan.image, scan.sites.redirects[site], scan.arch
    if target.through is None:
        return []
    size = {"veneer": arch.veneer.size if arch.veneer else 0, "far": arch.far.size if arch.far else 0}.get(target.by, 0)
    inside = int(image.functions.containing(np.array([target.through], dtype=np.uint64))[0])
    if not size:
        size = int(image.functions.end[inside]) - target.through if inside >= 0 else HIDDEN
    return [{"what": f"stub to {target.name}", "words": code_rows(image, target.through, size, None, {})}]
