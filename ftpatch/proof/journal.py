"""A journal against the two files: its edits must be the differences, its hashes those of the files, its sites those
that changed.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import distinct
from ftpatch.document.journal import Edit, Journal
from ftpatch.proof.case import NEW, Case, Intent, StaticCallee
from ftpatch.proof.changes import Runs, place, uncovered

CALLS, REDIRECTS, RETURNS, DROPS = ("call", "call_via_stub"), ("redirect",), ("restore",), ("drop",)


def intent_of(journal: Journal) -> Intent:
    """What only a journal can say: which records left alone, whether others were kept, whether a target was forced."""
    dropped = [-1 if site.pos is None else site.pos for site in journal.sites if site.action in DROPS]
    return Intent(np.array(dropped, dtype=np.int64), journal.records == "keep", journal.forced_target,
                  journal.recorded is not None)  # fmt: skip


def check_journal(case: Case, runs: Runs, journal: Journal) -> None:
    """Findings for all in which the journal and the files differ."""
    before, after = case.before.image, case.after.image
    if after.sha256 == journal.sha256 != journal.output.sha256:
        case.say("verify-journal", f"{after.path} is what the journal's patch started from: its run was killed before "
                 "the file had its name, or the patch was undone")  # fmt: skip
        return
    for image, sha256 in ((before, journal.sha256), (after, journal.output.sha256)):
        if sha256 != image.sha256:
            case.say("verify-journal",
                     f"{image.path} has another sha256 than the journal's: {image.sha256}, {sha256}")  # fmt: skip
    for at in _suspects(case, journal.edits):
        _check_edit(case, journal.edits[at])
    _check_cover(case, runs, journal.edits)
    _check_end(case, journal)
    _check_static_calls(case, journal)
    _check_recorded(case, journal)
    pairs = case.pairs
    if pairs is None:
        return
    calling = pairs.differs & (pairs.new == NEW)
    for what, marked, actions in (
        ("enabled", calling, CALLS), ("redirected", pairs.redirected, REDIRECTS), ("disabled", pairs.disabled, RETURNS),
    ):  # fmt: skip
        in_journal = np.array([site.pos for site in journal.sites if site.action in actions and site.pos is not None],
                              dtype=np.int64)  # fmt: skip
        for pos in np.setxor1d(in_journal, pairs.pos[marked]).tolist():
            who = "the journal, and not in the file" if pos in in_journal else "the file, and not in the journal"
            case.say("verify-journal", f"the site at {place(before, pos)} is {what} in {who}", pos=pos)
    _check_redirects(case, journal)


def _check_static_calls(case: Case, journal: Journal) -> None:
    """Whether the static calls that changed call what the journal says, or what has its address."""
    symbols = case.after.image.symbols
    for key in sorted(journal.set_calls.keys() | case.set_calls.keys()):
        says, does = journal.set_calls.get(key, "not set"), case.set_calls.get(key, StaticCallee("not set"))
        same = does.va and does.va in symbols.rows["st_value"][symbols.rows_named(says)].tolist()
        if says != does.name and not same:
            case.say("verify-journal", f"the static call {key}: {says} in the journal, {does.name} in the file")


def _check_recorded(case: Case, journal: Journal) -> None:
    """Whether the records that came are those of the journal."""
    says = set(journal.recorded or ())
    does = set(zip(*(part.tolist() for part in case.returned), strict=True)) if journal.recorded is not None else says
    for sec, off in sorted(says ^ does):
        who = "the journal, and not in the file" if (sec, off) in says else "the file, and not in the journal"
        case.say("verify-journal", f"the record of section {sec}+{off:#x} is new in {who}")


def _check_redirects(case: Case, journal: Journal) -> None:
    """Whether redirected sites lead to the functions that the journal names, or to others at the same address."""
    redirects, symbols = case.redirects, case.after.image.symbols
    row_of = dict(zip(redirects.pos.tolist(), redirects.rows.tolist(), strict=True))
    for site in journal.sites:
        row = row_of.get(-1 if site.pos is None else site.pos)
        if site.action not in REDIRECTS or row is None or site.target == symbols.name(row):
            continue
        same = symbols.rows_named(site.target or "")
        place_of = [symbols.rows[field] for field in ("st_shndx", "st_value")]
        if (
            not symbols.shndx[row]
            or not np.logical_and.reduce([column[same] == column[row] for column in place_of]).any()
        ):
            case.say("verify-journal", f"the site at {place(case.before.image, int(site.pos or 0))} leads to "
                     f"{symbols.name(row)}, in the journal to {site.target}", pos=site.pos)  # fmt: skip


def _suspects(case: Case, edits: list[Edit]) -> list[int]:
    """Numbers of the edits whose bytes are not in both files, ascending: all of one width are compared at once."""
    pos, width = (np.array(column, dtype=np.int64) for column in (
                  [edit.pos for edit in edits], [len(edit.new) for edit in edits]))  # fmt: skip
    bad = pos + width > min(len(case.before.image.data), len(case.after.image.data))
    for size in distinct(width).tolist():
        index = np.flatnonzero((width == size) & ~bad)
        group = [edits[at] for at in index.tolist()]
        for image, side in ((case.before.image, [edit.old for edit in group]),
                            (case.after.image, [edit.new for edit in group])):  # fmt: skip
            expected = np.frombuffer(b"".join(side), np.uint8).reshape(-1, size)
            bad[index] |= (image.data.rows(pos[index], size) != expected).any(axis=1)
    suspects: list[int] = np.flatnonzero(bad).tolist()
    return suspects


def _check_edit(case: Case, edit: Edit) -> None:
    """The edit's old bytes must be in the first file, its new ones in the second."""
    files = (("first", case.before.image, edit.old), ("second", case.after.image, edit.new))
    for which, image, expected in files:
        there = image.data[edit.pos : edit.pos + len(expected)].tobytes()
        if there != expected:
            case.say("verify-journal", f"{edit.owner}: the {which} file has {there[:32].hex()} at {edit.pos:#x}, the "
                     f"journal {expected[:32].hex()}", pos=edit.pos)  # fmt: skip


def _check_end(case: Case, journal: Journal) -> None:
    """What lies behind the first file's last byte: appended bytes, and signatures."""
    before, after = case.before.image, case.after.image
    size, end = journal.size, journal.size + len(journal.appended)
    if size != len(before.data):
        case.say("verify-journal", f"the journal is of an ELF file of {size} bytes, there are {len(before.data)}",
                 pos=min(size, len(before.data)))  # fmt: skip
    if after.data[size:end].tobytes() != journal.appended:
        case.say("verify-journal", f"what follows the original bytes at {size:#x} is not as the journal says", pos=size)
    if end != len(after.data):
        case.say("verify-journal", f"the journal's file has {end} bytes, there are {len(after.data)}", pos=end)
    if (journal.cut, journal.signature) != (before.trailer, after.trailer):
        case.say("verify-journal", "the appended signatures are not those of the journal")


def _check_cover(case: Case, runs: Runs, edits: list[Edit]) -> None:
    """Every difference in an edit, every edit with a difference. The edits are in file order and share no byte."""
    low = np.array([edit.pos for edit in edits], dtype=np.int64)
    size = np.array([len(edit.old) for edit in edits], dtype=np.int64)
    for start, _ in uncovered(runs, [(low, size)]):
        case.say("verify-journal", f"a difference at {place(case.before.image, start)} is in no edit", pos=start)
    for pos in low[~runs.touch(low, size)].tolist():
        case.say("verify-journal", f"an edit at {place(case.before.image, pos)} changes nothing", pos=pos)
