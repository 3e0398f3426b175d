"""The reference: its pages are what the program makes, and leave nothing out."""

from __future__ import annotations

import click
import pytest

from ftpatch.document import schema
from ftpatch.report import FORMATS
from ftpatch.rules.register import rules_for
from ftpatch.sites.table import STATUSES
from tools import registers
from tools.reference.__main__ import FOLDER, pages
from tools.reference.commands import commands
from tools.reference.data import meaning
from tools.reference.meanings import MEANINGS
from tools.reference.rules import EXAMPLES, examples

PAGES = pages()
RULES = [rule for verb in ("check", "diff", "verify") for rule in rules_for(verb)]


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_made_from_the_program(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name], "python -m tools.reference writes it anew"


def test_every_command_and_option_has_help_and_is_on_the_page() -> None:
    for name, command in commands():
        assert command.help, name
        section = PAGES["commands.md"].split(f"\n## {name or 'ftpatch'}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{name} {parameter.opts[0]} has no help"
                assert all(f"`{option}`" in section for option in parameter.opts), f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_has_all_that_the_page_shows(rule: object) -> None:
    for field in ("severity", "title", "why", "cause", "todo", "source"):
        assert getattr(rule, field), f"register.toml: no {field}"


def test_every_rule_has_an_example() -> None:
    assert set(examples()) == {rule.id for rule in RULES}


@pytest.mark.corpus
def test_examples_are_what_is_printed(programs: None, capsys: pytest.CaptureFixture[str]) -> None:
    from rule_examples import examples as made
    from rule_examples import text

    assert text(made()) == EXAMPLES.read_text("utf-8"), "PYTHONPATH=. python tests/rule_examples.py writes it anew"


def test_every_field_has_a_meaning_and_every_meaning_a_field() -> None:
    whole = schema.schema()
    fields = [(name, field, value) for name, made in (("Report", whole), *whole["$defs"].items())
              for field, value in made["properties"].items()]  # fmt: skip
    assert [f"{name}.{field}" for name, field, value in fields if not meaning(name, field, value)] == []
    known = {field for _, field, _ in fields} | {f"{name}.{field}" for name, field, _ in fields}
    known |= {f"VerbObject.{field}" for _, field, _ in fields}
    assert set(MEANINGS) <= known


def test_the_registers_name_what_there_is() -> None:
    assert [name for name, _ in registers.STATUSES] == list(STATUSES)
    assert [name for name, _ in registers.FORMATS] == list(FORMATS)
