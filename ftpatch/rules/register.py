"""The register of rules: all that any verb can name, with their texts from register.toml.

The function of a rule of `check` is in one of MODULES and has the rule's name, with _ for each dash.

A rule that is not of this package is added with `add`; from then on `check` asks it, lists it and reports it like any
other.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

from ftpatch.rules import Find, Rule

MODULES = (
    "table",
    "layout",
    "sites",
    "redirects",
    "static_calls",
    "static_call_keys",
    "objects",
    "lost_sections",
    "unrecorded",
    "compiled",
    "reach",
    "modules",
    "live_patches",
    "before",
    "programs",
    "startup",
)  # of the functions

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
def _helps() -> dict[str, str]:
    """Rule → its help, of the rules that the file has; a report may ask a million times."""
    return {rule.id: rule.help for table in _texts().values() for rule in table}


@cache
def _texts() -> dict[str, tuple[Rule, ...]]:
    """Verb → rules, as the file has them: without their functions."""
    tree = tomllib.loads(Path(__file__).with_name("register.toml").read_text("utf-8"))
    return {verb: tuple(Rule(name, verb=verb, **row) for name, row in table.items()) for verb, table in tree.items()}


@cache
def _shipped(verb: str) -> tuple[Rule, ...]:
    if verb != "check":
        return _texts()[verb]
    functions: dict[str, Find] = {}
    for module in MODULES:
        functions |= vars(import_module(f"ftpatch.rules.{module}"))
    return tuple(replace(rule, find=functions[rule.id.replace("-", "_")]) for rule in _texts()[verb])
