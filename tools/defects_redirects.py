"""Redirected functions that lead where they must not, for the rules about them: each a jump at a site of a sound file.

Most keep their record, which another rule says.
"""

from __future__ import annotations

import struct

import numpy as np

from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.sites.table import READY
from tools.planting import Edits, Plant, Subject, lost_record

KEPT = ("site-enabled",)


def jump(subject: Subject, site: int, to: int) -> Edits | None:
    """A jump from a site to an address; None where it does not reach."""
    branch, distance = subject.scan.arch.jump, np.array([to - subject.site(site)], dtype=np.int64)
    shape = subject.scan.sites.shape
    if branch is None or shape is None or shape.refusal or not branch.reaches(distance)[0]:
        return None
    if shape.called and not subject.linked:  # its relocation says where it goes
        return None
    return subject.words(subject.site(site), *np.ravel(branch.encode(distance)).tolist())


def _near(subject: Subject) -> list[int]:
    """Plain sites of functions that return; of one section in a relocatable file. Those with two entries come first:
    nothing else is wrong with a jump from there to a local entry."""
    table = subject.scan.sites
    sites = [site for site in subject.plain if table.name(site) not in NORETURN]
    near = [site for site in sites if subject.linked or table.sec[site] == table.sec[sites[0]]]
    return sorted(near, key=lambda site: bool(table.local_va[site] == table.entry_va[site]))


def redirected(subject: Subject) -> Plant | None:
    """What redirect leaves: the jump, and no record."""
    dropped, records = lost_record(subject), subject.scan.records
    if dropped is None:
        return None
    site = int(np.argmax(records.live)) if records.zero[0] else subject.plain[0]
    table = subject.scan.sites
    one_entry = table.local_va == table.entry_va
    to = next(other for other in _near(subject) if other != site and (one_entry[other] or not one_entry[site]))
    edits = jump(subject, site, int(subject.scan.sites.local_va[to]))
    return Plant([*dropped.edits, *edits]) if edits else None


def loop(subject: Subject) -> Plant | None:
    table = subject.scan.sites
    two = [site for site in _near(subject) if table.local_va[site] != table.entry_va[site]]
    sites = (two if len(two) > 2 else _near(subject))[:3]
    if len(sites) < 3:
        return None
    edits: Edits = []
    for site, to in zip(sites, [*sites[1:], sites[0]], strict=True):
        edits += jump(subject, site, int(table.local_va[to])) or []
    return Plant(edits, also=KEPT) if len(edits) == 3 else None


def _redirect(subject: Subject, to: int | None) -> Plant | None:
    edits = jump(subject, _near(subject)[0], to) if to is not None and _near(subject) else None
    return Plant(edits, also=KEPT) if edits else None


def middle(subject: Subject) -> Plant | None:
    sites = _near(subject)
    return _redirect(subject, int(subject.scan.sites.local_va[sites[1]]) + 16 if len(sites) > 1 else None)


def init(subject: Subject) -> Plant | None:
    table = subject.scan.sites
    freed = in_init_text(subject.scan.image, table.va) & (table.func < table.func_end)
    if not subject.vmlinux or not freed.any() or freed[_near(subject)[0]]:
        return None
    near = np.flatnonzero(freed)[np.argmin(table.va[freed])]
    return _redirect(subject, int(table.local_va[near]))


def never_returns(subject: Subject) -> Plant | None:
    values = [(name, subject.scan.image.symbols.value(name)) for name in sorted(NORETURN)] if subject.vmlinux else []
    functions = subject.scan.image.functions
    starts = {int(va): int(local) for va, local in zip(functions.va.tolist(), functions.local.tolist(), strict=True)}
    found = [starts[va] for _, va in values if va in starts]
    return _redirect(subject, next((va for va in found if jump(subject, _near(subject)[0], va)), None))


def global_entry(subject: Subject) -> Plant | None:
    table = subject.scan.sites
    two = [site for site in _near(subject) if table.local_va[site] != table.entry_va[site]]
    return _redirect(subject, int(table.entry_va[two[1]]) if len(two) > 1 and two[0] == _near(subject)[0] else None)


def local_entry(subject: Subject) -> Plant | None:
    """A function with one entry, which anybody calls, comes in where the TOC pointer must be set."""
    table = subject.scan.sites
    one, two = ([site for site in _near(subject) if (table.local_va[site] == table.entry_va[site]) == alone]
                for alone in (True, False))  # fmt: skip
    if subject.arch != "ppc64le" or not one or not two:
        return None
    edits = jump(subject, one[0], int(table.local_va[two[0]]))
    return Plant(edits, also=KEPT) if edits else None


def sibling(subject: Subject) -> Plant | None:
    """A call of another file's function by the form of a tail call, which the loader takes without a word."""
    if subject.arch != "ppc64le" or subject.scan.image.kind != "module" or subject.layout == "mprofile":
        return None
    for site in np.flatnonzero(subject.scan.sites.status == READY).tolist():
        if (pos := _call_outside(subject, int(subject.scan.sites.sec[site]))) >= 0:
            off = subject.site(site) - int(subject.scan.image.base[int(subject.scan.sites.sec[site])])
            edits = [(pos, struct.pack("<Q", off)), *subject.words(subject.site(site), 0x48000000)]
            return Plant(edits, also=KEPT)
    return None


def _call_outside(subject: Subject, sec: int) -> int:
    """Position of the relocation of a section's call of another file's function; −1 without."""
    image, rows = subject.scan.image, relocations_of(subject.scan.image, sec)
    calls = (rows.kind == subject.scan.arch.loader.calls[0]) & (image.symbols.shndx[rows.symbol] == 0)
    if not calls.any():
        return -1
    at = int(np.argmax(calls))
    return int(image.shdr["sh_offset"][int(rows.table[at])]) + 24 * int(rows.row[at])


DEFECTS = {
    "redirected": redirected, "redirect-loop": loop, "redirect-target": middle, "redirect-target/init": init,
    "redirect-target/never": never_returns, "redirect-entry": global_entry, "redirect-entry/local": local_entry,
    "redirect-entry/sibling": sibling,
}  # fmt: skip
