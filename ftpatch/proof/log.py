"""A journal against the files: its edits must be the differences, its hashes those of the files, its sites those that
changed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ftpatch.arrays import I64, U8
from ftpatch.errors import InputError
from ftpatch.proof.case import Case
from ftpatch.proof.changes import Runs, place
from ftpatch.proof.pairs import NEW

CALLS, RETURNS, DROPS = ("call", "call_via_stub", "redirect"), ("restore",), ("drop",)
SIGNATURE = "signature"


def read_log(data: bytes, path: str) -> dict[str, Any]:
    """The one IMAGE object of a journal. Raises InputError where it is none."""
    try:
        document = json.loads(data)
        images = [one for one in document["images"] if isinstance(one.get("edits"), list)]
        sound = document["schema"] == 1 and len(images) == 1
        for edit in images[0]["edits"] if sound else ():
            bytes.fromhex(edit["old"]), bytes.fromhex(edit["new"])
            sound &= isinstance(edit["pos"], int) and 0 <= edit["pos"] < 1 << 62 and isinstance(edit["owner"], str)
        sound = sound and all(isinstance(one.get("action"), str) for one in images[0]["sites"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError("not a journal", path, found=str(error)) from None
    if not sound:
        raise InputError("not a journal", path, expected="the JSON report of one enable, disable, drop or restore")
    found: dict[str, Any] = images[0]
    return found


def allow(case: Case, log: dict[str, Any]) -> None:
    """What only a journal can say: which records left alone, and whether others were kept on purpose."""
    case.dropped = _positions(log, DROPS)
    request = log.get("request")
    case.keeps = isinstance(request, dict) and request.get("records") == "keep"


def _positions(log: dict[str, Any], actions: tuple[str, ...]) -> I64:
    found = [one.get("pos") for one in log["sites"] if one["action"] in actions]
    return np.array(sorted(pos for pos in found if isinstance(pos, int)), dtype=np.int64)


def check_log(case: Case, runs: Runs, log: dict[str, Any]) -> None:
    """Findings for all in which the journal and the files differ."""
    before, after = case.before.image, case.after.image
    output = log.get("output")
    said = output.get("sha256") if isinstance(output, dict) else None
    for image, hash_ in ((before, log.get("sha256")), (after, said)):
        if hash_ != image.sha256:
            case.say("verify-journal", f"{image.path} has another sha256 than the journal's: {image.sha256}, {hash_}")
    _check_edits(case, runs, log["edits"])
    pairs = case.pairs
    if pairs is None:
        return
    calling = pairs.differs & (pairs.new == NEW)
    for what, marked, actions in (("enabled", calling, CALLS), ("disabled", pairs.disabled, RETURNS)):
        said_pos = _positions(log, actions)
        for pos in np.setxor1d(said_pos, pairs.pos[marked]).tolist():
            who = "the journal, and not in the file" if pos in said_pos else "the file, and not in the journal"
            case.say("verify-journal", f"the site at {place(before, pos)} is {what} in {who}", pos=pos)


def _check_edits(case: Case, runs: Runs, edits: list[dict[str, Any]]) -> None:
    before, after = case.before.image, case.after.image
    low, high = [], []
    end, signatures = len(before.data), [b"", b""]
    for edit in edits:  # one Python object per edit
        pos, old, new = edit["pos"], bytes.fromhex(edit["old"]), bytes.fromhex(edit["new"])
        if edit["owner"] == SIGNATURE:
            signatures = [signatures[0] + old, signatures[1] + new]
        elif not old:
            if pos != end or after.data[pos : pos + len(new)].tobytes() != new:
                case.say("verify-journal", f"what follows the original bytes at {pos:#x} is not as the journal says",
                         pos=pos)  # fmt: skip
            end = pos + len(new)
        else:
            low.append(pos)
            high.append(pos + len(old))
            _check_edit(case, edit["owner"], pos, (old, new), (before.data, after.data))
    if end != len(after.data):
        case.say("verify-journal", f"the journal's file has {end} bytes, there are {len(after.data)}", pos=end)
    if signatures != [before.trailer, after.trailer]:
        case.say("verify-journal", "the appended signatures are not those of the journal")
    _check_cover(case, runs, np.array(low, dtype=np.int64), np.array(high, dtype=np.int64))


def _check_edit(case: Case, owner: str, pos: int, edit: tuple[bytes, bytes], data: tuple[U8, U8]) -> None:
    for said, there, which in zip(edit, data, ("first", "second"), strict=True):
        found = there[pos : pos + len(said)].tobytes()
        if found != said:
            case.say("verify-journal", f"{owner}: the {which} file has {found[:32].hex()} at {pos:#x}, the journal "
                     f"{said[:32].hex()}", pos=pos)  # fmt: skip


def _check_cover(case: Case, runs: Runs, low: I64, high: I64) -> None:
    """Every difference in an edit, every edit with a difference."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], high[order]
    if np.any(high[:-1] > low[1:]):
        case.say("verify-journal", "two edits of the journal share bytes", pos=int(low[np.argmax(high[:-1] > low[1:])]))
    for start, end in zip(runs.start.tolist(), runs.end.tolist(), strict=True):
        at = int(np.searchsorted(low, start, side="right")) - 1
        while at >= 0 and start < end and at < len(low) and low[at] <= start < high[at]:
            start, at = int(high[at]), at + 1  # edits may be neighbours
        if start < end:
            case.say("verify-journal", f"a difference at {place(case.before.image, start)} is in no edit", pos=start)
    for at in range(len(low)):
        if not runs.touch(low[at : at + 1], int(high[at] - low[at]))[0]:
            case.say("verify-journal", f"an edit at {place(case.before.image, int(low[at]))} changes nothing",
                     pos=int(low[at]))  # fmt: skip
