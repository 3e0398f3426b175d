"""Whether an edit could be made while other processors execute the code, as classes that a report can name.

    single      one aligned word, and both instructions are of those that may be exchanged under execution
    boot-only   one aligned word of another kind: whoever executes it meanwhile may see anything
    pair        two words that belong together: never one step, but safe one after the other in the right order
    cross-line  a pair in two cache lines, which do not even arrive together
    literal     eight aligned bytes of data in one store
    unsafe      data that one store cannot write
On disk all of this is the same to ftpatch; ftrace does the rest before the code can run, or stops the machine.
Source: Arm ARM (DDI 0487) B2.2.5, concurrent modification and execution of instructions; Power ISA 3.1 book II 1.8
(a nop and a branch may be exchanged); arch/arm64/kernel/ftrace.c ftrace_init_nop(); Linux 7.2.
"""

from __future__ import annotations

from ftpatch.arch import Arch

LIVE = {
    "single": (True, "yes: one aligned word, and these instructions may be exchanged while others execute them; then "
               "the caches are cleaned and invalidated"),
    "boot-only": (False, "no: this word may be changed only where nobody executes it; the kernel does it before other "
                  "processors run, or before a module's code does"),
    "pair": (False, "not in one step: the first word everywhere, and only then the call"),
    "cross-line": (False, "not in one step: its words lie in two cache lines; the first everywhere, then the call"),
    "literal": (True, "yes: one aligned store of eight bytes; it has to be there before the call is"),
    "unsafe": (False, "no: it is not aligned to its eight bytes, so that a processor may see half of it"),
}  # fmt: skip

# where an instruction is bytes, by whether those that change lie in one cache line
# Source: Intel SDM, volume 3, 9.1.3; arch/x86/kernel/alternative.c text_poke_bp_batch() (Linux 6.12).
LIVE_BYTES = {
    "single": (False, "not by a store alone: one reaches all bytes that change, as they lie in one cache line, but "
               "processors that execute them meanwhile have to be synchronised; the kernel writes an INT3 first"),
    "cross-line": (False, "not in one step: its bytes lie in two cache lines; the kernel writes an INT3 first, then "
                   "the rest, and the first byte last"),
}  # fmt: skip
JUMP = "yes: one aligned word, legal to change while others execute it; a call's two words are not"  # of a redirect


def of_word(arch: Arch, va: int, old: int, new: int) -> str:
    """The class of one instruction word that changes."""
    aligned = arch.unit > 1 and va % arch.unit == 0
    known = (any(word & kind.mask == kind.bits for kind in arch.exchangeable) for word in (old, new))
    single = aligned and all(known)
    return "single" if single else "boot-only"


def of_literal(va: int) -> str:
    """The class of eight bytes of data."""
    return "unsafe" if va % 8 else "literal"


def of_site(arch: Arch, va: int, words: int) -> str:
    """The class of a site's words together; of one word, the word's own."""
    if words < 2:
        return ""
    return "cross-line" if arch.crosses_line(va, arch.unit * words) else "pair"
