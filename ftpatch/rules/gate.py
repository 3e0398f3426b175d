"""Which findings count: the rules that are asked, the severities they have here, what is ignored and what was known.

    ftpatch.toml                        all of it optional
    must-be-traceable = ["vfs_read"]    functions of a vmlinux that need a live record
    [check]
    fail-on = "error"                   error, warning or note
    select = ["dead-weak"]              only these rules;   ignore = [...]   not these
    [rules.dead-weak]
    severity = "note"
    [[ignore]]
    rule = "dead-weak"
    function = "arch_*"                 globs; object likewise; at least one of the two
    reason = "upstream knows"           why: required

A baseline holds what was known when it was written, keyed so that a rebuild does not renew it: rule, object and
function, or the symbol in front of a nameless site, and which of several of the same name it is. Never an address.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from ftpatch.document import json_input
from ftpatch.errors import UsageError
from ftpatch.finding import SEVERITIES, Finding
from ftpatch.inputs import beyond_limit, read_file
from ftpatch.near_names import did_you_mean

PACKED = (".xz", ".gz", ".zst")
MAX_GLOBS = 1000  # ignores with a glob: each is held against each finding
MAX_BASELINE = 128 << 20  # bytes; a finding has about a hundred
KEY = ("rule", "object", "function", "after", "ordinal")
Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Ignore:
    """Findings that somebody has looked at."""

    rule: str
    reason: str  # why they are no defects here
    function: str | None = None  # a glob; None: any
    object: str | None = None  # a glob over the files' names in a baseline; None: any

    @property
    def plain(self) -> bool:
        """Whether it names all it names, without a glob."""
        return not any(char in text for text in (self.function, self.object) if text for char in "*?[")

    def covers(self, finding: Finding, where: str) -> bool:
        """Whether it is about this finding. A finding without a function is covered by object alone."""
        named = self.function is None or (finding.function is not None and fnmatchcase(finding.function, self.function))
        return finding.rule == self.rule and named and (self.object is None or fnmatchcase(where, self.object))


@dataclass(frozen=True)
class Config:
    """What an ftpatch.toml says."""

    fail_on: str | None = None  # the least severity that fails a check
    select: tuple[str, ...] = ()  # rules; empty: all
    ignore: tuple[str, ...] = ()  # rules
    severity: Mapping[str, str] = field(default_factory=dict)  # by rule, where it is not the usual one
    ignores: tuple[Ignore, ...] = ()
    must: tuple[str, ...] = ()  # functions that have to be traceable

    @cached_property
    def _plain(self) -> frozenset[tuple[str, str | None, str | None]]:
        """Rule, function and object of the ignores without a glob: looked up, not tried."""
        return frozenset((row.rule, row.function, row.object) for row in self.ignores if row.plain)

    @cached_property
    def _globs(self) -> tuple[Ignore, ...]:
        return tuple(row for row in self.ignores if not row.plain)

    def ignored(self, finding: Finding, where: str) -> bool:
        """Whether one of the ignores is about this finding; where: the name of its object."""
        rule, function = finding.rule, finding.function
        pairs = ((function, where), (function, None), (None, where))
        return (
            any((rule, *pair) in self._plain for pair in pairs if pair != (None, None))
            or any(row.covers(finding, where) for row in self._globs)
        )  # fmt: skip


@dataclass(frozen=True)
class Baseline:
    """What was known when it was written."""

    keys: frozenset[Key] = frozenset()  # of the findings
    live: Mapping[str, int] = field(default_factory=dict)  # records, by the name of the object


@dataclass(frozen=True)
class Judged:
    """The findings of one object behind the gate."""

    left: tuple[Finding, ...]  # those that count
    known: int  # findings that the baseline has
    ignored: int  # by the configuration
    keys: tuple[Key, ...]  # of those left and those known: what a new baseline would have


# -- the configuration -------------------------------------------------------------------------------------------------


def read_config(path: str, rules: Sequence[str]) -> Config:
    """The configuration in an ftpatch.toml. Raises InputError where it cannot be read, and what `parse_config` does."""
    from ftpatch.document.toml_input import MAX_SIZE  # most checks have no configuration

    return parse_config(read_file(path, MAX_SIZE), path, rules)


def parse_config(data: bytes, where: str, rules: Sequence[str]) -> Config:
    """The configuration in the bytes of an ftpatch.toml.

    Raises UsageError for anything that is not known, and UnsupportedError for more than the limits of TOML allow.
    """
    from ftpatch.document import toml_input

    try:
        tree = toml_input.parse(data, where)
    except toml_input.NotToml as error:
        raise UsageError("not a configuration in TOML", where, found=str(error)) from None
    _table(tree, ("check", "rules", "ignore", "must-be-traceable"), where)
    part = _table(tree.get("check", {}), ("fail-on", "select", "ignore"), f"{where} [check]")
    fail_on = part.get("fail-on")
    severity = {}
    for rule, table in _table(tree.get("rules", {}), (), f"{where} [rules]").items():
        here = f"{where} [rules.{rule}]"
        require_rules([rule], rules, here)
        severity[rule] = severity_of(_table(table, ("severity",), here).get("severity"), f"{here} severity")
    return Config(
        None if fail_on is None else severity_of(fail_on, f"{where} [check] fail-on"),
        require_rules(_strings(part.get("select", []), f"{where} select"), rules, f"{where} select"),
        require_rules(_strings(part.get("ignore", []), f"{where} ignore"), rules, f"{where} ignore"),
        severity,
        _ignores(tree.get("ignore", []), where, rules),
        _strings(tree.get("must-be-traceable", []), f"{where} must-be-traceable"),
    )


def _ignores(rows: Any, where: str, rules: Sequence[str]) -> tuple[Ignore, ...]:
    if not isinstance(rows, list):
        raise UsageError("ignore is a list of tables", where, expected="[[ignore]]")
    ignores = []
    for number, row in enumerate(rows, 1):
        here = f"{where} [[ignore]] {number}"
        _table(row, ("rule", "reason", "function", "object"), here)
        if not all(isinstance(value, str) for value in row.values()):
            raise UsageError("the values of an ignore are strings", here)
        if not str(row.get("reason", "")).strip():
            raise UsageError("an ignore needs a reason", here, todo='reason = "why this is no defect here"')
        if "function" not in row and "object" not in row:
            raise UsageError("an ignore needs a function or an object", here,
                             todo="[check] ignore leaves a rule out altogether")  # fmt: skip
        (rule,) = require_rules([row.get("rule", "")], rules, here)
        ignores.append(Ignore(rule, row["reason"], row.get("function"), row.get("object")))
    n_globs = sum(not row.plain for row in ignores)
    if n_globs > MAX_GLOBS:
        raise beyond_limit(where, "ignores", f"{n_globs} with globs", f"at most {MAX_GLOBS}")
    return tuple(ignores)


def require_rules(names: Iterable[str], rules: Sequence[str], where: str) -> tuple[str, ...]:
    """The names, if each is a rule; UsageError otherwise."""
    for name in names:
        if name not in rules:
            todo = did_you_mean(name, rules, "ftpatch check --list-rules lists all")
            raise UsageError("no such rule", where, found=name or "nothing", todo=todo)
    return tuple(names)


def _table(value: Any, names: Sequence[str], where: str) -> Mapping[str, Any]:
    """The value, if it is a table with no other keys; no names: with any."""
    if not isinstance(value, dict):
        raise UsageError("not a table", where, found=type(value).__name__)
    if names and (unknown := next((name for name in value if name not in names), None)) is not None:
        todo = did_you_mean(unknown, names)
        raise UsageError("unknown key", where, found=unknown, expected=", ".join(names), todo=todo)
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UsageError("not a list of strings", where)
    return tuple(value)


def severity_of(value: Any, where: str) -> str:
    """The value, if it is a severity; UsageError otherwise."""
    if value not in SEVERITIES:
        todo = did_you_mean(str(value), SEVERITIES)
        raise UsageError("no such severity", where, found=str(value), expected=", ".join(SEVERITIES), todo=todo)
    return str(value)


def parse_kconfig(data: bytes, where: str) -> dict[str, str]:
    """The options of a kernel's .config that are set, without their CONFIG_. Raises UsageError where it has none."""
    text = data.decode("utf-8", "replace")
    options = {m[1]: m[2].strip('"') for m in re.finditer(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE)}
    if not options:
        raise UsageError("no kernel configuration", where, found="no line CONFIG_…=…", expected="a .config",
                         todo="the build tree has one, or zcat /proc/config.gz")  # fmt: skip
    return options


# -- the gate ----------------------------------------------------------------------------------------------------------


def asked(rules: Sequence[str], config: Config, select: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...]:
    """The rules that are asked: those selected, on the command line or else by the configuration, less the ignored."""
    wanted = require_rules(select, rules, "--select") or config.select or rules
    gone = {*require_rules(ignore, rules, "--ignore"), *config.ignore}
    return tuple(rule for rule in rules if rule in wanted and rule not in gone)


def object_name(path: str, top: str | None = None) -> str:
    """How a baseline names a file: its place in the tree, or its last part; without the suffix of a compression."""
    name = os.path.relpath(path, top) if top is not None else os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    return stem if suffix in PACKED else name


def judge(findings: Sequence[tuple[Finding, str | None]], where: str, config: Config, baseline: Baseline) -> Judged:
    """What is left of one object's findings, each with the symbol in front of it where it has no function."""
    count: Counter[tuple[str, str, str]] = Counter()
    left, keys, known, ignored = [], [], 0, 0
    for finding, after in findings:
        finding = replace(finding, severity=config.severity.get(finding.rule, finding.severity))
        if config.ignored(finding, where):
            ignored += 1
            continue
        name = (finding.rule, finding.function or "", "" if finding.function else after or "")
        count[name] += 1
        keys.append((finding.rule, where, *name[1:], count[name]))
        if keys[-1] in baseline.keys:
            known += 1
        else:
            left.append(finding)
    return Judged(tuple(left), known, ignored, tuple(keys))


def fails(findings: Iterable[Finding], fail_on: str) -> bool:
    """Whether one of the findings is at or above a severity."""
    return any(SEVERITIES.index(finding.severity) >= SEVERITIES.index(fail_on) for finding in findings)


# -- the baseline ------------------------------------------------------------------------------------------------------


def read_baseline(path: str) -> Baseline:
    """The baseline in a file. Raises UsageError for what is none, and InputError for what cannot be read."""
    try:
        tree = json_input.load(path, max_size=MAX_BASELINE)
    except json_input.NotJson as error:
        raise _not_a_baseline(path, error.found) from None
    if not isinstance(tree, dict):
        raise _not_a_baseline(path, "no object")
    version = tree.get("baseline")
    if type(version) is not int or version != 1:  # True and 1.0 are equal to 1
        raise UsageError("a baseline of another version", path, found=str(version)[:40], expected="1")
    rows, records = tree.get("findings"), tree.get("records")
    if not isinstance(rows, list) or not isinstance(records, dict):
        raise _not_a_baseline(path, "no findings, or no records")
    if not all(type(n) is int and n >= 0 for n in records.values()):
        raise _not_a_baseline(path, "records that are no count")
    return Baseline(frozenset(_key(row, path) for row in rows), records)


def _key(row: object, where: str) -> Key:
    if isinstance(row, dict):
        rule, name, function, after = (row.get(key, "") for key in KEY[:-1])
        ordinal = row.get("ordinal", 1)
        strings = isinstance(rule, str) and isinstance(name, str) and isinstance(function, str)
        if strings and isinstance(after, str) and type(ordinal) is int:
            return rule, name, function, after, ordinal
    raise _not_a_baseline(where, "a finding that is no key of strings and a number")


def _not_a_baseline(where: str, found: str) -> UsageError:
    return UsageError("not a baseline", where, found=found, expected="what --write-baseline wrote",
                      todo="ftpatch check --write-baseline FILE makes one")  # fmt: skip


def render_baseline(keys: Iterable[Key], live: Mapping[str, int]) -> bytes:
    """The bytes of a baseline: one finding per line, sorted, so that `diff` shows what changed."""
    rows = [{n: v for n, v in zip(KEY, key, strict=True) if v != "" and not (n == "ordinal" and v == 1)}
            for key in sorted(set(keys))]  # fmt: skip
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    records = json.dumps(dict(sorted(live.items())), indent=1)
    return f'{{"baseline": 1,\n "records": {records},\n "findings": [\n{lines}\n ]}}\n'.encode()
