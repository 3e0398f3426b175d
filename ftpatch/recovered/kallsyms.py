"""A kernel's own table of symbols, kallsyms, out of its image: right, or refused.

    find_tables   where the tables are, found and proven by their structure     kallsyms_tokens, _names, _values
    read          their content, with addresses as far as the tables tell them  kallsyms_listing, _texts
    settle        the same with addresses, proven by what is at some of them    kallsyms_base

All that is known of the forms that Linux 4.4 to 7.3 have stands in the modules of the tables. None of it is chosen by
the release: a form is right where everything about it agrees, and where two of them would be, there is no answer.
"""

from __future__ import annotations

import numpy as np

from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_base import NO_ADDENDS, Addends, Kallsyms, settle
from ftpatch.recovered.kallsyms_listing import Listing, Tables, find_tables, read
from ftpatch.recovered.kallsyms_proof import BANNER
from ftpatch.recovered.memory import Memory

__all__ = ["NO_ADDENDS", "Addends", "Kallsyms", "Listing", "Tables", "find_tables", "kallsyms_of", "read", "settle"]


def kallsyms_of(memory: Memory, addends: Addends = NO_ADDENDS) -> Kallsyms | None:
    """The symbols of a kernel that lies in `memory`; None where it has no kallsyms.

    addends: what relocations will write. ElfError where the tables contradict each other, the file, or other tables
    in it.
    """
    settled: list[tuple[Tables, Kallsyms]] = []
    refused: list[tuple[Tables, ElfError]] = []
    end = int((memory.pos + memory.size).max(initial=0))  # debug sections lie behind
    data = memory.data.part(0, min(max(end, 0), len(memory.data)))
    for tables in find_tables(data):
        try:
            settled.append((tables, settle(memory, tables, read(data, tables), addends)))
        except ElfError as error:
            refused.append((tables, error))
    if not settled and refused:
        raise refused[0][1]
    own = {tables.tokens.pos for tables, kallsyms in settled if BANNER + b"\0" in kallsyms.strings}
    for tables, reason in refused if settled and not own else ():
        if all(tables.tokens.pos != other.tokens.pos for other, _ in settled):  # else another way to read the same
            raise ElfError("the file has more than one kallsyms, and neither is proven by linux_banner", reason.where,
                           found=reason.what, todo="the file is damaged, or has another kernel in it")  # fmt: skip
    if any(not _same(kallsyms, settled[0][1]) for _, kallsyms in settled[1:]):
        raise ElfError("the file has more than one kallsyms, and they differ",
                       found=", ".join(f"names at {tables.names.pos:#x}" for tables, _ in settled))  # fmt: skip
    return settled[0][1] if settled else None


def _same(one: Kallsyms, other: Kallsyms) -> bool:
    return np.array_equal(one.va, other.va) and one.strings == other.strings
