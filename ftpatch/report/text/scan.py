"""The text of `scan`: the figures of each file, its sites where they are wanted, and the modules of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.arch import shape_named
from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import files_and_trees, head, line, mib, or_dash

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, ReachObject, SiteRow, SummaryObject, TreeObject

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
        yield from _summary(image["summary"], image)
        if document.show_sites:
            yield from _sites(image["sites"])

    yield from files_and_trees(document, one_file, lambda tree: _tree(tree, document))


def _tree(tree: TreeObject, document: Document) -> Iterator[str]:
    """Totals and table of one tree; with the sites, its modules one by one behind that."""
    from ftpatch.report.text.tree import text

    yield from text(tree, document)
    for image in document.of_tree(tree["tree"])[0]:
        if document.show_sites and image["sites"]:
            yield "\n" + head(image, document)
            yield from _sites(image["sites"])


def _summary(summary: SummaryObject, image: ImageObject) -> Iterator[str]:
    shape = shape_named(image["arch"], image["layout"])
    yield line("layout", f"{shape.name}: {shape.text}" if shape else "none: no patch sites")
    if shape and summary["with_skip"]:
        yield line("", f"{summary['with_skip']} of the functions have {shape.skip_text}")
    yield line("records", f"{summary['slots']} slots, {summary['null']} null, {summary['live']} live")
    yield line("values in", CARRIERS[image["carrier"]])
    for key, counts in (("sections", summary["by_section"]), ("status", summary["by_status"])):
        if counts:
            yield line(key, ", ".join(f"{name} {count}" for name, count in counts.items()))
    if summary["without_record"]:
        yield line("patched", f"{summary['without_record']} enabled without a record, by an earlier patch")
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


def _reach(reach: ReachObject) -> Iterator[str]:
    yield line("reach", f"{reach['target']} at most {mib(reach['max_distance'])} away, a call spans "
                         f"{mib(reach['limit'])}; {reach['beyond']} sites beyond")  # fmt: skip
    for name, beyond in reach["trampolines"].items():
        yield line("", f"{name}: {beyond} sites beyond")
    if reach["headroom"] < 0:
        yield line("", f"some sites reach nothing: {mib(-reach['headroom'])} too far from everything")
    else:
        yield line("", f"the text may grow by {mib(reach['headroom'])} until a site reaches nothing")


def _sites(sites: Sequence[SiteRow]) -> Iterator[str]:
    yield f"{'row':>6}  {'record':<18}  {'status':<13}  {'place':<24}  {'pos':>10}  function\n"
    for site in sites:
        place = f"{site['section']}+{site['offset']}" if site["section"] else "-"
        names = " = ".join([site["function"] or "-", *site["aliases"]])
        if site["listed_as"]:
            names = f"- (the kernel lists it as {site['listed_as']})"
        row, pos = or_dash(site["row"]), or_dash(site["pos"])
        yield f"{row:>6}  {site['record']:<18}  {site['status']:<13}  {place:<24}  {pos:>10}  {printable(names)}\n"
