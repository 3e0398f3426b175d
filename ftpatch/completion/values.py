"""The values that may stand in a place of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ftpatch.completion.names import beginning, names_of, stems
from ftpatch.completion.paths import files_of_kind, regular_file
from ftpatch.completion.place import OPTIONS, VERBS, Place
from ftpatch.completion.table import PATH_KINDS, Table

DEFAULT = "vmlinux"  # the file of the verbs that are given none
OF_FILES = ("elf", "elf-or-folder")  # kinds of arguments that name the file of a verb
PATTERN = ("*", "?", "[")  # what a name never holds, and a glob does


class Value(NamedTuple):
    """One candidate."""

    text: str
    help: str = ""
    goes_on: bool = False  # whether more follows in the same word


@dataclass
class Answer:
    """Everything that may stand in the place of the completed word."""

    lead: str = ""  # what every value has in front: the part of the word that stays
    values: list[Value] = field(default_factory=list)
    paths: bool = False  # whether the values are files


def answer_for(place: Place, table: Table) -> Answer:
    """What the completed word of a command line may be."""
    kind, text = place.kind, place.text
    answer = Answer(place.lead)
    if kind == VERBS:
        answer.values = [
            Value(verb.name, verb.help) for verb in table.verbs.values() if verb.name.startswith(text) and verb.name
        ]
    elif kind == OPTIONS:
        answer.values = _options(place)
    elif kind.startswith("="):
        answer.values = [Value(value) for value in kind[1:].split("|") if value.startswith(text)]
    elif kind in PATH_KINDS:
        _paths(answer, place, text, kind)
    elif kind in SPECIAL:
        SPECIAL[kind](answer, place, table)
    elif kind in table.values:
        _listed(answer, table, kind, text)
    elif kind != "none":
        _selectors(answer, place, kind, text)
    return answer


def _options(place: Place) -> list[Value]:
    """The options of the verb that are not there yet, or may be repeated."""
    return [
        Value(name, option.help)
        for option in place.verb.options
        if option.repeatable or not place.given.intersection(option.names)
        for name in option.names
        if name.startswith(place.text)
    ]


def _listed(answer: Answer, table: Table, kind: str, text: str, goes_on: str = "") -> None:
    """The values of a list."""
    answer.values += [
        Value(value + goes_on, help_, bool(goes_on))
        for value, help_ in table.values.get(kind, ())
        if value.startswith(text)
    ]


def _paths(answer: Answer, place: Place, text: str, kind: str) -> None:
    """Files."""
    answer.paths = True
    answer.values = [Value(path, goes_on=is_folder) for path, is_folder in files_of_kind(text, kind, place.quote)]


def _rules(answer: Answer, place: Place, table: Table) -> None:
    """Rules, between commas; none twice."""
    head, comma, text = place.text.rpartition(",")
    answer.lead += head + comma
    _listed(answer, table, "rules", text)
    answer.values = [value for value in answer.values if value.text not in head.split(",")]


def _reports(answer: Answer, place: Place, table: Table) -> None:
    """FORMAT=FILE."""
    format_, equals, path = place.text.partition("=")
    if equals:
        answer.lead += format_ + equals
        _paths(answer, place, path, "file")
    else:
        _listed(answer, table, "formats", format_, "=")


def _pairs(answer: Answer, place: Place, table: Table) -> None:
    """FOO=BAR or @FILE."""
    _pair(answer, place, "sites", ())


def _settings(answer: Answer, place: Place, table: Table) -> None:
    """KEY=FUNC."""
    _pair(answer, place, "keys", ("NULL", "return0"))


def _pair(answer: Answer, place: Place, kind: str, others: Iterable[str]) -> None:
    """A name, and what it becomes: a function, or one of `others`."""
    name, equals, text = place.text.partition("=")
    if equals:
        answer.lead += name + equals
        answer.values = [Value(other) for other in others if other.startswith(text)]
        _named(answer, _files(place, "targets"), "functions", text)
    elif name.startswith("@") and kind == "sites":
        answer.lead += "@"
        _paths(answer, place, name[1:], "file")
    else:
        _named(answer, _files(place, kind), kind, name)
        answer.values = [
            Value(value.text if value.goes_on else f"{value.text}=", goes_on=True) for value in answer.values
        ]


def _targets(answer: Answer, place: Place, table: Table) -> None:
    """A function that is called or jumped to, of the file itself or of one that is linked into it or loads it."""
    _named(answer, _files(place, "targets"), "functions", place.text)


def _selectors(answer: Answer, place: Place, kind: str, text: str) -> None:
    """SEL: names, and what else chooses some of them."""
    files = _files(place, kind)
    if text.startswith("!"):
        answer.lead += "!"
        text = text[1:]
    if text.startswith("@"):
        answer.lead += "@"
        _paths(answer, place, text[1:], "file")
    elif "@" in text and kind in ("sites", "enabled"):
        _named(answer, files, "sources", text)
    elif text.startswith("/") or any(char in text for char in PATTERN):
        return
    else:
        _named(answer, files, kind, text)
        if text.startswith(".") and kind in ("sites", "enabled"):
            places = [name for file in files for name in beginning(names_of(file, "sections"), text)]
            answer.values += [Value(f"{name}+0x", goes_on=True) for name in places]


def _named(answer: Answer, files: Iterable[str], kind: str, text: str) -> None:
    """The names of one kind in some files."""
    lists = [beginning(names_of(file, kind), text) for file in dict.fromkeys(files)]
    names = lists[0] if len(lists) == 1 else sorted({name for some in lists for name in some})
    answer.values += [Value(name, goes_on=goes_on) for name, goes_on in stems(names, text)]


def _files(place: Place, kind: str) -> list[str]:
    """The regular files on the line, or the default one, whose names may stand there."""
    kinds = (place.verb.argument(index, place.given) for index in range(len(place.arguments)))
    arguments = [word for word, kind in zip(place.arguments, kinds, strict=True) if kind in OF_FILES]
    words = arguments or [DEFAULT] * any(row.kind in OF_FILES and not row.required for row in place.verb.arguments)
    if kind == "targets":
        words += place.of_option("--with", "--against")
    return [path for word in words if (path := regular_file(word)) is not None]


SPECIAL: Mapping[str, Callable[[Answer, Place, Table], None]] = {
    "rules": _rules, "reports": _reports, "pairs": _pairs, "settings": _settings, "targets": _targets,
}  # fmt: skip
