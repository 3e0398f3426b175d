"""What a kernel's module loader does with the sections of a module, by name: what that means for one that is added.

    CARRIED    nobody looks for it: code and data, which may have any name
    APPENDED   a table that the loader finds by its name and walks, whose rows stand for themselves: it counts them by
               the section's size, and sorts them itself where it needs an order
    FOLDED     the same, where the loader knows the section by another name
    DROPPED    nothing that runs needs it
    REFUSED    it would mean something else in another file, or nothing at all

Source: kernel/module/main.c find_module_sections(), layout_sections(), post_relocation(); kernel/extable.c,
lib/bug.c module_bug_finalize(), kernel/jump_label.c jump_label_add_module(); include/linux/init.h, module.h, export.h
(Linux 6.12, 7.2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ftpatch.arch.parts import Linking

CARRIED, APPENDED, FOLDED, DROPPED, REFUSED = range(5)
EH_FRAME, INIT_EH_FRAME = ".eh_frame", ".init.eh_frame"
PERCPU = ".data..percpu"

APPENDED_NAMES = (
    "__ex_table",  # sorted by the loader
    "__bug_table",  # searched from one end to the other
    "__jump_table",  # sorted by the loader
    PERCPU,  # one piece of memory for each processor, as large as the section
    ".data..ro_after_init",  # made read-only by its name
    "__patchable_function_entries", "__mcount_loc",  # sorted by the tracer
    "__dyndbg", ".printk_index", "__trace_printk_fmt", "__tracepoint_str", "_kprobe_blacklist",
    ".noinstr.text", ".kprobes.text",  # code that nobody may probe, known by the section
    ".kcfi_traps",
)  # fmt: skip
# of these, what has no rows of one length
WITHOUT_ROWS = (PERCPU, ".data..ro_after_init", ".noinstr.text", ".kprobes.text")

DROPPED_NAMES = re.compile(r"\.comment|\.note\b.*|\.discard\b.*|\.BTF\b.*|\.gnu\.warning\b.*|\.modinfo|\.debug_.*")

A_MODULE = "a module, not an object", "give the object of your own source file (gcc -c), not what modpost and ld made"
EXPORTS = "exports, whose tables other modules are linked against", "leave EXPORT_SYMBOL out of the object"
TRACEPOINTS = "tracepoints of its own, which several tables and files in tracefs describe", "use those of the module"
CONSTRUCTORS = "constructors, which only some kernels run", "initialise in the function itself"
BUILT_IN = "an initcall of a kernel", "compile with -DMODULE, and leave module_init out"

# (pattern of names, what such a section holds, what to do instead)
REFUSED_NAMES: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"\.gnu\.linkonce\.this_module|__versions|__version_ext_\w+", A_MODULE),
    (r"__ksymtab.*|___ksymtab.*|__kcrctab.*|__kflagstab|\.export_symbol", EXPORTS),
    (r"__tracepoints\w*|__tracepoint_check|_ftrace_events?|_ftrace_eval_map|__bpf_raw_tp_map|__syscalls_metadata",
     TRACEPOINTS),
    (r"\.static_call.*", ("static calls of its own, which the loader sorts by key", "call the function itself")),
    (r"\.(init|fini|preinit)_array.*|\.[cd]tors.*", CONSTRUCTORS),
    (r"\.(con_)?initcall.*|\.init\.setup|\.exitcall.*", BUILT_IN),
    (r"__param|__obsparm", ("module parameters, which would need their place in /sys and .modinfo",
                            "use a variable of the module")),
    (r"___srcu_struct_ptrs", ("an SRCU domain, which the loader initialises by a table", "use one of the module")),
    (r"__dyndbg_classes", ("classes of debug messages, which belong to the module's own", "use pr_debug alone")),
    (r"\.kunit_\w*test_suites", ("KUnit tests", "leave them out")),
    (r"_error_injection_whitelist", ("functions for error injection", "leave ALLOW_ERROR_INJECTION out")),
    (r"alloc_tags", ("tags of allocations, which are found between two symbols of the module",
                     "compile without CONFIG_MEM_ALLOC_PROFILING")),
    (r"\.hyp\..*", ("code of a hypervisor, which is loaded on its own", "leave it out")),
    (r"\.opd", ("function descriptors of the first ABI", "compile with -mabi=elfv2")),
    (r"\.got.*|\.plt.*", ("position-independent code with a GOT of its own", "compile with -fno-pic")),
    (r"\.klp\..*", ("a live patch", "load it as it is")),
)  # fmt: skip


class Treatment(NamedTuple):
    """What to do with a section of an object that is linked into a module."""

    what: int  # one of the five
    name: str = ""  # APPENDED, FOLDED: the section of the module that it goes to
    why: str = ""  # REFUSED: what it holds
    todo: str = ""  # REFUSED: what to do instead


def treatment(name: str, linking: Linking) -> Treatment:
    """What a section's name means to the loader of a machine."""
    if name in APPENDED_NAMES or name in linking.appended:
        return Treatment(APPENDED, name)
    if name == EH_FRAME:
        return Treatment(FOLDED, INIT_EH_FRAME)
    if name in linking.own_sections:
        return Treatment(REFUSED, why="a section that the loader fills itself", todo="leave it out")
    for pattern, (why, todo) in REFUSED_NAMES:
        if re.fullmatch(pattern, name):
            return Treatment(REFUSED, why=why, todo=todo)
    if DROPPED_NAMES.fullmatch(name):
        return Treatment(DROPPED)
    # a name of C lets a linker make symbols for its section's ends: somebody looks for it
    if re.fullmatch(r"[A-Za-z_]\w*", name) and not name.startswith("__ftr_alt_"):
        return Treatment(REFUSED, why="a table for somebody who finds it by its name", todo="leave it out")
    return Treatment(CARRIED)
