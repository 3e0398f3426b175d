"""What a kernel's sections are called, and between which symbols they lie, where no header says so.

Those at the end lie within those in front of them. The linker's script of each machine has some of them, in its own
order; what is not there is not made up.
Source: include/asm-generic/vmlinux.lds.h and arch/*/kernel/vmlinux.lds.S (Linux 4.4 to 7.3).
"""

from __future__ import annotations

from typing import NamedTuple

from ftpatch.elf.tables import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_RELA,
    SHT_RELR,
)

CODE, CONSTANT, DATA = SHF_ALLOC | SHF_EXECINSTR, SHF_ALLOC, SHF_ALLOC | SHF_WRITE


class Bounds(NamedTuple):
    """A section, and the symbols at its two ends: of each the first that a kernel has."""

    name: str
    start: tuple[str, ...]
    stop: tuple[str, ...]
    flags: int = CONSTANT
    kind: int = SHT_PROGBITS
    exact: bool = True  # its end is where its content ends; else zeros behind that are padding
    entsize: int = 0


def _table(name: str, flags: int = CONSTANT, kind: int = SHT_PROGBITS, symbols: str = "") -> Bounds:
    """A table between __start_NAME and __stop_NAME."""
    symbols = symbols or name
    return Bounds(name, (f"__start_{symbols}",), (f"__stop_{symbols}",), flags, kind)


def _fixups(*names: str) -> tuple[Bounds, ...]:
    """Tables of places that the kernel changes at boot, by what they are about."""
    return tuple(_table(f"__{name}_fixup") for name in names)


WRITTEN = ".data"
PARTS: tuple[Bounds, ...] = (
    Bounds(WRITTEN, ("_sdata", "_data", "__init_end"), ("__bss_start", "_edata"), DATA, exact=False),
    Bounds(".bss", ("__bss_start",), ("_end", "__bss_stop"), DATA, SHT_NOBITS),
    Bounds(".brk", ("__brk_base",), ("__brk_limit",), DATA, SHT_NOBITS),
    Bounds(".rodata", ("__start_rodata", "_etext"), ("__end_rodata", "__init_begin"), CONSTANT, exact=False),
    Bounds(".init.data", ("__initdata_begin", "_einittext"), ("__initdata_end", "__init_end"), DATA, exact=False),
    Bounds(".text", ("_stext", "_text"), ("_etext",), CODE),
    Bounds(".head.text", ("_text",), ("_stext",), CODE),
    Bounds(".init.text", ("_sinittext", "__inittext_begin"), ("_einittext",), CODE),
    Bounds(".exit.text", ("__exittext_begin",), ("__exittext_end",), CODE),
)

# -- within those
TABLES: tuple[Bounds, ...] = (
    Bounds(".head.text", ("_text",), ("__head_end",), CODE),
    Bounds(".pci_fixup", ("__start_pci_fixups_early",), ("__end_pci_fixups_suspend_late", "__end_pci_fixups_suspend")),
    *(_table(name) for name in ("__ksymtab", "__ksymtab_gpl", "__kcrctab", "__kcrctab_gpl", "__kflagstab")),
    Bounds("__ksymtab_strings",
           ("__stop___kflagstab", "__stop___kcrctab_gpl", "__stop___ksymtab_gpl", "__stop___ksymtab"),
           ("__start___param",), exact=False),
    _table("__param"), _table("__modver", DATA), _table("__ex_table"), _table("__bug_table", DATA),
    _table(".notes", kind=SHT_NOTE, symbols="notes"), _table(".BTF", symbols="BTF"),
    *_fixups("stf_entry_barrier", "uaccess_flush", "entry_flush", "scv_entry_flush", "stf_exit_barrier", "rfi_flush",
             "ftr", "mmu_ftr", "lwsync", "fw_ftr"),
    _table("__spec_barrier_fixup", symbols="__barrier_nospec_fixup"),
    _table("__soft_mask_table"), _table("__restart_table"),
    # the records of patch sites, which may all be zeros: relocations write them, or a patch took them out
    Bounds(".init.data", ("__start_mcount_loc",), ("__stop_mcount_loc",), DATA),
    Bounds(".data..percpu", ("__per_cpu_start",), ("__per_cpu_end",), DATA),
    Bounds(".hyp.rodata", ("__hyp_rodata_start",), ("__hyp_rodata_end",)),
    _table(".orc_header", symbols="orc_header"), _table(".orc_unwind_ip", symbols="orc_unwind_ip"),
    _table(".orc_unwind", symbols="orc_unwind"),
    Bounds(".orc_lookup", ("orc_lookup",), ("orc_lookup_end",), DATA, SHT_NOBITS),
    *(Bounds(name, (f"__{name[1:]}",), (f"__{name[1:]}_end",))
      for name in (".parainstructions", ".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal",
                   ".cfi_sites", ".smp_locks")),
    Bounds(".altinstr_replacement", ("__alt_instructions_end",), ("__apicdrivers",), CODE, exact=False),
    Bounds(".altinstructions", ("__alt_instructions",), ("__alt_instructions_end",)),
    Bounds(".apicdrivers", ("__apicdrivers",), ("__apicdrivers_end",), DATA),
    _table(".kcfi_traps", symbols="__kcfi_traps"),
)  # fmt: skip

# the tables of relocations that the kernel applies to itself
RELA = Bounds(
    ".rela.dyn", ("__pi_rela_start", "__rela_start"), ("__pi_rela_end", "__rela_end"), kind=SHT_RELA, entsize=24
)
RELR = Bounds(
    ".relr.dyn", ("__pi_relr_start", "__relr_start"), ("__pi_relr_end", "__relr_end"), kind=SHT_RELR, entsize=8
)
BY_CONTENT = tuple(part for part in TABLES if part.name in (".notes", ".BTF"))
HEAD_TEXT, EXIT_TEXT, OTHER_TEXT, ALTERNATIVES, PER_CPU = (
    ".head.text",
    ".exit.text",
    ".rodata.text",
    ".altinstr_aux",
    ".data..percpu",
)
