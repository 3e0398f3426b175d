"""What is being proven: two files as they were read, and what was found out about the way from one to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import Modules
from ftpatch.arch.proof_tables import ProofTables, tables_of
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U8, U32, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.finding import Finding
from ftpatch.proof.emulate.expectation import Expectation
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.program_memory import ProgramMemory
from ftpatch.proof.linked import Linked, read_linked
from ftpatch.proof.positions import section_at
from ftpatch.proof.steps import Step
from ftpatch.sites.scan import Scan

if TYPE_CHECKING:
    from ftpatch.elf.function_types import FunctionTypes

# as compiled; a call of ours; a call that became a NOP; a jump to another function; anything else
OLD, NEW, RETIRED, REDIRECTED, OTHER = range(5)
PATCHED = (NEW, REDIRECTED)
MOST = 1000  # findings of one rule that are kept one by one; the rest is a count


@dataclass(frozen=True)
class Intent:
    """What was asked for and the files alone do not tell; it comes from a plan, or from the journal of one."""

    dropped: I64  # file positions of sites whose records leave although their code stays; −1: of one without a place
    keeps_records: bool = False  # records of enabled sites stay on purpose, for a kernel that will refuse them
    forced_target: bool = False  # the sites call code that was not shown to keep the contract of a patch site
    recording: bool = False  # records came, and nothing was patched


@dataclass(frozen=True)
class SiteCalls:
    """Where the call of each enabled site ends, over all stubs in between. One row per site, by file position."""

    pos: I64  # file position of the first rewritten word
    target: U64  # va of the target in a linked image; 0 in a module
    ops: U64  # va of the ftrace_ops object that the target finds, 0 for none; in a module as loaded here
    names: tuple[frozenset[str], ...] = ()  # modules: the symbols that the code calls; the loader's jumps by target


@dataclass(frozen=True)
class SiteRedirects:
    """Which function each redirected site leads to, over all stubs in between. One row per site, by file position."""

    pos: I64  # file position of the first word of the site
    target: U64  # va of the replacement's symbol in a linked image; 0 in a module
    names: tuple[str, ...]  # of the replacement; of the first of several symbols at its address
    rows: I64  # of that symbol


class StaticCallee(NamedTuple):
    """What a static call calls that called something else before."""

    name: str  # a function, NULL or return0
    va: int = 0  # of it in a linked image; 0 for NULL, and in a module


class Import(NamedTuple):
    """A symbol of another file that a module uses, and did not before."""

    name: str
    crc: int | None  # the version that the module states; None where it states none
    exporter: str | None = None  # vmlinux, or the name of a module; None where that is not known


NO_PLACES = (np.zeros(0, np.int64), np.zeros(0, np.int64))
NO_CALLS = SiteCalls(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
NO_REDIRECTS = SiteRedirects(np.zeros(0, np.int64), np.zeros(0, np.uint64), (), np.zeros(0, np.int64))


@dataclass
class Case:
    """Two files that are held against each other, and what the checks collect on the way."""

    arch: Arch
    before: Scan
    after: Scan
    intent: Intent | None = None  # None: nobody says what was wished
    kernel: Image | None = None  # that a module will meet, where it is known
    objects: tuple[Image, ...] = ()  # that were linked into the module, where they are at hand
    findings: list[Finding] = field(default_factory=list)
    accounted: list[tuple[str, I64, int]] = field(default_factory=list)  # bytes that may differ: kind, where, how many
    kinds: Counter[str] = field(default_factory=Counter)  # how many edits of each kind
    calls: SiteCalls = NO_CALLS
    redirects: SiteRedirects = NO_REDIRECTS
    gone: I64 = field(default_factory=lambda: np.zeros(0, np.int64))  # rows of `before` whose records left
    returned: tuple[I64, I64] = NO_PLACES  # (section, offset) of the records of `after` that are new
    expectations: list[Expectation] = field(default_factory=list)  # what is to be seen when sites are executed
    expect_later: Callable[[], None] | None = None  # adds those that cost time, when something is executed at all
    unclaimed: list[str] = field(default_factory=list)  # sites of which one execution shows nothing, and why
    notes: list[str] = field(default_factory=list)
    steps: tuple[Step, ...] = ()  # the patches that appended something to a relocatable file
    callees: Counter[str] = field(default_factory=Counter)  # what the enabled sites call, by name: how many of them
    replacements: Counter[str] = field(default_factory=Counter)  # what the redirected ones lead to, likewise
    ops: Counter[str] = field(default_factory=Counter)  # the ftrace_ops that they serve, by name: how many of them
    imports: tuple[Import, ...] = ()  # what a module uses of other files that it did not use before
    depends: tuple[str, ...] = ()  # names that its depends= gained
    # modules: (section, offset) of what relocations of static calls' keys and trampolines are about
    static_places: set[tuple[int, int]] = field(default_factory=set)
    static_pointers: list[int] = field(default_factory=list)  # kernels: va of pointers that changed with them
    set_calls: dict[str, StaticCallee] = field(default_factory=dict)  # by key
    mended: frozenset[int] = frozenset()  # sections whose headers may be others: of records, where some came
    pairs: Pairs | None = None  # the sites of both files, side by side
    memory: Memory | ProgramMemory | None = None  # of a module, or a program, as it is laid out for the emulation
    _more: Counter[str] = field(default_factory=Counter)

    @cached_property
    def tables(self) -> ProofTables:
        """The machine as the proof reads it."""
        return tables_of(self.arch)

    @cached_property
    def types(self) -> FunctionTypes:
        """The types of the second file's functions."""
        from ftpatch.elf.function_types import FunctionTypes  # loaded only where functions are redirected

        return FunctionTypes(self.after.image, self.kernel)

    @cached_property
    def kernel_types(self) -> FunctionTypes | None:
        """Those of the kernel's functions, where it is given."""
        from ftpatch.elf.function_types import FunctionTypes

        return None if self.kernel is None else FunctionTypes(self.kernel)

    @cached_property
    def linked(self) -> Linked:
        """What an object brought into the second file."""
        return read_linked(self.before.image, self.after.image)

    @property
    def modules(self) -> Modules:
        """How modules of the machine are patched."""
        assert self.arch.modules is not None, "a module of a machine whose modules are not patched"
        return self.arch.modules

    @cached_property
    def strings(self) -> tuple[int, ...]:
        """The sections of the first file with the names of its symbols and of its sections."""
        image = self.before.image
        names = int(image.ehdr["e_shstrndx"])
        tabs = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)[:1]
        links: list[int] = image.shdr["sh_link"][tabs].tolist()
        return (*links, int(image.shdr["sh_link"][0]) if names == t.SHN_XINDEX else names)

    @property
    def last_symbol(self) -> int:
        """The first symbol that the last patch added: what earlier ones added may be left over."""
        if len(self.steps) < 2:
            return len(self.before.image.symbols.rows)
        tab = int(np.argmax(self.after.image.shdr["sh_type"] == t.SHT_SYMTAB))
        return int(self.steps[-2].shdr["sh_size"][tab]) // t.SYM.itemsize

    @property
    def forced(self) -> bool:
        """Whether somebody says that code was called on purpose which was not shown to keep a site's contract."""
        return self.intent is not None and self.intent.forced_target

    def say(
        self, rule: str, message: str, *, function: str | None = None, row: int | None = None, sec: int | None = None,
        off: int | None = None, pos: int | None = None,
    ) -> None:  # fmt: skip
        """Add a finding; sec, off, pos: where, in the file that was patched."""
        self._more[rule] += 1
        if self._more[rule] > MOST:
            return
        names = self.after.image.names
        section = names[sec] if sec is not None and 0 <= sec < len(names) else None
        if section is None and pos is not None:
            section, off = section_at(self.after.image, pos)
        self.findings.append(
            Finding(rule, "error", message, self.after.image.path, function, row, section, off, pos=pos)
        )

    def account_for(self, kind: str, pos: I64 | Sequence[int], width: int) -> None:
        """These bytes may differ."""
        places = np.asarray(pos, dtype=np.int64)
        if len(places) and width:
            self.accounted.append((kind, places, width))

    def all_findings(self) -> tuple[Finding, ...]:
        """The findings by rule, in the order in which the rules were first broken; what was too much is one more."""
        order = {rule: at for at, rule in enumerate(self._more)}
        path = self.after.image.path
        extra = [Finding(rule, "error", f"{n - MOST} more of this kind", path, count=n - MOST)
                 for rule, n in self._more.items() if n > MOST]  # fmt: skip
        return (*sorted(self.findings, key=lambda finding: order[finding.rule]), *extra)


@dataclass(frozen=True)
class Pairs:
    """One row per place, by section and offset."""

    case: Case
    shape: Shape
    sec: I64  # section of the site
    off: I64  # byte offset in it of the first word that enabling rewrites
    record: I64  # byte offset in it that the site's record names
    before: I64  # row in the first file's site table; −1 where there is none
    after: I64  # row in the second file's; −1 where there is none
    old: U8  # OLD, NEW, RETIRED, REDIRECTED or OTHER in the first file
    new: U8  # the same in the second
    words: U32  # (n, k) units of code as they are in the second file
    differs: Mask  # whether they were others in the first, or in a module called something else

    def __len__(self) -> int:
        return len(self.sec)

    @cached_property
    def pos(self) -> I64:
        pos: I64 = self.case.before.image.pos(self.sec, self.off)
        return pos

    @cached_property
    def branch_off(self) -> I64:
        off: I64 = self.off + self.shape.call_at
        return off

    @cached_property
    def field_off(self) -> I64:
        """Byte offset in its section of what the relocation of each site's call fills."""
        off: I64 = self.branch_off + self.case.tables.branch_field[0]
        return off

    @cached_property
    def nop(self) -> Mask:
        """Sites that are, in the second file, what build tools leave there instead of the layout's call."""
        code = self.case.tables.left if self.words.shape[1] == self.shape.branch.n_units else ()
        mask = [(self.words == np.array(units, dtype=np.uint32)).all(axis=1) for units in code]
        nop: Mask = np.logical_or.reduce([np.zeros(len(self), dtype=bool), *mask])
        return nop

    @cached_property
    def enabled(self) -> Mask:
        """Sites that call something of ours now and did not before."""
        return np.asarray((self.old != NEW) & (self.new == NEW) & self.differs)

    @cached_property
    def redirected(self) -> Mask:
        """Sites that lead to another function now, and did not before, or to a third one."""
        return np.asarray((self.new == REDIRECTED) & self.differs)

    @cached_property
    def disabled(self) -> Mask:
        """Sites that lead to nothing of ours any more, or call nothing at all where the compiler left a call."""
        left = is_in(self.old, PATCHED) & ~is_in(self.new, PATCHED)
        return np.asarray((left | (self.new == RETIRED)) & self.differs)

    def va(self, off: I64) -> U64:
        """va of places in the sites' sections, in the file that was patched."""
        return self.case.after.image.va(self.sec, off)

    def name(self, at: int) -> str:
        """What people call the site."""
        tables = ((self.case.before.sites, int(self.before[at])), (self.case.after.sites, int(self.after[at])))
        names = [name for table, row in tables if row >= 0 and (name := table.name(row))]
        return names[0] if names else f"{self.case.before.image.names[int(self.sec[at])]}+{int(self.off[at]):#x}"

    def row(self, at: int) -> int | None:
        """The slot of its record in the first file."""
        row = self.case.before.sites.row[self.before[at]] if self.before[at] >= 0 else -1
        return int(row) if row >= 0 else None

    def say(self, rule: str, at: int, message: str) -> None:
        """A finding at a site."""
        name = self.name(at)
        self.case.say(rule, f"{name}: {message}", function=name, row=self.row(at), sec=int(self.sec[at]),
                      off=int(self.off[at]), pos=int(self.pos[at]))  # fmt: skip

    def entry_off(self, at: int) -> int:
        """Offset in its section of the local entry of the site's function; where it has no name, by the layout."""
        side, row = (self.case.before, self.before[at]) if self.before[at] >= 0 else (self.case.after, self.after[at])
        sites = side.sites
        if sites.func[row] < sites.func_end[row]:
            return int(sites.local_va[row] - side.image.base[self.sec[at]])
        if self.shape.at_global:
            return int(self.off[at])
        return int(sites.off[row]) + int(self.shape.to_entry(sites.window[row : row + 1])[0])
