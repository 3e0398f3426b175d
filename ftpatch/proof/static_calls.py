"""Static calls that were set: key and trampoline lead to the same function, and it may be called from their sites.

Nothing else of a static call may differ: sites name their trampoline, and the kernel rewrites them from the key.
"""

from __future__ import annotations

from ftpatch.arch.proof_tables import StaticTrampoline
from ftpatch.errors import ChangedError, FtpatchError
from ftpatch.proof.case import Case
from ftpatch.proof.changes import Runs
from ftpatch.proof.linked_static_calls import LinkedKeys
from ftpatch.proof.literal_static_calls import LiteralKeys
from ftpatch.proof.module_static_calls import ModuleKeys
from ftpatch.sites.static_calls import read_static_calls


def check_static_calls(case: Case, runs: Runs) -> None:
    """Every key of the second file that, or whose trampoline, was other in the first."""
    trampolines = case.tables.static_trampoline
    if trampolines is None or not len(case.before.image.symbols.rows_beginning("__SCT__")):
        return
    try:
        _check(case, runs, trampolines)
    except ChangedError:  # nothing is known of the file
        raise
    except FtpatchError as error:
        case.say("verify-static-call", f"the static calls cannot be read: {error}")


def _check(case: Case, runs: Runs, trampolines: StaticTrampoline) -> None:
    before, after = read_static_calls(case.before.image), read_static_calls(case.after.image)
    if before.keys.name != after.keys.name[: len(before.keys)]:
        return  # symbols differ, which is a finding of its own
    if case.before.image.linked and trampolines.reads is not None:
        LiteralKeys(case, LinkedKeys(case, after, trampolines), trampolines).check()
    elif case.before.image.linked:
        LinkedKeys(case, after, trampolines).check(runs)
    else:
        ModuleKeys(case, after, trampolines).check()
