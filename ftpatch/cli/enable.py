"""`ftpatch enable`: turn chosen patch sites into calls, on disk, so that the kernel still boots."""

from __future__ import annotations

from typing import Unpack

import click

from ftpatch import api
from ftpatch.arrays import Mask
from ftpatch.cli.options import against
from ftpatch.cli.usage import Choice
from ftpatch.cli.writing import WritingOptions, records, writing_verb
from ftpatch.plan.plan import Plan

TARGET_HELP = "What the sites call (default: ftrace_caller)."
HOOK_HELP = "Modules and programs: the sites call this C function as hook(site, caller)."
STUB_HELP = "Modules: the sites call this stub, written in assembly."
FORCE_TARGET_HELP = "Take a target that was not shown to keep the contract of a site."
FORCE_EARLY_HELP = "Take functions that run before the target can work."
OPS_HELP = "The ftrace_ops of the sites, where the kernel has one per site (default: list)."
OPS_VIA_HELP = "How the sites get their ops."
ARM_HELP = "Layout pad-before: fill the pads, and leave the switches off."
SAVE_HELP = "Layout pad-before: where a pad keeps the return address."
WAYS = Choice(["auto", "literal", "thunk"])


PLACES = Choice(["register", "stack"])


@writing_verb("enable")
@records("auto", "null", "minus4", "shrink", "keep")
@click.option("--target", default="", metavar="SYMBOL|0xVA", help=TARGET_HELP)
@click.option("--hook", default="", metavar="SYMBOL", help=HOOK_HELP)
@click.option("--stub-asm", metavar="FILE", help=STUB_HELP)
@against
@click.option("--force-target", is_flag=True, help=FORCE_TARGET_HELP)
@click.option("--force-early", is_flag=True, help=FORCE_EARLY_HELP)
@click.option("--ops", metavar="list|nop|SYMBOL", help=OPS_HELP)
@click.option("--ops-via", default="auto", type=WAYS, show_default=True, help=OPS_VIA_HELP)
@click.option("--arm", is_flag=True, help=ARM_HELP)
@click.option("--save", default="register", type=PLACES, show_default=True, help=SAVE_HELP)
def command(scan: api.Scan, chosen: Mask, shared: WritingOptions, **own: Unpack[api.EnableOptions]) -> Plan:
    """Enable the patch sites that the selectors choose, all of them or none."""
    own["skip_unpatchable"] = shared.skip_unpatchable  # every writing verb has it
    own["unrecorded"] = shared.unrecorded  # as every selector
    return api.plan_enable(scan, chosen, shared.max_size, **own)
