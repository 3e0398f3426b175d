"""Names that compilers make of a function's own: `f.isra.0`, `f.constprop.0.cold`, `f.llvm.123`.

A clone is the function itself, with other parameters or under another name, unless one of its suffixes says that it
is only a part of it: then the rest stands in `f` or in its callers, and whoever traces the clone sees some calls only.
Source: gcc/cgraphclones.cc, gcc/lto/lto-partition.cc, gcc/ipa-split.cc; LLVM's ThinLTO, FunctionSpecialization,
UniqueInternalLinkageNames and argument promotion, BOLT and Propeller; Linux' cleanup_symbol_name() in kallsyms.c.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.tables import MAX_NAME, places_of
from ftpatch.sites.table import SiteTable

# What a suffix says of the function that has it.
WHOLE = {
    "isra": "with other parameters (.isra)", "constprop": "for constant arguments (.constprop)",
    "specialized": "for constant arguments (.specialized)", "argprom": "with other parameters (.argprom)",
    "argelim": "with other parameters (.argelim)", "retelim": "without its result (.retelim)",
    "sra": "with other parameters (.sra)", "clone": "a copy (.clone)", "simdclone": "for vectors (.simdclone)",
    "lto_priv": "by link-time optimisation (.lto_priv)", "llvm": "by link-time optimisation (.llvm)",
    "localalias": "by an alias (.localalias)", "__uniq": "with a name unique in the kernel (.__uniq)",
    "cfi": "the body behind its entry in a jump table (.cfi)",
}  # fmt: skip
PARTIAL = {
    "part": "a part of it, the rest is inlined (.part)", "__part": "a part of it (.__part)",
    "cold": "its unlikely code (.cold)", "warm": "its less likely code (.warm)",
    "cfi_jt": "its entry in a jump table (.cfi_jt)",
}  # fmt: skip
CLONE = re.compile(rf"(?:\.(?:{'|'.join([*WHOLE, *PARTIAL])})(?:\.[0-9a-fA-F]+)*)+$")
MAX_CLONES, MAX_PLACES = 64, 1 << 14  # of one function; strings that have its name and a dot
SHOWN = 3  # that a refusal names


class Clone(NamedTuple):
    """A function that a compiler made of another."""

    name: str
    text: str  # what it is
    whole: bool  # it is the function itself, not a part of it
    sites: tuple[int, ...]  # of the site table, at its entry


def base_name(name: str) -> str:
    """The name in the source, without what the compiler added."""
    return CLONE.sub("", name)


def meaning(name: str, clone: str) -> tuple[str, bool]:
    """What a clone of the function `name` is, and whether it is the function itself; "" where it is no clone."""
    suffixes = clone.removeprefix(name)
    if not clone.startswith(f"{name}.") or not CLONE.fullmatch(suffixes):
        return "", False
    kinds = [kind for kind in suffixes.split(".") if kind in WHOLE or kind in PARTIAL]
    # what says that it is a part says most, and comes first
    texts = [PARTIAL[kind] for kind in kinds if kind in PARTIAL] + [WHOLE[kind] for kind in kinds if kind in WHOLE]
    return ", ".join(dict.fromkeys(texts)), not any(kind in PARTIAL for kind in kinds)


def clones_of(table: SiteTable, name: str) -> list[Clone]:
    """The functions that the compiler made of the one of this name: whole ones with a site first, then by name."""
    image = table.image
    found = []
    for clone in sorted(_names(image, name)):
        text, whole = meaning(name, clone)
        at = np.flatnonzero(is_in(image.functions.row, image.symbols.rows_named(clone)))
        if len(at):
            found.append(Clone(clone, text, whole, tuple(_sites(table, at))))
    return sorted(found, key=lambda clone: (not clone.whole, not clone.sites))


def _names(image: Image, name: str) -> set[str]:
    """Clones' names in the string table. Linkers merge tails: the name may begin in the middle of another string."""
    start, strtab, names = f"{name}.".encode("utf-8", "surrogateescape"), image.symbols.strtab, set()
    for at in islice(places_of(start, strtab), MAX_PLACES):
        end = strtab.find(b"\0", at, at + MAX_NAME)
        clone = strtab[at : end if end >= 0 else at].decode("utf-8", "backslashreplace")
        if meaning(name, clone)[0]:
            names.add(clone)
    return set(sorted(names)[:MAX_CLONES])


def _sites(table: SiteTable, functions: I64) -> list[int]:
    """Sites at whose entry one of these functions stands."""
    covered = np.zeros(len(table), dtype=bool)
    for function in functions.tolist():
        covered |= (table.func <= function) & (function < table.func_end)
    sites: list[int] = np.flatnonzero(covered).tolist()
    return sites


def proposal(table: SiteTable, selector: str) -> tuple[str, str]:
    """(what there is instead, what to write) where a name has no site and clones of it have; empty where none has."""
    name, at, file = selector.partition("@")
    found = [clone for clone in clones_of(table, name) if clone.sites]
    whole = [clone for clone in found if clone.whole]
    taken = whole or found
    if not taken:
        return "", ""
    listed = ", ".join(f"{clone.name} ({len(clone.sites)} sites)" if len(clone.sites) > 1 else clone.name
                       for clone in taken[:SHOWN])  # fmt: skip
    rest = f" and {len(taken) - SHOWN} more" if len(taken) > SHOWN else ""
    what = "made of it by the compiler" if whole else "parts of it only, entered by some of its callers"
    todo = "give " + " ".join(f"--func {clone.name}{at}{file}" for clone in taken[:SHOWN])
    return f"{listed}{rest}, {what}", todo
