"""Why ftrace gave up, by the words of its message alone: causes in the order of what speaks for them.

What the kernel found at the site, before what it was about to do, is nearly all that a message tells. Each cause is
`certain` where the kernel says so itself or nothing else can print this, `likely` where it is what makes kernels print
it, `possible` where others do, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftpatch.arch import known_code as b
from ftpatch.arch.shape import Shape
from ftpatch.arch.site_bytes import reading
from ftpatch.explanation.machine import Origin
from ftpatch.explanation.message import Splat

CERTAIN, LIKELY, POSSIBLE = "certain", "likely", "possible"
DISABLED = 1 << 25  # flag of a record whose module is being loaded
LOW = 0x1000  # addresses below are 0 and what a kernel added to it
ENABLED_TODO = "drop the record (ftpatch enable does unless told --records keep), or ftpatch disable restores the NOPs"


@dataclass(frozen=True)
class Cause:
    """What makes ftrace give up."""

    rule: str  # the linter's name for it; "" where no file shows it
    text: str  # in words
    todo: str = ""  # what to do


CAUSES = {
    "null": Cause(
        "null-not-skipped", "a slot of the record table is 0, and this kernel adds to a record before it tests it",
        "write −4 with the relocation NONE, or cut the slot out (ftpatch drop does)",
    ),
    "unreadable": Cause("outside-text", "a record names an address that holds no kernel text", "ftpatch check FILE"),
    "gone": Cause(
        "", "text that could not be written, or not even read; it is text, since the kernel knows its name: a module "
        "that is being loaded or unloaded, init text that was freed, or memory that is read-only already",
    ),
    "unmapped": Cause(
        "", "memory that is not mapped, or may not be read: text of a module that is still being loaded or is being "
        "unloaded, or init text that was freed",
    ),
    "protected": Cause(
        "", "text that could not be written: its memory is read-only already, its mapping failed, or it was freed with "
        "init memory",
    ),
    "other-error": Cause("", "the machine's code failed for another reason, which the line in front of it may tell"),
    "enabled": Cause(
        "site-enabled", "the site is enabled on disk and its record is still in the table", ENABLED_TODO,
    ),
    "redirected-on-disk": Cause(
        "site-enabled", "the function is redirected on disk: its site is a jump to another one, and its record is "
        "still in the table", "drop the record (ftpatch redirect does), or ftpatch disable restores the site",
    ),
    "half": Cause(
        "site-half", "the first word of the site is rewritten on disk, in the form that a running kernel gives to a "
        "site that is off; on disk all words have to be as compiled", "ftpatch disable restores them",
    ),
    "twice": Cause(
        "duplicate", "two records name the site: the second finds what the first one made of it", "drop one of the two",
    ),
    "other": Cause(
        "unexpected-words", "the site holds neither what the compiler left nor a call", "look at what wrote there",
    ),
    "moved": Cause(
        "", "something else writes the site while the kernel runs (a live patch, BPF, a kprobe, another module), or it "
        "was enabled on disk in a form that passes the test at boot: a call behind an untouched NOP",
    ),
    "own-nop": Cause(
        "", "what is there is what ftrace itself writes for a NOP where a site is a compiler's call (-pg): kernel and "
        "site disagree on the form of a NOP. Kernels 5.19 to 6.0 do that to code of clang and to modules",
        "a newer kernel, or one and the same compiler flags for kernel and module",
    ),
    "return": Cause(
        "unexpected-words", "the record points at a return, not at a site: it is off by the size of a prefix in front "
        "of the function, or belongs to another build of this code (a stale object)",
        "ftpatch check FILE; build it anew",
    ),
    "shifted": Cause(
        "unexpected-words", "the record points beside its site, at other code of the function: it is off by the size "
        "of a landing pad or prefix, or belongs to another build of this code (a stale object)",
        "ftpatch check FILE; build it anew",
    ),
    "zeros": Cause(
        "", "the text is all zeros there: the image was loaded only in part, or the record names memory that was freed "
        "or never filled",
    ),
    "trap": Cause(
        "", "a breakpoint stands in the site: a kprobe, a debugger, or another CPU that is rewriting this text",
    ),
    "unlinked": Cause(
        "", "the call goes to the instruction behind it: its relocation was never applied, so that the file was "
        "stripped of it or is not what was linked",
    ),
    "callee": Cause(
        "", "the site calls something else than what ftrace wanted to find: a linker's stub in between, other code "
        "that patches calls, or a record table of another link",
    ),
    "early": Cause(
        "", "the site calls already, before ftrace switched anything on: it was patched on disk, or by code that ran "
        "earlier",
    ),
    "kept-call": Cause(
        "", "the call that the compiler made is still there: the kernel could not make a NOP of it at boot or when it "
        "loaded the module", "look for an earlier message about the same module",
    ),
    "through-memory": Cause(
        "", "the compiler called its hook through memory (-fno-plt or PIE code), which ftrace does not know",
        "build without -fno-plt and -fpie",
    ),
    "redirected": Cause(
        "", "the site is a jump to elsewhere: a live patch, a static call, a dispatcher of BPF, an optimised kprobe or "
        "a module that hooks functions took its place",
    ),
    "off-already": Cause(
        "duplicate", "the site holds a NOP already: two records name it, it was compiled with NOPs for a kernel that "
        "expects calls, or other code switched it off", "ftpatch check FILE",
    ),
    "as-wanted": Cause(
        "", "the site holds the NOP that ftrace wants to see there: the kernel refused for another reason (its entry "
        "is out of a branch's reach and no stub leads there, or no memory), or the text changed in between",
    ),
    "beside": Cause(
        "", "the kernel looked a word beside the site, which holds what it wanted: a fault of that kernel",
        "a newer kernel",
    ),
    "strange": Cause(
        "", "this file has the site as compiled: another build of it was running, or something changed the site in "
        "memory before ftrace came to it",
    ),
    "dropped": Cause(
        "", "this file has the function, but no record names it: it is not the file that printed this, or its record "
        "was dropped since",
    ),
    "elsewhere": Cause(
        "", "this file has no such site: it is not the file that booted, or the function is in a module",
    ),
    "warning-only": Cause(
        "", "only the kernel's warning is in this text: what it found, and where, stands in lines that are missing",
        "look for `ftrace bug` in the whole log (dmesg, journalctl -k)",
    ),
    "told": Cause("", "the machine's code says what it is: see what was said"),
    "unknown": Cause("", "the message alone does not tell; give the kernel or module that printed it"),
}  # fmt: skip


@dataclass(frozen=True)
class Weighed:
    """A cause, and what speaks for it."""

    cause: Cause
    certainty: str  # CERTAIN, LIKELY or POSSIBLE


def causes_of(splat: Splat, origin: Origin) -> tuple[Weighed, ...]:
    """The causes that a message leaves open, the likeliest first."""
    return tuple(Weighed(CAUSES[key], certainty) for key, certainty in _keys(splat, origin))


def _keys(splat: Splat, origin: Origin) -> list[tuple[str, str]]:
    case = by_case(splat)
    if case:
        return case
    if splat.actual is None and splat.found is None:
        alone = splat.warned and not splat.what and not splat.phase and not splat.remarks
        if splat.remarks:
            return [("told", CERTAIN)]
        return [("warning-only", CERTAIN)] if alone else [("unknown", POSSIBLE)]
    return by_words(splat, origin)


def by_case(splat: Splat) -> list[tuple[str, str]]:
    """Causes that the kernel's own words settle: what could not be read or written."""
    if splat.what == "faulted on writing":
        return [("protected", CERTAIN)]
    if splat.what == "faulted on unknown error":
        return [("other-error", CERTAIN)]
    if not splat.what.startswith("faulted"):
        return []
    if splat.function is not None:
        return [("gone", CERTAIN)]
    if splat.ip is None:
        return [("unreadable", POSSIBLE), ("unmapped", POSSIBLE)]
    if splat.ip < LOW:
        return [("null", CERTAIN)]
    # of a module that is still being loaded no address has a name yet
    return [("unreadable", LIKELY), ("unmapped", POSSIBLE)]


def phase_of(splat: Splat) -> str:
    """What ftrace was about to do. Of a record that nobody ever used, of a module or not, a kernel only begins."""
    unused = splat.flags is not None and splat.flags & ~DISABLED == 0
    return splat.phase or ("init" if unused else "")


BY_KIND = {
    b.OWN_NOP: [("own-nop", LIKELY), ("moved", POSSIBLE)],
    b.RETURN: [("return", LIKELY)],
    b.LANDING: [("shifted", LIKELY)],
    b.ENTRY: [("shifted", LIKELY), ("other", POSSIBLE)],
    b.ZEROS: [("zeros", LIKELY)],
    b.TRAP: [("trap", LIKELY)],
    b.JUMP: [("redirected", LIKELY), ("other", POSSIBLE)],
    b.FIRST: [("shifted", LIKELY), ("half", POSSIBLE)],
    b.NOP: [("off-already", LIKELY), ("moved", POSSIBLE)],
}


def by_words(splat: Splat, origin: Origin) -> list[tuple[str, str]]:
    """What the words at the site show. Empty only where there are none."""
    splat = replace(splat, phase=phase_of(splat))
    kind, code, machine = origin.actual.kind, splat.actual, origin.machine
    early = splat.phase not in ("on", "off", "update")
    if early and kind != b.OWN_NOP and (known := _by_layout(splat, origin)):
        return [(known, LIKELY)]
    if code is None and machine is not None and splat.found is not None:  # only the machine's line is there
        kind = reading(machine, (splat.found & 0xFFFF_FFFF).to_bytes(4, machine.order)).kind
    if splat.pairs and code and len(code) == 8:
        words = [int.from_bytes(code[at : at + 4], "little") for at in (0, 4)]
        if words == [splat.pairs[0], splat.pairs[2]]:
            return [("beside", LIKELY)]
    if kind == b.CALL:
        return _call(splat, origin)
    if kind == b.NOP and splat.phase == "on":
        return [("as-wanted", LIKELY), ("moved", POSSIBLE)]
    if kind in BY_KIND:
        return BY_KIND[kind]
    if not origin.name or len(code or b"1234") < 4:
        return [("unknown", POSSIBLE)]
    return [("other", LIKELY)] if early else [("moved", POSSIBLE)]


def _call(splat: Splat, origin: Origin) -> list[tuple[str, str]]:
    """A call is at the site."""
    told, size = origin.actual, len(splat.actual or b"")
    if told.to is None and ("*" in told.text or "addr32" in told.text):
        return [("through-memory", LIKELY)]
    if told.to is not None and splat.ip is not None and told.to in (splat.ip, splat.ip + size) and size > 4:
        return [("unlinked", LIKELY)]
    if splat.phase == "init" and origin.arch is not None and told.to is not None and told.to == splat.tramp:
        return [("enabled", LIKELY)]  # it calls ftrace already
    if origin.wanted.kind == b.CALL and origin.wanted.to != told.to:
        return [("callee", LIKELY), ("moved", POSSIBLE)]
    other_call = origin.machine is not None and origin.machine.compiled_calls
    # on disk that is done here, to machines that are known; where compilers leave calls, others do it as well
    early = "early" if origin.arch is None or other_call else "enabled"
    if splat.phase == "init":
        return [("callee", LIKELY), (early, POSSIBLE)] if other_call else [(early, LIKELY), ("callee", POSSIBLE)]
    if splat.phase == "on" and splat.module and (told.to is None or told.to != splat.tramp):
        return [("moved", LIKELY), ("kept-call", POSSIBLE)]
    if splat.phase:
        return [("moved", LIKELY)]
    return [("moved", POSSIBLE), (early, POSSIBLE), ("callee", POSSIBLE)]  # a kernel that does not say when


def _by_layout(splat: Splat, origin: Origin) -> str:
    """What the words are to a layout that this program knows; "" where they are nothing special to it."""
    first, arch = splat.found, origin.arch
    call = origin.number if origin.number is not None else splat.found
    if arch is None or call is None:
        return ""
    # where compilers leave a call, another one tells by where it goes alone
    kernels = [shape for shape in arch.shapes if not shape.program]
    told = [shape for shape in kernels if not shape.refusal and shape.new not in (shape.old, *shape.also)]
    if any(_is_call(call, shape) for shape in told):
        return "enabled" if splat.phase or splat.found is not None else ""
    starts = {shape.new[0].bits for shape in kernels if shape.call_at}
    if call == arch.nop and (first in starts or (first is None and arch.compares_first and splat.phase == "init")):
        return "half"
    return ""


def _is_call(number: int, shape: Shape) -> bool:
    """Whether code, as a number of `Arch.numbers`, is the branch that enabling writes."""
    first = number >> 8 * (shape.branch.size - shape.unit)
    return first & shape.branch.word.mask == shape.branch.word.bits
