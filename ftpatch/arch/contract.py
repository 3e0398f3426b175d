"""Does a piece of code behave as a trampoline that a patch site may call? The part that no machine changes.

The code is walked with symbols for values, along all its paths; what an instruction does to the symbols, and what must
hold where a path leaves, is each machine's own. The answer errs on the side of "not shown".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol, TypeVar

from ftpatch.arrays import U32

MAX_STEPS, MAX_PATHS = 4096, 64
Read = Callable[[int, int], U32]  # (va, n) → up to n instruction words there, fewer or none where there is no code


class Placed(Protocol):
    """What a walk needs of a machine's state: where it is."""

    va: int


S = TypeVar("S", bound=Placed)


class Contract(Protocol):
    """Why the code at `va` is no trampoline for a patch site, in line or out of line; empty where it is.

    home: an address behind the site, where a path may end with the caller's return address back in its register;
    target: a trampoline that is known to keep the contract, where a path may end with everything as at entry.
    """

    def __call__(
        self, read: Read, va: int, out_of_line: bool, home: int | None = None, target: int | None = None
    ) -> str: ...


def unjudged(read: Read, va: int, out_of_line: bool, home: int | None = None, target: int | None = None) -> str:
    """For machines whose code nothing here can judge: never shown."""
    return "nothing here can tell what its code does"


def judged_by(module: str) -> Contract:
    """The `keeps_contract` of a module, which is loaded when it is first asked: a scan judges no code."""

    def keeps_contract(
        read: Read, va: int, out_of_line: bool, home: int | None = None, target: int | None = None
    ) -> str:
        why: str = import_module(module).keeps_contract(read, va, out_of_line, home, target)
        return why

    return keeps_contract


class NotShown(Exception):
    """The walk met something that does not keep the contract, or that it cannot follow."""


def judge(
    read: Read, start: S, step: Callable[[S, int, list[S]], bool], ends: Mapping[int | None, Callable[[S], None]]
) -> str:
    """Why the code is no trampoline for a patch site; empty where every path keeps the contract.

    step(state, word, todo) moves the state over one instruction, adds the other side of a conditional branch to
    `todo`, and returns True where the path ends soundly. It raises NotShown otherwise. ends: what
    must hold at addresses where a path ends without a step.
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
    except NotShown as reason:
        return str(reason)
    return ""
