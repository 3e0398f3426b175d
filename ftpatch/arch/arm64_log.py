"""How arm64 kernels speak of ftrace in a log."""

from __future__ import annotations

from ftpatch.arch.parts import LogLines

# Source: arch/arm64/kernel/ftrace.c, arch/arm64/kernel/process.c show_regs() (pstate).
LOG = LogLines(
    signs=("pstate:", "pstate :"),
    remarks=(
        (r"Misaligned patch-site (\S+)", "a record is no multiple of 8, so that the ops pointer in front of the "
         "function would not be written in one go: the kernel leaves the function out (gcc -Os or a kCFI hash moved "
         "it)"),
        (r"unexpected insn in patch-site (\S+)", "behind the ops pointer stands neither a BTI nor a NOP: the record "
         "does not name a site, or the site is enabled on disk"),
        (r"ftrace: no module PLT for (\S+)", "the module is too far away to call ftrace and has no trampoline section, "
         "or the site is in a section that none serves"),
    ),
)  # fmt: skip
