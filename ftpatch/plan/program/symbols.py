"""Which function of a program a name means, and whether a site may call it at all."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ftpatch.arch.program_parts import programs_of
from ftpatch.arrays import distinct
from ftpatch.elf import tables as t
from ftpatch.elf.function_names import function_names
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.callee import STT_GNU_IFUNC, why_never_returns, why_no_function
from ftpatch.near_names import did_you_mean

# Functions of C and C++ libraries that never return to their caller.
NORETURN = frozenset({
    "_Exit", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow", "__assert_fail", "__assert_perror_fail", "__chk_fail",
    "__cxa_bad_cast", "__cxa_bad_typeid", "__cxa_call_unexpected", "__cxa_pure_virtual", "__cxa_rethrow", "__cxa_throw",
    "__cxa_throw_bad_array_new_length", "__fortify_fail", "__libc_fatal", "__libc_start_main", "__longjmp_chk",
    "__stack_chk_fail", "__stack_chk_fail_local", "_exit", "_longjmp", "_start", "abort", "err", "errx", "exit",
    "longjmp", "pthread_exit", "quick_exit", "siglongjmp", "thrd_exit", "verr", "verrx",
})  # fmt: skip
MAX_UNITS = 1 << 14  # of a function whose code is looked at
AT_START = "an IFUNC: the program decides when it starts which function that is"


class Function(NamedTuple):
    """A function that the file itself has."""

    name: str  # as the user gave it
    va: int  # of its symbol
    row: int  # of that symbol


def find_function(image: Image, option: str, text: str) -> Function | None:
    """The function of the file that a name or address means; None where the file has none of that name.

    Raises SelectionError or PolicyError where what it means can be called by no site.
    """
    where = f"{option} {text}"
    if text in NORETURN:
        raise _never_returns(where, text)
    if text[:2] in ("0x", "0X"):
        if not re.fullmatch("0[xX][0-9a-fA-F]{1,16}", text):
            raise SelectionError("not an address", where, expected="0x and up to 16 hexadecimal digits")
        return _at(image, int(text, 16), where)
    row = image.symbols.defined(text)
    if row is None:
        return None
    rows = image.symbols.rows_named(text)
    rows = rows[image.symbols.shndx[rows] != t.SHN_UNDEF]
    values = distinct(image.symbols.rows["st_value"][rows]).tolist()
    if len(values) > 1:
        raise SelectionError("several symbols of that name", where, found=", ".join(map(hex, values[:3])),
                             todo="give 0xVA")  # fmt: skip
    return _checked(image, Function(text, int(values[0]), row), where)


def _at(image: Image, va: int, where: str) -> Function:
    """The function at an address, which the user names by it."""
    if va % image.arch.unit or not len(image.code(va, 1)):
        raise PolicyError("no function that a site can call", where, found=f"no instruction at {va:#x}",
                          expected="a function of this file")  # fmt: skip
    rows = np.flatnonzero((image.symbols.rows["st_value"] == np.uint64(va)) & (image.symbols.shndx > 0))
    labels = [row for row in rows.tolist() if not image.symbols.name(row).startswith("$")]  # marks of the compiler
    known = [row for row in labels if int(image.symbols.type[row]) in (t.STT_FUNC, STT_GNU_IFUNC)]
    # assembly need not say of a label that it is a function
    known += [row for row in labels if int(image.symbols.type[row]) == 0]
    if not known:
        raise PolicyError("no function is known there", where, found=f"no symbol at {va:#x}",
                          expected="the address of a function's symbol",
                          todo="give the program before it was stripped")  # fmt: skip
    return _checked(image, Function(image.symbols.name(known[0]), va, known[0]), where)


def _checked(image: Image, function: Function, where: str) -> Function:
    """The function, if a site can call it."""
    ifunc = int(image.symbols.type[function.row]) == STT_GNU_IFUNC
    if why := AT_START if ifunc else why_no_function(image, function.row):
        raise PolicyError("no function that a site can call", where, found=why, expected="a function of this file")
    same = np.flatnonzero((image.symbols.rows["st_value"] == np.uint64(function.va)) & (image.symbols.shndx > 0))
    if fatal := sorted(NORETURN & {image.symbols.name(row) for row in same.tolist()}):
        raise _never_returns(where, fatal[0])
    if why := why_never_returns(FunctionTypes(image), function.row) or _no_way_out(image, function):
        raise _never_returns(where, why)
    return function


def _no_way_out(image: Image, function: Function) -> str:
    """That no instruction of a function leaves it; empty where one may."""
    programs = programs_of(image.arch)
    if programs is None or programs.ways_out is None:
        return ""
    size = int(image.symbols.rows["st_size"][function.row]) // image.arch.unit
    code = image.code(function.va, min(size, MAX_UNITS))
    return "" if not 0 < size == len(code) or programs.ways_out(code) else "no instruction of it leaves it"


def _never_returns(where: str, found: str) -> PolicyError:
    return PolicyError("the sites would call a function that never returns", where, found=found,
                       expected="one that returns")  # fmt: skip


def not_found(image: Image, option: str, text: str) -> SelectionError:
    """The error for a name that neither a symbol nor an import of the file has."""
    stripped = image.symbols is not image.own_symbols
    return SelectionError(
        "no such function", f"{option} {text}",
        found=f"nothing of that name in {'.dynsym, and no other symbols' if stripped else '.symtab'}, and no slot in a "
        ".got or .plt", expected="a function of this file, or one that it imports and uses already",
        todo=did_you_mean(text, function_names(image), "give 0xVA, or link the program with a use of it"),
    )  # fmt: skip
