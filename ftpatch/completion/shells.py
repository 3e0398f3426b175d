"""What the shells' scripts say to this program, and what they are answered.

The first line of an answer says how the others are to be taken; each of these is one candidate. zsh and fish quote
candidates themselves when they put them into the line. bash does so for files alone, so others are quoted here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from ftpatch.completion.line import Line, read_line
from ftpatch.completion.paths import expanded
from ftpatch.completion.place import place_of
from ftpatch.completion.table import read_table
from ftpatch.completion.values import Answer, answer_for

SHELLS = ("bash", "zsh", "fish")
SCRIPTS = os.path.join(os.path.dirname(__file__), "scripts")
MARK = "# Completion of ftpatch"  # what a script of ours begins with, behind a line that zsh needs
PLAIN = re.compile(r"[\w.%+,/:=@-]*", re.ASCII)  # what bash takes as it is, in the middle of a word
CUTS = ("=", ",", "@")  # what ends the part of a word that stays, for zsh


class Installed(NamedTuple):
    """Where a user's own scripts are, by shell."""

    variable: str  # of the environment, with the folder
    default: str  # the folder where the variable is not set, below the home folder
    file: str


PLACES = {
    "bash": Installed("XDG_DATA_HOME", ".local/share", "bash-completion/completions/ftpatch"),
    "zsh": Installed("XDG_DATA_HOME", ".local/share", "zsh/site-functions/_ftpatch"),
    "fish": Installed("XDG_CONFIG_HOME", ".config", "fish/completions/ftpatch.fish"),
}


def script_path(shell: str) -> str:
    """The script of a shell, a file of the package."""
    return os.path.join(SCRIPTS, f"ftpatch.{shell}")


def answer(shell: str, words: Sequence[str]) -> str:
    """The candidates for what a shell's script asks."""
    line = READERS[shell](words)
    table = read_table()
    return WRITERS[shell](line, answer_for(place_of(line, table), table))


def _from_bash(words: Sequence[str]) -> Line:
    """words: the line, the cursor in it, and the characters at which bash cuts words."""
    line, point, breaks = words
    return read_line(line, int(point), breaks)


def _from_zsh(words: Sequence[str]) -> Line:
    """words: the number of the completed one, counted from 1; its quote; that up to the cursor; all of them."""
    index, quote, current, *all_words = words
    return Line(tuple(all_words[1 : int(index) - 1]), current, tuple(all_words[int(index) :]), quote)


def _from_fish(words: Sequence[str]) -> Line:
    """words: the completed one, up to the cursor and with its quotes; those in front of it."""
    current, _, *before = words
    word = read_line(f"x {current}", len(current) + 2, "")
    return Line(tuple(before), word.current, quote=word.quote)


def _to_bash(line: Line, found: Answer) -> str:
    """Options of compopt; then what takes the place of the word, from the last character on at which bash cuts it."""
    texts = [(found.lead + value.text)[line.kept :] for value in found.values]
    if found.paths and line.quote == '"' and "$" in line.current:
        return "default"  # names of variables stay names: that is only known to bash's own completion
    if found.paths and line.kept >= len(found.lead):
        return "\n".join(["filenames", *texts])
    if found.paths:  # bash does not see a file in `@FILE`, and gives a folder no slash
        texts = [text + "/" * value.goes_on for text, value in zip(texts, found.values, strict=True)]
    goes_on = len(texts) == 1 and found.values[0].goes_on
    return "\n".join(["nospace" if goes_on else "", *quoted(texts, line.quote)])


def quoted(texts: list[str], quote: str) -> list[str]:
    """Words as bash reads them. Where one of them needs quotes all have them: what they begin with alike is what bash
    puts into the line, and that must not end in half an escape."""
    if quote == '"':
        escaped = [re.sub(r'(["$`\\])', r"\\\1", text) for text in texts]
        return [text.replace("!", "\"'!'\"") for text in escaped]
    inside = [text.replace("'", "'\\''") for text in texts]
    if quote == "'" or all(PLAIN.fullmatch(text) for text in texts):
        return inside
    return [f"'{text}'" for text in inside]


def _to_zsh(line: Line, found: Answer) -> str:
    """How zsh cuts the word, and the folder that files are in; then a candidate, `+` where it goes on, and its help."""
    lead, folder, texts = found.lead, "", [value.text for value in found.values]
    typed = line.current[len(lead) :].rpartition("/")
    if "!" in lead:  # where it is cut off, zsh leaves out the backslash in front of it
        cut, texts = "", [lead + text for text in texts]
    elif found.paths and typed[1]:
        cut, folder = "*/", expanded(typed[0] + "/", line.quote)
        texts = [text[len(typed[0]) + 1 :] for text in texts]
    else:
        cut = "*" + lead[-1] if lead.endswith(CUTS) else lead
    rows = (f"{text}\t{'+' if value.goes_on else ''}\t{value.help}"
            for text, value in zip(texts, found.values, strict=True))  # fmt: skip
    return "\n".join([f"{'files' if found.paths else 'words'}\t{cut}\t{folder}", *rows])


def _to_fish(line: Line, found: Answer) -> str:
    """Whole words, each with its help; a folder ends in a slash."""
    slash = "/" if found.paths else ""
    rows = (found.lead + value.text + slash * value.goes_on + ("\t" + value.help) * bool(value.help)
            for value in found.values)  # fmt: skip
    return "\n".join(rows)


READERS = {"bash": _from_bash, "zsh": _from_zsh, "fish": _from_fish}
WRITERS = {"bash": _to_bash, "zsh": _to_zsh, "fish": _to_fish}
