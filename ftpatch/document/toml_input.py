"""TOML from files that anybody may have made: the only place that parses it, and within limits.

Python's parser takes a stack frame for each bracket, time that grows with the square of the parts of a key or of the
digits of a number, and a kilobyte for each table. So the text is first cut into its tokens, which takes time and memory
in proportion to its size, and refused where it has more of something than a configuration needs. What the values mean
is for the caller to check.
"""

from __future__ import annotations

import re
import tomllib

from ftpatch.errors import UnsupportedError
from ftpatch.inputs import beyond_limit, read_file

MAX_SIZE = 16 << 20  # bytes of a file; 200,000 names of functions have 6 MB
MAX_TOKENS = 1 << 20  # names, values, strings, commas, brackets, line ends; a name in a list has three
MAX_TABLES = 1 << 16  # tables and lists
MAX_DEPTH = 32  # lists and tables inside one another
MAX_PARTS = 16  # of a dotted key
MAX_DIGITS = 128  # of a number
MAX_ESCAPES = 1 << 20  # backslashes
MAX_TEXT = 1 << 16  # characters of a string

TOKEN = re.compile(
    r'''(?P<text>"""(?:[^"\\]|\\.|"(?!""))*+""""{0,2}|\'\'\'(?:[^\']|\'(?!\'\'))*+\'\'\'\'{0,2}'''
    r"""|"(?:[^"\\\n]|\\[^\n])*+"|'[^'\n]*+')"""
    r"""|(?P<unclosed>["'])|#[^\n]*+|(?P<mark>[\[\]{}.,=\n])|(?P<word>[^\s"'#\[\]{}.,=]++)""",
    re.DOTALL,
)


class NotToml(Exception):
    """Bytes that are not TOML; the caller says what they were taken for."""


def load(path: str) -> dict[str, object]:
    """The top table of a TOML file. Raises InputError where it cannot be read, and what `parse` raises."""
    return parse(read_file(path, MAX_SIZE), path)


def parse(data: bytes, where: str) -> dict[str, object]:
    """The top table in the bytes of a file. Raises NotToml for what is none, UnsupportedError beyond the limits."""
    try:
        text = data.decode("utf-8-sig")
        _require_limits(text, where)
        return tomllib.loads(text)
    except RecursionError:
        raise _beyond(where, "values nested deeper", MAX_DEPTH) from None
    except ValueError as error:  # the parser's and UTF-8's errors are of this class
        raise NotToml(str(error)[:120]) from None


def _require_limits(text: str, where: str) -> None:
    """Refuse a text that has more than the limits allow. One that ends inside a string is the parser's to refuse."""
    if text.count("\\") > MAX_ESCAPES:
        raise _beyond(where, "more escapes", MAX_ESCAPES)
    n_tables = depth = dots = 0
    for n_tokens, token in enumerate(TOKEN.finditer(text), 1):
        kind, mark = token.lastgroup, token["mark"]
        if n_tokens > MAX_TOKENS:
            raise _beyond(where, "more names and values", MAX_TOKENS)
        if kind == "unclosed":
            return
        if kind == "text" and len(token["text"]) > MAX_TEXT:
            raise _beyond(where, f"a string of {len(token['text'])} characters", MAX_TEXT)
        if kind == "mark":
            n_tables += mark in "[{"
            depth += (mark in "[{") - (mark in "]}")
            dots = dots + 1 if mark == "." else 0
            if n_tables > MAX_TABLES:
                raise _beyond(where, "more tables and lists", MAX_TABLES)
            if depth > MAX_DEPTH:
                raise _beyond(where, "values nested deeper", MAX_DEPTH)
            if dots >= MAX_PARTS:
                raise _beyond(where, "a key of more parts", MAX_PARTS)
        elif kind == "word" and len(token["word"]) > MAX_DIGITS and token["word"].lstrip("+-")[:1].isdigit():
            raise _beyond(where, f"a number of {len(token['word'])} digits", MAX_DIGITS)


def _beyond(where: str, found: str, limit: int) -> UnsupportedError:
    return beyond_limit(where, "TOML", found, f"at most {limit}")
