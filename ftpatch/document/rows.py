"""From tables to the rows and objects of a report: the only place that knows the field names of the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import Mask, is_in
from ftpatch.document.files import add_form
from ftpatch.document.summary import summary
from ftpatch.document.text_sections import text_sections
from ftpatch.elf.identity import build_id
from ftpatch.kernel.kallsyms import listed_as
from ftpatch.sites.columns import SiteColumns
from ftpatch.sites.evidence import callees_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import LEFTOVER, NAMELESS, STATUSES

if TYPE_CHECKING:
    from ftpatch.document.site_rows import LivePatchObject, SiteRow
    from ftpatch.document.types import ImageObject
    from ftpatch.kernel.live_patch import LivePatch

ADDRESSES = ("record", "entry", "local_entry", "site", "branch")


def image_object(
    scan: Scan, chosen: Mask | None = None, sha256: str | None = None, with_sites: bool = True, brief: bool = False
) -> ImageObject:
    """The IMAGE object of a scan; `chosen` filters `sites`, never the summary; brief: as in `summary`."""
    image, table = scan.image, scan.sites
    mask = np.ones(len(table), dtype=bool) if chosen is None else chosen
    made: ImageObject = {
        "file": image.path,
        "sha256": sha256,
        "build_id": build_id(image),
        "arch": scan.arch.name,
        "kind": image.kind,
        "layout": table.shape.name if table.shape else "none",
        "carrier": scan.records.carrier,
        "summary": summary(scan, brief),
        "sites": site_rows(scan, mask) if with_sites else [],
    }
    add_form(made, image)
    if with_sites:
        made["text_sections"] = text_sections(image)
    if image.kind == "module":
        from ftpatch.kernel.live_patch import live_patch_of

        if (patch := live_patch_of(image)) is not None:
            made["live_patch"] = _live_patch(patch)
    return made


def _live_patch(patch: LivePatch) -> LivePatchObject:
    """The object of a live patch."""
    from ftpatch.kernel.live_patch import sections_of

    return {
        "objects": list(patch.objects),
        "functions": [
            {"object": row.object, "function": row.function, "replacement": row.replacement, "position": row.position}
            for row in patch.functions
        ],
        "symbols": [{"object": row.object, "name": row.name, "position": row.position} for row in patch.symbols],
        "sections": [patch.image.names[sec] for sec in sections_of(patch.image)],
        "declared": patch.declared,
    }


def site_rows(scan: Scan, mask: Mask) -> list[SiteRow]:
    """One object per marked site, in table order."""
    table = scan.sites
    index = np.flatnonzero(mask)
    columns = SiteColumns(table, index)
    texts = {key: [f"0x{value:016x}" for value in columns[key].tolist()] for key in ADDRESSES}
    slots, secs, status = columns["row"].tolist(), table.sec[index].tolist(), table.status[index].tolist()
    offsets, positions = columns["offset"].tolist(), columns["pos"].tolist()
    # a kernel's own kallsyms were made before its file was stripped
    lost = {"vmlinux": (LEFTOVER,), "module": NAMELESS}.get(table.image.kind, ())
    nameless = index[is_in(table.status[index], lost)]
    called = dict(zip(nameless.tolist(), listed_as(table.image, table.branch_va[nameless]), strict=True))
    callees = callees_of(table)
    rows: list[SiteRow] = []
    for i, site in enumerate(index.tolist()):  # a report is one Python object per site
        known = secs[i] >= 0
        rows.append(
            {
                "row": slots[i] if slots[i] >= 0 else None,
                "record": texts["record"][i],
                "section": table.image.names[secs[i]] if known else None,
                "shndx": secs[i] if known else None,
                "function": table.name(site),
                "aliases": table.aliases(site),
                "entry": texts["entry"][i] if known else None,
                "local_entry": texts["local_entry"][i] if known else None,
                "site": texts["site"][i] if known else None,
                "branch": texts["branch"][i] if known else None,
                # in front of the section where the record is damaged
                "offset": f"0x{offsets[i]:x}" if offsets[i] >= 0 else None,
                "pos": positions[i] if positions[i] >= 0 else None,
                "words": table.words_text(site),
                "status": STATUSES[status[i]],
                "listed_as": called.get(site) or None,
            }
        )
        if site in callees:
            callee = callees[site]
            rows[-1]["calls"], rows[-1]["sure"] = callee.name, callee.sure
            if callee.through:
                rows[-1]["stub"] = f"0x{callee.through:016x}"
        if site in table.redirects:
            rows[-1]["action"], rows[-1]["target"] = "redirect", table.redirects[site].name
            rows[-1]["stub"], rows[-1]["sure"] = table.stub_text(site) or None, table.redirects[site].sure
    return rows
