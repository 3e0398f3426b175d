"""The journeys of all verbs, each a short list of steps: what a command does, without the command line.

This is the public Python interface: `import ftpatch` offers the same names, and loads what they need when they are
first asked for. Files are given by name; what comes back are values:

    scan, scan_tree      a Scan: image, records and sites of one file; what each module of a tree gave
    check                a CheckResult: findings, after configuration and baseline (check_settings)
    diff                 a Comparison: what changed between two builds, the worst first
    explain, explain_log an Explanation of a function; Diagnoses of a kernel's own messages
    verify               a Proof: what became of the first file on the way to the second
    enable, disable, drop, redirect, record, set_static_calls    a Written: the Plan, and the file that it made
    restore              a Restored: the file that was patched, back from its journal
    static_calls         a StaticCallTable: keys, trampolines and sites of the static calls of one file (static-calls)
    image                a BootImage of a vmlinux
    symbols              a SymbolList: the names of a file and their addresses, of whatever table it has

    >>> import ftpatch
    >>> scan = ftpatch.scan("vmlinux")
    >>> len(scan.sites), scan.arch.name
    (38491, 'arm64')
    >>> ftpatch.enable("vmlinux", "patched", "vfs_read").output.path
    'patched'

Every journey raises an FtpatchError where it cannot be made, and then has written nothing. docs/api.md tells the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftpatch.api.reading import Reading, explain, scan, verify
    from ftpatch.api.writing import (
        BootImage,
        EnableOptions,
        RedirectOptions,
        disable,
        drop,
        enable,
        image,
        patch,
        record,
        redirect,
        set_static_calls,
    )
    from ftpatch.compare.diff import Comparison
    from ftpatch.compare.diff import compare as diff
    from ftpatch.document.request import Request
    from ftpatch.errors import ApplyError, FtpatchError, InputError, PlanError, UnsupportedError, UsageError
    from ftpatch.explanation.function import Explanation, explain_log
    from ftpatch.finding import Finding
    from ftpatch.journal.restore import Restored, RestoreRequest, restore
    from ftpatch.plan.decide import SetOptions, make_plan, plan_enable, plan_redirect, plan_settings, read_against
    from ftpatch.plan.plan import Plan
    from ftpatch.plan.record.decide import RecordOptions
    from ftpatch.proof.prove import Proof
    from ftpatch.recovered.symbol_list import SymbolList
    from ftpatch.report.delivery import Delivery, Written
    from ftpatch.rules.files import CheckOptions, CheckResult
    from ftpatch.rules.files import check_path as check
    from ftpatch.rules.files import settings_for as check_settings
    from ftpatch.sites.choice import all_but, by_selectors
    from ftpatch.sites.columns import SiteColumns
    from ftpatch.sites.scan import Scan
    from ftpatch.sites.static_calls import StaticCallTable
    from ftpatch.sites.static_calls import static_calls_of as static_calls
    from ftpatch.trees import ModuleScan, Watch, scan_tree
    from ftpatch.write.with_symbols import symbols

# Module below ftpatch → what is offered of it; old:new where it has another name there. Each is loaded when asked for.
OFFERED = {
    "api.reading": "Reading explain scan verify",
    "api.writing": "BootImage EnableOptions RedirectOptions disable drop enable image patch record redirect "
    "set_static_calls",
    "compare.diff": "Comparison compare:diff",
    "document.request": "Request",
    "errors": "ApplyError FtpatchError InputError PlanError UnsupportedError UsageError",
    "explanation.function": "Explanation explain_log",
    "finding": "Finding",
    "journal.restore": "RestoreRequest Restored restore",
    "plan.decide": "SetOptions make_plan plan_enable plan_redirect plan_settings read_against",
    "plan.plan": "Plan",
    "plan.record.decide": "RecordOptions",
    "proof.prove": "Proof",
    "recovered.symbol_list": "SymbolList",
    "report.delivery": "Delivery Written",
    "rules.files": "CheckOptions CheckResult check_path:check settings_for:check_settings",
    "sites.choice": "all_but by_selectors",
    "sites.columns": "SiteColumns",
    "sites.scan": "Scan",
    "sites.static_calls": "StaticCallTable static_calls_of:static_calls",
    "trees": "ModuleScan Watch scan_tree",
    "write.with_symbols": "symbols",
}
PLACES = {
    entry.split(":")[-1]: (module, entry.split(":")[0]) for module, line in OFFERED.items() for entry in line.split()
}
__all__ = [
    "ApplyError", "BootImage", "CheckOptions", "CheckResult", "Comparison", "Delivery", "EnableOptions", "Explanation",
    "Finding", "FtpatchError", "InputError", "ModuleScan", "Plan", "PlanError", "Proof", "Reading", "RecordOptions",
    "RedirectOptions", "Request", "RestoreRequest", "Restored", "Scan", "SetOptions", "SiteColumns", "StaticCallTable",
    "SymbolList",
    "UnsupportedError", "UsageError", "Watch", "Written", "all_but", "by_selectors", "check", "check_settings", "diff",
    "disable", "drop", "enable", "explain", "explain_log", "image", "make_plan", "patch", "plan_enable",
    "plan_redirect", "plan_settings", "read_against", "record", "redirect", "restore", "scan", "scan_tree",
    "set_static_calls", "static_calls", "symbols", "verify",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """What is offered by this name, loaded now."""
    if name not in PLACES:
        raise AttributeError(f"module 'ftpatch.api' has no attribute {name!r}")
    module, attribute = PLACES[name]
    return getattr(import_module(f"ftpatch.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
