"""The page of the commands: what each takes, from click itself, and the tables of the interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from ftpatch.cli import SETUP, group
from tools import registers
from tools.manpages.examples import EXAMPLES
from tools.reference.markdown import code, generated, sentence, table


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its name; ftpatch itself has none."""
    context = click.Context(group, info_name="ftpatch", **group.context_settings)
    yield "", group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, command


def page() -> str:
    """docs/reference/commands.md."""
    names = [name for name, _ in commands() if name]
    rows = [(f"[`{name}`](#{name})", sentence(registers.SUMMARIES[name])) for name in names if name not in SETUP]
    more = [(f"[`{name}`](#{name})", sentence(registers.SUMMARIES[name])) for name in names if name in SETUP]
    head = (
        "What `ftpatch COMMAND --help` says, and examples, which the tests of the manual pages run. FILE is a "
        "vmlinux, "
        "module, object, program or what boots; where none is named, `vmlinux` in the current directory.\n\n"
        f"{table(('command', 'for'), rows)}\nThese patch and judge no kernel:\n\n{table(('command', 'for'), more)}\n"
    )
    return generated("Commands", head + "\n".join(_command(name, command) for name, command in commands()))


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"ftpatch {name}".strip(), help_option_names=["-h", "--help"])
    pieces = " ".join(command.collect_usage_pieces(context))
    options = [parameter for parameter in command.get_params(context)
               if isinstance(parameter, click.Option) and not parameter.hidden]  # fmt: skip
    parts = [f"## {name or 'ftpatch'}\n", f"```text\nUsage: {context.command_path} {pieces}\n```\n"]
    parts += [f"{sentence(part)}\n" for part in (command.help or "").replace("\b", "").split("\n\n")]
    parts.append(table(("option", "value", "meaning", "default"), [_option(option) for option in options]))
    for example in EXAMPLES.get(name, ()):
        parts.append(f"{sentence(example.why)}\n\n```sh\n{example.line}\n```\n")
    return "\n".join(parts)


def _option(option: click.Option) -> Sequence[str]:
    """A row. Only a default that --help names is a promise."""
    names = ", ".join(code(name) for name in sorted(option.opts, key=len))
    shown = option.show_default and option.default not in (None, "", ())
    return names, _value(option), sentence(option.help or ""), code(str(option.default)) if shown else ""


def _value(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return ", ".join(code(str(choice)) for choice in option.type.choices)
    text = option.metavar or option.type.name.upper()
    choices = text.strip("[]").split("|") if text.startswith("[") else [text]
    return ", ".join(code(choice) for choice in choices)


def tables() -> str:
    """docs/reference/interface.md: selectors, exit codes, variables and files."""
    parts = [
        "What every command has in common.\n",
        "## Exit codes\n\nOf several files, the greatest. A refusal is one line on stderr: what, where, found, "
        "expected, "
        "what to do.\n",
        _register(("code", "meaning"), registers.EXIT_CODES),
        "## Selectors\n\nWhat `--func` takes. It is repeatable, and all of them are joined; `--status` and "
        "`--section` narrow.\n",
        _register(("selector", "chooses"), registers.SELECTORS),
        "## Environment\n", _register(("variable", "meaning"), registers.ENVIRONMENT),
        "## Files\n", _register(("file", "meaning"), registers.FILES),
        "## Statuses\n\nWhat a site is: `status` in JSON and CSV, and the value of `--status`.\n",
        _register(("status", "meaning"), registers.STATUSES),
        "## Ways of records\n\nHow the record of a patched site leaves the kernel's table (`--records`).\n",
        _register(("way", "what happens"), registers.RECORD_WAYS),
        "## Report formats\n\n`--format` to stdout, `--report FORMAT=FILE` beside it, repeatable. All of them "
        "have names "
        "of files and functions made harmless.\n",
        _register(("format", "what it has"), registers.FORMATS),
    ]  # fmt: skip
    return generated("Interface", "\n".join(parts))


def _register(head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    return table(head, [(code(name), sentence(meaning)) for name, meaning in rows])
