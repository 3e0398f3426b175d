"""Text for people: a summary that fits a screen, and the sites on demand."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from ftpatch.arch import shape_named
from ftpatch.errors import printable
from ftpatch.report import Document

CARRIERS = {
    "word": "words of the file itself",
    "rela": "addends of relative relocations (.rela.dyn)",
    "relr": "words of the file, moved by packed relocations (.relr.dyn)",
    "section": "relocations of the record sections",
    "mixed": "more than one kind of place",
    "none": "nowhere: no records",
}
DONE = {"enable": "enabled", "disable": "disabled", "drop": "dropped from the record table"}
OWN = {"diff": "diff_text", "explain": "explain_text"}  # commands whose text is in a module of its own
N_SHOWN = 10
BOLD, PLAIN = ("\x1b[1m", "\x1b[0m"), ("", "")


def render(document: Document) -> Iterator[str]:
    """The report of one command over its images."""
    if document.command in OWN:
        yield from importlib.import_module(f"ftpatch.report.{OWN[document.command]}").render(document)
        return
    style = BOLD if document.colored else PLAIN
    alone = [image for image in document.images if "tree" not in image]
    for i, image in enumerate(alone):
        yield "\n" if i else ""
        yield from _head(image, style)
        if document.command == "verify":
            from ftpatch.report.findings import text

            yield from text(image)
            continue
        if document.command == "check":
            from ftpatch.report.findings_text import text as check_text

            yield from check_text(image, document.colored)
            if image.get("oracle"):
                from ftpatch.report.oracle_text import text as oracle_text

                yield from oracle_text(image["oracle"])
            continue
        yield from _summary(image["summary"], image) if document.command == "scan" else _patch(image, document.command)
        if document.show_sites and document.command == "scan":
            yield from _sites(image["sites"])
    for i, tree in enumerate(document.trees):
        yield "\n" if i or alone else ""
        yield from _tree(tree, document, style)


def _tree(tree: dict[str, Any], document: Document, style: tuple[str, str]) -> Iterator[str]:
    """Totals and table of one tree; with the sites, its modules one by one behind that."""
    from ftpatch.report.tree import text

    images, errors = (
        [one for one in many if one.get("tree") == tree["tree"]] for many in (document.images, document.errors)
    )
    if document.command == "check":
        from ftpatch.report.findings_text import tree_text

        yield from tree_text(tree["tree"], images, errors, style, document.colored)
        return
    yield from text(tree, images, errors, style, document.selected)
    for image in images if document.show_sites else ():
        if image["sites"]:
            yield "\n"
            yield from _head(image, style)
            yield from _sites(image["sites"])


def _head(image: dict[str, Any], style: tuple[str, str]) -> Iterator[str]:
    yield f"{style[0]}{printable(image['file'])}{style[1]}: {image['arch']} {image['kind']}"
    yield f", build-id {image['build_id']}\n" if image["build_id"] else "\n"


def _line(key: str, text: str) -> str:
    return f"  {key:<10} {text}\n"


def _summary(summary: dict[str, Any], image: dict[str, Any]) -> Iterator[str]:
    shape = shape_named(image["arch"], image["layout"])
    yield _line("layout", f"{shape.name}: {shape.text}" if shape else "none: no patch sites")
    if shape and summary["with_skip"]:
        yield _line("", f"{summary['with_skip']} of the functions have {shape.skip_text}")
    yield _line("records", f"{summary['slots']} slots, {summary['null']} null, {summary['live']} live")
    yield _line("values in", CARRIERS[image["carrier"]])
    for key, counts in (("sections", summary["by_section"]), ("status", summary["by_status"])):
        if counts:
            yield _line(key, ", ".join(f"{name} {count}" for name, count in counts.items()))
    if summary["without_record"]:
        yield _line("patched", f"{summary['without_record']} enabled without a record, by an earlier patch")
    if reach := summary["reach"]:
        yield from _reach(reach)
    if boot := summary["boot"]:
        yield _line("at boot", f"ftrace: allocating {boot['allocating']} entries; "
                               f"{boot['listed']} functions listed once init memory is freed")  # fmt: skip
        broken = sum(summary["by_status"].get(name, 0) for name in ("enabled", "half", "unexpected"))
        if broken:
            yield _line("", f"{broken} live records name sites that are no longer as the kernel expects them: it will "
                            "print an ftrace bug and switch ftrace off")  # fmt: skip
    elif image["kind"] == "vmlinux" and image["layout"] == "none":
        yield _line("at boot", "no function tracer in this kernel (CONFIG_FUNCTION_TRACER is off)")


def _reach(reach: dict[str, Any]) -> Iterator[str]:
    yield _line("reach", f"{reach['target']} at most {_mib(reach['max_distance'])} away, a call spans "
                         f"{_mib(reach['limit'])}; {reach['beyond']} sites beyond")  # fmt: skip
    for name, beyond in reach["trampolines"].items():
        yield _line("", f"{name}: {beyond} sites beyond")
    if reach["headroom"] < 0:
        yield _line("", f"some sites reach nothing: {_mib(-reach['headroom'])} too far from everything")
    else:
        yield _line("", f"the text may grow by {_mib(reach['headroom'])} until a site reaches nothing")


def _mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"


def _sites(sites: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'row':>6}  {'record':<18}  {'status':<13}  {'place':<24}  {'pos':>10}  function\n"
    for site in sites:
        place = f"{site['section']}+{site['offset']}" if site["section"] else "-"
        names = " = ".join([site["function"] or "-", *site["aliases"]])
        if site["listed_as"]:
            names = f"- (the kernel lists it as {site['listed_as']})"
        row, pos = _or_dash(site["row"]), _or_dash(site["pos"])
        yield f"{row:>6}  {site['record']:<18}  {site['status']:<13}  {place:<24}  {pos:>10}  {printable(names)}\n"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


def _patch(image: dict[str, Any], command: str) -> Iterator[str]:
    request, sites, done = image["request"], image["sites"], image["done"]
    patched = [site for site in sites if site["action"] != "keep"]
    kept = [site for site in sites if site["action"] == "keep"]
    aim = f", calling {request['target']}" if request["target"] else ""
    left = f"; {done['left']} chosen ones left as they are" if kept else ""
    yield _line("sites", f"{done['patched']} {DONE[command]}{aim}{left}")
    if patched and request["ops"]:
        yield _line("ops", f"{request['ops']} by {request['ops_via']}")
    if patched:
        yield _line("records", f"{request['records']}: {request['records_why']}")
    yield from (_changed(site) for site in patched[:N_SHOWN])
    if done["patched"] > N_SHOWN:
        yield f"    … and {done['patched'] - N_SHOWN} more\n"
    yield from (f"    {_site(site)}: left, {site['reason']}\n" for site in kept[:N_SHOWN])
    if done["left"] > N_SHOWN:
        yield f"    … and {done['left'] - N_SHOWN} more left\n"
    what = (
        f"{printable(image['output']['file'])} written and checked" if image["output"] else "nothing written (dry run)"
    )
    yield _line("output", f"{what}; {done['edits']} edits, {done['bytes']} bytes")
    yield from (_line("note", note) for note in image["notes"])


def _site(site: dict[str, Any]) -> str:
    return (
        f"{printable(site['function'] or 'unnamed')} (row {_or_dash(site['row'])}, {site['section']}+{site['offset']})"
    )


def _changed(site: dict[str, Any]) -> str:
    new = " ".join(word[2:] for word in site["new_words"])
    if not new:
        return f"    {_site(site)}: record {site['record_fate']}\n"
    old = " ".join(word[2:] for word in site["words"][-len(site["new_words"]) :])
    way = "" if site["distance"] is None else f", {site['distance']:+#x} bytes"
    way = f", to {site['stub']}, by relocation" if site["stub"] and not way else way
    return f"    {_site(site)}: {old} -> {new}{way}; record {site['record_fate']}\n"
