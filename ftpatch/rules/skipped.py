"""What a kernel without symbols leaves unanswered: rules that were not asked, or not of all, and what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ftpatch.elf.image import Image
from ftpatch.elf.recovered import is_nameless
from ftpatch.recovered.left_out import names_data
from ftpatch.rules import Rule
from ftpatch.rules.case import Case
from ftpatch.rules.layout import EXIT, EXIT_BOUNDS

# of a kernel without any name these are answered: they look at records, relocations and the words of sites alone
OF_RECORDS = (
    "table-ends", "slot-relocation", "word-ignored", "duplicate", "unsorted", "null-after-live", "only-init",
    "outside-text", "mixed-layouts", "literal-misaligned", "unexpected-words", "record-without-nops", "site-half",
    "not-atomic", "site-relocated", "config-mismatch", "must-trace",
)  # fmt: skip
STATIC_CALLS, EXIT_TEXT, OF_EXPORTS = "static-call-", "exit-text", ("module-symbols", "module-versions")
NAMES = "names of functions: the kernel has none"
DATA = "names of data: kallsyms has those of code alone (no CONFIG_KALLSYMS_ALL)"
BOUNDS = "the bounds of exit text: the file has neither sections nor symbols of them"
EXPORTS = "the kernel's exports: neither a section nor a symbol tells where they are"


class Skipped(NamedTuple):
    """A rule without an answer."""

    rule: str
    needs: str  # for people


def skipped(case: Case, rules: Sequence[Rule]) -> list[Skipped]:
    """The rules that would be asked of the kernel's vmlinux; of a module, that its kernel's file does not tell."""
    asked = [rule for rule in rules if case.kind in rule.kinds]
    if case.image.recovered is not None:
        return list(_of_kernel(case, asked))
    kernel = case.kernel.scan.image if case.kernel is not None else None
    if kernel is None or kernel.recovered is None or len(case.kernel.exports if case.kernel else ()):
        return []
    return [Skipped(rule.id, EXPORTS) for rule in asked if rule.id in OF_EXPORTS]


def _of_kernel(case: Case, rules: Sequence[Rule]) -> Iterator[Skipped]:
    image = case.image
    nameless = is_nameless(image.recovered)
    for rule in rules:
        of_calls = rule.id.startswith(STATIC_CALLS)
        if of_calls and case.arch.static_calls is None:
            continue
        if nameless and rule.id not in OF_RECORDS and (of_calls or set(rule.needs) <= {"records", "table"}):
            yield Skipped(rule.id, NAMES)
        elif of_calls and not names_data(image):
            yield Skipped(rule.id, DATA)
        elif rule.id == EXIT_TEXT and not _bounds_exit_text(image):
            yield Skipped(rule.id, BOUNDS)


def _bounds_exit_text(image: Image) -> bool:
    named = any(image.symbols.value(low) is not None for low, _ in EXIT_BOUNDS)
    return named or bool(image.sections_named(*EXIT)) or not (image.recovered and image.recovered.flat)
