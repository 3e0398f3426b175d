"""Does a piece of code behave as a trampoline that a patch site may call? The part that no machine changes.

The code is walked with symbols for values, along all its paths; what an instruction does to the symbols, and what must
hold where a path leaves, is each machine's own. The answer errs on the side of "not shown".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from ftpatch.arrays import U32

MAX_STEPS, MAX_PATHS = 4096, 64
Read = Callable[[int, int], U32]  # (va, n) → up to n instruction words there, fewer or none where there is no code


class Placed(Protocol):
    """What a walk needs of a machine's state: where it is."""

    va: int


S = TypeVar("S", bound=Placed)
Value = tuple[str, int]  # what a register or stack slot holds, as each machine's walk spells it
UNKNOWN: Value = ("?", 0)


class NotShown(Exception):
    """The walk met something that does not keep the contract, or that it cannot follow."""


def judge(
    read: Read, start: S, step: Callable[[S, int, list[S]], bool], ends: Mapping[int | None, Callable[[S], None]],
    reached: list[S] | None = None,
) -> str:  # fmt: skip
    """Why the code is no trampoline for a patch site; empty where every path keeps the contract.

    step(state, word, todo) moves the state over one instruction, adds the other side of a conditional branch to
    `todo`, and returns True where the path ends soundly. It raises NotShown otherwise. ends: what
    must hold at addresses where a path ends without a step. reached: gets the state at the end of each path.
    """
    todo, steps, paths = [start], 0, 0
    try:
        while todo:
            state, paths = todo.pop(), paths + 1
            ended = False
            while not ended:
                if state.va in ends:
                    ends[state.va](state)
                    break
                steps += 1
                if steps > MAX_STEPS or paths > MAX_PATHS:
                    raise NotShown("it is too long to be judged")
                words = read(state.va, 1)
                if not len(words):
                    raise NotShown(f"it runs out of code at {state.va:#x}")
                ended = step(state, int(words[0]), todo)
            if reached is not None:
                reached.append(state)
    except NotShown as reason:
        return str(reason)
    return ""


def signed(value: int, width: int) -> int:
    """The lowest `width` bits of a word as a number with a sign."""
    return (value & (1 << width) - 1 ^ 1 << width - 1) - (1 << width - 1)
