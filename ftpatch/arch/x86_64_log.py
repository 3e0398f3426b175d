"""How x86_64 kernels speak of ftrace in a log."""

from __future__ import annotations

from ftpatch.arch.parts import LogLines

# Source: arch/x86/kernel/ftrace.c ftrace_verify_code() (Linux 5.5 to 6.12). What tells the machine: `site_bytes.py`.
LOG = LogLines(
    remarks=(
        (r"at \S{0,64}arch/x86/kernel/ftrace\.c:\d+ ftrace_verify_code\+0x[0-9a-f/x]{1,32}", "the five bytes at a site "
         "are not those that ftrace wants to find there"),
    ),
)  # fmt: skip
