"""Whether an edit could be made while the code runs, and in which order: the one place that says so.

Every edit has a class:

    single      code: one aligned word, and both instructions are of those that may be exchanged under execution; where
                an instruction is bytes, all that change lie in one cache line
    boot-only   code: one word of another kind, or bytes that are several instructions: whoever executes it meanwhile
                may see anything
    pair        code: two words that belong together: never one step, but safe one after the other in the right order
    cross-line  code: a pair, or the bytes of an instruction, in two cache lines, which do not even arrive together
    unreached   code that nothing leads to yet, or any more: a stub, a veneer, a pad
    literal     eight aligned bytes of data in one store, which a call reads as soon as it is there
    data        the same, read only by who changes the code that goes with it: the key of a static call
    unsafe      data that one store cannot write
    load-only   what is read when the file boots or is loaded, and never again: records, relocations, symbols, headers

A plan has an answer: yes, in an order, or no; and its steps. On disk all of this is the same to ftpatch; ftrace does
the rest before the code can run, or stops the machine.
Source: Arm ARM (DDI 0487) B2.2.5, concurrent modification and execution of instructions; Power ISA 3.1 book II 1.8
(a nop and a branch may be exchanged); Intel SDM, volume 3, 9.1.3 (cross-modifying code); arch/arm64/kernel/ftrace.c
ftrace_init_nop(), arch/x86/kernel/alternative.c text_poke_bp_batch(), kernel/static_call_inline.c; Linux 6.12 and 7.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.shape import Word
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Group
from ftpatch.plan.plan import Plan

LIVE = {
    "single": (True, "yes: one aligned word, and these instructions may be exchanged while others execute them; then "
               "the caches are cleaned and invalidated"),
    "boot-only": (False, "no: this word may be changed only where nobody executes it; the kernel does it before other "
                  "processors run, or before a module's code does"),
    "pair": (False, "not in one step: the first word everywhere, and only then the call"),
    "cross-line": (False, "not in one step: its words lie in two cache lines; the first everywhere, then the call"),
    "unreached": (True, "yes: nothing leads there yet; all processors have to see it before something does"),
    "literal": (True, "yes: one aligned store of eight bytes; it has to be there before the call is"),
    "data": (True, "yes: one aligned store of eight bytes, which only who changes the code reads"),
    "unsafe": (False, "no: it is not aligned to its eight bytes, so that a processor may see half of it"),
    "load-only": (False, "no: it is read when the file boots or is loaded, and a running system never looks at it"),
}  # fmt: skip

# where an instruction is bytes, by whether those that change lie in one cache line
LIVE_BYTES = {
    "single": (False, "not by a store alone: one reaches all bytes that change, as they lie in one cache line, but "
               "processors that execute them meanwhile have to be synchronised; the kernel writes an INT3 first"),
    "cross-line": (False, "not in one step: its bytes lie in two cache lines; the kernel writes an INT3 first, then "
                   "the rest, and the first byte last"),
    "boot-only": (False, "no: its bytes are several instructions, and a processor may be between two of them"),
}  # fmt: skip
JUMP = "yes: one aligned word, legal to change while others execute it; a call's two words are not"  # of a redirect

LOADED = ("record", "relocation", "symbol", "header", "bound", "call")  # kinds of edits: see `edits.LEGAL`
STUBS = ("stub", "thunk", "pad")
CLASSES = tuple(LIVE)
BOOT_ONLY = CLASSES.index("boot-only")
YES, IN_ORDER, NO = ANSWERS = ("yes", "in-order", "no")
POINTER = 8

# the steps of a live patch, as sentences
NEW_CODE = "stubs and pads, which nothing leads to yet; the caches are cleaned, so that all processors see them"
POINTERS = "ops pointers, one aligned store of eight bytes each"
FIRST = "the first word of each site{how}; then every processor synchronises its instruction fetch"
CALLS = "the {branch} of each site, one aligned word"
INT3 = (
    "an INT3 over the first byte of each site, and every processor is synchronised",
    "the other bytes, and every processor is synchronised",
    "the first byte, and every processor is synchronised",
)
PIECES = "the bytes of each site, where nobody is: before the code runs, or with all threads stopped and out of them"
PAD_IN_USE = "a pad that calls something else may be written only while no thread is in it"
CHANGED_PADS = "pads, while their switches are off and no thread is in them; the caches are cleaned"
OLD_CODE = "stubs and pads, but only once no processor can be in them any more"
OLD_POINTERS = "ops pointers, but only once no processor can be in what reads them any more"
KEYS = "the keys' pointers, one aligned store of eight bytes each"
CALL_POINTERS = "the pointers that trampolines read, one aligned store of eight bytes each"
TRAMPOLINES = "the trampolines and all sites of the keys, each so:"
WHERE_IDLE = ", where nobody executes it: before other processors run or the code does, or with all of them stopped"
STAYS = ", and may stay as it is where the call is gone"
ONLY_TABLES = "no: only what is read when the file boots or is loaded changes"


class Live(NamedTuple):
    """Whether the edits of a plan could be made on a running system."""

    answer: str  # one of ANSWERS
    text: str  # the answer as a sentence
    steps: tuple[str, ...] = ()  # what is done one after the other; one or none where there is no order


def of_word(arch: Arch, va: int, old: int, new: int) -> str:
    """The class of one instruction word that changes."""
    aligned = arch.unit > 1 and va % arch.unit == 0
    known = (any(word & kind.mask == kind.bits for kind in arch.exchangeable) for word in (old, new))
    single = aligned and all(known)
    return "single" if single else "boot-only"


def of_literal(va: int) -> str:
    """The class of eight bytes of data."""
    return "unsafe" if va % POINTER else "literal"


def of_site(arch: Arch, va: int, words: int) -> str:
    """The class of a site's words together; of one word, the word's own."""
    if words < 2:
        return ""
    return "cross-line" if arch.crosses_line(va, arch.unit * words) else "pair"


def of_edit(arch: Arch, kind: str, va: int, old: bytes, new: bytes) -> str:
    """The class of one edit of a kind of `edits.LEGAL`."""
    if kind in LOADED:
        return "load-only"
    if kind in STUBS:
        return "unreached"
    if kind in ("literal", "key"):
        return "unsafe" if va % POINTER else "data" if kind == "key" else "literal"
    if kind == "trampoline" and arch.unit > 1:  # which reads a pointer
        return of_literal(va)
    differs = [at for at, (was, is_) in enumerate(zip(old, new, strict=True)) if was != is_]
    first, last = differs[0], differs[-1]  # an edit changes something
    if arch.unit == 1:
        return "cross-line" if arch.crosses_line(va + first, last - first + 1) else "single"
    start, n_words = first // arch.unit, last // arch.unit - first // arch.unit + 1
    va += arch.unit * start
    words = (int.from_bytes(side[arch.unit * start :][: arch.unit], "little") for side in (old, new))
    return of_site(arch, va, n_words) or of_word(arch, va, *words)


def of_plan(plan: Plan) -> list[str]:
    """The class of each edit between the original bytes, in file order; the plan's layout tells more than bytes do."""
    groups = plan.edits.groups
    codes = plan.edits.in_file_order([_of_group(plan, part) for part in groups])
    return [CLASSES[code] for code in codes.tolist()]


def _of_group(plan: Plan, part: Group) -> I64:
    """Numbers in CLASSES of the edits of one group."""
    arch, n = plan.scan.arch, len(part.pos)
    if part.kind in LOADED or part.kind in STUBS:
        codes = np.full(n, CLASSES.index("load-only" if part.kind in LOADED else "unreached"), dtype=np.int64)
        if part.kind == "pad" and plan.verb == "enable":  # a thread may be in one that was filled
            codes[(part.old != np.frombuffer(_nops(arch, part.old.shape[1]), np.uint8)).any(axis=1)] = BOOT_ONLY
        return codes
    if part.kind == "site" and plan.in_pieces.any():
        return np.full(n, BOOT_ONLY, dtype=np.int64)
    # Edits of one kind have few forms: of which bytes change, where in a cache line, and what from what.
    va = places(plan.scan.image, part.pos) & (arch.cache_line - 1)
    known = np.zeros((n, 3), dtype=np.int64)
    known[:, 0] = va
    if arch.unit > 1 and part.kind == "site":
        old, new = (side.view("<u4") for side in (part.old, part.new))
        known[:, 1] = ((old != new) << np.arange(old.shape[1])).sum(axis=1)
        known[:, 2] = ((_exchangeable(arch, old) & _exchangeable(arch, new)) << np.arange(old.shape[1])).sum(axis=1)
    elif arch.unit == 1:
        known[:, 1] = ((part.old != part.new) << np.arange(part.old.shape[1])).sum(axis=1)
    _, first, which = np.unique(known, axis=0, return_index=True, return_inverse=True)
    forms = [CLASSES.index(of_edit(arch, part.kind, int(va[at]), part.old[at].tobytes(), part.new[at].tobytes()))
             for at in first.tolist()]  # fmt: skip
    return np.array(forms, dtype=np.int64)[which.reshape(-1)]


def _nops(arch: Arch, size: int) -> bytes:
    return arch.nop.to_bytes(arch.unit, "little") * (size // arch.unit)


def _changes_pads(plan: Plan) -> bool:
    """Whether a pad that was filled calls something else."""
    filled = (row.tobytes() for group in plan.edits.groups if group.kind == "pad" for row in group.old)
    return plan.verb == "enable" and any(old != _nops(plan.scan.arch, len(old)) for old in filled)


def places(image: Image, pos: I64) -> I64:
    """va of each file position; in a relocatable file, of the section's place among the others."""
    held = np.flatnonzero(image.has_bytes & (image.shdr["sh_size"] > 0))
    start = image.shdr["sh_offset"][held].astype(np.int64)
    order = np.argsort(start, kind="stable")
    near = order[np.maximum(np.searchsorted(start[order], pos, side="right") - 1, 0)] if len(held) else order
    base: U64 = image.base[held]
    return np.asarray(base[near].view(np.int64) + pos - start[near]) if len(held) else pos


def answer(plan: Plan) -> Live:
    """Whether all edits of a plan could be made on a running system, and in which order."""
    kinds = {group.kind for group in plan.edits.groups}
    if not len(plan.edits):
        return Live(YES, "yes: nothing changes")
    if plan.verb == "static-calls":
        return _of_static_calls(plan.scan.arch)
    back, new_code = plan.verb == "disable", bool(kinds & set(STUBS)) or bool(plan.edits.tail and any(plan.stub))
    if not plan.new_words.shape[1] or not len(plan.index):
        return Live(NO, ONLY_TABLES)
    code = (OLD_CODE if back else NEW_CODE,) if new_code else ()
    # a module's pointers are filled by relocations
    has_pointers = "literal" in kinds or (plan.callee is not None and plan.callee.ops_size > 0)
    pointers = (OLD_POINTERS if back else POINTERS,) if has_pointers else ()
    where = "" if plan.scan.image.linked else " in the loaded module"
    sites, why = _of_sites(plan) if "site" in kinds or "pad" not in kinds else ((), "")  # switches that stay off
    if _changes_pads(plan):
        why, code = why or PAD_IN_USE, (CHANGED_PADS,)
    steps = (*sites, *pointers, *code) if back else (*code, *pointers, *sites)
    if why:
        return Live(NO, f"no{where}: {why}. But for that, in this order", steps)
    if len(steps) == 1:
        return Live(YES, f"yes{where}: {steps[0]}", steps)
    return Live(IN_ORDER, f"yes{where}, in this order", steps)


def _of_sites(plan: Plan) -> tuple[tuple[str, ...], str]:
    """The steps by which the words of all sites change; why one of them is not legal under execution."""
    arch, shape, back = plan.scan.arch, plan.scan.sites.shape, plan.verb == "disable"
    assert shape is not None  # no site changes without a layout
    if arch.unit == 1 and plan.in_pieces.any():
        return (PIECES,), "the bytes of a site are several instructions, and a processor may be between two of them"
    if arch.unit == 1:
        return INT3, ""
    old, new = plan.scan.sites.body()[plan.index][:, : plan.new_words.shape[1]], plan.new_words
    jumps = plan.verb == "redirect" or plan.scan.sites.redirected[plan.index].any()
    at = 0 if jumps else old.shape[1] - 1  # of the branch
    illegal = (old != new) & ~(_exchangeable(arch, old) & _exchangeable(arch, new))
    illegal |= ((plan.scan.sites.body_va[plan.index] % np.uint64(arch.unit)) != 0)[:, None]
    branch = "jump" if jumps or shape.out_of_line or shape.front else "call"
    calls = (CALLS.format(branch=branch),) if (old != new)[:, at].any() or not plan.scan.image.linked else ()
    others = np.delete(old != new, at, axis=1).any()
    first = (FIRST.format(how=WHERE_IDLE if np.delete(illegal, at, axis=1).any() else ""),) if others else ()
    rows, columns = np.nonzero(illegal)
    why = ""
    if len(rows):
        texts = (_text(arch, shape.old + shape.new, int(side[rows[0], columns[0]])) for side in (old, new))
        why = f"{' -> '.join(texts)} may be changed only where nobody executes it{STAYS if back and others else ''}"
    return ((*calls, *first) if back else (*first, *calls)), why


def _exchangeable(arch: Arch, words: U32) -> Mask:
    """Which words are instructions that may be exchanged under execution."""
    return np.asarray(np.logical_or.reduce([kind.matches(words) for kind in arch.exchangeable]))


def _text(arch: Arch, known: tuple[Word, ...], word: int) -> str:
    """An instruction as the layout names it; its number where it names it otherwise."""
    return next((kind.text for kind in known if word & kind.mask == kind.bits and kind.text), f"0x{arch.text(word)}")


def _of_static_calls(arch: Arch) -> Live:
    """A file may have the pointers in relocations alone; a running kernel has them in memory."""
    if arch.unit > 1:
        return Live(IN_ORDER, "yes, in this order", (KEYS, CALL_POINTERS))
    steps = (KEYS, *(f"{TRAMPOLINES} {INT3[0]}" if step is INT3[0] else step for step in INT3))
    return Live(IN_ORDER, "yes, in this order, as the kernel's static_call_update() does", steps)
