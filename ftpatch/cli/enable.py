"""`ftpatch enable`: turn chosen patch sites into calls, on disk, so that the kernel still boots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ftpatch.cli.options import layout, options, reports, selectors
from ftpatch.cli.writing import chosen_by, output, records_option, run

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.scan import Scan


@click.command("enable")
@click.argument("file", default="vmlinux", metavar="[FILE]")
@options(selectors, reports, [layout], output, records_option("auto", "null", "minus4", "shrink", "keep"))
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
def command(
    file: str, func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], target: str, hook: str,
    stub_asm: str | None, against: tuple[str, ...], force_target: bool, force_early: bool, way: str, ops: str | None,
    ops_via: str, **shared: Any,
) -> int:  # fmt: skip
    """Enable the patch sites that the selectors choose, all of them or none."""
    from ftpatch import api
    from ftpatch.plan.request import EnableRequest

    def decide(scan: Scan, chosen: Mask) -> Plan:
        stub = api.read_stub(scan, stub_asm) if stub_asm is not None else None
        met = api.read_against(scan, against, shared["max_size"])
        request = EnableRequest(
            chosen, target=target, force_target=force_target, force_early=force_early, records=way, ops=ops,
            ops_via=ops_via, skip_unpatchable=shared["skip_unpatchable"], hook=hook, stub=stub, against=met,
        )  # fmt: skip
        return api.make_plan(scan, request)

    return run("enable", file, shared, chosen_by(func, status, section), decide)
