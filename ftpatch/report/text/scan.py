"""The text of `scan`: the figures of each file, its sites where they are wanted, and the modules of a tree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ftpatch.arch import shape_named
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.fitting import fitted
from ftpatch.report.text.lines import below, counts_line, files_and_trees, head, line, mib, number, title
from ftpatch.report.text.sites import site_lines
from ftpatch.report.text.units import unit_lines

if TYPE_CHECKING:
    from ftpatch.arch.shape import Shape
    from ftpatch.document.site_rows import LivePatchObject
    from ftpatch.document.types import ImageObject, ReachObject, SummaryObject, TreeObject

N_NAMES = 12  # sections and the like that one line of text names
CARRIERS = {
    "word": "words of the file itself",
    "rela": "addends of relative relocations (.rela.dyn)",
    "relr": "words of the file, moved by packed relocations (.relr.dyn)",
    "section": "relocations of the record sections",
    "mixed": "more than one kind of place",
    "none": "nowhere: no records",
}


def render(document: Document) -> Iterator[str]:
    """Files that were named first, then trees."""

    def one_file(image: ImageObject) -> Iterator[str]:
        yield from _summary(image, document)
        if document.show_sites:
            yield from site_lines(image["sites"], document)
        if "units" in image:
            yield from unit_lines(image["units"], document)

    yield from files_and_trees(document, one_file, lambda tree: _tree(tree, document))


def _tree(tree: TreeObject, document: Document) -> Iterator[str]:
    """Totals and the table by module, bad files among them; where sites were chosen, of modules that have some."""
    images, errors = document.of_tree(tree["tree"])
    total = tree["totals"]
    yield f"{title(tree['tree'], document)}: {total['modules']} modules ({_counts(total['by_arch'])})\n"
    with_sites, without = total["with_sites"], total["without_sites"]
    yield line("sites", f"in {with_sites} modules, none in {without}; {total['bad']} bad files")
    yield line("records", f"{total['slots']} slots, {total['null']} null, {total['live']} live")
    counted = {"layouts": total["by_layout"], "sections": total["by_section"], "status": total["by_status"]}
    yield from (counts_line(name, counts, document.width) for name, counts in counted.items() if counts)
    if redirected := total.get("redirected"):
        n_modules = sum("redirected" in image["summary"] for image in images)
        yield line("patched", f"{redirected} redirected, in {number(n_modules, 'module')}")
    usual = _usual(images)  # what differs from it is remarked
    shown = [image for image in images if image["sites"]] if document.selected else images
    rows = {image["file"]: _row(image, usual[image["arch"]]) for image in shown}
    for error in errors:
        message = error["message"].removeprefix(printable(error["file"]) + ": ")
        rows[error["file"]] = f"{'-':>6} {'-':>5}  {'bad file':<12}", f"  ! {printable(message)}"
    yield f"{'live':>6} {'null':>5}  {'layout':<12} module\n" if rows else ""
    for file in sorted(rows, key=os.fsencode):  # a name need not be valid UTF-8
        figures, remark = rows[file]
        text = fitted(f"{printable(below(tree['tree'], file))}{remark}", len(figures) + 1, document)
        yield f"{figures} {text}\n"
    for image in images:  # with the sites, the modules one by one behind that
        if document.show_sites and image["sites"]:  # none where no selector matched
            yield "\n" + head(image, document)
            yield from site_lines(image["sites"], document)
    for image in images:
        if "units" in image:
            yield "\n" + head(image, document)
            yield from unit_lines(image["units"], document)


def _counts(counts: Mapping[str, int]) -> str:
    texts = [f"{printable(name)} {count}" for name, count in counts.items()]
    more = [f"and {len(texts) - N_NAMES} more"] if len(texts) > N_NAMES else []
    return ", ".join(texts[:N_NAMES] + more)


def _usual(images: Sequence[ImageObject]) -> dict[str, str]:
    """The layout that most modules of a machine have, of those that have sites."""
    counts = Counter((image["layout"] != "none", image["arch"], image["layout"]) for image in images)
    ranked = sorted(counts, key=lambda key: (key[0], counts[key], key[2]))  # the last one of a machine wins
    return {arch: name for _, arch, name in ranked}


def _row(image: ImageObject, usual: str) -> tuple[str, str]:
    """A module's figures, and what a reader should stumble over."""
    summary, layout = image["summary"], image["layout"]
    remarks = [f"{name} {count}" for name, count in summary["by_status"].items() if name != "ready"]
    if redirected := sum(row["sites"] for row in summary.get("redirected", ())):
        remarks.append(f"redirected {redirected}")
    if layout not in (usual, "none"):
        remarks.append(f"layout {layout}, most have {usual}")
    figures = f"{summary['live']:>6} {summary['null']:>5}  {layout:<12}"
    return figures, f"  ! {', '.join(remarks)}" if remarks else ""


def _pad(before: int, behind: int | None) -> str:
    """The NOPs around the entries, and the option that makes them."""
    if behind is None:
        return f"{number(before, 'NOP')} in front of the entry"
    option = f"-fpatchable-function-entry={before + behind},{before}"
    return f"{number(before, 'NOP')} in front of the entry, {behind} behind it in all functions ({option})"


def _summary(image: ImageObject, document: Document) -> Iterator[str]:
    summary = image["summary"]
    shape = shape_named(image["arch"], image["layout"])
    if patch := image.get("live_patch"):
        yield from _live_patch(patch)
    if image.get("symbols_from") == "none":
        yield line("names", "none: functions have their addresses for names, and leftovers of weak ones are not told")
    yield line("layout", f"{shape.name}: {shape.text}" if shape else "none: no patch sites")
    if shape and summary["with_skip"]:
        yield line("", f"{summary['with_skip']} of the functions have {shape.skip_text}")
    if pad := summary.get("pad"):
        yield line("", _pad(pad["before"], pad["behind"]))
    yield line("records", f"{summary['slots']} slots, {summary['null']} null, {summary['live']} live")
    yield line("values in", CARRIERS[image["carrier"]])
    for key, counts in (("sections", summary["by_section"]), ("status", summary["by_status"])):
        if counts:
            yield counts_line(key, counts, document.width)
    yield from _elsewhere(summary, shape, image["kind"] in PROGRAMS)
    yield from _patched(summary)
    if reach := summary["reach"]:
        yield from _reach(reach)
    if boot := summary["boot"]:
        yield line("at boot", f"ftrace: allocating {boot['allocating']} entries; "
                               f"{boot['listed']} functions listed once init memory is freed")  # fmt: skip
        broken = sum(summary["by_status"].get(name, 0) for name in ("enabled", "half", "unexpected"))
        if broken:
            yield line("", f"{broken} live records name sites that are no longer as the kernel expects them: it will "
                            "print an ftrace bug and switch ftrace off")  # fmt: skip
    elif image["kind"] == "vmlinux" and image["layout"] == "none":
        yield line("at boot", "no function tracer in this kernel (CONFIG_FUNCTION_TRACER is off)")


def _elsewhere(summary: SummaryObject, shape: Shape | None, program: bool) -> Iterator[str]:
    """What is in the file beside its sites."""
    if padding := summary.get("padding"):
        text = f"{number(padding, 'place')} in __patchable_function_entries, a list that ftrace of this machine ignores"
        yield line("padding", text)
    if elsewhere := summary.get("elsewhere"):
        yield line("elsewhere", f"{_counts(elsewhere)}: records that no kernel reads, of functions not to be traced")
    if unrecorded := summary.get("unrecorded"):
        calls = f"{number(unrecorded, 'call')} of {shape.called}" if shape else number(unrecorded, "call")
        unknown = "" if program else f": no tracer of a kernel knows {'it' if unrecorded == 1 else 'them'}"
        yield line("unrecorded", f"{calls} without a record{unknown}")

    if off := summary.get("off"):
        calls = f"{number(off, 'call')} of {shape.called}" if shape else number(off, "call")
        yield line("off", f"{calls} made a NOP, without a record")


def _patched(summary: SummaryObject) -> Iterator[str]:
    """The sites that earlier patches enabled, and how sure it is that those made them."""
    n, rows = summary["without_record"], summary.get("patched", [])
    sure = {row["calls"]: row["sites"] for row in rows if row["sure"]}
    unsure = {row["calls"]: row["sites"] for row in rows if not row["sure"]}
    redirected = summary.get("redirected", [])
    some_sure = bool(sure) or any(row["sure"] for row in redirected)
    if n:
        yield line("patched", f"{n} enabled without a record, {'' if some_sure else 'likely '}by an earlier patch")
    if sure:
        yield line("", f"sure: they call {_counts(sure)}")
    if unsure:
        yield line("", f"likely: they call {_counts(unsure)}, whose code keeps the contract of a patch site")
    for far in rows:
        if "through_veneer" in far:
            yield line(
                "", f"{far['through_veneer']} of them call {far['calls']} through a veneer, beyond a call's reach"
            )
    for row in redirected[:N_NAMES]:
        yield line("", f"{row['sites']} redirected to {row['to']}{'' if row['sure'] else ', likely'}")
    if len(redirected) > N_NAMES:
        more = sum(row["sites"] for row in redirected[N_NAMES:])
        yield line("", f"{more} redirected to {len(redirected) - N_NAMES} others")


def _live_patch(patch: LivePatchObject) -> Iterator[str]:
    """What a live patch is for, and the functions that it replaces."""
    objects = ", ".join(map(printable, patch["objects"])) or "nothing that its data names"
    functions, symbols = number(len(patch["functions"]), "function"), number(len(patch["symbols"]), "symbol")
    yield line("live patch", f"for {objects}: {functions} replaced, {symbols} resolved when it is applied")
    names = [f"{row['object']}:{row['function']} by {row['replacement']}" for row in patch["functions"]]
    yield from (line("", printable(name)) for name in names[:N_NAMES])
    if len(names) > N_NAMES:
        yield line("", f"and {len(names) - N_NAMES} more")


def _reach(reach: ReachObject) -> Iterator[str]:
    yield line("reach", f"{reach['target']} at most {mib(reach['max_distance'])} away, a call spans "
                         f"{mib(reach['limit'])}; {reach['beyond']} sites beyond")  # fmt: skip
    for name, beyond in reach["trampolines"].items():
        yield line("", f"{name}: {beyond} sites beyond")
    if reach["headroom"] < 0:
        yield line("", f"some sites reach nothing: {mib(-reach['headroom'])} too far from everything")
    else:
        yield line("", f"the text may grow by {mib(reach['headroom'])} until a site reaches nothing")
