"""Usage errors in the form of all refusals: one line, with the name that was meant where it was mistyped.

click has its own form, of four lines. What it says of commands, options and choices is said here with near names;
everything else keeps its words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ftpatch.errors import UsageError
from ftpatch.near_names import did_you_mean

if TYPE_CHECKING:
    AnyChoice = click.Choice[str]
else:
    AnyChoice = click.Choice  # which has no parameter in older versions

# What other programs call it.
SYNONYMS = {
    "help": "--help", "version": "--version", "list": "scan", "ls": "scan", "show": "scan", "info": "scan",
    "patch": "enable", "undo": "restore", "revert": "restore", "lint": "check", "compare": "diff", "nm": "symbols",
    "remove": "drop", "completions": "completion",
}  # fmt: skip


class Choice(AnyChoice):
    """One of some values, the same letter for letter; what is none of them is refused with the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise no_such_value(max(param.opts, key=len) if param else "", str(value), self.choices) from None


def no_such_value(option: str, value: str, choices: Iterable[str]) -> UsageError:
    """The refusal of a value that is none of the choices."""
    names = list(choices)
    return UsageError(
        "no such value", option, found=value or "nothing", expected=", ".join(names), todo=did_you_mean(value, names)
    )


def no_such_command(name: str, commands: Iterable[str]) -> UsageError:
    """The refusal of a command that is none; a file in its place is one that a command was forgotten for."""
    names = list(commands)
    other = SYNONYMS.get(name.lower(), "")
    if other in names or other.startswith("-"):
        todo = f"did you mean ftpatch {other}?"
    elif os.path.isfile(name):
        todo = "that is a file: a command comes first, as in ftpatch scan FILE"
    else:
        todo = did_you_mean(name, names, "ftpatch --help lists all")
    return UsageError("no such command", name, todo=todo)


def refusal(error: click.ClickException) -> UsageError:
    """What click has to say, as one of our own refusals."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "ftpatch"
    where = command.partition(" ")[2]
    shows = f"{command} --help shows all"
    if isinstance(error, click.NoSuchOption):
        names = _options(context) if context else []
        near = did_you_mean(error.option_name, names, shows)
        return UsageError("no such option", where, found=error.option_name, todo=near)
    text = error.format_message().removesuffix(".")
    if "unexpected extra argument" in text and context and "--func" in _options(context):
        shows = f"functions are given by --func; {shows}"
    return UsageError(text[:1].lower() + text[1:], where, todo=shows)


def _options(context: click.Context) -> list[str]:
    """The names of the options that a command shows."""
    return [
        name
        for param in context.command.get_params(context)
        if isinstance(param, click.Option) and not param.hidden
        for name in param.opts
    ]
