"""How long work says how far it is: whoever looks on gives a function, and nobody has to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int], object]  # called with how many more are done
# For so many things to do: a context with a function that is called with how many more are done.
Progress = Callable[[int], AbstractContextManager[Advance]]


def unseen(done: int) -> None:
    """The advance of work that nobody looks at."""


def silent(n: int) -> AbstractContextManager[Advance]:
    """The progress of work that nobody looks at."""
    return nullcontext(unseen)
