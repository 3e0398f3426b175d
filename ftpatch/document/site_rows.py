"""The types of what a JSON report holds of one site, and of a live patch module; see `document.types`."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from ftpatch.document.fields import (
    ANSWERS,
    Count,
    EditKind,
    Hex,
    Pattern,
    Register,
    Values,
    Word,
)


class ScannedSite(TypedDict):
    """A site as a scan finds it."""

    row: Annotated[Count | None, "slot in the input; null for a site without a record"]
    record: Annotated[str, Pattern("^0x[0-9a-f]{16}$"), "value of the record; zeros when null"]
    section: str | None
    shndx: int | None
    function: str | None
    aliases: list[str]
    entry: Hex | None
    local_entry: Hex | None
    site: Hex | None
    branch: Hex | None
    offset: Hex | None
    pos: Annotated[Count | None, "position in the uncompressed ELF file or flat kernel"]
    words: Annotated[
        list[Word],
        "the code from the record to the end of the call: instruction words as numbers; where instructions are no "
        "words, one string of all its bytes, as they lie in the file",
    ]
    status: Annotated[str, Register("status")]
    listed_as: NotRequired[
        Annotated[
            str | None,
            "what the kernel lists a nameless site as: a neighbour's name, or __ftrace_invalid_address__; null where "
            "the file does not tell",
        ]
    ]


class SiteChange(TypedDict, total=False):
    """What a writing verb does with a site. explain fills in `concurrency`; every verb fills in `action`, `target` and
    `stub` of a site that is redirected."""

    action: Annotated[str, Values(("keep", "call", "call_via_stub", "restore", "drop", "redirect", "arm", "disarm"))]
    reason: str | None
    target: str | None
    distance: Annotated[
        int | None, "bytes from the call to where it goes; null where a loader decides it: for a module"
    ]
    new_words: list[Word]
    record_fate: Annotated[str, Values(("null", "minus4", "cut", "kept", "returned", "none"))]
    literal: str | None
    stub: Annotated[
        Hex | Annotated[str, Pattern("^.+\\+0x[0-9a-f]+$")] | None,
        "what the call goes through: its address, or in a module .section+0x offset",
    ]
    concurrency: EditKind | None
    live: Annotated[
        Annotated[str, Values(ANSWERS)] | None, "whether that could be done while the code runs: see `live` of the file"
    ]


class SiteRow(ScannedSite, SiteChange):
    """One site of a report."""

    calls: NotRequired[Annotated[str, "what an enabled site without a record leads to"]]
    sure: NotRequired[
        Annotated[
            bool,
            "whether that, or its jump, shows that a patch made it, as in the summary's `patched` and `redirected`",
        ]
    ]


class LiveFunctionRow(TypedDict):
    """A function that a live patch replaces."""

    object: str
    function: str
    replacement: str
    position: Annotated[Count, "which of several functions of that name; 0 for the only one"]


class LiveSymbolRow(TypedDict):
    """A symbol that the live patching core resolves."""

    object: str
    name: str
    position: Annotated[Count, "which of several symbols of that name; 0 for the only one"]


class LivePatchObject(TypedDict):
    """What is special in a live patch module."""

    objects: Annotated[list[str], "vmlinux and modules that it patches or resolves symbols of"]
    functions: Annotated[list[LiveFunctionRow], "by its static data; empty where it makes them at run time"]
    symbols: list[LiveSymbolRow]
    sections: Annotated[list[str], "relocations that the live patching core applies"]
    declared: Annotated[bool, "its .modinfo says livepatch"]
