"""The JSON reports as types: every object that a report holds, key by key. The shipped schema is made from these.

A key is `NotRequired`, or its type not total, where only some verbs write it, or where an earlier release did not. What
`Annotated` adds is for the schema: a sentence that describes the value, or a limit as in `document.fields`. Nothing
here is needed at run time: other modules import it for type checking alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, TypedDict

from ftpatch.document.doctor import DoctorObject
from ftpatch.document.explained import AbsentObject, ExplainedRow, RenamedRow, SplatRow, SymbolRow
from ftpatch.document.fields import (
    Count,
    Counts,
    Hex,
    Kind,
    Pattern,
    Range,
    Register,
    Severity,
    Sha256,
    Values,
)
from ftpatch.document.oracle import OracleObject
from ftpatch.document.proofs import ProofObject
from ftpatch.document.site_rows import LivePatchObject, SiteRow
from ftpatch.document.static_calls import SetCallRow, StaticCallsObject
from ftpatch.document.symbols import ListedSymbol, Source
from ftpatch.document.text_sections import TextSectionRow
from ftpatch.document.units import UnitsObject
from ftpatch.document.written import (
    DoneObject,
    EditRow,
    LiveObject,
    OutputObject,
    PackingObject,
    RecordedObject,
    RequestObject,
    UndoneObject,
)

Command = Literal[
    "scan", "enable", "restore", "verify", "disable", "drop", "redirect", "check", "diff", "explain", "static-calls",
    "record", "symbols", "doctor",
]  # fmt: skip


# -- a file and its sites ----------------------------------------------------------------------------------------------


class BootObject(TypedDict):
    allocating: Count
    listed: Count


class HistogramObject(TypedDict):
    """How many calls are how far from what they call."""

    low: Annotated[int, "bytes: lower edge of the first bin"]
    step: Annotated[int, Range(1), "bytes of a bin"]
    counts: Annotated[list[Count], "calls in each bin"]
    beyond: Annotated[list[Count], "of these, calls that do not reach it"]


class ReachObject(TypedDict):
    target: str
    max_distance: Count
    limit: int
    beyond: Count
    trampolines: NotRequired[dict[str, Count]]
    headroom: NotRequired[int]
    target_address: NotRequired[Hex]
    backward: NotRequired[Annotated[int, "bytes that a call spans backward, a negative number; `limit` is forward"]]
    calls_from: NotRequired[
        Annotated[str, Values(("sites", "stubs")), "where calls are made: at the sites, or in a stub of each"]
    ]
    distances: NotRequired[Annotated[HistogramObject, "of all calls to the target"]]


class PatchedRow(TypedDict):
    """Enabled sites without a record that call the same thing."""

    calls: str
    sites: Annotated[int, Range(1)]
    sure: Annotated[
        bool, "it is a tracer's entry, or a stub that only patches make; false where only the code that is called "
        "speaks for it: it keeps the contract of a patch site",
    ]  # fmt: skip
    through_veneer: NotRequired[Annotated[int, Range(1), "of these sites, how many call it through a veneer"]]


class RedirectedRow(TypedDict):
    """Functions that the same one takes the place of."""

    to: str
    sites: Annotated[int, Range(1)]
    sure: Annotated[
        bool, "their jumps go through a stub that only patches make, or a mark says so; false where the jump alone "
        "speaks for it",
    ]  # fmt: skip


class PadObject(TypedDict):
    before: Annotated[Count, "units of NOPs in front of each function's entry: M of -fpatchable-function-entry=N,M"]
    behind: Annotated[Count | None, "units behind it that all functions have: N - M; null: no site is untouched"]


class SummaryObject(TypedDict):
    slots: Count
    null: Count
    live: Count
    by_section: Counts
    by_status: Counts
    without_record: NotRequired[Annotated[Count, "enabled sites that no record names: earlier patches"]]
    patched: NotRequired[Annotated[list[PatchedRow], "those that call, by what they call; absent where there are none"]]
    redirected: NotRequired[
        Annotated[list[RedirectedRow], "enabled sites that are jumps to other functions, by these; absent without any"]
    ]
    unrecorded: NotRequired[
        Annotated[Count, "calls of the profiling function (-pg) that no record names: the tracer does not know them"]
    ]
    off: NotRequired[Annotated[Count, "such calls that were made NOPs and that no record names, in an object"]]
    with_skip: NotRequired[Annotated[Count, "sites whose function starts with words that the layout leaves alone"]]
    padding: NotRequired[
        Annotated[Count, "places of a list that only pads functions on this machine, in a file without records"]
    ]
    pad: NotRequired[Annotated[PadObject, "the NOPs of each function, where some are in front of the entry"]]
    elsewhere: NotRequired[
        Annotated[Counts, "records by section, where no kernel reads them: of functions that are not to be traced"]
    ]
    boot: BootObject | None
    reach: ReachObject | None


class FileObject(TypedDict):
    """What is said of a file in every report."""

    file: str
    sha256: Sha256 | None
    build_id: Annotated[str, Pattern("^[0-9a-f]*$")] | None
    arch: Annotated[str, Register("arch")]
    kind: Kind
    container: NotRequired[Annotated[str, "of a kernel that is in something, or has no symbols: the first of `layers`"]]
    layers: NotRequired[Annotated[list[str], "what lies around the kernel, the outermost first; the last is its form"]]
    symbols_from: NotRequired[Annotated[str, Values(("kallsyms", "none")), "of a file without a symbol table"]]
    moved: NotRequired[Annotated[Hex, "of a running kernel's dump: bytes by which it was moved (KASLR), modulo 2^64"]]


class ScannedFile(FileObject):
    """What a scan of a file shows."""

    layout: Annotated[str, Register("layout")]
    carrier: Annotated[str, Values(("word", "rela", "relr", "section", "mixed", "none"))]
    summary: SummaryObject
    sites: Sequence[SiteRow]
    live_patch: NotRequired[Annotated[LivePatchObject, "of modules that are live patches"]]


class VerbObject(TypedDict, total=False):
    """What single verbs add to an image."""

    request: RequestObject
    notes: list[str]
    output: OutputObject | None
    size: Annotated[int, Range(1), "bytes of the input's ELF file; edits from there on have an empty side"]
    packing: Annotated[PackingObject | None, "how the input comes back byte for byte; null where nothing was written"]
    edits: Sequence[EditRow]
    done: DoneObject
    live: LiveObject
    tree: Annotated[
        str, "the directory that was scanned and has this file; sites are then empty unless --sites or a selector was "
        "given",
    ]  # fmt: skip
    units: Annotated[UnitsObject, "scan --units: what the compiler was told"]
    findings: list[FindingRow]
    gate: Annotated[GateObject, "check: findings that are not shown"]
    skipped: Annotated[list[SkippedRow], "check: rules that a kernel without symbols does not answer"]
    proof: ProofObject
    compared: Annotated[ComparedObject | None, "diff: the earlier file; null for a module that only one tree has"]
    asked: Annotated[str, "explain: the selector"]
    explained: list[ExplainedRow]
    others: Annotated[list[SymbolRow], "explain: symbols of the same name that have no site"]
    absent: AbsentObject
    clones: Annotated[list[RenamedRow], "explain: what the compiler made of the function, besides `absent.renamed`"]
    traceable_as: Annotated[list[str], "explain: names of the explained sites, where none has the name itself"]
    oracle: Annotated[OracleObject | None, "check --predict: what a boot will say and list; null where the kernel has "
                      "no tracer"]  # fmt: skip
    text_sections: Annotated[list[TextSectionRow], "of reports that have sites, calls or edits"]
    new_text_sections: Annotated[list[TextSectionRow], "writing verbs: of code that follows the bytes of the input"]
    static_calls: Annotated[StaticCallsObject, "static-calls: the keys and sites of the file, as they were read"]
    set_calls: Annotated[list[SetCallRow], "static-calls --set: the keys that it names"]
    recorded: Annotated[RecordedObject, "record: the records that the file got"]
    symbols: Annotated[Sequence[ListedSymbol], "symbols: by address, as `nm -n` has them"]
    source: Annotated[Source, "symbols: where they are from"]


class StaticCallsFile(FileObject, VerbObject):
    """The image of `static-calls`, which need not have sites of the tracer."""


class RecordedFile(FileObject, VerbObject):
    """The image of `record`, of which no site is patched."""


class SymbolsFile(FileObject, VerbObject):
    """The image of `symbols`, which need not have sites of the tracer."""


class ImageObject(ScannedFile, VerbObject):
    """One file of a report; which of the keys from `request` on there are depends on the verb."""


class RestoredObject(FileObject):
    """The image of `restore`, which has no sites."""

    output: OutputObject | None
    restored: UndoneObject


# -- findings ----------------------------------------------------------------------------------------------------------


class FindingRow(TypedDict):
    rule: Annotated[str, Pattern("^[a-z0-9-]+$")]
    severity: Severity
    message: str
    function: str | None
    row: int | None
    section: str | None
    offset: Annotated[Hex | None, "in `section`"]
    pos: NotRequired[Annotated[int | None, "position in the ELF file or flat kernel"]]
    source: str | None
    help: str
    count: Annotated[int, Range(1)]


class SkippedRow(TypedDict):
    """A rule that was not asked."""

    rule: str
    needs: Annotated[str, "what the file, or the kernel of --against, does not tell"]


class GateObject(TypedDict):
    known: Annotated[Count, "by the baseline"]
    ignored: Annotated[Count, "by the configuration"]


class ComparedObject(TypedDict):
    file: str
    sha256: str | None
    build_id: str | None
    layout: str
    carrier: str
    summary: SummaryObject


# -- the whole ---------------------------------------------------------------------------------------------------------


class ErrorRow(TypedDict):
    file: str
    code: int
    message: str
    tree: NotRequired[Annotated[str, "the directory that was scanned and has this file"]]


class TotalsObject(TypedDict):
    modules: Annotated[Count, "files that are named like modules, bad ones included"]
    bad: Annotated[Count, "files that could not be read, and folders"]
    with_sites: Count
    without_sites: Count
    slots: Count
    null: Count
    live: Count
    by_section: Counts
    by_status: Counts
    redirected: NotRequired[Annotated[Count, "functions that others take the place of; absent without any"]]
    by_layout: Counts
    by_arch: Counts


class TreeObject(TypedDict):
    tree: str
    totals: TotalsObject


class Report(TypedDict):
    schema: Literal[1]
    command: Command
    images: list[ImageObject]
    errors: NotRequired[list[ErrorRow]]
    trees: NotRequired[Annotated[list[TreeObject], "one per directory that was scanned: the sums over its modules"]]
    doctor: NotRequired[DoctorObject]
    splats: NotRequired[Annotated[list[SplatRow], "explain --splat: every message of the log, in its order"]]
