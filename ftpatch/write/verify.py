"""The check after writing: read the result from zero and hold it against the plan.

Shares no value with the writer but the plan itself. A result that fails is not kept.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, Branch, constants
from ftpatch.arrays import I64, U64
from ftpatch.elf.image import Image
from ftpatch.errors import ApplyError
from ftpatch.plan.edits import Edits
from ftpatch.plan.plan import Plan
from ftpatch.sites.records import read_records
from ftpatch.sites.table import ENABLED, read_sites

CHUNK = 8 << 20
FAR = 1 << 40
Words = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]


def check_result(before: Image, after: Image, arch: Arch, plan: Plan) -> None:
    """Raise ApplyError where the written file is not what the plan says."""
    check_bytes(before, after, plan.edits)
    records = read_records(after)
    if not np.array_equal(records.value, plan.slot_values):
        raise failed(after, "the record table", f"{len(records)} slots that differ from the planned ones")
    n_live = int((plan.scan.records.live & ~plan.gone).sum())
    carriers = (records.carrier, "mixed")  # of mixed ones, those of one kind may stay
    if int(records.live.sum()) != n_live or (n_live and plan.scan.records.carrier not in carriers):
        raise failed(after, "the record table", f"{int(records.live.sum())} live records in {records.carrier} slots")
    index, table = plan.index, plan.scan.sites
    if not len(index) or table.shape is None:
        return
    words = after.words(table.sec[index], table.off[index] + table.site[index], 0, plan.new_words.shape[1])
    _check_branches(after, arch, table.shape.branch, table.branch_va[index], words, plan.calls.branch_to)
    if table.shape.out_of_line:
        sec, off = after.place(plan.calls.call_va)
        _check_branches(after, arch, arch.call, plan.calls.call_va, after.words(sec, off, 0, 1), plan.calls.call_to)
    sites = read_sites(after, records, table.forced)
    if sites.shape is None or (sites.shape.old, sites.shape.new) != (table.shape.old, table.shape.new):
        raise failed(after, "the layout", f"{sites.shape.name if sites.shape else None}, planned {table.shape.name}")
    enabled = sites.body_va[sites.status == ENABLED]
    named = table.func[index] < table.func_end[index]
    if not np.isin(table.body_va[index][named], enabled).all():
        raise failed(after, "the site table", "a patched function that does not read as enabled")


def check_bytes(before: Image, after: Image, edits: Edits) -> None:
    """Every byte of the result is the input's byte or the plan's."""
    size, grown = len(before.data), np.frombuffer(edits.grown, dtype=np.uint8)
    if len(after.data) != size + len(grown):
        raise failed(after, "the size", f"{len(after.data)} bytes, planned {size + len(grown)}")
    if not np.array_equal(after.data[size:], grown):
        raise failed(after, "what was appended", "other bytes than planned")
    changed = [
        start + np.flatnonzero(before.data[start : start + CHUNK] != after.data[start : min(start + CHUNK, size)])
        for start in range(0, size, CHUNK)
    ]
    pos = np.concatenate([np.zeros(0, np.int64), *changed])
    at = np.searchsorted(edits.pos, pos, side="right") - 1
    owned = np.zeros(len(pos), bool)
    if len(edits.pos):
        owned = (at >= 0) & (pos < (edits.pos + edits.width)[np.maximum(at, 0)])
    if not owned.all():
        raise failed(after, "a byte that no edit owns", f"a change at file position {int(pos[~owned][0]):#x}")
    for one in edits.groups:
        if not np.array_equal(after.data[one.pos[:, None] + np.arange(one.new.shape[1])], one.new):
            raise failed(after, f"the {one.kind} edits", "other bytes than planned")


def _check_branches(after: Image, arch: Arch, branch: Branch, va: U64, words: Words, aim: U64) -> None:
    """Two decoders read the words again, the branch last and at `va`: the same instructions, the planned targets.

    Raises ApplyError at the first site where one of them disagrees.
    """
    if not branch.word.matches(words[:, -1]).all():
        raise failed(after, "a branch", "another instruction (own decoder)")
    texts, seen = second_decoder(arch, words)
    own = branch.decode(words[:, -1])
    planned = aim.view(np.int64) - va.view(np.int64)
    bad = np.flatnonzero((own != planned) | (seen != planned) | (np.array(texts) != texts[0]))
    if len(bad):
        at = bad[0]
        found = f"{texts[at]} {seen[at]:+#x} (capstone), {own[at]:+#x} (own decoder), planned {planned[at]:+#x}"
        raise failed(after, f"the branch at {int(va[at]):#x}", found)


def second_decoder(arch: Arch, words: Words) -> tuple[list[str], I64]:
    """By capstone, per site: its mnemonics, and the distance from its last word, a direct branch, to the target.

    words: (n, k) instruction words. All sites are decoded in one go, laid end to end at an address of no meaning, so
    that only the distances count. A site that does not end in a direct branch has the text "?".
    """
    import capstone

    n, width = words.shape
    found = list(capstone.Cs(*constants(capstone, arch.capstone)).disasm_lite(words.astype("<u4").tobytes(), FAR))
    texts, distance = ["?"] * n, np.zeros(n, dtype=np.int64)
    if len(found) == n * width:
        for i in range(n):  # capstone hands out one Python tuple per instruction
            at, _, call, operands = found[(i + 1) * width - 1]
            target = operands.removeprefix("#")
            if target.startswith("0x"):
                plain = [f"{mnemonic} {text}" for _, _, mnemonic, text in found[i * width : (i + 1) * width - 1]]
                texts[i] = "; ".join([*plain, call])
                distance[i] = int(target, 16) - at
    return texts, distance


def failed(after: Image, what: str, found: str) -> ApplyError:
    """The error of a result that is not what was planned."""
    return ApplyError(f"self-check failed on {what}", after.path, found=found, expected="what the plan says",
                      todo="the output was not kept; please report this")  # fmt: skip
