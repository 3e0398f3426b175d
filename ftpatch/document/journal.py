"""The journal of a patch as a value: what the JSON report of a writing verb says of two files.

`journal.read` makes it from a file; restore goes back by it, and the proof compares it with the two files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LAYERS = "layers"  # as wrapping: what boot loaders put around a kernel


class Edit(NamedTuple):
    """Bytes that the patch replaced: as many new ones as old ones, within the flat kernel or ELF file."""

    pos: int  # in that, uncompressed
    old: bytes
    new: bytes
    owner: str  # whose bytes they are: "site row:12", "record slot:3"; said in messages only


class SiteAction(NamedTuple):
    """What the patch did to a chosen site."""

    pos: int | None  # file position of its first byte; None where the site has no bytes in the file
    action: str  # call, call_via_stub, redirect, restore, drop, or keep
    target: str | None = None  # name of the function that a redirected one becomes


class OldLayer(NamedTuple):
    """A layer that was around a kernel."""

    kind: str
    original: bytes | None  # the layer with all that is in it; None where one of that kind makes it again


@dataclass(frozen=True)
class Output:
    """The file that the patch wrote."""

    sha256: str
    elf_sha256: str  # of the ELF file or flat kernel in it: unpacked, and without a signature


@dataclass(frozen=True)
class Journal:
    """What a journal says, checked for form alone: whether it is true of a file is for its users to find out."""

    path: str  # of the journal
    command: str  # the verb that wrote it: enable, disable, drop, redirect, static-calls or record
    build_id: str | None  # of both files
    sha256: str  # of the file that was patched
    plain_sha256: str  # of its content unpacked: the flat kernel, or the ELF file and its signature
    wrapping: str  # how it was compressed: a key of WRAPPINGS, or "none", or LAYERS
    encoder: str | None  # what compresses the content to the same bytes again; None where `original` holds them
    original: bytes  # the file that was patched, where no encoder makes it again; b"" otherwise
    size: int  # bytes of its flat kernel or its ELF file, without a signature; less than 2^63
    edits: list[Edit]  # in file order, apart from each other, all below `size`
    cut: bytes  # what followed the ELF file before: its signature
    appended: bytes  # what the patch added to the ELF file behind `size`
    signature: bytes  # the new signature behind that
    n_edits: int  # rows of the journal, including those of `cut`, `appended` and `signature`
    sites: list[SiteAction]  # the chosen sites
    records: str | None  # how records left the kernel's table: null, minus4, shrink, keep; None for a module
    output: Output
    set_calls: Mapping[str, str] = field(default_factory=dict)  # what static calls were set to, by key
    recorded: tuple[tuple[int, int], ...] | None = None  # of record: (section, offset) of the records that came
    layers: tuple[OldLayer, ...] = ()  # what was around it, the outermost first, where `wrapping` is LAYERS
    forced_target: bool = False  # the sites call code that was not shown to keep the contract of a site
