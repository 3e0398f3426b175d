"""Which value of a command line is completed: of which verb, and of which of its options or arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ftpatch.completion.line import Line
from ftpatch.completion.table import OptionRow, Table, VerbRow

VERBS, OPTIONS = "verbs", "options"  # kinds of a Place besides those of the table


@dataclass
class Place:
    """What the completed word is, and what the rest of the line says."""

    verb: VerbRow
    kind: str = VERBS
    text: str = ""  # what is there of the value
    quote: str = ""  # the quote in which it ends: ', " or none
    lead: str = ""  # what stands in front of it in the same word: `--func=`
    given: set[str] = field(default_factory=set)  # names of options that are there already
    arguments: list[str] = field(default_factory=list)  # words that are no options
    values: list[tuple[str, str]] = field(default_factory=list)  # option, value

    def of_option(self, *names: str) -> list[str]:
        """The values of an option, whichever of its names stands there."""
        return [value for name, value in self.values if name in names]


@dataclass
class _Reader:
    """Goes through the words of a line."""

    table: Table
    place: Place
    pending: list[OptionRow] = field(default_factory=list)  # the option whose values follow, once for each
    only_arguments: bool = False  # behind `--`

    def read(self, words: Iterable[str]) -> None:
        for word in words:
            self._word(word)

    def _word(self, word: str) -> None:
        place = self.place
        if self.pending:
            place.values.append((self.pending.pop().names[-1], word))
        elif self.only_arguments or not word.startswith("-") or word == "-":
            if not place.verb.name and word in self.table.verbs:
                place.verb = self.table.verbs[word]
            else:
                place.arguments.append(word)
        elif word == "--":
            self.only_arguments = True
        else:
            name, equals, value = word.partition("=")
            option = place.verb.option(name)
            if option is None and (short := place.verb.option(word[:2])) is not None:
                option, equals, value = short, "=" if short.n_values else "", word[2:]
            if option is None:
                return
            place.given.update(option.names)
            if equals:
                place.values.append((option.names[-1], value))
            else:
                self.pending = [option] * option.n_values

    def complete(self, current: str) -> None:
        """Say what the completed word is, which follows those that were read."""
        place = self.place
        name, equals, value = current.partition("=")
        if self.pending:
            place.kind, place.text = self.pending.pop().kind, current
        elif current.startswith("-") and not self.only_arguments:
            option, short = place.verb.option(name), place.verb.option(current[:2])
            if equals and option is not None:
                place.kind, place.lead, place.text = option.kind, f"{name}=", value
            elif short is not None and short.n_values and len(current) > 2:
                place.kind, place.lead, place.text = short.kind, current[:2], current[2:]
            else:
                place.kind, place.text = OPTIONS, current
        elif place.verb.name:
            place.kind, place.text = place.verb.argument(len(place.arguments), place.given) or OPTIONS, current
            place.arguments.append(current)  # those behind it are counted from it
        else:  # behind a word that is no verb, nothing is known
            place.kind, place.text = "none" if place.arguments else VERBS, current


def place_of(line: Line, table: Table) -> Place:
    """What the completed word of a line is."""
    reader = _Reader(table, Place(table.verbs[""], quote=line.quote))
    reader.read(line.before)
    reader.complete(line.current)
    reader.read(line.after)
    return reader.place
