"""Assembles a user's own stub, and finds out which symbols it names where.

This module reads the text itself, statement by statement: it places the labels, works out their distances, and takes
the symbols. The assembler (keystone, optional) sees one instruction at a time, with numbers and registers in it and
nothing else: given symbols, labels or unbalanced brackets it is known to abort, to hang, or to cut off what does not
fit. What it makes has to be one instruction word to the second decoder (capstone), with the distance worked out here.

    name: 1:                labels; 1b and 1f are the nearest numeric ones; . and $ are the statement's own place
    b NAME, bl NAME         the only instructions that may name a symbol; for `site` also NAME±N
    .inst N, .long N        an instruction word, four bytes of data
    .quad N, .quad NAME±N   eight bytes of data, or a pointer that the loader fills
    .balign 4 or 8          filled up with NOPs
    .equ NAME, N            a number's name; .text .globl .global .type .size change nothing
    // # /* */ ;            comments (on arm64 `#` only where a line starts), and what separates statements
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ftpatch.arch import Arch, constants
from ftpatch.arch.parts import Assembly, Code, Fixup
from ftpatch.errors import InputError, UnsupportedError
from ftpatch.plan.stubasm.text import NAME, NUMBER, SITE, SIZES, SUM, TARGET, TERM, Source, Statement, read

MAX_SOURCE, MAX_WORDS = 64 << 10, 4096
TODO = "pip install keystone-engine, or use --hook SYMBOL where it has no wheel"
DATA = set(SIZES) - {".inst"}
FAR = 1 << 20  # where the second decoder sees the code, so that distances backwards stay positive
WHOLE = rf"{TERM}(?:\s*[-+*]\s*{TERM})*"
OPERAND = re.compile(rf"\[?\s*(?:{NAME}\s+)?#?\s*[-~]?\s*(?:{WHOLE}|\({WHOLE}\))\s*(?:\(\s*{TERM}\s*\))?\s*\]?!?")


@dataclass(frozen=True)
class Stub:
    """A stub as its file gives it."""

    path: str
    code: Code  # whose fixups name symbols as the file does
    lines: tuple[int, ...]  # per word: the source line that it comes from

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol that it names."""
        return frozenset(fixup.symbol for fixup in self.code.fixups)

    def where(self, off: int) -> str:
        """File and line of the word at a byte offset."""
        return f"{self.path}:{self.lines[off // 4]}"


def assemble(data: bytes, path: str, arch: Arch) -> Stub:
    """The stub in a file's bytes. Raises InputError at the first line that cannot be taken, UnsupportedError where the
    assembler is missing."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", path, found=f"byte {data[error.start]:#04x} at {error.start:#x}",
                         expected="assembly") from None  # fmt: skip
    source = read(text, path, arch)
    code = [statement.off for statement in source.statements if statement.name not in DATA]
    if not code:
        raise InputError("no instruction in it", path, expected="a stub in assembly")
    if source.size > 4 * MAX_WORDS:
        raise InputError("too large for a stub", path, found=f"{source.size // 4} words",
                         expected=f"at most {MAX_WORDS}")  # fmt: skip
    assembler = _assembler(source.assembly)
    words: list[int] = []
    fixups: list[Fixup] = []
    lines: list[int] = []
    for at in source.statements:
        new = _data(source, at, fixups) if at.name in SIZES else [_word(source, at, fixups, assembler)]
        words += new
        lines += [at.line] * len(new)
    return Stub(path, Code(tuple(words), code[0], tuple(fixups)), tuple(lines))


def _data(source: Source, at: Statement, fixups: list[Fixup]) -> list[int]:
    """The words of `.inst`, `.long` or `.quad` with one value."""
    size = SIZES[at.name]
    if not SUM.fullmatch(at.rest):
        raise source.refused(at.line, "no value", at.text, "a number, or .quad SYMBOL")
    total = source.add_up(at, at.rest)
    if total.places or total.symbols:
        odd = at.off % 8 or (TARGET in total.symbols and total.value)
        if size != 8 or total.places != 1 or len(total.symbols) != 1 or odd:
            raise source.refused(at.line, "no pointer", f"{at.text} at offset {at.off:#x}",
                                 ".quad SYMBOL at a multiple of 8", ".balign 8 in front of it")  # fmt: skip
        fixups.append(Fixup(at.off, source.arch.abs64, total.symbols[0], total.value))
        return [0, 0]
    if not -(1 << 8 * size - 1) <= total.value < 1 << 8 * size:
        raise source.refused(at.line, "a number that does not fit", at.text, f"{size} bytes")
    words = [total.value >> 32 * i & 0xFFFF_FFFF for i in range(size // 4)]
    if at.name == ".inst":
        _require_decoded(source, at, words[0], None)
    return words


def _word(source: Source, at: Statement, fixups: list[Fixup], assembler: Callable[[str], bytes | str]) -> int:
    """The word of one instruction."""
    text, place = (f"{at.name} .+0", None) if _branch(source, at, fixups) else _operands(source, at)
    encoding = assembler(source.assembly.hints.get(text.lower(), text))
    if isinstance(encoding, str) or len(encoding) != 4:
        why = encoding if isinstance(encoding, str) else f"{len(encoding)} bytes"
        raise source.refused(at.line, "the assembler (keystone) does not take it", found=f"{at.text}: {why}",
                             expected="one instruction", todo=".inst gives an instruction as a number")  # fmt: skip
    word = int.from_bytes(encoding, "little")
    _require_decoded(source, at, word, place)
    return word


def _branch(source: Source, at: Statement, fixups: list[Fixup]) -> bool:
    """Whether the statement is a direct branch to a symbol, whose fixup is then noted."""
    assembly, modules = source.assembly, source.arch.modules
    total = source.add_up(at, at.rest) if at.name in (assembly.jump, assembly.call) and SUM.fullmatch(at.rest) else None
    if total is None or not total.symbols:
        return False
    symbol = total.symbols[0]
    if total.places != 1 or len(total.symbols) != 1 or (total.value and symbol != SITE) or total.value % 4:
        raise source.refused(at.line, "no place to branch to", found=at.text,
                             expected="a label, a symbol, or site+4")  # fmt: skip
    kind = modules.branch if modules and at.name == assembly.call else assembly.jump_type
    fixups.append(Fixup(at.off, kind, symbol, total.value))
    return True


def _operands(source: Source, at: Statement) -> tuple[str, int | None]:
    """The instruction as the assembler may see it, and the place that it names, if any."""
    assembly, rest, places = source.assembly, at.rest, list[int]()
    if assembly.number_prefix:  # registers are numbers
        rest = re.sub(assembly.number_prefix, "", rest)
    branches = bool(re.fullmatch(assembly.branches, at.name))
    wants_place = branches or (at.name in assembly.leads and "[" not in rest)
    _require_understood(source, at, rest, branches)

    def shown(match: re.Match[str]) -> str:
        total, is_place = source.add_up(at, match[0]), wants_place and match.end() == len(rest)
        if total.plain:
            return match[0]
        if total.symbols:
            named = f"{assembly.jump} and {assembly.call}, and .quad,"
            raise source.refused(at.line, f"only {named} may name a symbol", at.text,
                                 f"{total.symbols[0]} to be a label, or a register of this machine")  # fmt: skip
        inverted = rest[: match.start()].rstrip().endswith("~")
        if total.places != int(is_place) or (is_place and total.value % 4) or inverted or "*" in rest:
            raise source.refused(at.line, "not a number and not a place to branch to", at.text,
                                 "a label as the last operand of a branch, or a distance of labels")  # fmt: skip
        if not is_place:
            return str(total.value)
        places.append(total.value)
        return f".{total.value - at.off:+d}"

    text = SUM.sub(shown, rest)
    if wants_place and not places:
        raise source.refused(at.line, "no place to branch to", at.text, "a label")
    return f"{at.name} {text}".strip(), places[0] if places else None


def _require_understood(source: Source, at: Statement, rest: str, branches: bool) -> None:
    """Refuse operands on which keystone is known to hang or to abort."""
    understood = not rest or all(OPERAND.fullmatch(operand.strip()) for operand in rest.split(","))
    large = any(int(number, 0) >> 64 for number in re.findall(rf"(?<![\w.$])(?:{NUMBER})", rest))
    masked = source.assembly.masked
    mask = masked != "" and at.name.startswith(masked) and rest.count(",") != 4  # a mask that is one number
    if not understood or large or mask or rest.count("[") != rest.count("]") or (branches and "(" in rest):
        raise source.refused(at.line, "operands that are not understood", at.text, "registers, numbers and labels")


def _require_decoded(source: Source, at: Statement, word: int, place: int | None) -> None:
    """Refuse a word that is no instruction to the second decoder, or one that does not go to the offset `place`."""
    import capstone

    engine = capstone.Cs(*constants(capstone, source.arch.capstone))
    decoded = list(engine.disasm_lite(word.to_bytes(4, "little"), FAR + at.off))
    if len(decoded) != 1:
        raise source.refused(at.line, "no instruction to the second decoder (capstone)",
                             found=f"{at.text}: {word:#010x}")  # fmt: skip
    if place is not None and not re.search(rf"\b{FAR + place:#x}$", decoded[0][3]):
        raise source.refused(at.line, "two decoders do not agree on where it goes", found=at.text,
                             expected=f"{place - at.off:+#x}")  # fmt: skip


def _assembler(assembly: Assembly) -> Callable[[str], bytes | str]:
    """A function from one instruction to its bytes, or to why there are none."""
    try:
        import keystone
    except ImportError as error:
        raise UnsupportedError("--stub-asm needs the assembler keystone", found=str(error), todo=TODO) from None
    engine = keystone.Ks(*constants(keystone, assembly.keystone))

    def encoded(text: str) -> bytes | str:
        try:
            return bytes(engine.asm(text)[0] or b"")
        except keystone.KsError as error:
            return str(error)

    return encoded
