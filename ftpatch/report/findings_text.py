"""What `check` found, for people: by rule, the first few of each, then what to do about it; and the sums of a tree."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ftpatch.errors import printable

N_SHOWN, N_MODULES = 3, 10
WIDTH = 110
COLORS = {"error": "\x1b[31m", "warning": "\x1b[33m", "note": "\x1b[36m"}
ORDER = ("error", "warning", "note")


def text(image: dict[str, Any], colored: bool) -> Iterator[str]:
    """The lines of one file, but for its head."""
    findings = image["findings"]
    yield _line("result", _sum(findings) + _known(image["gate"]))
    for rule, severity, mine in _by_rule(findings):
        yield f"  {_tag(severity, colored)} {rule}: {_n(sum(one['count'] for one in mine))}\n"
        yield from (f"      {_place(one)}{one['message']}\n" for one in mine[:N_SHOWN])
        if len(mine) > N_SHOWN:
            yield f"      … and {len(mine) - N_SHOWN} more\n"
        yield textwrap.fill(mine[0]["help"], WIDTH, initial_indent="      ─ ", subsequent_indent="        ") + "\n"


def tree_text(
    tree: str, images: Sequence[dict[str, Any]], errors: Sequence[dict[str, Any]], style: tuple[str, str], colored: bool
) -> Iterator[str]:
    """The modules of one tree: their sum, and by rule in which of them."""
    findings = [{**one, "file": image["file"]} for image in images for one in image["findings"]]
    gates = {key: sum(image["gate"][key] for image in images) for key in ("known", "ignored")}
    yield f"{style[0]}{printable(tree)}{style[1]}: {len(images) + len(errors)} modules\n"
    yield _line("result", _sum(findings) + _known(gates))
    for rule, severity, mine in _by_rule(findings):
        files = list(dict.fromkeys(one["file"] for one in mine))
        yield f"  {_tag(severity, colored)} {rule}: {_n(sum(one['count'] for one in mine))} in {len(files)} modules\n"
        for file in files[:N_MODULES]:
            here = [one for one in mine if one["file"] == file]
            more = f" (and {len(here) - 1} more)" if len(here) > 1 else ""
            name = file.removeprefix(os.path.join(tree, "")) or file
            yield f"      {printable(name)}: {_place(here[0])}{here[0]['message']}{more}\n"
        if len(files) > N_MODULES:
            yield f"      … and {len(files) - N_MODULES} more modules\n"
        yield textwrap.fill(mine[0]["help"], WIDTH, initial_indent="      ─ ", subsequent_indent="        ") + "\n"
    for error in errors:
        yield _line("bad file", str(error["message"]))


def _by_rule(findings: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(rule, severity, its findings), the severest first, else in the order of the register."""
    rules = dict.fromkeys((one["severity"], one["rule"]) for one in findings)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in rules}
    for one in findings:
        groups[one["severity"], one["rule"]].append(one)
    for severity, rule in sorted(rules, key=lambda key: ORDER.index(key[0])):
        yield rule, severity, groups[severity, rule]


def _place(one: dict[str, Any]) -> str:
    """Function, place and line of a finding, as far as there are."""
    where = f"{one['section']}+{one['offset']}" if one["section"] and one["offset"] else one["section"]
    parts = [part for part in (one["function"], where, one["source"]) if part]
    return printable(", ".join(parts)) + ": " if parts else ""


def _sum(findings: Sequence[dict[str, Any]]) -> str:
    count = Counter[str]()
    for one in findings:
        count[one["severity"]] += one["count"]
    return ", ".join(f"{n} {name}{'s' * (n != 1)}" for name in ORDER if (n := count[name])) or "nothing found"


def _known(gate: dict[str, int]) -> str:
    parts = [f"{gate['known']} known"] * bool(gate["known"]) + [f"{gate['ignored']} ignored"] * bool(gate["ignored"])
    return f" ({', '.join(parts)})" if parts else ""


def _n(count: int) -> str:
    return f"{count} finding{'s' * (count != 1)}"


def _tag(severity: str, colored: bool) -> str:
    return f"{COLORS[severity]}{severity}\x1b[0m" if colored else severity


def _line(key: str, what: str) -> str:
    return f"  {key:<10} {what}\n"
