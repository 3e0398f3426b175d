"""The page of the rules: each with its meaning, cause, remedy, source and what it looks like when it is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ftpatch.rules import Rule
from ftpatch.rules.register import rules_for
from tools.reference.markdown import generated, sentence

EXAMPLES = Path(__file__).with_name("examples.json")
VERBS = {
    "check": "`ftpatch check` asks these of one file, or of a module and the kernel that will load it.",
    "diff": "`ftpatch diff` says these of two builds or two trees of modules, the worst first.",
    "verify": "`ftpatch verify` says these of a file and a patched copy of it.",
}


class Example(NamedTuple):
    """A finding: in what it was made, and the line that is printed."""

    of: str
    line: str


def examples() -> dict[str, Example]:
    """Rule → its example, as tests/rule_examples.py made them."""
    return {rule: Example(*row) for rule, row in json.loads(EXAMPLES.read_text("utf-8")).items()}


def page() -> str:
    """docs/reference/rules.md."""
    return generated("Rules", "\n".join(_lines()))


def _lines() -> Iterator[str]:
    known = examples()
    yield (
        "A rule is the name of something that may be wrong, or is worth knowing. Findings carry it in every "
        "format (`rule` in JSON and CSV, the "
        "rule id in SARIF), and `ftpatch check --select` and `--ignore`, baselines and `ftpatch.toml` go by it. "
        "An **error** breaks tracing, the "
        "kernel or the load; a **warning** loses sites or is one step from it; a **note** is worth knowing.\n\n"
        "The line behind *printed* is what the program says of a file in which the defect was planted; the "
        "tests plant it again and compare.\n"
    )
    for verb, text in VERBS.items():
        yield f"## {verb}\n\n{text}\n"
        yield "| rule | severity | what it says |\n|---|---|---|"
        yield from (f"| [{rule.id}](#{rule.id}) | {rule.severity} | {rule.title} |" for rule in rules_for(verb))
        yield ""
        for rule in rules_for(verb):
            yield from _rule(rule, known.get(rule.id))


def _rule(rule: Rule, example: Example | None) -> Iterator[str]:
    yield f"### {rule.id}\n"
    kinds = f" · in: {', '.join(rule.kinds)}" if rule.verb == "check" else ""
    yield f"**{rule.severity}** · {sentence(rule.title)}{kinds}\n"
    for name, text in (("why", rule.why), ("cause", rule.cause), ("remedy", rule.todo), ("source", rule.source)):
        yield f"* *{name}*: {sentence(text)}"
    if example:
        yield f"* *printed* for {example.of}:\n\n    ```text\n    {example.line}\n    ```\n"
    else:
        yield ""
