"""Signals that end a run: one line at most is said, nothing is left behind, and the exit code is 128 + n.

Everything happens in the handler. An exception raised there would be lost wherever Python can only print it: in a
destructor, in a callback of an emulator, in a C module that is just being imported.

The program calls `catch` in its first line, before it loads anything; so this module imports what is loaded anyway.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself needs enum: milliseconds of Python's own handler
import os

TYPE_CHECKING = False  # true for type checkers, which know it by name
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

# Those that end a process which does not catch them. SIGXFSZ is not among them: Python ignores it, and the system call
# fails instead.
ENDING: tuple[int, ...] = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM,
    _signal.SIGALRM, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGXCPU,
)  # fmt: skip
SIGINT: int = _signal.SIGINT
SIGPIPE: int = _signal.SIGPIPE
INTERRUPTED = "ftpatch: interrupted; every file is whole, old or new"
_undo: list[Callable[[], object]] = []


class undone:
    """A context whose effect on the system is undone by a function when a signal ends the run meanwhile."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self.undo = undo

    def __enter__(self) -> None:
        _undo.append(self.undo)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _undo.remove(self.undo)


class ignored:
    """A context in which signals do nothing: another program of the same terminal answers them.

    They have a handler, which a program that is started does not inherit, as it would that they are ignored.
    """

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.before = numbers, [_signal.SIG_DFL for _ in numbers]

    def __enter__(self) -> None:
        self.before = [_signal.signal(number, lambda *_: None) for number in self.numbers]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in zip(self.numbers, self.before, strict=True):
            _signal.signal(number, handler)


def catch() -> None:
    """Have the signals end this process in order; those that nohup or a shell has it ignore stay ignored."""
    for number in ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _end)
    _signal.signal(SIGPIPE, _end)  # which Python ignores; whether somebody else did, nobody can tell


def leave_to_parent() -> None:
    """In a process of this program's own: its parent ends it, or SIGTERM does."""
    for number in ENDING:
        _signal.signal(number, _signal.SIG_DFL if number == _signal.SIGTERM else _signal.SIG_IGN)
    _signal.signal(SIGPIPE, _signal.SIG_DFL)
    del _undo[:]


def _end(number: int, frame: FrameType | None) -> None:
    """Undo what would stay behind, and exit. A second signal does not disturb that; SIGQUIT ends what hangs."""
    if number == SIGPIPE and _reader_is_gone(2) and not _reader_is_gone(1):
        return  # a remark that nobody reads; the run goes on
    for other in (*ENDING, SIGPIPE):
        _signal.signal(other, _signal.SIG_DFL if other == _signal.SIGQUIT else _signal.SIG_IGN)
    for undo in reversed(_undo):
        try:
            undo()
        except Exception:  # what else is to be undone still is
            continue
    if number == SIGINT:
        _say(INTERRUPTED)
    os._exit(128 + number)


def _say(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:  # stderr is closed or full: there is nobody to tell
        return


def _reader_is_gone(fd: int) -> bool:
    """Whether a descriptor is the end of a pipe that nobody reads."""
    import select

    pipe = select.poll()
    pipe.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in pipe.poll(0))
