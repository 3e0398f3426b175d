"""JSON from files that anybody may have made: the only place that parses it, and within limits.

What a parser could be made to do is bounded before it starts: the size of the file, the number of values (an empty
list takes twenty times the memory of its two characters), the digits of a number (int() is quadratic). Nesting is
bounded by Python's recursion limit. What the value means is for the caller to check.
"""

from __future__ import annotations

import json
from collections.abc import Container

from ftpatch.inputs import read_file

MAX_SIZE = 512 << 20  # bytes of a file; a journal of 44,000 sites has 38 MB
MAX_VALUES = 16 << 20  # values in it; that journal has 1.8 million
MAX_DIGITS = 128  # characters of a whole number; 64 bits need 20, and a wrong one is still shown as it stands

Object = dict[str, object]


class NotJson(Exception):
    """Bytes that are not JSON, or more of it than the limits allow; the caller says what they were taken for."""

    def __init__(self, found: str, expected: str = "JSON") -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def load(path: str, keep: Container[str] | None = None) -> object:
    """The JSON value in a regular file. Raises InputError where it cannot be read, and NotJson as `parse` does."""
    return parse(read_file(path, MAX_SIZE), keep)


def parse(data: bytes, keep: Container[str] | None = None) -> object:
    """The JSON value in the bytes. Raises NotJson for what is none, or is too large.

    keep: names of the members that objects keep; the others are parsed and dropped at once. None keeps all.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:  # each value but the first has one of these before it
        raise NotJson(f"more than {MAX_VALUES} values", "less")

    def object_of(pairs: list[tuple[str, object]]) -> Object:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a member that is there twice")
        return {key: value for key, value in pairs if keep is None or key in keep}

    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=object_of, parse_int=_whole_number, parse_constant=_constant
        )
    except RecursionError:
        raise NotJson("values inside values, without end") from None
    except ValueError as error:  # the parser's and UTF-8's errors are of this class, and those raised here
        raise NotJson(str(error)[:120]) from None
    return value


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _constant(name: str) -> object:
    raise ValueError(f"{name}, which is no number of JSON")  # NaN and Infinity, which Python's parser takes
