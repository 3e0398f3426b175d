"""What of ftpatch's surroundings is there: libraries, programs, and the files that come with it. Nothing is started.

A library is found without being loaded, and its version read off what pip or the distribution wrote down; `tried` loads
it, which tells one that is broken.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.arch.tools import TOOLS
from ftpatch.cli.pager import DEFAULT
from ftpatch.completion.shells import PLACES
from ftpatch.errors import UsageError
from ftpatch.near_names import did_you_mean

if TYPE_CHECKING:
    from ftpatch.document.doctor import Need, PartRow, State

MAX_WHY = 200  # characters of an error
SHARES = (os.path.join(sys.prefix, "share"), "/usr/local/share", "/usr/share")
MANUALS = ("man/man1/ftpatch.1", "man/man1/ftpatch.1.gz")
# Where distributions and packages put completion scripts, besides the places of a user's own.
SCRIPTS = (
    "bash-completion/completions/ftpatch", "zsh/site-functions/_ftpatch", "zsh/vendor-completions/_ftpatch",
    "fish/vendor_completions.d/ftpatch.fish", "fish/completions/ftpatch.fish",
)  # fmt: skip


@dataclass(frozen=True)
class Library:
    """A library of Python's."""

    distribution: str  # as pip calls it
    module: str  # as it is imported
    need: Need
    adds: str
    package: str = ""  # of Debian; empty where that has none


LIBRARIES = (
    Library("numpy", "numpy", "required", "tables of sites", "python3-numpy"),
    Library("click", "click", "required", "the command line", "python3-click"),
    Library("capstone", "capstone", "required", "disassembly, in proofs and explanations", "python3-capstone"),
    Library("pyelftools", "elftools", "required", "debug information", "python3-pyelftools"),
    Library("zstandard", "zstandard", "required", "files packed with zstd", "python3-zstandard"),
    Library("cryptography", "cryptography", "required", "module signatures", "python3-cryptography"),
    Library("jinja2", "jinja2", "required", "HTML reports", "python3-jinja2"),
    Library("rich", "rich", "required", "progress on a terminal", "python3-rich"),
    Library("unicorn", "unicorn", "optional", "verify executes patched sites (emulator)", "python3-unicorn"),
    Library("keystone-engine", "keystone", "optional", "enable --stub-asm (assembler)"),
    Library("lief", "lief", "optional", "verify reads files a second time (second reader)"),
    Library("pyarrow", "pyarrow", "optional", "tables of sites as Arrow, for the Python interface"),
)


def parts(tried: bool) -> list[PartRow]:
    """Every part, in the order of the report. tried: load the libraries."""
    programs = [_program(tool.program, tool.adds, tool.package) for tool in TOOLS]
    return [*(_library(library, tried) for library in LIBRARIES), *programs, _pager(), _manuals(), _completion()]


def missing_of(rows: list[PartRow], required: tuple[str, ...]) -> list[PartRow]:
    """Those of the parts that a user requires and that are not there. Raises UsageError for what is no part."""
    by_name = {row["name"]: row for row in rows}
    for name in required:
        if name not in by_name:
            todo = did_you_mean(name, by_name, "ftpatch doctor lists all")
            raise UsageError("no such part", "--require", found=name or "nothing", todo=todo)
    return [by_name[name] for name in dict.fromkeys(required) if by_name[name]["state"] != "found"]


def _library(library: Library, tried: bool) -> PartRow:
    name, place, why = library.distribution, None, None
    try:
        spec = importlib.util.find_spec(library.module)
        place = spec.origin if spec else None
        if spec and tried:
            importlib.import_module(library.module)
    except Exception as error:  # a wheel of another machine can fail in any way
        why = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_WHY]
    state: State = "broken" if why else "found" if place else "missing"
    apt = f" (Debian: apt install {library.package})" if library.package else ""
    return {
        "name": name, "kind": "library", "need": library.need, "state": state, "version": _version(name),
        "place": place, "adds": library.adds, "install": f"pip install {name}{apt}", "why": why,
    }  # fmt: skip


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except Exception:  # not there, or what was written down of it is damaged
        return None


def _program(name: str, adds: str, package: str, wanted: str = "") -> PartRow:
    place = shutil.which(wanted or name)
    return _optional(name, "program", place, adds, f"apt install {package}")


def _optional(name: str, kind: str, place: str | None, adds: str, install: str) -> PartRow:
    row: PartRow = {
        "name": name, "kind": "program", "need": "optional", "state": "found" if place else "missing", "version": None,
        "place": place, "adds": adds, "install": install, "why": None,
    }  # fmt: skip
    if kind == "files":
        row["kind"] = "files"
    return row


def _pager() -> PartRow:
    """The pager that the environment names, as far as its first word tells."""
    wanted = os.environ.get("FTPATCH_PAGER", os.environ.get("PAGER", DEFAULT))
    try:
        words = [word for word in shlex.split(wanted) if not re.match(r"\w+=", word)]
    except ValueError:
        words = wanted.split()
    return _program("pager", "shows long reports", "less", words[0] if words else DEFAULT)


def _manuals() -> PartRow:
    place = _first(os.path.join(share, name) for share in SHARES for name in MANUALS)
    return _optional("man-pages", "files", place, "man ftpatch", "pip install ftpatch, or its Debian package")


def _completion() -> PartRow:
    own = (
        os.path.join(os.environ.get(installed.variable) or os.path.expanduser(f"~/{installed.default}"), installed.file)
        for installed in PLACES.values()
    )
    place = _first((*own, *(os.path.join(share, name) for share in SHARES for name in SCRIPTS)))
    return _optional("completion", "files", place, "TAB completes options and functions",
                     "ftpatch completion --install")  # fmt: skip


def _first(paths: Iterable[str]) -> str | None:
    """The first path where a file is."""
    return next((path for path in paths if os.path.isfile(path)), None)
