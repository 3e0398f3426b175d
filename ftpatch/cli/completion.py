"""`ftpatch completion`: scripts that complete command lines of ftpatch in bash, zsh and fish, and their answers."""

from __future__ import annotations

import contextlib
import os
import shlex

import click

from ftpatch.cli import Verb, emit
from ftpatch.cli.usage import Choice
from ftpatch.completion import shells
from ftpatch.errors import InputError, PolicyError, UsageError, printable
from ftpatch.inputs import read_file

MAX_SCRIPT = 1 << 20  # bytes of a script that is there
INSTALL_HELP = "Write the script where the shell looks for those of the user (default: the shell in $SHELL)."
AFTERWARDS = {
    "bash": "new shells load it, where the package bash-completion is there",
    "zsh": "if $fpath lacks its folder, add to ~/.zshrc in front of compinit: fpath+=({folder})",
    "fish": "new shells load it",
}


@click.command("completion", cls=Verb)
@click.argument("shell", type=Choice(shells.SHELLS), required=False, metavar="[bash|zsh|fish]")
@click.argument("words", nargs=-1, metavar="", type=click.UNPROCESSED)
@click.option("--install", is_flag=True, help=INSTALL_HELP)
@click.option("--answer", is_flag=True, hidden=True, help="Say what may follow; WORDS are what the script gives.")
def command(shell: str | None, words: tuple[str, ...], install: bool, answer: bool) -> int:
    """Print the script that completes command lines of ftpatch, for bash, zsh or fish, or --install it.

    Completed are verbs, options and their values, files by what is in them, and the functions of the FILE on the line
    or of ./vmlinux. The first TAB on a kernel reads it, which takes about a second; its names are then kept in
    $XDG_CACHE_HOME/ftpatch/names (default: ~/.cache/ftpatch/names).
    """
    if answer and shell:
        with contextlib.suppress(Exception):  # in the middle of a line there is nobody to tell
            emit(shells.answer(shell, words) + "\n")
        return 0
    if words:
        raise UsageError("unexpected argument", words[0], expected="one shell")
    if shell is None and install:
        name = os.path.basename(os.environ.get("SHELL", ""))
        shell = name if name in shells.SHELLS else None
    if shell is None:
        raise UsageError("no shell is named", expected=", ".join(shells.SHELLS), todo="ftpatch completion bash")
    script = read_file(shells.script_path(shell), MAX_SCRIPT)
    emit(_install(shell, script) if install else script.decode())
    return 0


def _install(shell: str, script: bytes) -> str:
    """Write the script where the shell finds it, and say so."""
    from ftpatch.write import contents, files

    path = _destination(shell)
    if os.path.lexists(path):
        old = read_file(path, MAX_SCRIPT)
        if shells.MARK.encode() not in b"\n".join(old.splitlines()[:2]):
            raise PolicyError("is not a completion script of ftpatch's", path, todo="move it away, and try again")
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", folder) from None
    with files.whole_file(os.path.realpath(path), 0o644) as new:
        contents.append(new.fd, script)
        new.finish()
        new.publish()
    return f"{printable(path)}: written; {AFTERWARDS[shell].format(folder=printable(shlex.quote(folder)))}\n"


def _destination(shell: str) -> str:
    """Where the user's own script of a shell belongs."""
    place = shells.PLACES[shell]
    top = os.environ.get(place.variable, "")
    if not os.path.isabs(top):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise UsageError("there is no home folder", expected="$HOME", todo="ftpatch completion prints the script")
        top = os.path.join(home, place.default)
    return os.path.join(top, place.file)
