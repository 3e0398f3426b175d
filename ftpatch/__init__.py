"""ftpatch: rewrite ftrace patch sites in Linux kernels, on disk, so that the result boots.

    >>> import ftpatch
    >>> scan = ftpatch.scan("vmlinux")
    >>> scan.table["function"]

What is offered here are the journeys of `ftpatch.api`, which documents them: a function for each verb, and the values
that they take and give. They are loaded when the first is asked for, so that importing the package costs nothing.
"""

# ruff: noqa: F403, F405 - the names are those of api.__all__, which the type checker looks up
from __future__ import annotations

TYPE_CHECKING = False  # true for type checkers, which know it by name; typing itself would cost a start more than all
if TYPE_CHECKING:
    from ftpatch.api import *

__version__ = "1.0.0"
__all__ = [
    "ApplyError", "BootImage", "CheckOptions", "CheckResult", "Comparison", "Delivery", "Explanation", "Finding",
    "FtpatchError", "InputError", "ModuleScan", "Plan", "PlanError", "Proof", "Request", "RestoreRequest", "Restored",
    "Scan", "SiteColumns", "StaticCallTable", "SymbolList", "UnsupportedError", "UsageError", "Watch", "Written",
    "__version__", "all_but", "by_selectors", "check", "check_settings", "diff", "disable", "drop", "enable",
    "explain", "explain_log", "image", "record", "redirect", "restore", "scan", "scan_tree", "set_static_calls",
    "static_calls", "symbols", "verify",
]  # fmt: skip

DEPRECATED: dict[str, str] = {}  # an old name → the one that it has now; docs/api.md says how long it stays


def __getattr__(name: str) -> object:
    """A journey, by its name."""
    if name in DEPRECATED:
        import warnings

        new = DEPRECATED[name]
        warnings.warn(f"ftpatch.{name} is called ftpatch.{new} now", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in __all__:
        raise AttributeError(f"module 'ftpatch' has no attribute {name!r}")
    from ftpatch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
