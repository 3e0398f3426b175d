"""`python -m tools.command_table`: the table that completion reads, made from the commands themselves.

A press of TAB has no time to load the verbs, which import numpy. So what they take stands in a file of the package: one
line per verb, option, argument and value, with tabs between the columns. `ftpatch/completion/table.py` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ftpatch.arch import architectures
from ftpatch.arch.kernel_trees import TREE_NAMES
from ftpatch.cli import group
from ftpatch.cli.parts import parts
from ftpatch.completion.table import KINDS, PATH
from ftpatch.report import format_names
from ftpatch.rules.register import rules_for
from ftpatch.sites.table import STATUSES
from tools import registers

# What completes the value of an option or argument: of this verb, or of any. Choices and folders are known to click.
KIND_OF = {
    ("disable", "--func"): "enabled", ("record", "--func"): "functions", ("record", "--from"): "elf",
    ("symbols", "--name"): "symbols", ("verify", "--with"): "object", ("redirect", "--with"): "object",
    ("scan", "files"): "elf-or-folder", ("check", "files"): "elf-or-folder", ("diff", "old"): "elf-or-folder",
    ("diff", "new"): "elf-or-folder", ("doctor", "--require"): "parts", ("kbuild", "--arch"): "machines",
}  # fmt: skip
KIND_OF_ANY = {
    "--func": "sites", "--all-but": "sites", "--status": "statuses", "--section": "sections", "--layout": "layouts",
    "--report": "reports", "--format": "formats", "--select": "rules", "--ignore": "rules", "--against": "elf",
    "--target": "targets", "--hook": "targets", "--to": "targets", "--map": "pairs", "--key": "keys",
    "--set": "settings", "--output": "file", "--sign": "file", "--stub-asm": "file", "--kconfig": "file",
    "--splat": "file", "--config": "toml", "--baseline": "file", "--write-baseline": "file", "--journal": "json",
    "--modules": "folder", "--max-size": "none", "--jobs": "none", "--line-size": "none", "--keep-original": "none",
    "--severity": "rules", "--ops": "ops", "file": "elf", "before": "elf", "after": "elf", "vmlinux": "elf",
}  # fmt: skip
# Parameters of click's that stand for several, some only without an option, or for what nobody types.
KIND_OF_VALUE = {"FILE": "file", "DIR": "folder", "N": "none", "BYTES": "none"}  # by what help calls it
ARGUMENTS = {("explain", "arguments"): (("functions", "--splat"), ("elf", "")), ("completion", "words"): ()}
HEAD = "# What completion knows of the command line. Made by `python -m tools.command_table`; do not edit.\n"


def kind_of(verb: str, parameter: click.Parameter) -> str:
    """What completes a parameter: a kind of ftpatch.completion.table, or `=` and the values that it takes."""
    name = max(parameter.opts, key=len)
    if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
        return "flag"
    if isinstance(parameter.type, click.Choice):
        return "=" + "|".join(str(choice) for choice in parameter.type.choices)
    if isinstance(parameter.type, click.Path):
        return "file" if parameter.type.file_okay else "folder"
    kind = KIND_OF.get((verb, name)) or KIND_OF_ANY.get(name) or KIND_OF_VALUE.get(parameter.metavar or "")
    if kind not in KINDS:
        raise SystemExit(f"tools/command_table.py: {verb} {name}: say in KIND_OF what completes its value")
    return kind


def rows() -> Iterator[tuple[str, ...]]:
    """The lines of the table."""
    context = click.Context(group, info_name="ftpatch", help_option_names=["-h", "--help"])
    yield from _parameters("", group, context)
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        assert verb is not None
        yield "verb", name, registers.SUMMARIES.get(name) or verb.get_short_help_str(80)
        yield from _parameters(name, verb, click.Context(verb, context, name))
    for status in STATUSES:
        yield "value", "statuses", status, ""
    for layout in sorted({shape.name for machine in architectures() for shape in (*machine.shapes, *machine.fronts)}):
        yield "value", "layouts", layout, ""
    for format_ in format_names():
        yield "value", "formats", format_, ""
    for rule in rules_for():
        yield "value", "rules", rule.id, rule.title
    for machine in TREE_NAMES:
        yield "value", "machines", machine.arch, f"arch/{machine.folder}"
    for part in parts(False):
        yield "value", "parts", part["name"], part["adds"]
    yield "value", "ops", "list", "tracers see the site, and their filters hold"
    yield "value", "ops", "nop", "the site runs unseen"


def _parameters(verb: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, ...]]:
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            if not parameter.hidden:
                repeatable = "repeatable" if parameter.multiple else ""
                names = ",".join(sorted(parameter.opts, key=len))
                kind = kind_of(verb, parameter)
                n = "0" if kind == "flag" else str(parameter.nargs)
                yield "option", verb, names, kind, n, repeatable, parameter.help or ""
        else:
            several = ARGUMENTS.get((verb, parameter.name or ""))
            repeatable = "repeatable" if parameter.nargs < 0 and several is None else ""
            for kind, unless in ((kind_of(verb, parameter), ""),) if several is None else several:
                yield "argument", verb, kind, repeatable, "required" if parameter.required else "", unless


def text() -> str:
    """The file."""
    return HEAD + "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows())


if __name__ == "__main__":
    Path(PATH).write_text(text(), "utf-8")
