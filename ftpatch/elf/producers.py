"""What a compiler was told: the text of DW_AT_producer, taken apart.

    GNU C11 14.2.0 -mlittle-endian -O2 -fpatchable-function-entry=4,2      gcc, which writes its switches there
    Debian clang version 14.0.6                                            clang, which does so when it is asked to
    GNU AS 2.40                                                            an assembler: there is nothing to tell

gcc leaves out what is about files, and writes -p for -pg. What neither says: attributes of single functions.
Source: gcc, -grecord-gcc-switches (the default); clang, -grecord-command-line.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

GCC, CLANG, RUST, ASSEMBLER, OTHER = "gcc", "clang", "rustc", "assembler", "other"
NAMES = {ASSEMBLER: "GNU as", OTHER: ""}  # as people know them, where that is not the name
LTO = "GIMPLE"  # the language of units that are made when a program is linked
MAX_SHOWN = 80  # characters of a producer that no compiler here is known for
MAX_LAYOUT = 1 << 16  # NOPs that one function may have
# Switches that decide what there is to trace, and how it may be hooked: how each kind is spelt. Of a kind the last
# one counts.
KINDS = {
    "patchable": r"-fpatchable-function-entry=(?P<n>\d+)(?:,(?P<m>\d+))?",
    "profile": r"-pg?",
    "fentry": r"-m(?:no-)?fentry",
    "kernel": r"-m(?:no-)?profile-kernel",
    "record": r"-m(?:no-)?record-mcount",
    "nop": r"-m(?:no-)?nop-mcount",
    "least": r"-fmin-function-alignment=(?P<bytes>\d+)",
    "align": r"-f(?:no-)?align-functions(?:=[\d:]+)?",
    "optimize": r"-O(?:\d*|s|z|g|fast)",
    "ipa-ra": r"-f(?:no-)?ipa-ra",
    "live": r"-f(?:no-)?live-patching(?:=[\w-]+)?",
    "cf": r"-fcf-protection(?:=[\w-]+)?",
    "branch": r"-mbranch-protection=[\w+-]+",
    "kcfi": r"-f(?:no-)?sanitize=(?:[\w,-]*,)?kcfi(?:,[\w,-]*)?",
    "instrument": r"-f(?:no-)?instrument-functions",
    "lto": r"-f(?:no-)?lto(?:=\w+)?",
}  # fmt: skip
ALL = re.compile("|".join(f"(?P<k_{kind.replace('-', '_')}>{re.sub(r'[(][?]P<[^>]+>', '(?:', pattern)})"
                          for kind, pattern in KINDS.items()))  # fmt: skip
VERSION = re.compile(r"\d[\w.+~-]*")
CLANG_VERSION = re.compile(r"\bclang version (\d[\w.+~-]*)")
RUST_VERSION = re.compile(r"\brustc version (\d[\w.+~-]*)")
NO_IPA_RA = ("-O0", "-O1", "-O", "-Og")  # levels at which gcc does without it


class Producer(NamedTuple):
    """Who made a unit, and what it was told."""

    compiler: str  # of GCC … OTHER
    version: str
    switches: tuple[str, ...] | None  # all that are recorded, in their order; None: they are not known
    matter: dict[str, str]  # those of KINDS: the last of each kind
    linked: bool = False  # it is of a whole program (LTO), whose functions have the switches of their own units

    @property
    def name(self) -> str:
        """`gcc 14.2.0`."""
        return f"{NAMES.get(self.compiler, self.compiler)} {self.version}".strip()

    @property
    def layout(self) -> tuple[int, int] | None:
        """(NOPs, how many of them in front of the entry) that every function gets; None without the option."""
        match = re.fullmatch(KINDS["patchable"], self.matter.get("patchable", ""))
        if match is None or len(match["n"]) > 5 or not int(match["n"]):
            return None
        return int(match["n"]), int(match["m"] or 0)

    @property
    def profiles(self) -> bool:
        """Whether every function calls the profiling function (-pg)."""
        return "profile" in self.matter

    @property
    def alignment(self) -> int:
        """Bytes that every function is aligned to, cold ones too; 0 where that is left to the compiler."""
        match = re.fullmatch(KINDS["least"], self.matter.get("least", ""))
        return int(match["bytes"]) if match and len(match["bytes"]) < 10 else 0

    @property
    def shares_registers(self) -> bool | None:
        """Whether callers may know which registers a function leaves alone (IPA-RA); None: not known.

        gcc does without it where the option for sites, or -pg, is given; an attribute of a function does not count.
        clang has it only where it is asked for by a switch of its code generator.
        """
        if self.compiler == ASSEMBLER:
            return False
        if self.switches is None or self.linked:
            return None
        if self.compiler == CLANG:
            return any("enable-ipra" in switch for switch in self.switches)
        if self.compiler != GCC:
            return None
        off = self.layout is not None or self.profiles or self.matter.get("ipa-ra") == "-fno-ipa-ra"
        live = self.matter.get("live", "-fno-live-patching") != "-fno-live-patching"
        asked = self.matter.get("ipa-ra") == "-fipa-ra"
        return not (off or live or (not asked and self.matter.get("optimize", "-O0") in NO_IPA_RA))

    @property
    def shown(self) -> tuple[str, ...]:
        """The switches that matter, in their usual order."""
        return tuple("-pg" if switch == "-p" else switch for switch in self.matter.values())


@lru_cache(maxsize=4096)
def parsed(text: str) -> Producer:
    """The producer that a text names."""
    head, _, rest = text.partition(" -")
    if match := RUST_VERSION.search(text):
        return Producer(RUST, match[1], None, {})
    if match := CLANG_VERSION.search(text):
        return _with_switches(CLANG, match[1], _split(text[match.end() :]))
    if text.startswith("GNU AS"):
        return Producer(ASSEMBLER, head.removeprefix("GNU AS").strip(), None, {})
    if head.startswith("GNU "):
        versions = [word for word in head.split()[1:] if VERSION.fullmatch(word)]
        made = _with_switches(GCC, versions[0] if versions else "", _split(f"-{rest}") if rest else [])
        return made._replace(linked=LTO in head)
    return Producer(OTHER, text[:MAX_SHOWN], None, {})


def _split(text: str) -> list[str]:
    """The switches of a command line; clang puts a backslash in front of spaces in a word."""
    words = re.findall(r"(?:\\.|[^\s\\])+", text)
    return [word for word in words if word.startswith("-")]


def _with_switches(compiler: str, version: str, switches: list[str]) -> Producer:
    """One whose switches are recorded, where there are any."""
    if not switches:
        return Producer(compiler, version, None, {})
    last: dict[str, str] = {}
    for switch in switches:
        if (match := ALL.fullmatch(switch)) and match.lastgroup:
            last[match.lastgroup.removeprefix("k_").replace("_", "-")] = switch
    return Producer(compiler, version, tuple(switches), {kind: last[kind] for kind in KINDS if kind in last})
