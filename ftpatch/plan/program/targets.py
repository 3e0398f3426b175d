"""What the sites of a program call: a function that keeps what a site needs kept, or a hook through a stub."""

from __future__ import annotations

from dataclasses import dataclass

from ftpatch.arch.program_parts import HookCall, Programs
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.plan.program.imports import find_import
from ftpatch.plan.program.symbols import Function, find_function, not_found

USE_HOOK = "--hook calls it by a stub that saves them"


@dataclass(frozen=True)
class ProgramTarget:
    """Where the sites' calls lead."""

    name: str  # for people, and in reports
    va: int  # of the function; of an import, the stub of a .plt that is called, or the slot that a hook's stub reads
    own: Function | None  # the function of this file; None for an import
    warning: str = ""
    hook: bool = False  # whether a stub calls it
    entry: int | None = None  # of pads, see HookCall

    @property
    def call(self) -> HookCall:
        """What a hook's stub calls."""
        return HookCall(self.va, self.own is None, self.entry)


def direct_target(image: Image, programs: Programs, text: str, force: bool, library: bool = False) -> ProgramTarget:
    """The target that sites call without a stub. library: their calls are ordinary ones, as of any function. Raises
    SelectionError or PolicyError where none can be."""
    where = f"--target {text}"
    own = find_function(image, "--target", text)
    if own is None:
        return _imported(image, programs, text, force)
    arch = image.arch
    reason = (
        arch.keeps_contract(image.code, own.va, False, library=True) if library
        else programs.keeps_contract(image.code, own.va)
    )  # fmt: skip
    if reason and not force:
        raise PolicyError("the target is not shown to keep what a function is called with", where, found=reason,
                          expected=arch.library_contract if library else programs.contract,
                          todo=f"{USE_HOOK}; --force-target takes it nevertheless")  # fmt: skip
    warning = f"target {text} was not shown to keep what a function is called with ({reason}); forced"
    return ProgramTarget(own.name, own.va, own, warning if reason else "")


def _imported(image: Image, programs: Programs, text: str, force: bool) -> ProgramTarget:
    """An imported function, called by its stub in a .plt."""
    where, found = f"--target {text}", find_import(image, programs, text)
    if found is None:
        raise not_found(image, "--target", text)
    if programs.no_plt:
        raise PolicyError("no site may call a stub of the .plt", where, found=programs.no_plt,
                          expected="a function of this file", todo=USE_HOOK)  # fmt: skip
    if not found.plt:
        raise PolicyError("the imported target has no stub in a .plt", where, found=f"its address at {found.slot:#x}",
                          expected="a stub that jumps there", todo=USE_HOOK)  # fmt: skip
    if found.late:
        raise PolicyError("the imported target is looked up when it is first called, which changes registers", where,
                          found="a slot of the .plt without BIND_NOW", expected="a program linked with -z now",
                          todo=USE_HOOK)  # fmt: skip
    if not force:
        raise PolicyError("what an imported target does cannot be judged", where, found="a function of another file",
                          expected=programs.contract,
                          todo=f"{USE_HOOK}; --force-target takes it nevertheless")  # fmt: skip
    warning = f"what imported target {text} does is not known; forced"
    return ProgramTarget(text, found.plt, None, warning)


def hook_target(image: Image, programs: Programs, text: str, force: bool) -> ProgramTarget:
    """The C function that a stub calls. Raises SelectionError or PolicyError where none can be."""
    where, own = f"--hook {text}", find_function(image, "--hook", text)
    if own is not None:
        return ProgramTarget(f"hook {own.name}", own.va, own, hook=True)
    found = find_import(image, programs, text)
    if found is None:
        raise not_found(image, "--hook", text)
    if found.weak and not force:
        raise PolicyError("the imported hook is weak: the program starts without it, and would call address 0", where,
                          found="a weak undefined symbol", expected="one that must be there",
                          todo="--force-target takes it nevertheless")  # fmt: skip
    warning = f"imported hook {text} is weak: where nothing defines it, the sites call address 0" if found.weak else ""
    return ProgramTarget(f"hook {text}", found.slot, None, warning, hook=True)
