"""What every command line keeps, whatever it was given: the oracle of the fuzzing and of the hostile campaign.

exit codes      only those that the interface documents; never 70, which says that ftpatch itself is wrong
stderr          no traceback; a refusal is one line; every line printable, whatever a file's names hold
stdout          text for people has no control characters and nothing that turns its direction; JSON is of the schema
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

CODES = frozenset({0, 1, 2, 3, 4, 5})
# Lines on stderr that are remarks: whatever `note` in ftpatch/cli/options.py is given.
REMARKS = re.compile(
    "ftpatch: (" + "|".join((
        r"warning: .*", r".*: no prediction of the boot: .*", r".* names \d+ functions, all of them are .*",
        r"\d+ sites; the first \d+ are explained", r".*: removed, left by an interrupted run",
        r".*: left (alone: this file system|by an interrupted run).*", r".*: had \d+ names \(hard links.*",
    )) + ")"
)  # fmt: skip
DETAILS = "  "  # culprits in front of a refusal of many


def broken(code: int, out: str, err: str, form: str = "text", n_files: int = 1) -> str:
    """Which promise an answer breaks, in a line; empty where it keeps all. form: of stdout; n_files: given by name."""
    if "Traceback" in err:
        return f"a traceback: {_place(err)}"
    if code not in CODES:
        return f"exit code {code}: {(err.splitlines() or [''])[-1][:200]}"
    lines = err.splitlines()
    if odd := next((line for line in err.split("\n") if not line.isprintable()), ""):
        return f"stderr is not printable: {odd!r:.160}"
    refusals = [line for line in lines if not (REMARKS.fullmatch(line) or line.startswith(DETAILS))]
    if any(not line.startswith("ftpatch: ") for line in refusals):
        return f"a foreign line on stderr: {refusals!r:.200}"
    if code in (2, 3, 4, 5) and not 1 <= len(refusals) <= n_files:
        return f"{len(refusals)} lines for a refusal: {refusals!r:.300}"
    return _stdout(out, form) if out else ""


def _stdout(out: str, form: str) -> str:
    if form == "json":
        try:
            document = json.loads(out)
        except (ValueError, RecursionError) as error:
            return f"stdout is no JSON: {error}"
        wrong = next(iter(validator().iter_errors(document)), None)
        return f"JSON is not of the schema: {wrong.json_path}: {wrong.message[:120]}" if wrong else ""
    if form == "text":
        odd = next((line for line in out.split("\n") if not line.isprintable()), "")
        return f"text is not printable: {odd!r:.160}" if odd else ""
    return ""


@cache
def validator() -> Any:
    """Of the schema that ships with the package."""
    import jsonschema

    from ftpatch.document.schema import schema

    return jsonschema.Draft202012Validator(schema())


def _place(err: str) -> str:
    """The innermost place of ftpatch in a traceback, and the exception."""
    places = re.findall(r'File "(?:.*/)?(ftpatch/[^"]+)", line (\d+)', err) or [("?", "0")]
    last = [line for line in err.splitlines() if re.match(r"[A-Za-z][\w.]+(:|$)", line) and "ftpatch:" not in line]
    last = last or ["?"]
    return f"{last[-1].split(':')[0]} at {places[-1][0]}:{places[-1][1]} ({last[-1][:80]})"
