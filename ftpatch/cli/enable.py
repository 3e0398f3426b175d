"""`ftpatch enable`: turn chosen patch sites into calls, on disk, so that the kernel still boots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ftpatch.cli.options import gathered
from ftpatch.cli.writing import writing_verb

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.cli.writing import WritingOptions
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.scan import Scan


@dataclass(frozen=True)
class EnableOptions:
    """The options of `enable` alone."""

    target: str  # symbol or address; "" for the kernel's own
    hook: str  # C function; "" for none
    stub_asm: str | None  # file with assembly
    against: tuple[str, ...]  # files: the kernel that will load the module, and other modules
    force_target: bool
    force_early: bool
    records: str  # how records leave the kernel's table
    ops: str | None
    ops_via: str


@writing_verb("enable", records=("auto", "null", "minus4", "shrink", "keep"))
@gathered("own", EnableOptions)
@click.option("--target", default="", metavar="SYMBOL|0xVA", help="What the sites call (default: ftrace_caller).")
@click.option(
    "--hook", default="", metavar="SYMBOL", help="Modules: the sites call this C function as hook(site, caller)."
)
@click.option("--stub-asm", metavar="FILE", help="Modules: the sites call this stub, written in assembly.")
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    help="Modules: the vmlinux that will load it, and modules whose symbols it may use; repeatable.",
)
@click.option("--force-target", is_flag=True, help="Take a target that was not shown to keep the contract of a site.")
@click.option("--force-early", is_flag=True, help="Take functions that run before the target can work.")
@click.option(
    "--ops",
    metavar="list|nop|SYMBOL",
    help="The ftrace_ops of the sites, where the kernel has one per site (default: list).",
)
@click.option(
    "--ops-via",
    default="auto",
    type=click.Choice(["auto", "literal", "thunk"]),
    show_default=True,
    help="How the sites get their ops.",
)
def command(scan: Scan, chosen: Mask, shared: WritingOptions, own: EnableOptions) -> Plan:
    """Enable the patch sites that the selectors choose, all of them or none."""
    from ftpatch import api

    return api.plan_enable(
        scan, chosen, shared.max_size, target=own.target, hook=own.hook, stub_asm=own.stub_asm, against=own.against,
        force_target=own.force_target, force_early=own.force_early, records=own.records, ops=own.ops,
        ops_via=own.ops_via, skip_unpatchable=shared.skip_unpatchable,
    )  # fmt: skip
