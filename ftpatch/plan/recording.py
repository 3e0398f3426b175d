"""What `record` does to a file, as a value that reports and checks read."""

from __future__ import annotations

from typing import NamedTuple

from ftpatch.arrays import I64


class Recording(NamedTuple):
    """The records that a file gets, and what else changes for them."""

    section: str  # name of the section that kernels of this file's kind read
    why: str  # what decided that
    layout: str  # of the sites that were added; "none" where none was
    sec: I64  # (n,) section of each added record's place
    off: I64  # (n,) its byte offset there
    names: tuple[str, ...]  # (n,) the function of each; "" where no symbol tells
    kept: int  # records that were there and stay
    dropped: tuple[str, ...]  # records that leave, and why, for people
    n_dropped: int
    repairs: tuple[str, ...]  # what was wrong with record sections, for people
    nops: tuple[str, ...]  # places of calls that become NOPs, as `section+offset`
    left: dict[str, str]  # functions that were asked for and stay without a record, and why
    made: int  # new sections of records
