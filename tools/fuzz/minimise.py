"""A smaller input that still goes wrong in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

TRIALS, SECONDS = 150, 20.0  # for one finding: executions, and their time


def smaller(data: bytes, start: Sequence[bytes], goes_wrong: Callable[[bytes], bool]) -> bytes:
    """The input with fewer changes against the seed of its length, or else with fewer bytes.

    start: what mutation started from. goes_wrong: whether an input shows the fault; asked at most TRIALS times.
    """
    budget, end = [TRIALS], monotonic() + SECONDS

    def still(candidate: bytes) -> bool:
        budget[0] -= 1
        return budget[0] >= 0 and monotonic() < end and goes_wrong(candidate)

    alike = [seed for seed in start if len(seed) == len(data)]
    if alike:
        seed = min(alike, key=lambda seed: sum(a != b for a, b in zip(seed, data, strict=True)))
        return _like(data, seed, still)
    return _shorter(data, still)


def _like(data: bytes, seed: bytes, still: Callable[[bytes], bool]) -> bytes:
    """With runs of changed bytes given back."""
    places = [at for at in range(len(data)) if data[at] != seed[at]]
    step = max(len(places) // 2, 1)
    while places:
        for first in range(0, len(places), step):
            candidate = bytearray(data)
            for at in places[first : first + step]:
                candidate[at] = seed[at]
            if still(bytes(candidate)):
                data = bytes(candidate)
        places = [at for at in places if data[at] != seed[at]]
        if step == 1:
            break
        step //= 2
    return data


def _shorter(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """With pieces left out, large ones first."""
    step = max(len(data) // 2, 1)
    while step:
        at = 0
        while at < len(data) and len(data) > 1:
            candidate = data[:at] + data[at + step :]
            if still(candidate):
                data = candidate
            else:
                at += step
        step //= 2
    return data
