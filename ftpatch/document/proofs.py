"""The JSON objects of `verify`: what it recognised on the way from one file to another."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from ftpatch.document.fields import Count, Hex, Pair

ProofRecords = TypedDict(
    "ProofRecords",
    {"live": Pair, "slots": Pair, "record taken out": NotRequired[Count], "record returned": NotRequired[Count]},
)


class ImportRow(TypedDict):
    name: str
    crc: Annotated[Hex | None, "the version that the module states for it; null where it states none"]
    exporter: NotRequired[
        Annotated[str | None, "vmlinux or a module's name; null where no file given by --against tells"]
    ]


class ProofObject(TypedDict):
    """What verify recognised: the image is the first file, its output the second."""

    sites: dict[str, Count]
    records: ProofRecords
    edits: Annotated[dict[str, Count], "changed places by kind"]
    reader: str
    emulated: Count
    not_emulated: Annotated[str, "why nothing was emulated; empty where it was"]
    unclaimed: Annotated[list[str], "sites that one run in the emulator could not show, and why"]
    missing: Annotated[list[str], "what belongs to a whole proof and was not done, and why"]
    journal: str | None
    notes: list[str]
    callees: NotRequired[Annotated[dict[str, Count], "what the enabled sites call, by name: how many of them"]]
    redirects: NotRequired[
        Annotated[dict[str, Count], "what the redirected functions lead to, by name: how many of them"]
    ]
    ops: NotRequired[Annotated[dict[str, Count], "the ftrace_ops that a kernel's sites serve: how many of them"]]
    static_calls: NotRequired[Annotated[dict[str, str], "what static calls call now that did not before, by key"]]
    imports: NotRequired[Annotated[list[ImportRow], "symbols of other files that a module did not use before"]]
    depends: NotRequired[Annotated[list[str], "names that its depends= gained"]]
