"""The names of a kernel's kallsyms as text, all of them at once.

The stream of tokens is one array: at the first length byte of each name there is a token of its own instead, a NUL, and
at the second one of a long name another, the empty text. One gather then writes every token's text behind the one
before it. It goes piece by piece, so that what it needs is a few times the text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ftpatch.arrays import I64, U8, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_names import Names
from ftpatch.recovered.kallsyms_tokens import LONGEST, N_TOKENS, Tokens

U16 = npt.NDArray[np.uint16]
END, NOTHING = N_TOKENS, N_TOKENS + 1  # the two tokens that are no byte of a name
MOST_TEXT = 1 << 27  # characters of all names; the largest kernels have 20 million
PIECE = 1 << 14  # tokens that are replaced in one go
LETTERS = b"AaBbCcDdGgIiLlNnPpRrSsTtUuVvWw-?"  # nm's types


def texts_of(data: FileBytes, tokens: Tokens, names: Names) -> tuple[U8, I64, U8]:
    """Letters, where each name starts without its letter, and the text: names with a NUL behind each.

    ElfError where a name is none, or where there is more text than any kernel has.
    """
    stream = _stream(data, names)
    sizes = np.append(tokens.sizes, [1, 0]).astype(np.uint16)  # of the text of END and NOTHING
    lengths = sizes[stream]
    ends = np.cumsum(np.add.reduceat(lengths, names.starts, dtype=np.int64))
    starts, total = np.append(1, ends[:-1] + 1), int(ends[-1])  # behind the NUL before each name
    text = np.zeros(min(total, MOST_TEXT) + 2, np.uint8)  # a NUL behind the last name, and one if that has no letter
    longest = int(np.diff(np.append(starts, total + 1)).max()) - 1
    if longest >= LONGEST or total > MOST_TEXT:
        raise ElfError("names of kallsyms are longer than any kernel's", f"position {names.pos:#x}",
                       found=f"{longest} characters in one, {total} in all",
                       expected=f"fewer than {LONGEST}, at most {MOST_TEXT}")  # fmt: skip
    _expand(stream, lengths, tokens, text)
    letters = text[starts]
    _require_names(text, letters, starts + 1, names)
    return letters, starts + 1, text


def _stream(data: FileBytes, names: Names) -> U16:
    """The tokens of all names, with END before each."""
    octets = data[names.pos : names.end]
    stream = octets.astype(np.uint16)
    if names.two_bytes:
        stream[names.starts[octets[names.starts] > 0x7F] + 1] = NOTHING
    stream[names.starts] = END
    return stream


def _expand(stream: U16, lengths: U16, tokens: Tokens, text: U8) -> None:
    """Write the text of each token behind that of the one before."""
    table = np.append(tokens.texts, np.zeros(1, np.uint8))
    begin = np.append(tokens.starts, [len(tokens.texts), len(tokens.texts)]).astype(np.int32)
    filled = 0
    for low in range(0, len(stream), PIECE):
        length = lengths[low : low + PIECE]
        ends = np.cumsum(length, dtype=np.int32)
        total = int(ends[-1])
        shift = np.repeat(begin[stream[low : low + PIECE]] - (ends - length), length)
        text[filled : filled + total] = table[shift + np.arange(total, dtype=np.int32)]
        filled += total


def _require_names(text: U8, letters: U8, starts: I64, names: Names) -> None:
    """ElfError where a symbol has no type of nm's, no name, or a name that has a space or control character."""
    wrong = ~_one_of(letters, LETTERS) | (text[starts] == 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ElfError("a symbol of kallsyms has no name or no type of symbol", f"row {row}",
                       found=repr(bytes(text[starts[row] - 1 : starts[row] + 20])), expected="as nm gives them",
                       todo="the file is damaged")  # fmt: skip
    strange = (text <= 0x20) | (text == 0x7F)
    if int(np.count_nonzero(strange)) != names.n + 2:  # the NUL before each name, and the two behind the last
        pos = np.flatnonzero(strange & (text != 0))
        row = int(np.searchsorted(starts, pos[0], side="right")) - 1 if len(pos) else 0
        raise ElfError("a name of kallsyms has characters that no symbol has", f"row {row}",
                       found=repr(bytes(text[starts[row] : starts[row] + 40])), todo="the file is damaged")  # fmt: skip


def _one_of(octets: U8, wanted: bytes) -> Mask:
    table = np.zeros(256, bool)
    table[list(wanted)] = True
    return np.asarray(table[octets])
