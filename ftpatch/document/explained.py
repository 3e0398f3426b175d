"""The JSON objects of `explain`: a site from bytes to verdict, a name without a site, a message taken apart."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from ftpatch.document.fields import EditKind, Hex, Values
from ftpatch.document.written import LiveObject


class UnitMention(TypedDict):
    """The unit of debug information that a function without a site is in."""

    file: Annotated[str | None, "its source file; null where no unit is known"]
    producer: str | None
    switches: Annotated[list[str] | None, "those that decide on sites; null where they are not known"]
    gives_sites: Annotated[bool | None, "whether they give every function a site; null: not known"]
    unknown: Annotated[str, "what is not known, and why; empty where all is"]
    text: Annotated[str, "why the function has no site, as far as its unit tells; else empty"]


class SymbolRow(TypedDict):
    """A symbol of the name that was asked for; state is empty for what is no function."""

    name: str
    file: str | None
    section: str
    va: Hex
    state: str
    text: str
    unit: NotRequired[UnitMention]


class EntrySymbol(TypedDict):
    """A symbol at the entry of an explained function."""

    name: str
    bind: str
    file: str | None
    value: Hex
    size: Annotated[int | None, "null for a kernel without a symbol table: its kallsyms has no sizes"]


class SlotObject(TypedDict):
    """The slot of a record: where it is, what it holds, and what of that the kernel will read."""

    pos: int
    va: Hex | None
    word: Hex
    value: Hex
    carrier: str
    carried: str
    relocation: int | None
    relocation_pos: int | None


class WordRow(TypedDict):
    """One instruction as it is and, where enable would change it, as it would be."""

    va: Hex
    word: Hex
    new_word: Hex | None
    text: str
    new_text: str | None
    at: str | None


class CodeBlock(TypedDict):
    what: str
    words: list[WordRow]


class PatchObject(TypedDict):
    """What enable would do with this site alone."""

    action: str
    target: str | None
    distance: int | None
    stub: str | None
    reason: str | None
    literal: str | None
    ops_via: str
    records: str
    records_why: str


# `class` is a word of the language, so these two have no body.
EditClassRow = TypedDict(
    "EditClassRow", {"what": str, "va": Hex, "old": Hex, "new": Hex, "class": EditKind, "live": bool, "text": str}
)
ConcurrencyObject = TypedDict("ConcurrencyObject", {"class": EditKind, "live": bool, "text": str})


class RedirectedObject(TypedDict):
    """Where a redirected function leads."""

    to: str
    va: Annotated[Hex | None, "where its callers come to: va, or in a module the offset in its section; null elsewhere"]
    entry: Annotated[bool, "that is an entry of the function, not the middle of it"]
    way: str
    stub: Annotated[str | None, "what the jump goes through: its address, or in a module .section+0x offset"]
    sure: Annotated[bool, "whether more than the jump shows it"]


class ExplainedRow(TypedDict):
    """One site from bytes to verdict, beside its row in `sites`."""

    row: int | None
    function: str | None
    symbols: list[EntrySymbol]
    source: str | None
    source_unknown: Annotated[str | None, "why there is no source, where debug information or a link to it is there"]
    slot: Annotated[SlotObject | None, "the slot of its record; null for a site without one"]
    code: list[CodeBlock]
    patch: Annotated[PatchObject | None, "null where enable would refuse"]
    refused: str | None
    edits: list[EditClassRow]
    concurrency: ConcurrencyObject | None
    live: NotRequired[Annotated[LiveObject, "of all that enable would change, where it would"]]
    verdict: str
    place: str | None
    pos: int | None
    status: str
    redirected: NotRequired[RedirectedObject]
    leads_here: NotRequired[Annotated[list[str], "functions that are redirected to this one"]]


class RenamedRow(TypedDict):
    """A function that the compiler made of the one that was asked for."""

    name: str
    text: str
    whole: Annotated[bool, "it is the function itself; false for a part of it (.part, .cold)"]
    rows: Annotated[list[int], "slots of the records that name its sites"]
    traceable: Annotated[bool, "a live record names its site, which is as the kernel expects it"]


class InlinedObject(TypedDict):
    units: int
    copies: int
    unreadable: str | None


class AbsentObject(TypedDict):
    """Why no site has the name that was asked for."""

    function: str
    text: str
    symbols: list[SymbolRow]
    renamed: list[RenamedRow]
    inlined: InlinedObject
    imported: bool
    modules: list[str] | None
    near: list[str]
    leads_here: NotRequired[Annotated[list[str], "functions that are redirected to the one of that name"]]


class RemarkRow(TypedDict):
    message: str
    text: str


class SplatSite(TypedDict):
    """A site of the file that a message may mean."""

    row: int | None
    function: str | None
    place: str
    status: str
    words: list[Hex]
    pos: int


class CauseRow(TypedDict):
    """One cause that a message leaves open."""

    text: str
    rule: str | None
    help: str
    certainty: Annotated[str, Values(("certain", "likely", "possible"))]


class FlagsObject(TypedDict):
    """The flags of a record, as the kernel printed them."""

    value: Hex
    names: list[str]
    users: Annotated[int | None, "tracers that the record says it has"]


class SplatRow(TypedDict):
    """One message of ftrace, taken apart."""

    what: str | None
    machine: str | None
    machine_by: Annotated[str | None, Values(("log", "bytes", "address", "file", None))]
    release: str | None
    function: str | None
    offset: Hex | None
    module: str | None
    ip: Hex | None
    phase: Annotated[str | None, Values(("init", "on", "off", "update", None))]
    expected: Hex | None
    found: Hex | None
    actual: Hex | None
    actual_text: Annotated[str | None, "the instruction at the call"]
    actual_to: Annotated[Hex | None, "where that leads, if it is a call or jump"]
    expected_text: Annotated[str | None, "the instruction that the kernel wanted, where it says so"]
    flags: FlagsObject | None
    tramp: Annotated[Hex | None, "where ftrace wanted the call to lead"]
    tramps: Annotated[list[str], "trampolines of the record's tracers"]
    remarks: list[RemarkRow]
    sites: list[SplatSite]
    foretold: Annotated[bool, "the file shows that the kernel has to stop there"]
    cause: Annotated[str, "the first of `causes`"]
    certainty: Annotated[str, Values(("certain", "likely", "possible"))]
    rule: str | None
    help: str
    causes: Annotated[list[CauseRow], "the likeliest first"]
    notes: list[str]
