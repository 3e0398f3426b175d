"""The command line. click lives in this folder only; every verb is a file of its own, loaded when it is called."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
from typing import Any, TextIO

import click
from click.core import ParameterSource

from ftpatch import __version__, signals
from ftpatch.cli.shortage import shortage  # now: later there may be no file left to open
from ftpatch.errors import FtpatchError, InputError, UsageError, printable

# numpy starts a thread per core for linear algebra that nothing here does: half of a scan's CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

VERBS = (
    "scan", "enable", "disable", "drop", "redirect", "record", "static-calls", "restore", "verify", "check", "diff",
    "explain", "image", "symbols",
)  # fmt: skip
# Commands that patch and judge no kernel: they set ftpatch up, or a build that uses it.
SETUP: tuple[str, ...] = ("doctor", "completion", "kbuild")
BUG = 70
MAX_DETAILS = 1000  # culprits of one refusal that are shown

MANY_OBJECTS = 100_000  # new ones between two looks for garbage: a report makes millions, and none of them is any


class Verb(click.Command):
    """A subcommand that takes no empty value for none."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. An option without a default that is empty is a usage error: a shell variable was not set, which is
        no wish for what happens without the option. Other options, and selectors, have their own line for it."""
        for option in self.params:
            name, has_default = option.name or "", isinstance(option.default, str) and option.default != ""
            is_given = ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
            may_be_left_out = isinstance(option, click.Option) and not option.required
            if may_be_left_out and is_given and not has_default and ctx.params.get(name) == "":
                what = max(option.opts, key=len)
                raise UsageError("an empty value", what, todo="leave the option out, or give it one")
        return super().invoke(ctx)


class Verbs(click.Group):
    """Subcommands by name; importing one imports numpy and everything behind it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *SETUP]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with what its manual page says of it: the first sentence of its own help is longer than a line."""
        from ftpatch.completion.table import read_table

        verbs = read_table().verbs
        with formatter.section("Commands"):
            formatter.write_dl([(name, verbs[name].help) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-") and not ctx.resilient_parsing:
            from ftpatch.cli.usage import no_such_command

            raise no_such_command(args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in (*VERBS, *SETUP):
            return None
        from ftpatch import memory

        if not memory.is_there(memory.NUMPY):
            raise MemoryError
        command: click.Command = importlib.import_module(f"ftpatch.cli.{cmd_name.replace('-', '_')}").command
        if not gc.isenabled():  # what is loaded stays: nothing looks through it again
            gc.freeze()
            gc.set_threshold(MANY_OBJECTS)
            gc.enable()
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ftpatch")
def group() -> None:
    """Patch-site rewriter for Linux kernels: find the ftrace sites of a vmlinux, enable chosen ones on disk."""


def main() -> None:
    """The `ftpatch` script: run, and turn every refusal into one line and its exit code."""
    gc.disable()  # until the verb is loaded: modules make no garbage, and looking for it takes a tenth of a start
    signals.catch()
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: closed from the start
            stream.flush()
    os._exit(code)  # Python's own end takes as long as a start, and gives signals back what they did before


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code. An unexpected exception is a bug in ftpatch: 70."""
    try:
        if not arguments:
            return _greet()
        code = group.main(arguments, prog_name="ftpatch", standalone_mode=False)
        return int(code or 0)
    except FtpatchError as error:
        complain(error)
        return error.exit_code
    except click.ClickException as error:
        from ftpatch.cli.usage import refusal

        complain(refusal(error))
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        say(signals.INTERRUPTED)
        return 128 + signals.SIGINT
    except BrokenPipeError:
        _silence(sys.stdout)
        return 128 + signals.SIGPIPE
    except Exception as error:  # the last resort of the process
        return _unexpected(error)


def _greet() -> int:
    """Say what this is and what one may want first: no command is a usage error."""
    from ftpatch.cli.greeting import greeting

    for line in greeting():
        say(line)
    return UsageError.exit_code


def _unexpected(error: Exception) -> int:
    """Say what the system was short of; else show what went wrong inside ftpatch, and ask for a report."""
    if short := shortage(error):
        error.with_traceback(None)  # its frames hold what takes the memory
        complain(short)
        return short.exit_code
    import traceback

    traceback.print_exc()
    click.echo("ftpatch: this is a bug in ftpatch; please report the lines above", err=True)
    return BUG


def complain(error: FtpatchError) -> None:
    """A refusal on stderr: the culprits, if there are more than the sentence shows, then the one line."""
    n = len(error.details)
    for line in error.details[:MAX_DETAILS] if n > 1 else ():
        say(f"  {line}")
    if n > MAX_DETAILS:
        say(f"  … and {n - MAX_DETAILS} more")
    say(f"ftpatch: {error}")


def say(text: str) -> None:
    """A line on stderr, whatever names stand in it. Where that is closed or full there is nobody to tell, and the exit
    code says it."""
    try:
        click.echo(printable(text), err=True)
    except OSError:
        _silence(sys.stderr)


def emit(text: str) -> None:
    """Write a piece of the report to stdout; a closed stdout is no error. Raises BrokenPipeError where the reader has
    gone away (`| head`)."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence(sys.stdout)
        raise InputError(f"the report cannot be written: {error.strerror}", "stdout") from None


def _open_standard_streams() -> None:
    """Have descriptors 0 to 2 be something: the next file to be written would be one of them, and a library that
    complains on stderr would write into it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _silence(stream: TextIO) -> None:
    """Let go what is buffered for a stream that takes nothing any more; Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
