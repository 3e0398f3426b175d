"""The register of rules: all that any verb can name, their texts from register.toml, their functions from this room.

A rule that is not of this package is added with `add`; from then on `check` asks it, lists it and reports it like any
other.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftpatch.rules import Rule

if TYPE_CHECKING:
    from ftpatch.rules.case import Case, Hit

MODULES = ("table", "layout", "sites", "objects", "reach", "modules", "before")  # each has FINDS: rule → function
LISTS = ("kinds", "needs")  # of a rule, lists in TOML

_added: list[Rule] = []


def add(rule: Rule) -> None:
    """Ask one more rule, behind the others."""
    _added.append(rule)


def remove(rule: Rule) -> None:
    """Ask a rule no more that was added."""
    _added.remove(rule)


def rules_for(verb: str = "check") -> tuple[Rule, ...]:
    """The rules of one verb, in the order of its reports."""
    return (*_shipped(verb), *(rule for rule in _added if rule.verb == verb))


def known_rules() -> tuple[str, ...]:
    """The names of the linter's rules."""
    return tuple(rule.id for rule in rules_for())


def help_of(name: str) -> str:
    """What a finding of that rule means and what to do; "" where nobody knows the rule."""
    return _helps().get(name) or next((rule.help for rule in _added if rule.id == name), "")


@cache
def _texts() -> dict[str, dict[str, Rule]]:
    """Verb → name → rule, as the file has them: without their functions."""
    tree = tomllib.loads(Path(__file__).with_name("register.toml").read_text())
    return {verb: {name: _rule(verb, name, row) for name, row in table.items()} for verb, table in tree.items()}


def _rule(verb: str, name: str, row: Any) -> Rule:
    lists = {key: tuple(row[key]) for key in LISTS if key in row}
    return Rule(name, verb=verb, **(row | lists))


@cache
def _shipped(verb: str) -> tuple[Rule, ...]:
    finds = _finds() if verb == "check" else {}
    return tuple(replace(rule, find=finds.get(name)) for name, rule in _texts()[verb].items())


def _finds() -> dict[str, Callable[[Case], Iterable[Hit]]]:
    found: dict[str, Callable[[Case], Iterable[Hit]]] = {}
    for name in MODULES:
        found |= importlib.import_module(f"ftpatch.rules.{name}").FINDS
    return found


@cache
def _helps() -> dict[str, str]:
    return {name: rule.help for table in _texts().values() for name, rule in table.items()}
