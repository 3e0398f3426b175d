"""Which code a pad gets: by what the target keeps and how it returns, and by where the return address is to stay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ftpatch.arch.contract import Read
from ftpatch.arch.fronts import PadForm, Pads
from ftpatch.arch.program_parts import Programs
from ftpatch.errors import UsageError
from ftpatch.plan.program.targets import ProgramTarget


@dataclass(frozen=True)
class FormChoice:
    """The forms that a request allows, the shortest first."""

    pads: Pads
    save: str  # where the return address stays: register or stack
    programs: Programs
    read: Read  # the code of the file

    @property
    def forms(self) -> list[PadForm]:
        return [form for form in self.pads.forms if form.save in ("", self.save)]

    @property
    def contract(self) -> str:
        """What a target must do, for people."""
        return "; or ".join(form.contract for form in self.forms)

    def judge(self, read: Read, va: int) -> str:
        """Why no pad can call the code at an address; empty where one can."""
        reasons = [self.why_not(form, va) for form in self.forms]
        others = [form for form in self.pads.forms if form not in self.forms and form.save == "stack"]
        if all(reasons) and any(not self.why_not(form, va) for form in others):
            return f"{reasons[-1]} (which it may with --save stack)"
        return "" if not all(reasons) else reasons[-1]

    def why_not(self, form: PadForm, va: int) -> str:
        """Why a pad of this form cannot call the code at an address; empty where it can."""
        if form.returns:
            return self.programs.keeps_contract(self.read, va)
        judge = self.programs.returns_plainly
        if judge is None:
            return "nothing here can tell what its code does"
        return partial(judge, self.read)(va, form.save != "stack")

    def form(self, target: ProgramTarget) -> PadForm:
        """The form of the pads that call a target. UsageError where a hook's stub cannot have the address there."""
        if target.hook:
            if self.save == "stack" and all(form.save for form in self.pads.forms):
                raise UsageError("--save stack is for --target", found="--hook",
                                 expected="the return address in a register: the hook's stub puts it on the stack "
                                 "itself")  # fmt: skip
            return next(form for form in self.forms if form.returns)
        if target.own is not None:
            for form in self.forms:
                if not self.why_not(form, target.va):
                    return form
        return self.forms[-1]  # taken by force: it returns as any function does

    def shorter(self, form: PadForm) -> str:
        """What would make a pad shorter."""
        least = min(self.pads.forms, key=lambda other: len(other.code))
        if len(least.code) >= len(form.code):
            return "build the file with more"
        return (
            f"build the file with more; a target that itself brings the return address back, and a hook, need "
            f"{len(least.code)}"
        )
