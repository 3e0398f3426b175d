"""The pictures of patch sites: one function of a small kernel in each state, for each layout of a machine."""

from __future__ import annotations

from tools.pictures.code import explained, left_at_boot, rows
from tools.pictures.svg import Arrow, Block, Cell, Picture

HEADS = ["offset", "in the file", "running, not traced", "enabled in the file", ""]


def add_site(picture: Picture, heading: str, file: str) -> None:
    """The site of vfs_read, and the stub that belongs to it alone, in three states."""
    arch, shape, site = explained(file, "vfs_read")
    picture.heading(heading)
    symbol = int(site["symbols"][0]["value"], 16)
    picture.table(HEADS, rows(arch, site, 0, symbol, ["nop"] if shape.stub else left_at_boot(arch, shape)))
    if shape.stub:
        start = int(site["code"][1]["words"][0]["va"], 16)
        mflr, _, mtlr, _ = (word.text for word in shape.stub)
        picture.heading("its stub, elsewhere in the text (offsets count from the stub)")
        picture.table(HEADS, rows(arch, site, 1, start, [mflr, "bl ftrace_caller", mtlr, "b behind the site"]))


def arm64() -> Picture:
    picture = Picture(
        "Patch sites of arm64",
        "Three tables of instructions. In each, two NOPs at the entry of vfs_read become mov x9, x30 and bl "
        "ftrace_caller. "
        "With CALL_OPS the eight bytes in front of the function become a pointer; a bti c at the entry stays.",
    )
    add_site(picture, "-fpatchable-function-entry=2", "mini/vmlinux-pfe2")
    add_site(picture, "-fpatchable-function-entry=4,2 (CALL_OPS)", "mini/vmlinux-callops")
    add_site(picture, "the same with BTI", "mini/vmlinux-callops-bti")
    picture.note("yellow: differs from the file. Offsets count from the symbol vfs_read.")
    return picture


def ppc64le() -> Picture:
    picture = Picture(
        "Patch sites of ppc64le",
        "Three tables of instructions. The two instructions at the global entry set r2 and are never changed;"
        " the site is at "
        "the local entry: mflr r0 and bl, two NOPs, or one NOP that becomes a branch to a stub of its own.",
    )
    add_site(picture, "-mprofile-kernel", "mini-ppc64le/vmlinux-mprofile")
    add_site(picture, "-fpatchable-function-entry=2", "mini-ppc64le/vmlinux-pfe2")
    add_site(picture, "-fpatchable-function-entry=1, out of line, one ops pointer per site", "mini-ppc64le/vmlinux-ool")
    picture.note("yellow: differs from the file. Offsets count from the symbol, which is the global entry.")
    return picture


def x86_64() -> Picture:
    picture = Picture(
        "Patch sites of x86_64",
        "Two tables of instructions. A call of __fentry__ or a NOP of five bytes at the entry, behind an "
        "endbr64 where there "
        "is one, becomes a call of ftrace_caller.",
    )
    add_site(picture, "-pg -mfentry: a call in the file", "x86_64/vmlinux-fentry")
    add_site(picture, "-mnop-mcount, or objtool --mnop: a NOP in the file", "x86_64/vmlinux-nop")
    picture.note("yellow: differs from the file. Offsets count from the symbol.")
    return picture


def pad_before() -> Picture:
    picture = Picture(
        "Pad-before: code in front of a function, one switch at its entry",
        "A table of instructions of an arm64 program. Six NOPs, five of them in front of the function. When "
        "enabled, three of the "
        "five hold mov x9, x30, a call and a branch behind the entry, and the NOP at the entry is a branch to"
        " the first.",
    )
    _, _, before = explained("programs/pads/arm64-pie", "numbers")
    after = patched_pad()
    words = before["code"][0]["words"]
    symbol = int(before["symbols"][0]["value"], 16)
    table = []
    for word, (code, text) in zip(words[:7], after, strict=True):
        offset = int(word["va"], 16) - symbol
        new = Cell(f"{code}  {text}", "box" if code == word["word"][2:] else "new")
        mark = {0: "<- entry: the switch"}.get(offset, word["at"] or "")
        table.append([Cell(f"{offset:+d}" if offset else "0", ""), Cell(f"{word['word'][2:]}  {word['text']}"), new,
                      Cell(mark, "")])  # fmt: skip
    picture.table(["offset", "in the file", "enabled in the file", ""], table)
    picture.note(
        "One word, a NOP or a branch, switches the call on and off. The pad is filled before, while nothing "
        "leads to it."
    )
    return picture


def patched_pad() -> list[tuple[str, str]]:
    """(word, instruction) of each word of the pad and the entry, when enabled."""
    from tools.pictures.code import enabled, plain

    words = enabled("programs/pads/arm64-pie", "numbers", "trampoline")["code"][0]["words"][:7]
    symbol = "numbers"
    return [(word["word"][2:], plain(word["text"]).replace("0x1044", f"{symbol}-20")) for word in words]


def ppc64le_entries() -> Picture:
    _, _, site = explained("mini-ppc64le/vmlinux-pfe2", "vfs_read")
    words = site["code"][0]["words"]
    picture = Picture(
        "The two entries of a ppc64le function",
        "Three callers on the left, the function on the right. A caller in the same file enters at the local "
        "entry. A caller in another "
        "file goes through a stub that saves r2 and enters at the global entry; so does a call through a pointer.",
    )
    picture.blocks(
        [
            Block(0, 0, "caller in another file", ("bl stub", "ld r2, 0x18(r1)   its own TOC again")),
            Block(0, 1, "stub, of the linker or loader", ("std r2, 0x18(r1)  keeps the TOC", "mtctr r12; bctr")),
            Block(1, 1, "vfs_read: global entry", (words[0]["text"], words[1]["text"])),
            Block(0, 2, "caller in the same file", ("bl vfs_read+8     r2 is right",)),
            Block(1, 2, "vfs_read+8: local entry, the site", (words[2]["text"], words[3]["text"]), "new"),
        ],
        [Arrow(0, 1), Arrow(1, 2, "r12 = vfs_read"), Arrow(2, 4, "r2 is set"), Arrow(3, 4)],
    )
    return picture


PICTURES = {
    "arm64-sites": arm64,
    "ppc64le-sites": ppc64le,
    "ppc64le-entries": ppc64le_entries,
    "x86_64-sites": x86_64,
    "pad-before": pad_before,
}
