"""The text of a stub: statements and labels at their places, and what operands add up to. No instruction is known here
but the branches that may name a place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftpatch.arch import Arch, architectures
from ftpatch.arch.parts import Assembly
from ftpatch.errors import InputError, UnsupportedError

SITE, TARGET = "site", "target"
NUMBER = r"0[xX][0-9a-fA-F]+|(?:0|[1-9][0-9]*)(?![\w.])"
NAME = r"[A-Za-z_.$][\w.$]*"
TERM = rf"(?:[0-9]+[bf]\b|{NUMBER}|{NAME})"
SUM = re.compile(rf"-?\s*{TERM}(?:\s*[-+]\s*{TERM})*")
PARTS = re.compile(rf"([-+]?)\s*({TERM})")
LABEL = re.compile(rf"\s*({NAME}|[0-9]+)\s*:(.*)", re.DOTALL)
STATEMENT = re.compile(r"([A-Za-z.][\w.]*[-+]?)(?:\s+(.*))?", re.DOTALL)
SILENT = (".text", ".globl", ".global", ".type", ".size")
SIZES = {".inst": 4, ".long": 4, ".4byte": 4, ".quad": 8, ".8byte": 8}


@dataclass(frozen=True)
class Statement:
    """One instruction, or one value of data."""

    line: int  # in the source, from 1
    off: int  # bytes from the start of the stub
    name: str  # mnemonic or directive
    rest: str  # its operands, as written

    @property
    def text(self) -> str:
        return f"{self.name} {self.rest}".strip()


@dataclass
class Source:
    """A file whose statements have their places."""

    path: str
    arch: Arch
    assembly: Assembly
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name → offset
    numbered: dict[str, list[int]] = field(default_factory=dict)  # numeric label → every offset, ascending
    constants: dict[str, int] = field(default_factory=dict)  # what .equ named
    size: int = 0  # bytes so far

    def refused(self, line: int, what: str, found: str = "", expected: str = "", todo: str = "") -> InputError:
        return InputError(what, f"{self.path}:{line}", found=found, expected=expected, todo=todo)


@dataclass(frozen=True)
class Sum:
    """What an operand adds up to."""

    value: int
    places: int  # labels and symbols added less those taken away: 0 for a distance, 1 for a place
    symbols: tuple[str, ...]  # those that are not the file's own
    plain: bool  # numbers and registers only


def read(text: str, path: str, arch: Arch) -> Source:
    """The file's statements and labels, each at its place."""
    if arch.assembly is None:
        raise UnsupportedError(f"assembling stubs for {arch.name} is not supported", path,
                               expected=", ".join(one.name for one in architectures() if one.assembly))  # fmt: skip
    source = Source(path, arch, arch.assembly)
    for line, rest in _lines(text, re.compile(arch.assembly.comment)):
        while match := LABEL.match(rest):
            _place(source, line, match[1])
            rest = match[2]
        if rest.strip():
            _statement(source, line, rest.strip())
    return source


def _lines(text: str, comment: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """(line number, statement) without comments."""
    text = re.sub(r"/\*.*?\*/", lambda match: " " + "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(text.split("\n"), 1):
        for part in comment.sub("", line).split(";"):
            yield number, part


def _place(source: Source, line: int, name: str) -> None:
    if name.isdigit():
        source.numbered.setdefault(name, []).append(source.size)
        return
    if name in (SITE, TARGET, ".", "$") or is_register(source, name) or name in source.labels | source.constants:
        raise source.refused(line, "the name is taken", found=f"label {name}", expected="a name of its own")
    source.labels[name] = source.size


def _statement(source: Source, line: int, text: str) -> None:
    match = STATEMENT.fullmatch(text)
    if match is None:
        raise source.refused(line, "no statement", found=text)
    name, rest = match[1].lower(), " ".join((match[2] or "").split())
    if name in SILENT:
        return
    if name in (".equ", ".set"):
        key, _, value = (part.strip() for part in rest.partition(","))
        if not re.fullmatch(NAME, key) or not re.fullmatch(rf"-?(?:{NUMBER})", value) or key in source.labels:
            raise source.refused(line, "no constant", found=text, expected=".equ NAME, NUMBER")
        source.constants[key] = int(value, 0)
    elif name == ".balign":
        if rest not in ("4", "8"):
            raise source.refused(line, "no such alignment", found=text, expected=".balign 4 or .balign 8")
        while source.size % int(rest):
            _append(source, line, ".inst", hex(source.arch.nop))
    elif name in SIZES:
        for one in rest.split(","):
            _append(source, line, name, one.strip())
    elif name.startswith("."):
        raise source.refused(line, "this directive is not supported", found=name,
                             expected=", ".join((*SIZES, ".balign", ".equ")))  # fmt: skip
    else:
        _append(source, line, name, rest)


def _append(source: Source, line: int, name: str, rest: str) -> None:
    source.statements.append(Statement(line, source.size, name, rest))
    source.size += SIZES.get(name, 4)


def is_register(source: Source, name: str) -> bool:
    """Whether the assembler knows that word; on some machines general registers are numbers by then."""
    assembly = source.assembly
    return bool(re.fullmatch(assembly.numbered, name) or re.fullmatch(assembly.registers, name.lower()))


def add_up(source: Source, at: Statement, text: str) -> Sum:
    value, places, symbols, plain = 0, 0, [], True
    for sign, term in PARTS.findall(text):
        factor = -1 if sign == "-" else 1
        if re.fullmatch(NUMBER, term):
            value += factor * int(term, 0)
            continue
        if is_register(source, term):
            continue
        plain = False
        if term in source.constants:
            value += factor * source.constants[term]
            continue
        place = _label(source, at, term)
        places += factor
        if place is None:
            symbols.append(term if factor > 0 else f"-{term}")
        else:
            value += factor * place
    return Sum(value, places, tuple(symbols), plain)


def _label(source: Source, at: Statement, term: str) -> int | None:
    """Offset of a label; None for a symbol of elsewhere."""
    if term in (".", "$"):
        return at.off
    if not term[0].isdigit():
        return source.labels.get(term)
    known = source.numbered.get(term[:-1], [])
    before, behind = [off for off in known if off <= at.off], [off for off in known if off > at.off]
    found = before[-1:] if term[-1] == "b" else behind[:1]
    if not found:
        raise source.refused(at.line, "no such label", found=term)
    return found[0]
