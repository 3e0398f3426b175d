"""How ppc64le kernels speak of ftrace in a log."""

from __future__ import annotations

from ftpatch.arch.parts import LogLines

# Source: arch/powerpc/kernel/trace/ftrace.c, ftrace_64_pg.c; the NIP of show_regs().
HEX = "[0-9a-fA-F]+"
LOG = LogLines(
    signs=("ftrace-powerpc:", "NIP:"),
    compared=(  # since 6.6, and before
        rf"(?P<place>\S{{1,64}}): expected \((?:0x)?(?P<expected>{HEX}|bl)\) != found \((?:0x)?(?P<found>{HEX})\)",
        rf"(?P<place>\S{{1,64}}): replaced \((?:0x)?(?P<found>{HEX})\) != old \((?:0x)?(?P<expected>{HEX})\)",
    ),
    remarks=(
        (r"No ftrace (?:trampolines|stubs) reachable from (\S+)", "neither ftrace_caller nor one of the kernel's "
         "trampolines is in a branch's reach of the site: the text has grown too large"),
        (r"No ftrace(?:_call)? trampoline\b", "the module has no stub to ftrace: it was loaded without .stubs room for "
         "it"),
        (r"Not expected bl: opcode is (\S+)", "the site is no call any more where -mprofile-kernel left one"),
        (r"Unexpected call sequence at ([^\s:]+)", "a site that ftrace is to switch on does not hold the NOP that it "
         "expects there"),
        (r"Unexpected instruction (\S+) around bl _mcount", "in front of the call stands no mflr r0: the record does "
         "not name a site"),
        (r"bad magic for stub", "a call of a module does not lead to one of its loader's stubs: the site was changed "
         "on disk"),
        (r"Failed to get trampoline target", "a call of a module does not lead to one of its loader's stubs"),
        (r"addr (\S+) does not match expected (\S+)", "a call leads to a stub of something else than ftrace's entry"),
        (r"No module (?:loaded|provided)", "the record names an address in no text that is in reach: a null record "
         "that this kernel does not skip, or one of text that is not there any more"),
        (r"REL24 out of range|Branch out of range", "a branch does not span the distance to ftrace's entry"),
        (r"fetching instruction failed|Fetching op(?:code)? failed", "the record names an address that cannot be read"),
    ),
)  # fmt: skip
