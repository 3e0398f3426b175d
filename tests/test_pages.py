"""Every command that README.md and docs/ show is run, and prints what they show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from pages import PAGES, ROOT, TESTED, Block, Section, lay_out, run_section, sections, what_is_tested

from ftpatch.cli import group
from tools import kernels

SECTIONS = [section for page in PAGES for section in sections(page)]
FILES = {"make", "yaml", "spec"}  # what tests of their own run: test_pipelines.py
RUN_ELSEWHERE = ("docs/reference/commands.md",)  # the examples of the manual pages: test_man.py
OPTION = re.compile(r"--[a-z][a-z0-9-]+")


@pytest.mark.parametrize("section", [one for one in SECTIONS if one.run and not one.kernel], ids=lambda one: one.name)
def test_commands_print_what_the_page_shows(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lay_out(section, tmp_path)
    run_section(section, tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("section", [one for one in SECTIONS if one.run and one.kernel], ids=lambda one: one.name)
def test_commands_on_a_debian_kernel_print_what_the_page_shows(
    section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[[str], kernels.Kernel]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lay_out(section, tmp_path)
    run_section(section, tmp_path)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda one: one.name)
def test_every_command_is_in_a_block_that_is_run(section: Section) -> None:
    for block in section.blocks:
        where = f"{section.page}:{block.line}"
        if block.language == "console":
            assert block.steps, f"{where}: no line begins with `$ `"
            assert block.not_run or section.files or section.prepare, f"{where}: no `<!-- run: … -->` in front of it"
        elif block.language not in FILES and section.page not in RUN_ELSEWHERE:
            stray = re.search(r"^(\$ |ftpatch ).*", block.text, re.MULTILINE)
            assert not stray, f"{where}: {stray and stray[0]!r} is not run: the block is no ```console"
            assert block.language, f"{where}: a block without a language"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_verb_and_option_is_one(page: Path) -> None:
    """In blocks that are not run and in `code` too: a verb, and options that it has."""
    text = page.read_text()
    blocks = [block for section in sections(page) for block in section.blocks]
    shown = [line for block in blocks for line in _command_lines(block)]
    shown += [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(("ftpatch ", "--"))]
    wrong = [line for line in shown if not _exists(line)]
    assert not wrong, f"{page.name}: no such verb or option: {wrong}"


def _command_lines(block: Block) -> list[str]:
    commands = [step.command for step in block.steps] if block.language == "console" else block.text.split("\n")
    return [
        command[command.index("ftpatch ") :] for command in commands if re.match(r"(\.venv/bin/)?ftpatch ", command)
    ]


def _exists(line: str) -> bool:
    """Whether all of a line's options are those of its verb; of any verb where it names none."""
    verbs = _options()
    line = re.split(r" [|&;#]|  #", line)[0]
    words = line.replace("`", "").split()
    if words[0] == "ftpatch" and len(words) > 1 and not words[1].startswith("-"):
        names = words[1].split("|") if words[1] not in ("VERB", "COMMAND") else list(verbs)
        return all(name in verbs and set(OPTION.findall(line)) <= verbs[name] for name in names)
    return set(OPTION.findall(line)) <= set[str]().union(*verbs.values())


def _options() -> dict[str, set[str]]:
    """Verb → its options. The empty name has those of ftpatch itself."""
    context = click.Context(group)
    found = {"": {"--help", "--version", *(name for option in group.params for name in option.opts)}}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        options = [option for option in command.params if isinstance(option, click.Option)]
        found[name] = {"--help", *(text for option in options for text in (*option.opts, *option.secondary_opts))}
    return found


def test_what_is_not_run_and_what_is_outside_is_listed() -> None:
    assert TESTED.read_text() == what_is_tested(), "python tests/pages.py writes it anew"
