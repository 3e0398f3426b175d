"""The check after writing: read the result from zero and hold it against the plan.

Shares no value with the writer but the plan itself. A result that fails is not kept.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U64
from ftpatch.errors import ApplyError
from ftpatch.plan import Plan
from ftpatch.records import read_records
from ftpatch.sites import ENABLED, read_sites

CHUNK = 8 << 20
FAR = 1 << 40
Words = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]


def check_result(before: Image, after: Image, arch: Arch, plan: Plan) -> None:
    """Raise ApplyError where the written file is not what the plan says."""
    _check_bytes(before, after, plan)
    records = read_records(after, arch)
    if not np.array_equal(records.value, plan.dropping.values):
        raise _failed(after, "the record table", f"{len(records)} slots that differ from the planned ones")
    index = np.flatnonzero(plan.patched)
    if not len(index):
        return
    va = plan.table.branch_va[index]
    words = after.words(
        plan.table.sec[index], plan.table.off[index] + plan.table.site[index], 0, plan.new_words.shape[1]
    )
    _check_own_decoder(after, arch, plan, va, words[:, -1])
    _check_second_decoder(after, arch, plan.table.body_va[index], words, plan.aim)
    shape = plan.table.shape.name if plan.table.shape else None
    sites = read_sites(after, arch, records, shape)
    enabled = sites.body_va[sites.status == ENABLED]
    named = plan.table.func[index] < plan.table.func_end[index]
    if not np.isin(plan.table.body_va[index][named], enabled).all():
        raise _failed(after, "the site table", "a patched function that does not read as enabled")


def _check_bytes(before: Image, after: Image, plan: Plan) -> None:
    """Every byte of the result is the input's byte or the plan's."""
    if len(before.data) != len(after.data):
        raise _failed(after, "the size", f"{len(after.data)} bytes, planned {len(before.data)}")
    changed = [
        start + np.flatnonzero(before.data[start : start + CHUNK] != after.data[start : start + CHUNK])
        for start in range(0, len(before.data), CHUNK)
    ]
    pos = np.concatenate([np.zeros(0, np.int64), *changed])
    edits = plan.edits
    at = np.searchsorted(edits.pos, pos, side="right") - 1
    owned = (at >= 0) & (pos < (edits.pos + edits.width)[np.maximum(at, 0)]) if len(edits) else np.zeros(len(pos), bool)
    if not owned.all():
        raise _failed(after, "a byte that no edit owns", f"a change at file position {int(pos[~owned][0]):#x}")
    for one in edits.groups:
        if not np.array_equal(after.data[one.pos[:, None] + np.arange(one.new.shape[1])], one.new):
            raise _failed(after, f"the {one.kind} edits", "other bytes than planned")


def _check_own_decoder(after: Image, arch: Arch, plan: Plan, va: U64, words: Words) -> None:
    target: I64 = va.view(np.int64) + arch.branch.decode(words)
    if not (arch.branch.word.matches(words).all() and (target == np.uint64(plan.aim).astype(np.int64)).all()):
        raise _failed(after, "a branch", "another target than planned (own decoder)")


def _check_second_decoder(after: Image, arch: Arch, va: U64, words: Words, aim: int) -> None:
    """capstone reads the words again and must see the same instructions and the same target."""
    texts, distance = second_decoder(arch, words)
    target = va.view(np.int64) + distance
    bad = np.flatnonzero((target != np.uint64(aim).astype(np.int64)) | (np.array(texts) != texts[0]))
    if len(bad):
        raise _failed(after, f"the site at {int(va[bad[0]]):#x}", f"{texts[bad[0]]} {distance[bad[0]]:+#x} (capstone)")


def second_decoder(arch: Arch, words: Words) -> tuple[list[str], I64]:
    """By capstone, per site: its mnemonics, and the distance from the site's first word to the call's target.

    words: (n, k) instruction words, the call last. All sites are decoded in one go, laid end to end at an address of
    no meaning, so that only the distances count. A site without a direct call has the text "?".
    """
    import capstone

    engine = capstone.Cs(*{"arm64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)}[arch.name])
    n, width = words.shape
    found = list(engine.disasm_lite(words.astype("<u4").tobytes(), FAR))
    texts, distance = ["?"] * n, np.zeros(n, dtype=np.int64)
    if len(found) == n * width:
        for i in range(n):  # capstone hands out one Python tuple per instruction
            call, operands = found[(i + 1) * width - 1][2:]
            if operands.startswith("#0x"):
                plain = [f"{mnemonic} {text}" for _, _, mnemonic, text in found[i * width : (i + 1) * width - 1]]
                texts[i] = "; ".join([*plain, call])
                distance[i] = int(operands[1:], 16) - (FAR + 4 * width * i)
    return texts, distance


def _failed(after: Image, what: str, found: str) -> ApplyError:
    return ApplyError(f"self-check failed on {what}", after.path, found=found, expected="what the plan says",
                      todo="the output was not kept; please report this")  # fmt: skip
