"""Which registers an instruction reads and writes: for code that counts on what its callees leave alone.

A compiler that sees both a function and who calls it may keep a value over the call in a register that the ABI gives
to the callee, because it knows that this one does not touch it (gcc's -fipa-ra). Whoever hooks such a function changes
more than it did. Each machine has a file that says what its instructions do; registers are bits of a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Literal, NamedTuple

Flow = Literal["on", "branch", "jump", "call", "return", "end"]


class Decoded(NamedTuple):
    """An instruction as a disassembler tells it."""

    size: int  # bytes
    mnemonic: str
    operands: tuple[str, ...]
    reads: tuple[str, ...] = ()  # names of registers
    writes: tuple[str, ...] = ()


class Use(NamedTuple):
    """What an instruction does."""

    size: int  # bytes
    reads: int = 0  # registers whose values matter to it
    writes: int = 0
    # `branch`: it goes on, or elsewhere; `end`: nothing behind it is run, or it is not known what follows
    flow: Flow = "on"
    to: int | None = None  # va that a direct branch or call goes to


class CallerRegisters(NamedTuple):
    """The registers of a machine, as far as calls are concerned; sets of them are bits of a number."""

    names: tuple[str, ...]  # of each
    lost: int  # those in which nobody finds his own value behind a call of ordinary code
    # where results are, numbers first, then floating-point ones: (the register that one begins in, those where more of
    # it may be). A function that returns what it was called with writes none of them, and its callers read them
    results: tuple[tuple[int, int], ...]
    site: int  # that the words of an enabled site change themselves, whatever it calls
    promised: int  # that everything gives back which keeps the contract of a site
    hooked: int  # that stubs of this program give back as they were, around a hook that is a C function
    arguments: int  # in which a function may have got values itself

    def rest_of_results(self, changed: int) -> int:
        """Where more of a result may be than a callee begins that changes these."""
        return reduce(or_, (more for first, more in self.results if changed >> first & 1), 0)

    @property
    def of_results(self) -> int:
        """All of those where a result may be."""
        return reduce(or_, (1 << first | more for first, more in self.results), 0)

    def text(self, registers: int) -> str:
        """A set, for people: `x1, x9-x12, v16`."""
        runs: list[list[int]] = []
        for number in numbers(registers):
            name = self.names[number]
            if runs and runs[-1][-1] == number - 1 and name.rstrip("0123456789") == self._front(number - 1) != name:
                runs[-1].append(number)
            else:
                runs.append([number])
        return ", ".join(self.names[run[0]] + (f"-{self.names[run[-1]]}" if len(run) > 1 else "") for run in runs)

    def _front(self, number: int) -> str:
        return self.names[number].rstrip("0123456789")


def bits(numbers: Iterable[int]) -> int:
    """The set of some registers."""
    made = 0
    for number in numbers:
        made |= 1 << number
    return made


def numbers(registers: int) -> Iterable[int]:
    """The registers of a set, ascending."""
    return (number for number in range(registers.bit_length()) if registers >> number & 1)
