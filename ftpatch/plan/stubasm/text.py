"""The text of a stub: statements and labels at their places, and what operands add up to. No instruction is known here
but the branches that may name a place."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field

from ftpatch.arch import Arch, architectures
from ftpatch.arch.parts import Assembly
from ftpatch.errors import InputError, UnsupportedError

SITE, TARGET = "site", "target"
# A word of 64 bits at most: longer ones are no number, but for the assembler to refuse.
NUMBER = r"0[xX]0*[0-9a-fA-F]{1,16}(?![\w.])|(?:0|[1-9][0-9]{0,19})(?![\w.])"
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


@dataclass(frozen=True)
class Sum:
    """What an operand adds up to."""

    value: int
    places: int  # labels and symbols added less those taken away: 0 for a distance, 1 for a place
    symbols: tuple[str, ...]  # those that are not the file's own
    plain: bool  # numbers and registers only


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
        """The error of a line that cannot be taken."""
        return InputError(what, f"{self.path}:{line}", found=found, expected=expected, todo=todo)

    def is_register(self, name: str) -> bool:
        """Whether the assembler knows that word; on some machines general registers are numbers by then."""
        numbered, registers = self.assembly.numbered, self.assembly.registers
        return bool(re.fullmatch(numbered, name) or re.fullmatch(registers, name.lower()))

    def add_up(self, at: Statement, text: str) -> Sum:
        """The sum that an operand of a statement is."""
        value, places, symbols, plain = 0, 0, [], True
        for sign, term in PARTS.findall(text):
            factor = -1 if sign == "-" else 1
            if re.fullmatch(NUMBER, term):
                value += factor * int(term, 0)
            elif not self.is_register(term):
                plain = False
                off = self._offset(at, term)
                places += factor if term not in self.constants else 0
                value += factor * (off or 0)
                if off is None:
                    symbols.append(term if factor > 0 else f"-{term}")
        return Sum(value, places, tuple(symbols), plain)

    def _offset(self, at: Statement, term: str) -> int | None:
        """The value of a constant, or the offset of a label; None for a symbol of elsewhere."""
        if term in self.constants:
            return self.constants[term]
        if term in (".", "$"):
            return at.off
        if not term[0].isdigit():
            return self.labels.get(term)
        offsets = self.numbered.get(term[:-1], [])
        behind = bisect.bisect_right(offsets, at.off)  # of the statement's own place the label is `b`
        near = offsets[:behind][-1:] if term[-1] == "b" else offsets[behind:][:1]
        if not near:
            raise self.refused(at.line, "no such label", found=term)
        return near[0]

    def label(self, line: int, name: str) -> None:
        """Put a label at the end of what was read so far."""
        if name.isdigit():
            self.numbered.setdefault(name, []).append(self.size)
            return
        taken = self.labels | self.constants
        if name in (SITE, TARGET, ".", "$") or self.is_register(name) or name in taken:
            raise self.refused(line, "the name is taken", found=f"label {name}", expected="a name of its own")
        self.labels[name] = self.size

    def append(self, line: int, name: str, rest: str) -> None:
        """Put an instruction or a value there."""
        self.statements.append(Statement(line, self.size, name, rest))
        self.size += SIZES.get(name, 4)


def read(text: str, path: str, arch: Arch) -> Source:
    """The file's statements and labels, each at its place."""
    if arch.assembly is None:
        known = ", ".join(other.name for other in architectures() if other.assembly)
        raise UnsupportedError(f"assembling stubs for {arch.name} is not supported", path, expected=known)
    source, comment = Source(path, arch, arch.assembly), re.compile(arch.assembly.comment)
    text = re.sub(r"/\*.*?\*/", lambda match: " " + "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(text.split("\n"), 1):
        for rest in comment.sub("", line).split(";"):
            while match := LABEL.match(rest):
                source.label(number, match[1])
                rest = match[2]
            if rest.strip():
                _statement(source, number, rest.strip())
    return source


def _statement(source: Source, line: int, text: str) -> None:
    """Read one instruction or directive."""
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
            source.append(line, ".inst", hex(source.arch.nop))
    elif name in SIZES:
        for value in rest.split(","):
            source.append(line, name, value.strip())
    elif name.startswith("."):
        raise source.refused(line, "this directive is not supported", found=name,
                             expected=", ".join((*SIZES, ".balign", ".equ")))  # fmt: skip
    else:
        source.append(line, name, rest)
