"""What one boot showed: the guest's report and the kernel's own messages, parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Place = tuple[str, str, int]  # module, symbol in it, offset from there

_ALLOCATING = re.compile(r"ftrace: allocating (\d+) entries in (\d+) pages")
_SPLAT = re.compile(
    r"ftrace bug|ftrace failed|ftrace faulted|WARNING:|BUG:|kernel BUG at|Oops|Internal error"
    r"|Unable to handle|Kernel panic|detected stall|self-detected stall"
    r"|ftrace-powerpc:|expected \([0-9a-f]+\) != found|replaced \([0-9a-f]+\) != old|access of bad area"
)
_TIMESTAMP = re.compile(r"^\[ *\d+\.\d+\] ")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one boot; None stands for a question that the guest could not answer."""

    console: str  # all the kernel and QEMU printed
    reached_userspace: bool  # the guest's /init ran
    finished: bool  # the guest's report is complete
    timed_out: bool  # the guest had to be killed
    seconds: float  # wall time from start to end of QEMU
    text: int | None = None  # run-time address of _stext
    taint: int | None = None  # /proc/sys/kernel/tainted after all the tracing
    allocating: int | None = None  # N of "ftrace: allocating N entries in M pages"
    pages: int | None = None  # M of it
    functions: tuple[str, ...] | None = None  # available_filter_functions; None if ftrace is disabled
    total_info: str | None = None  # dyn_ftrace_total_info
    traced_other: int = 0  # hits of vfs_open with the filter on vfs_open
    leaked: int = 0  # hits of anything else with that filter
    foreign: tuple[str, ...] = ()  # the names in (at most 100 of) those
    traced_all: int = 0  # hits of any function without a filter
    hits: Mapping[str, int] = field(default_factory=dict)  # per name asked for, without a filter
    errors: Mapping[str, int] = field(default_factory=dict)  # failed step of /init -> errno
    splats: tuple[str, ...] = ()  # the kernel's messages that something is broken
    executed: Mapping[int, int] = field(default_factory=dict)  # watched address -> how often it ran
    loaded: Mapping[str, int] = field(default_factory=dict)  # module -> 0, or errno of finit_module
    unloaded: Mapping[str, int] = field(default_factory=dict)  # loaded module -> 0, or errno of delete_module
    symbols: Mapping[str, int] = field(default_factory=dict)  # "module:name" -> address, of names at one address only
    sent: int = 0  # frames that the drivers of the modules' interfaces took in the last recording
    executed_in: Mapping[Place, int] = field(default_factory=dict)  # watched place in a module -> how often it ran
    steps: tuple[str, ...] = ()  # the answers to the steps that /init was to take, in their order
    expected_taint: int = 0  # the taint that the caller knows to be right

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what a healthy kernel with working function tracing would not have shown, one line each."""
        if not self.reached_userspace:
            end = "was killed at the timeout" if self.timed_out else "ended"
            return (f"the guest {end} without reaching userspace", *self.splats)
        found = {
            "killed at the timeout": self.timed_out,
            "the guest's report is incomplete": not self.finished,
            self._taint: self.taint != self.expected_taint,
            "ftrace is disabled": self.functions is None,
            "the function tracer does not show vfs_open": self.traced_other == 0,
        }
        steps = (f"step {step} failed with errno {errno}" for step, errno in self.errors.items())
        refused = (f"module {name} was not loaded, errno {errno}" for name, errno in self.loaded.items() if errno)
        kept = (f"module {name} was not unloaded, errno {errno}" for name, errno in self.unloaded.items() if errno)
        return (*(text for text, holds in found.items() if holds), *refused, *kept, *steps, *self.splats)

    @property
    def _taint(self) -> str:
        """Return the taint, and beside it the expected one if there should be any."""
        return f"taint is {self.taint}" + (f", not {self.expected_taint}" if self.expected_taint else "")


def judge(
    console: str,
    report: str,
    *,
    seconds: float,
    timed_out: bool,
    executed: Mapping[int, int] | None = None,
    expected_taint: int = 0,
) -> Verdict:
    """Return the verdict on a boot that printed `console` and whose /init reported `report`."""
    answers = _answers(report)
    allocating = _ALLOCATING.search(console)
    errors = _numbers(answers, "error.")
    return Verdict(
        console=console,
        reached_userspace="begin" in answers,
        finished="end" in answers,
        timed_out=timed_out,
        seconds=seconds,
        text=_number(answers, "text", base=16),
        taint=_number(answers, "taint"),
        allocating=int(allocating[1]) if allocating else None,
        pages=int(allocating[2]) if allocating else None,
        functions=_functions(answers, errors),
        total_info=answers["total_info"][0] if "total_info" in answers else None,
        traced_other=_number(answers, "other") or 0,
        leaked=_number(answers, "leaked") or 0,
        foreign=tuple(sorted(set(answers.get("foreign", ())))),
        traced_all=_number(answers, "all") or 0,
        hits=_numbers(answers, "hit."),
        errors=errors,
        splats=tuple(_splats(console)),
        executed=dict(executed or {}),
        loaded=_numbers(answers, "loaded."),
        unloaded=_numbers(answers, "unloaded."),
        symbols=_symbols(answers),
        sent=int(answers.get("sent", ["0"])[-1]),
        steps=tuple(answers.get("step", ())),
        expected_taint=expected_taint,
    )


def _answers(report: str) -> dict[str, list[str]]:
    """Return all values per key; a last line without its newline was cut short and is left out."""
    answers: dict[str, list[str]] = {}
    for line in report.split("\n")[:-1]:
        key, _, value = line.partition("=")
        answers.setdefault(key, []).append(value)
    return answers


def _number(answers: Mapping[str, list[str]], key: str, base: int = 10) -> int | None:
    """Return the number reported under `key`, None if there is none."""
    return int(answers[key][0], base) if key in answers else None


def _functions(answers: Mapping[str, list[str]], errors: Mapping[str, int]) -> tuple[str, ...] | None:
    """Return the traceable functions, which may be none at all; None unless all could be listed."""
    if "function" in errors or "lines.function" not in answers:
        return None
    return tuple(answers.get("function", ()))


def _numbers(answers: Mapping[str, list[str]], prefix: str) -> dict[str, int]:
    """Return the numbers of all keys that begin with `prefix`, under what follows it."""
    return {key.removeprefix(prefix): int(values[0]) for key, values in answers.items() if key.startswith(prefix)}


def _symbols(answers: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the addresses of the modules' symbols; a name that several of them share says nothing and is left out."""
    found = {key.removeprefix("symbol."): set(values) for key, values in answers.items() if key.startswith("symbol.")}
    return {name: int(values.pop(), 16) for name, values in found.items() if len(values) == 1}


def _splats(console: str) -> Iterator[str]:
    """Yield the console lines that report something broken, without their timestamps."""
    for line in console.splitlines():
        if _SPLAT.search(line):
            yield _TIMESTAMP.sub("", line).strip()
