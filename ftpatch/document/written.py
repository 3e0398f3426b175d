"""The JSON objects of the verbs that write: what was asked, what was done, and how it can be undone."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from ftpatch.document.fields import ANSWERS, Count, Counts, EditKind, Hex, HexBytes, Sha256, Values
from ftpatch.document.journal import LAYERS


class RedirectRow(TypedDict):
    """A function and the one that takes its place."""

    function: Annotated[str | None, "null for one without a name"]
    to: str
    signature: Annotated[str, "whether the two agree: `equal` and by what source, or how they differ, or why that is "
                         "not known"]  # fmt: skip


# `with` is a word of the language, so this has no body.
RedirectOptionsObject = TypedDict(
    "RedirectOptionsObject",
    {
        "redirects": NotRequired[list[RedirectRow]],
        "with": NotRequired[Annotated[str | None, "the object file that brought replacements along"]],
        "keep_original": NotRequired[Annotated[str | None, "names under which old functions can still be called"]],
        "forced_signature": NotRequired[Annotated[bool, "only where --force-signature was given"]],
        "assumed_register_args": NotRequired[Annotated[bool, "only where --assume-register-args was given"]],
    },
)


class RequestObject(RedirectOptionsObject):
    target: str
    target_va: Annotated[Hex | None, "null where a loader decides it: for a module"]
    ops: str | None
    ops_via: Annotated[str, Values(("none", "literal", "thunk"))]
    records: Annotated[str, Values(("null", "minus4", "shrink", "keep", "return"))]
    records_why: str
    forced_target: NotRequired[Annotated[bool, "only where --force-target let a doubtful target pass"]]


class RecordedRow(TypedDict):
    """A place that got a record."""

    function: Annotated[str | None, "null where no symbol tells"]
    section: Annotated[str, "of the code"]
    shndx: Annotated[Count, "its number: names of sections need not be unique"]
    offset: Annotated[Hex, "in that section"]


class LeftRow(TypedDict):
    """A function that was asked for and stays without a record."""

    function: str
    reason: str


class RecordedObject(TypedDict):
    """What `record` did."""

    section: Annotated[str, "name of the section that takes records"]
    section_why: str
    layout: Annotated[str, "of the sites that got a record; none where none did"]
    added: Count
    kept: Annotated[Count, "records that were there"]
    dropped: Annotated[Count, "records that left: of discarded functions, doubled ones"]
    by_section: Annotated[Counts, "added records by section of the code"]
    made: Annotated[Count, "new sections of records"]
    functions: list[RecordedRow]
    lost: Annotated[list[str], "which records left, and why"]
    repairs: Annotated[list[str], "what was wrong with the sections of records"]
    nops: Annotated[list[str], "calls that became NOPs, as section+offset"]
    left: list[LeftRow]


class OutputObject(TypedDict):
    file: str
    sha256: str | None
    elf_sha256: Annotated[str | None, "of the ELF file or flat kernel in it: unpacked, and without a signature"]


class LayerObject(TypedDict):
    kind: Annotated[str, "gzip, zboot, boot-img and others"]
    original: Annotated[
        str | None, "the layer with all that is in it, in base64; null where that of the output makes it again, or "
                    "another around it holds it"
    ]  # fmt: skip


class PackingObject(TypedDict):
    wrapping: Annotated[
        str, Values(("none", "xz", "gz", "zst", LAYERS)), "how the input is compressed, or that a kernel is in layers"
    ]  # fmt: skip
    encoder: Annotated[
        str | None, "what makes the very bytes of the input again; null where nothing does, and original holds them"
    ]
    plain_sha256: Annotated[
        Sha256, "sha256 of the input's content: the flat kernel, or the ELF file with its signature"
    ]
    original: NotRequired[Annotated[str, "the input as it is on disk, in base64"]]
    layers: NotRequired[Annotated[list[LayerObject], "of wrapping layers: what is around the kernel, outermost first"]]


class EditRow(TypedDict):
    pos: Annotated[
        Count, "in the ELF file or flat kernel, uncompressed; behind its end what only exists before or after"
    ]
    old: HexBytes
    new: HexBytes
    owner: str
    concurrency: Annotated[EditKind, "how it could be made while the code runs"]


class LiveObject(TypedDict):
    """Whether all edits could be made on a running system, and in which order."""

    answer: Annotated[str, Values(ANSWERS)]
    text: str
    steps: Annotated[list[str], "one after the other"]


class DoneObject(TypedDict):
    patched: Count
    left: Count
    edits: Count
    bytes: Count


class UndoneObject(TypedDict):
    journal: str
    command: Annotated[
        str, Values(("enable", "disable", "drop", "redirect", "static-calls", "record")), "the verb that was undone"
    ]
    edits: Count
    repacked: Annotated[bool, "the file had been compressed in another way since it was patched"]
    same: Annotated[bool, "the output is the very file that was patched; else its content, compressed as its name says"]
