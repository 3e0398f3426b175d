"""JSON from files that anybody may have made: the only place that parses it, and within limits.

What a parser could be made to do is bounded before it starts: the size of the file, the number of values (an empty
list takes twenty times the memory of its two characters), the digits of a number (int() is quadratic). Numbers are
those that a program in another language can hold, too. Nesting is bounded by Python's own limit. What the value means
is for the caller to check.
"""

from __future__ import annotations

import json
from collections.abc import Container

from ftpatch.inputs import beyond_limit, read_file

MAX_SIZE = 512 << 20  # bytes of a file; a journal of 44,000 sites has 38 MB
FREE_VALUES = 1 << 20  # values that a file of any size may have, and then one more for each
BYTES_PER_VALUE = 12  # bytes of it; that journal has 1.8 million, 21 bytes each
MAX_DEPTH = 1000  # values inside values, about: Python's recursion limit
LEAST, MOST = -(1 << 63), (1 << 64) - 1  # whole numbers: what 64 bits hold, with a sign or without
MAX_DIGITS = 20  # of a whole number within those
INFINITE = float("inf")

Object = dict[str, object]


class NotJson(Exception):
    """Bytes that are not JSON; the caller says what they were taken for."""

    def __init__(self, found: str, expected: str = "JSON") -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def load(path: str, keep: Container[str] | None = None, max_size: int = MAX_SIZE) -> object:
    """The JSON value in a regular file. Raises InputError where it cannot be read, and what `parse` raises."""
    return parse(read_file(path, max_size), path, keep)


def parse(data: bytes, where: str, keep: Container[str] | None = None) -> object:
    """The JSON value in the bytes of a file. Raises NotJson for what is none, UnsupportedError beyond the limits.

    keep: names of the members that objects keep; the others are parsed and dropped at once. None keeps all.
    """
    limit = FREE_VALUES + len(data) // BYTES_PER_VALUE
    if sum(map(data.count, (b",", b"[", b"{"))) > limit:  # each value but the first has one of these before it
        raise beyond_limit(where, "JSON", "more values", f"at most {limit}")

    def object_of(pairs: list[tuple[str, object]]) -> Object:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a member that is there twice")
        return {key: value for key, value in pairs if keep is None or key in keep}

    try:
        value: object = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=object_of, parse_int=_whole_number, parse_float=_number,
            parse_constant=_constant,
        )  # fmt: skip
    except _TooLarge as error:
        raise beyond_limit(where, "JSON", str(error), "a number that 64 bits hold") from None
    except RecursionError:
        raise beyond_limit(where, "JSON", "values nested deeper", f"at most {MAX_DEPTH}") from None
    except UnicodeDecodeError as error:
        raise NotJson(f"a byte at {error.start:#x} that is not UTF-8") from None
    except ValueError as error:  # the parser's errors are of this class, and those raised here
        raise NotJson(str(error)[:120]) from None
    return value


class _TooLarge(Exception):
    """A number that no program in another language can hold."""


def _whole_number(text: str) -> int:
    n_digits = len(text) - text.startswith("-")
    if n_digits > MAX_DIGITS:
        raise _TooLarge(f"a number of {n_digits} digits")
    value = int(text)
    if not LEAST <= value <= MOST:
        raise _TooLarge(text)
    return value


def _number(text: str) -> float:
    value = float(text)
    if abs(value) == INFINITE:
        raise _TooLarge(text if len(text) <= MAX_DIGITS else f"a number of {len(text)} characters")
    return value


def _constant(name: str) -> object:
    raise ValueError(f"{name}, which is no number of JSON")  # NaN and Infinity, which Python's parser takes
