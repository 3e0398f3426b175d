"""What is said of a site in a program or shared object, where no kernel ever looks: in words of its own."""

from __future__ import annotations

VERDICTS = {
    "ready": "patchable: a record names its site, which is as the compiler left it",
    "enabled": "enabled: its site calls something, as a patch made it",
    "half": "half enabled: its first word is rewritten, the call is not there",
    "null": "a record of no function: the linker dropped it, or its relocation is lost",
    "stripped": "patchable, but not by a name: the symbol of its function is stripped",
    "unnamed": "patchable, but not by a name: the symbol of its function is stripped",
    "outside-text": "the record names no code",
    "unrecorded": "patchable: it calls the profiling function, as gprof wants it (-pg), which needs no record",
    "off": "patchable: its call of the profiling function (-pg) was made a NOP",
    "unexpected": "the site holds neither what the compiler left nor a call",
    "armed": "armed: its pad is filled, its switch is off, so that nothing is called yet",
    "padding": "no site: all its NOPs are in front of the entry, none behind it (-fpatchable-function-entry=N,N)",
}
