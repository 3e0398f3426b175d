"""The plan of a writing verb: what becomes of every chosen site, and every byte that will change.

One type serves enable, disable, drop and redirect, kernels and modules. What differs from site to site stands in
columns: row n of each is about the site `index[n]` of the site table. A check that reads the result compares it with
these values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arch.parts import Code
from ftpatch.arrays import I64, U32, Mask
from ftpatch.plan.edits import Edits
from ftpatch.plan.recording import Recording
from ftpatch.plan.request import RedirectRequest
from ftpatch.plan.routes import Calls, distances
from ftpatch.sites.scan import Scan

# Way in which records leave, or return → what becomes of the record of one site.
RECORD_OUTCOMES = {"null": "null", "minus4": "minus4", "shrink": "cut", "keep": "kept", "return": "returned"}


@dataclass(frozen=True)
class PlanSummary:
    """What the request came to."""

    records: str  # how records leave or return: a key of RECORD_OUTCOMES
    records_why: str  # what in the file, or in the request, decided that
    target: str = ""  # what the sites call, by the user's name for it; empty where no call is made
    target_va: int | None = None  # its va; None in a module, where the loader decides
    ops: str | None = None  # symbol of the ftrace_ops that the sites serve
    ops_via: str = "none"  # how the sites find it: `literal` (a pointer each), `thunk` (a shared stub), `none`

    @property
    def literal(self) -> str | None:
        """The ops that each site has a pointer to."""
        return self.ops if self.ops_via == "literal" else None


@dataclass(frozen=True)
class Callee:
    """What the sites of a module branch to, as a loader will resolve it. `option` is what the user gave it by."""

    name: str  # for people, and in reports
    code: Code | None = None  # code that the patch brings along; None for one of the loader's own jumps
    jump: int = 0  # byte offset of that jump in the loader's section
    names: tuple[tuple[str, str], ...] = ()  # (name that the code uses, symbol it stands for)
    ops_size: int = 0  # bytes of the ops object that every site needs a pointer to; 0 for none
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    target: Callee | None = None  # the kernel's entry that a user's stub branches on to
    per_site: bool = False  # whether every site has a copy of the code of its own
    data: frozenset[str] = frozenset()  # names that the code has pointers to, and no branch
    option: str = "--hook"


@dataclass(frozen=True)
class Redirect:
    """Where one redirected site leads."""

    name: str  # of the replacement, for people and reports
    va: int | None  # of its symbol, in a linked file; None in a module, where the loader decides
    signature: str  # what is known of the two signatures: "equal", or why that is not known, or how they differ


class SetCall(NamedTuple):
    """A static call, and what it is set to."""

    key: str  # without __SCK__
    was: str  # what it called: a function, NULL or return0
    to: str  # what it calls, likewise
    va: int  # of that in a linked file; 0 for NULL, and in a module, where the loader decides
    sites: int  # of the file that call it
    signature: str  # what is known of the two types, as for redirects
    left: str | None  # why it stays as it is; None where it is set


@dataclass(frozen=True, repr=False)  # of columns of a whole kernel
class Plan:
    """The decision, site by site and byte by byte."""

    verb: str  # enable, disable, drop, redirect, static-calls or record
    scan: Scan  # the file as it was read
    chosen: Mask  # over the site table: what the user chose
    reasons: dict[int, str]  # why a chosen site stays as it is, by its index in the site table
    index: I64  # (n,) the sites that change, ascending indices in the site table
    new_words: U32  # (n, k) the units of code of each site afterwards; k is 0 where code stays as it is
    stub: tuple[str, ...]  # (n,) where the stub lies that the call goes through: a va, or section+offset; "" for none
    stub_why: tuple[str, ...]  # (n,) why the call goes through it, where that is not plain; "" for none
    record: tuple[str, ...]  # (n,) what becomes of each one's record: a value of RECORD_OUTCOMES, or "none"
    calls: Calls  # (n,) rows: the calls of a linked kernel
    gone: Mask  # over the slots of the record table: those whose records leave
    returned: I64  # indices in the site table of the sites whose records come back
    summary: PlanSummary
    edits: Edits
    ops_va: int | None = None  # va of the ftrace_ops that a kernel's sites serve
    callee: Callee | None = None  # what the sites of a module call
    redirects: tuple[Redirect, ...] = ()  # (n,) where redirected sites lead; empty for other verbs
    asked: RedirectRequest | None = None  # of redirect: what the user asked for
    forced_target: bool = False  # the sites call code that was not shown to keep the contract of a site, on purpose
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()  # (n,) what is done to each site, where that is not the same for all
    set_calls: tuple[SetCall, ...] = ()  # of static-calls: the keys that the user named, in the order of the table
    key_names: tuple[str, ...] = ()  # of static-calls: of every key, by its row
    recording: Recording | None = None  # of record: the records that the file gets

    def action(self, at: int) -> str:
        """What is done to the at-th changed site."""
        if self.actions:
            return self.actions[at]
        if self.verb == "enable":
            return "call_via_stub" if self.stub[at] else "call"
        return {"disable": "restore"}.get(self.verb, self.verb)

    @cached_property
    def distance(self) -> I64 | None:
        """(n,) bytes from each site's branch to where it goes; None where none is made, or where a loader decides."""
        if self.verb not in ("enable", "redirect") or not self.scan.image.linked:
            return None
        if self.verb == "redirect":  # the jump is the first word
            return distances(self.scan.sites.body_va[self.index], self.calls.branch_to)
        return distances(self.scan.sites.branch_va[self.index], self.calls.branch_to)

    @cached_property
    def in_pieces(self) -> Mask:
        """(n,) whether the code that changes at a site is several instructions where the layout's is one, so that a
        processor may be between two of them: NOPs of one byte each; a call with a NOP in front, on the way back."""
        shape, nop, pieces = self.scan.sites.shape, self.scan.arch.short_nop, np.zeros(len(self.index), dtype=bool)
        if nop is None or shape is None or not self.new_words.shape[1]:
            return pieces
        body = self.scan.sites.body()[self.index]
        pieces |= (body[:, :2] == np.uint32(nop)).all(axis=1)
        return pieces | (self.verb == "disable" and shape.call_at > 0)

    def concurrency(self, at: int) -> str | None:
        """What changes at the at-th site, which decides whether a running kernel could be changed so: one word or two;
        where code is bytes, whether those that change lie in one cache line. None where code stays as it is."""
        n, shape = self.new_words.shape[1], self.scan.sites.shape
        if self.actions and self.actions[at] in ("arm", "disarm"):  # its pad changes, and the switch stays off
            return "unreached"
        if self.in_pieces[at]:
            return "boot-only"
        if n and shape is not None and shape.branch.n_units > 1:
            site = int(self.index[at])
            kept = int(self.scan.sites.body()[site, 0]) == int(self.new_words[at, 0])  # a call gets another distance
            va = int(self.scan.sites.body_va[site]) + kept
            return "cross-line" if self.scan.arch.crosses_line(va, n - kept) else "single"
        return "single" if self.verb == "redirect" else (None, "single", "pair")[n]
