"""Which code a kernel's build makes records of calls for."""

from __future__ import annotations

from collections.abc import Collection

# Beside these, every section whose name begins with `.text`. Calls elsewhere, as of exit functions, stay without one.
# Source: scripts/recordmcount.c is_mcounted_section_name() (Linux 6.1).
RECORDED = frozenset(
    {
        ".init.text", ".ref.text", ".sched.text", ".spinlock.text", ".irqentry.text", ".softirqentry.text",
        ".kprobes.text", ".cpuidle.text",
    }
)  # fmt: skip


def is_recorded(section: str) -> bool:
    """Whether recordmcount makes records for the calls in a section of that name."""
    return section.startswith(".text") or section in RECORDED


def is_never_traced(section: str) -> bool:
    """Whether no kernel traces what is in a section of that name, whatever the compiler recorded: exit functions are
    notrace in every header of the kernel, and a link discards the others."""
    return section.startswith((".exit.text", ".discard."))


# what the last step of a module's build adds; vmlinux.o and the objects of a module have a .modinfo, too
MODULE = ".gnu.linkonce.this_module"


def is_loaded(names: Collection[str]) -> bool:
    """Whether a relocatable file is a module as a kernel loads it, whose loader reads the first section of records
    alone; any other goes through a linker first. names: of its sections."""
    return MODULE in names
