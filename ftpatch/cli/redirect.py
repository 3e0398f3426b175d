"""`ftpatch redirect`: let functions be others, on disk, from the first call on."""

from __future__ import annotations

from typing import Unpack

import click

from ftpatch import api
from ftpatch.arrays import Mask
from ftpatch.cli.options import against
from ftpatch.cli.writing import WritingOptions, records, writing_verb
from ftpatch.errors import UsageError
from ftpatch.plan.plan import Plan
from ftpatch.plan.redirect.pairs import Pair, read_pairs
from ftpatch.sites.choice import Choose

TO_HELP = "The function that the chosen one becomes: name, name@file.c or 0xVA."
MAP_HELP = "A function and what it becomes; repeatable. @FILE has one pair a line."
WITH_HELP = "Modules: an object file that brings the replacement along."
KEEP_HELP = "Modules, with --with: the name by which the object calls the old function; repeatable."
FORCE_SIGNATURE_HELP = "Take a replacement with other parameters or another result."
ASSUME_HELP = "Take it that all arguments are in registers, where nothing tells."
FORCE_EARLY_HELP = "Take functions that run before a stub can work."


def pairs_of(shared: WritingOptions, to: str | None, maps: tuple[str, ...]) -> tuple[Pair, ...]:
    """The pairs that the command line names. Raises UsageError where there is none, or half of one."""
    if bool(shared.func) != (to is not None):
        raise UsageError("--func and --to belong together", found="--to alone" if to is not None else "--func alone",
                         expected="--func FOO --to BAR, or --map FOO=BAR")  # fmt: skip
    pairs = (*(Pair(func, to or "") for func in shared.func), *read_pairs(maps))
    if not pairs:
        raise UsageError("nothing is chosen", expected="--func FOO --to BAR, or --map FOO=BAR")
    return pairs


def _choose(shared: WritingOptions, to: str | None, map_: tuple[str, ...], **own: object) -> Choose:
    func = [pair.func for pair in pairs_of(shared, to, map_)]
    return api.by_selectors(func, shared.status, shared.section, shared.unrecorded)


def _one_object(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    """The object file, if there is one. Raises UsageError where there are several: the last would win in silence."""
    if len(values) > 1:
        raise UsageError("--with is given twice", found=", ".join(values), expected="one object",
                         todo="ld -r makes one of several")  # fmt: skip
    return values[0] if values else None


@writing_verb("redirect", _choose)
@records("auto", "null", "minus4", "shrink")
@click.option("--to", metavar="BAR", help=TO_HELP)
@click.option("--map", "map_", multiple=True, metavar="FOO=BAR|@FILE", help=MAP_HELP)
@click.option("--with", "patch", multiple=True, callback=_one_object, metavar="FILE.o", help=WITH_HELP)
@click.option("--keep-original", multiple=True, metavar="NAME|FOO=NAME", help=KEEP_HELP)
@against
@click.option("--force-signature", is_flag=True, help=FORCE_SIGNATURE_HELP)
@click.option("--assume-register-args", is_flag=True, help=ASSUME_HELP)
@click.option("--force-early", is_flag=True, help=FORCE_EARLY_HELP)
def command(
    scan: api.Scan, chosen: Mask, shared: WritingOptions, to: str | None, map_: tuple[str, ...],
    **own: Unpack[api.RedirectOptions],
) -> Plan:  # fmt: skip
    """Let the chosen functions be others: whoever calls FOO comes to BAR. All of them or none."""
    own["skip_unpatchable"] = shared.skip_unpatchable  # every writing verb has it
    return api.plan_redirect(scan, chosen, pairs_of(shared, to, map_), shared.max_size, **own)
