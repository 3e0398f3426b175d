"""The manual pages: of the program and of each command from click's own help, of ftpatch.toml from its reader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from ftpatch import __version__
from ftpatch.cli import group
from tools import registers
from tools.manpages import roff
from tools.manpages.config import config_page
from tools.manpages.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging/share/man"
WRITES = (
    "enable",
    "disable",
    "drop",
    "redirect",
    "record",
)  # commands beside which one reads those that undo and prove
ONE = {"check": "findings", "verify": "findings", "diff": "findings", "doctor": "a missing part of --require"}
SEE_ALSO = {
    "": ["ftpatch.toml"], "kbuild": ["check", "ftpatch.toml"],
    "scan": ["explain", "check"], "check": ["ftpatch.toml", "diff"], "diff": ["check"],
    "explain": ["scan"], "verify": ["restore"], "restore": ["verify"], "image": ["enable", "symbols"],
    "symbols": ["static-calls"], "static-calls": ["redirect", "verify"],
    **{name: ["verify", "restore"] for name in WRITES},
}  # fmt: skip


def pages() -> dict[str, str]:
    """Every page by its path."""
    context = click.Context(group, info_name="ftpatch", **group.context_settings)
    made = {"man1/ftpatch.1": _program(context), "man5/ftpatch.toml.5": config_page(_head("ftpatch.toml", 5))}
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        assert verb is not None
        made[f"man1/ftpatch-{name}.1"] = _verb(name, verb, click.Context(verb, context, name))
    return made


def _head(name: str, number: int) -> str:
    """The first lines of a page. The day is that of the newest entry of the changelog."""
    day = re.search(r"^## \[[\d.]+\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert day
    title = {1: "User Commands", 5: "File Formats"}[number]
    source = f'"{day[1]}" "ftpatch {__version__}" "{title}"'
    made = '.\\" Made by `python -m tools.manpages`; do not edit.'
    # Words are not divided, and lines not stretched: names of options and variables stay whole.
    return f"{made}\n.TH {roff.escaped(name.upper())} {number} {source}\n.nh\n.ad l\n"


def _program(context: click.Context) -> str:
    """ftpatch(1)."""
    text = group.help or ""
    parts = [
        _head("ftpatch", 1), _name("ftpatch", registers.SUMMARIES[""]), roff.section("SYNOPSIS"),
        rf"{roff.bold('ftpatch')} \fICOMMAND\fP [\fIOPTION\fP]... [\fIFILE\fP]..." + "\n",
        roff.section("DESCRIPTION"), roff.paragraphs(f"{text}\n\n{PROMISE}"),
        roff.section("COMMANDS"),
    ]  # fmt: skip
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        assert verb is not None
        parts.append(roff.entry(f"{roff.bold(f'ftpatch-{name}')}(1)", f"{_summary(name, verb.help or '')}."))
    parts += [roff.section("OPTIONS"), *_options(group, context),
              *_table("SELECTORS", registers.SELECTORS, SELECTORS_TEXT),
              *_table("EXIT STATUS", registers.EXIT_CODES), *_table("ENVIRONMENT", registers.ENVIRONMENT),
              *_table("FILES", registers.FILES), *_examples(""), *_see_also("")]  # fmt: skip
    return "".join(parts)


PROMISE = """A verb that writes makes a new file and proves it before it appears; FILE stays as it is unless --in-place
is given. stdout is the report, and everything else goes to stderr."""
SELECTORS_TEXT = "What --func takes; it may be repeated, and its selectors are joined. --status and --section narrow."


def _verb(name: str, verb: click.Command, context: click.Context) -> str:
    """The page of a command."""
    title, text = f"ftpatch-{name}", verb.help or ""
    arguments = [roff.marked(_argument(parameter)) for parameter in verb.params
                 if isinstance(parameter, click.Argument)]  # fmt: skip
    synopsis = " ".join([rf"{roff.bold(f'ftpatch {name}')} [\fIOPTION\fP]...", *(text for text in arguments if text)])
    takes_selectors = any("--func" in parameter.opts for parameter in verb.params)
    selectors = ["Selectors of --func are described in ftpatch(1).\n"] if takes_selectors else []
    return "".join([
        _head(title, 1), _name(title, _summary(name, text)), roff.section("SYNOPSIS"), f"{synopsis}\n",
        roff.section("DESCRIPTION"), roff.paragraphs(text), *(f".PP\n{roff.paragraphs(line)}" for line in selectors),
        roff.section("OPTIONS"), *_options(verb, context), roff.section("EXIT STATUS"), roff.paragraphs(_codes(name)),
        *_examples(name), *_see_also(name),
    ])  # fmt: skip


def _codes(name: str) -> str:
    """The exit status of a command, in a sentence."""
    one = f"1 for {ONE[name]}, " if name in ONE else ""
    return f"0 where all is well, {one}and else as in ftpatch(1)."


def _name(title: str, text: str) -> str:
    """The section that whatis(1) reads."""
    return rf"{roff.section('NAME')}{roff.escaped(title)} \- {roff.escaped(text[:1].lower() + text[1:])}" + "\n"


def _summary(name: str, text: str) -> str:
    """What a command is for, in a line: its own, or what its help says first."""
    line = registers.SUMMARIES.get(name) or re.split(r"[.:;] ", " ".join(text.split()) + " ")[0].strip()
    return line[:1].upper() + line[1:]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """The options in the order of --help."""
    for option in command.get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            names = ", ".join(roff.bold(name) for name in sorted(option.opts, key=len))
            value = _value(option)
            default = f" The default is {option.default}." if option.show_default and option.default else ""
            tag = f"{names} {value}" if value else names
            yield roff.entry(tag, (option.help or "") + default)


def _argument(argument: click.Argument) -> str:
    """An argument as --help shows it."""
    if argument.metavar is not None:
        return argument.metavar
    name = (argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _value(option: click.Option) -> str:
    """The value that an option takes, as roff."""
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return " | ".join(roff.bold(str(choice)) for choice in option.type.choices)
    text = option.metavar or "VALUE"
    if text.startswith("["):
        return " | ".join(roff.bold(word) for word in text.strip("[]").split("|"))
    return roff.marked(text)


def _table(title: str, rows: Sequence[tuple[str, str]], text: str = "") -> Iterator[str]:
    """A section that is a register."""
    yield roff.section(title)
    if text:
        yield roff.paragraphs(text)
    for name, meaning in rows:
        yield roff.entry(roff.bold(name), meaning)


def _examples(name: str) -> Iterator[str]:
    if name in EXAMPLES:
        yield roff.section("EXAMPLES")
        for number, example in enumerate(EXAMPLES[name]):
            yield (".PP\n" if number else "") + roff.paragraphs(example.why) + roff.commands(example.line.split("\n"))


def _see_also(name: str) -> Iterator[str]:
    """The last section: other pages, those of the program and of what is related."""
    others: Iterable[str] = SEE_ALSO.get(name, [])
    named = [("ftpatch.toml", 5) if other == "ftpatch.toml" else (f"ftpatch-{other}", 1) for other in others]
    rows = sorted([*([("ftpatch", 1)] if name else []), *named])
    yield roff.section("SEE ALSO")
    yield ",\n".join(f"{roff.bold(page)}({number})" for page, number in rows) + "\n"
