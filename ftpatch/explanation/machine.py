"""Which machine a message is from, and what the bytes that it prints are there.

Other lines of the log tell (registers, a release); else how many bytes the kernel printed, at which address, and what
instruction they are. Where more than one machine fits, none is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ftpatch.arch import Arch, architectures
from ftpatch.arch.known_code import UNKNOWN
from ftpatch.arch.site_bytes import (
    MACHINES,
    Machine,
    Reading,
    candidates,
    family_of,
    has_code_at,
    machines_named,
    name_in_logs,
    number,
    reading,
)  # fmt: skip
from ftpatch.explanation.message import Splat

NO_READING = Reading(UNKNOWN, "")


@dataclass(frozen=True)
class Origin:
    """The machine of a message, and what its bytes are there."""

    name: str = ""  # of the machine; "" where nothing tells it
    by: str = ""  # `log`, `bytes`, `address`, `file`: what tells it
    machine: Machine | None = None  # where its bytes can be read
    actual: Reading = NO_READING  # at the call
    wanted: Reading = NO_READING  # what the kernel wanted there, where it says so
    number: int | None = None  # of the bytes at the call
    wanted_number: int | None = None

    @property
    def arch(self) -> Arch | None:
        """The machine as this program knows it, if it does."""
        return _arch_named(self.name)


def origin_of(splat: Splat, of_file: str = "") -> Origin:
    """The machine of a message. of_file: the machine of a file that may have printed it, where nothing else tells."""
    name, by, machine = _named(splat)
    if not name and of_file:
        fitting = machines_named(name_in_logs(of_file), len(splat.actual) if splat.actual else None)
        name, by, machine = (fitting[0].name, "file", fitting[0]) if fitting else (name, by, machine)
    if machine is None or splat.actual is None:
        plain = _plain_number(splat.actual, _arch_named(name)) if splat.actual and machine is None else None
        return Origin(name, by, machine, number=plain)
    wanted = splat.wanted
    return Origin(
        name, by, machine, _read(machine, splat.actual, splat.ip), _read(machine, wanted, splat.ip) if wanted
        else NO_READING, number(machine, splat.actual), number(machine, wanted) if wanted else None,
    )  # fmt: skip


def _arch_named(name: str) -> Arch | None:
    """The machine that has this name in logs, if this program reads its files."""
    return next((arch for arch in architectures() if name_in_logs(arch.name) == name), None)


def _plain_number(code: bytes, arch: Arch | None) -> int:
    """Bytes of a machine that is not known here as a number: a word, else the first byte foremost."""
    words = arch.unit > 1 if arch else len(code) == 4
    return int.from_bytes(code, "little" if words else "big")


def _named(splat: Splat) -> tuple[str, str, Machine | None]:
    """(name, by what, where its bytes can be read) of the machine."""
    code = splat.actual if splat.actual and any(len(splat.actual) in machine.sizes for machine in MACHINES) else None
    family = family_of(splat.machine)
    if family:
        return _member(splat, family)
    if splat.machine:
        fitting = machines_named(splat.machine, len(code) if code else None)
        if fitting or not machines_named(splat.machine):  # else the log is of another machine than its other lines say
            return splat.machine, "log", fitting[0] if fitting else None
    for va in (splat.ip, None) if splat.ip else (None,):
        found = list(candidates(code, va))
        names = list(dict.fromkeys(machine.name for machine, _ in found))
        by = "bytes" if code and (any(code) or not va) else "address"  # zeros are the same everywhere
        if names and (code or va) and (len(names) == 1 or _one_family(machine for machine, _ in found)):
            return " or ".join(names), by, found[0][0]
        if names and va is not None:
            return "", "", None  # several have code at that address, to which the bytes mean something
    sized = [machine for machine, _ in candidates(None, splat.ip) if code and len(code) in machine.sizes]
    if len({machine.name for machine in sized}) == 1:  # bytes that mean nothing, but so many, at such an address
        return sized[0].name, "bytes", sized[0]
    return "", "", None


def _one_family(machines: Iterable[Machine]) -> bool:
    """Whether all are of one family, whose bytes mean the same."""
    families = {machine.family for machine in machines}
    return len(families) == 1 and "" not in families


def _member(splat: Splat, family: tuple[Machine, ...]) -> tuple[str, str, Machine | None]:
    """Which machine of a family: by address and by the order in which the bytes mean something."""
    code = splat.actual
    members = [machine for machine in family if has_code_at(machine, splat.ip)] if splat.ip else list(family)
    if code and any(code):
        members = [machine for machine in members if reading(machine, code, splat.ip).kind != UNKNOWN] or members
    machine = members[0] if members else family[0]
    return machine.name, "log", machine if not code or len(code) in machine.sizes else None


def _read(machine: Machine, code: bytes, va: int | None) -> Reading:
    """What the bytes are, by the tables, else by the disassembler."""
    told = reading(machine, code, va)
    if told.kind == UNKNOWN and len(code) in machine.sizes and machine.capstone:
        from ftpatch.explanation.code import disassembly

        return Reading(UNKNOWN, disassembly(machine.capstone, code, va or 0))
    return told
