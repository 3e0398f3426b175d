"""The types of what a JSON report holds of static calls; see `document.types`."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from ftpatch.document.fields import Count, Counts, Hex, HexBytes, Range, Values

SITE_KINDS = ("call", "tail", "conditional", "nop", "return0", "return", "unknown")
TRAMPOLINE_KINDS = ("jump", "null", "return0", "thunk", "unknown")


class UpdaterRow(TypedDict):
    """A function that gives a key another function while the kernel runs."""

    function: str
    init: Annotated[bool, "of boot code, or of a module's initialisation"]


class OtherUpdateRow(UpdaterRow):
    """A function that updates keys which its code does not name."""

    calls: Annotated[int, Range(1)]


class StaticKeyRow(TypedDict):
    """A key: where its calls go, and from how many places."""

    key: Annotated[str, "without __SCK__; an address where the file names neither the key nor its trampoline"]
    function: Annotated[
        str | None, "what the key holds: a function, NULL or return0; null where the key is in another file"
    ]
    trampoline: Annotated[str | None, "symbol of the trampoline; null where there is none"]
    trampoline_kind: Annotated[
        str | None, Values((*TRAMPOLINE_KINDS, None)), "what the trampoline does; null where it is in another file"
    ]
    sites: Annotated[Count, "calls of this file"]
    exported: Annotated[
        str | None, Values(("key", "trampoline", None)), "what modules may use: key, trampoline alone, or nothing"
    ]
    in_module: Annotated[bool, "the key belongs to this module; false in a kernel, and for keys of other files"]
    defined: Annotated[bool, "the key is in this file"]
    address: Annotated[Hex | None, "of the key: va in linked files, offset in its section in others"]
    trampoline_address: Annotated[Hex | None, "as `address`"]
    leads_to: Annotated[str | None, "function that the trampoline jumps to; null where it is no jump, or not here"]
    cross_line: Annotated[Count, "sites whose destination word lies in two cache lines"]
    sections: Annotated[Counts, "sites by section"]
    tramp_key: Annotated[bool, "the kernel's table tells its loader the key of this trampoline"]
    found_in: Annotated[
        str | None, "file of --against that has the key, of keys of other files; `function` is then what it holds there"
    ]
    usable: Annotated[
        bool | None, "the loader gets from the module's name for it to the key of `found_in`; null where nothing tells"
    ]
    updated_by: Annotated[
        list[UpdaterRow] | None, "functions of this file that set the key by its name; null where that is not known"
    ]
    pointed_to_by: Annotated[
        list[str], "data of this file that holds the key's address: `other_updates` may reach it through that"
    ]


class StaticCallRow(TypedDict):
    """One site."""

    key: Annotated[str | None, "null where the entry names none"]
    function: Annotated[str | None, "function that holds the site"]
    section: str | None
    address: Annotated[Hex | None, "va in linked files, offset in `section` in others"]
    kind: Annotated[str, Values(SITE_KINDS), "the instruction in the file"]
    destination: Annotated[str | None, "where it goes in the file; null where it is no branch"]
    crosses_line: Annotated[
        bool | None, "the destination word lies in two cache lines; null where it is no branch, or not known"
    ]
    concurrency: Annotated[
        str | None, Values(("single", "cross-line", None)),
        "how a destination could be written while others execute it: by one store, or not; null as `crosses_line`",
    ]  # fmt: skip
    tail: Annotated[bool, "the entry is flagged as a tail call"]
    init: Annotated[bool, "the entry is flagged as init text, or lies in it"]
    code: Annotated[HexBytes, "the site's bytes"]


class SetCallRow(TypedDict):
    """A static call, and what --set makes of it."""

    key: Annotated[str, "without __SCK__"]
    was: Annotated[str, "what it called: a function, NULL or return0"]
    to: Annotated[str, "what it calls, likewise"]
    to_va: Annotated[Hex | None, "null for NULL, and in a module, where the loader decides"]
    sites: Annotated[Count, "calls of this file"]
    signature: Annotated[str, "whether the types agree: `equal` and by what source, or how they differ, or why that is "
                         "not known"]  # fmt: skip
    left: Annotated[str | None, "why it stays as it is, with --skip-unpatchable; null where it is set"]


class StaticCallsObject(TypedDict):
    sites: Count
    keys: Count
    cross_line: Count
    by_kind: Annotated[dict[str, Count], "sites by `kind` of StaticCallRow; call, tail and conditional always"]
    line_size: Annotated[int, Range(1), "bytes of a cache line"]
    not_known: Annotated[Count, "branches of which the file does not tell whether they are in `cross_line`"]
    by_section: Annotated[Counts, "sites by section"]
    with_sites: Annotated[Count, "keys that some site names"]
    by_trampoline: Annotated[Counts, "keys by `trampoline_kind` of StaticKeyRow, `elsewhere` for those of other files"]
    other_updates: NotRequired[
        Annotated[list[OtherUpdateRow] | None, "calls that set keys which their code does not name; null: not known"]
    ]
    inline: Annotated[bool, "the kernel lists its sites and rewrites them; else they are branches to trampolines"]
    pointers: Annotated[Count, "other keys, without trampolines: plain pointers that code calls through"]
    entries: Annotated[list[StaticKeyRow], "one a key; those that --key chose"]
    calls: NotRequired[Annotated[list[StaticCallRow], "with --sites: the calls of these keys, in the table's order"]]
