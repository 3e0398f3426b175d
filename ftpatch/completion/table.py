"""What the verbs take: the lines of `commands.tsv`, which `python -m tools.command_table` makes from the commands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ftpatch.inputs import read_file

PATH = Path(__file__).with_name("commands.tsv")
MAX_SIZE = 1 << 20  # bytes of it
# Names of a file, as `names.py` reads them.
NAME_KINDS = ("sites", "enabled", "functions", "symbols", "keys", "targets", "sections")
PATH_KINDS = ("file", "folder", "elf", "elf-or-folder", "object", "json", "toml")
LISTS = ("statuses", "layouts", "formats", "rules", "ops", "parts", "machines")  # whose values the table has
PAIRS = ("reports", "pairs", "settings")  # NAME=VALUE
KINDS = ("flag", "none", *NAME_KINDS, *PATH_KINDS, *LISTS, *PAIRS)


@dataclass(frozen=True)
class OptionRow:
    """One option of a verb."""

    names: tuple[str, ...]  # the short one first
    kind: str  # one of KINDS, or `=` and the values that it takes, between bars
    n_values: int
    repeatable: bool
    help: str


@dataclass(frozen=True)
class ArgumentRow:
    """One argument of a verb, or the last ones."""

    kind: str  # as that of an option
    repeatable: bool
    required: bool
    unless: str  # an option with which it is not there; "" if none


@dataclass
class VerbRow:
    """One verb, or the program itself, whose name is empty."""

    name: str
    help: str = ""
    options: list[OptionRow] = field(default_factory=list)
    arguments: list[ArgumentRow] = field(default_factory=list)

    def option(self, name: str) -> OptionRow | None:
        return next((option for option in self.options if name in option.names), None)

    def argument(self, index: int, given: Collection[str]) -> str | None:
        """The kind of the argument of that number; None where it takes no more. given: options on the line."""
        taken = [argument for argument in self.arguments if argument.unless not in given]
        if index < len(taken):
            return taken[index].kind
        return taken[-1].kind if taken and taken[-1].repeatable else None


@dataclass
class Table:
    """The whole command line."""

    verbs: dict[str, VerbRow] = field(default_factory=lambda: {"": VerbRow("")})
    values: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # by the name of a list: value, help


def read_table() -> Table:
    """The table of the package."""
    table = Table()
    for line in read_file(str(PATH), MAX_SIZE).decode().splitlines():
        what, *fields = line.split("\t")
        if what == "verb":
            name, text = fields
            table.verbs[name] = VerbRow(name, text)
        elif what == "option":
            verb, names, kind, n_values, repeatable, text = fields
            row = OptionRow(tuple(names.split(",")), kind, int(n_values), bool(repeatable), text)
            table.verbs[verb].options.append(row)
        elif what == "argument":
            verb, kind, repeatable, required, unless = fields
            table.verbs[verb].arguments.append(ArgumentRow(kind, bool(repeatable), bool(required), unless))
        elif what == "value":
            kind, value, text = fields
            table.values.setdefault(kind, []).append((value, text))
    return table
