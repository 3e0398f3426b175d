"""`ftpatch image`: what a boot loader takes, made from a vmlinux.

Some machines boot a flat copy of the loaded sections, as `objcopy -O binary -R .note -R .note.gnu.build-id -R .comment
-S` makes it in arch/arm64/boot/Makefile: every section with contents at its load address, gaps zero, from the lowest.
On others firmware boots the ELF file itself; only debug information is left out, as `objcopy --strip-debug` does.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from ftpatch.arch import architectures
from ftpatch.arch.parts import FlatImage
from ftpatch.arrays import I64, U8, U64, Mask, Rows
from ftpatch.container.file_bytes import is_elf
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, PolicyError, UnsupportedError

Pieces = list[tuple[int, U8]]  # (position in the new file, bytes), ascending; gaps are zero
REMOVED = (".note", ".note.gnu.build-id", ".comment")
DEBUG = re.compile(r"(\.rela?)?\.(debug_|zdebug_|stab|gdb_index|line|gnu\.debuglto_)")  # relocations for it, too
MIN_SPAN = 64 << 20  # bytes that a small kernel may spread over


def boot_image(image: Image) -> Pieces:
    """The boot image of a kernel, as its machine boots it. Raises PolicyError where the file is no kernel."""
    if image.kind != "vmlinux" or not image.executable.any():
        raise PolicyError("no boot image can be made of this file", image.path, found=f"kind {image.kind}",
                          expected="a vmlinux", todo="name the vmlinux of the build tree")  # fmt: skip
    boot = image.arch.boot
    if boot is None:
        raise UnsupportedError(f"making a boot image for {image.arch.name} is not supported", image.path,
                               expected=", ".join(arch.name for arch in architectures() if arch.boot))  # fmt: skip
    if boot == "elf" or not is_elf(image.data):  # the latter is such an image already
        return without_debug(image)
    if image.recovered and image.recovered.flat:
        raise UnsupportedError("no boot image is made of a kernel without section headers", image.path,
                               todo="objcopy -O binary does it, or give the vmlinux with its sections")  # fmt: skip
    return flat_image(image, boot)


def flat_image(image: Image, boot: FlatImage) -> Pieces:
    """The loaded sections at their load addresses.

    Raises PolicyError where they do not start with a boot header, ElfError where they overlap or lie too far apart.
    """
    loaded = (image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & image.has_bytes & (image.shdr["sh_size"] > 0)
    lma = load_addresses(image).tolist()
    secs = [sec for sec in np.flatnonzero(loaded).tolist() if image.names[sec] not in REMOVED]
    secs.sort(key=lambda sec: lma[sec])
    pieces = [(lma[sec] - lma[secs[0]], image.content(sec)) for sec in secs]
    for (pos, piece), (after, _) in pairwise(pieces):
        if pos + len(piece) > after:
            raise ElfError("sections overlap in the boot image", image.path, found=f"at {after:#x}")
    if pieces[-1][0] > 4 * len(image.data) + MIN_SPAN:
        raise ElfError("sections lie too far apart for a boot image", image.path, found=f"{pieces[-1][0]:#x} bytes")
    if pieces[0][1][boot.at : boot.at + len(boot.magic)].tobytes() != boot.magic:
        raise PolicyError(f"the first section is no {image.arch.name} boot header", image.path,
                          found=image.names[secs[0]], expected=f"the magic {boot.text} at byte {boot.at}")  # fmt: skip
    return pieces


def load_addresses(image: Image) -> U64:
    """Physical load address of every section: by the segment that holds it, else its own address."""
    va = image.shdr["sh_addr"]
    lma: U64 = va.copy()
    for row in image.phdr[image.phdr["p_type"] == t.PT_LOAD]:
        inside = (va >= row["p_vaddr"]) & (va - row["p_vaddr"] < row["p_memsz"])
        lma[inside] = va[inside] - row["p_vaddr"] + row["p_paddr"]
    return lma


def without_debug(image: Image) -> Pieces:
    """The ELF file without its debug sections; the file itself, byte for byte, where it has none.

    What is loaded, and the program headers, stay where they are. Behind them the sections that are kept close up, with
    a new section header table. Symbols stay as they are, but for those of what is gone; relocations that the link kept
    (x86_64: --emit-relocs, runtime constants) name them by their new numbers.
    """
    head = image.shdr
    alloc = head["sh_flags"] & t.SHF_ALLOC != 0
    debug = ~alloc & np.array([DEBUG.match(name) is not None for name in image.names])
    if not debug.any():
        return [(0, image.data[:])]
    _require_no_other_users(image, debug)
    number = np.cumsum(~debug) - 1  # new index of every section that stays
    held = alloc & image.has_bytes
    loaded = int((head["sh_offset"] + head["sh_size"])[held].max(initial=t.EHDR.itemsize))
    loads = image.phdr[image.phdr["p_type"] == t.PT_LOAD]
    loaded = min(int((loads["p_offset"] + loads["p_filesz"]).max(initial=loaded)), len(image.data))
    pieces: Pieces = [(0, np.array(image.data[:loaded]))]
    shdr, end = head.copy(), loaded
    for sec in np.flatnonzero(~debug & ~held & image.has_bytes).tolist():
        content = image.content(sec)
        if head["sh_type"][sec] == t.SHT_SYMTAB:
            content, shdr["sh_info"][sec] = _renumbered(image, debug, number)
        elif head["sh_type"][sec] == t.SHT_RELA:
            content = _relocations(image, sec, debug)
            shdr["sh_info"][sec] = number[int(head["sh_info"][sec])]
        align = max(int(shdr["sh_addralign"][sec]), 1)
        end = (end + align - 1) // align * align
        shdr["sh_offset"][sec], shdr["sh_size"][sec] = end, len(content)
        pieces.append((end, content))
        end += len(content)
    table = (end + 7) & ~7
    shdr["sh_link"] = np.where(shdr["sh_link"] < len(debug), number[np.minimum(shdr["sh_link"], len(debug) - 1)], 0)
    ehdr = pieces[0][1][: t.EHDR.itemsize].view(t.EHDR)
    ehdr["e_shoff"], ehdr["e_shnum"], ehdr["e_shstrndx"] = table, (~debug).sum(), number[int(image.ehdr["e_shstrndx"])]
    return [*pieces, (table, np.ascontiguousarray(shdr[~debug]).view(np.uint8))]


def _require_no_other_users(image: Image, debug: Mask) -> None:
    """Refuse files in which renumbering sections or symbols would need more than symbols and their relocations."""
    kept = ~debug & (image.shdr["sh_flags"] & t.SHF_ALLOC == 0)
    kind, bound = image.shdr["sh_type"], len(image.shdr)
    users = kept & np.isin(kind, (t.SHT_REL, t.SHT_GROUP, t.SHT_SYMTAB_SHNDX))
    rela = kept & (kind == t.SHT_RELA)
    link, target = (image.shdr[field] for field in ("sh_link", "sh_info"))
    usual = (kind[np.minimum(link, bound - 1)] == t.SHT_SYMTAB) & (link < bound) & (target < bound)
    users |= rela & (~usual | debug[np.minimum(target, bound - 1)])
    if users.any() or bound >= t.SHN_LORESERVE:
        raise _cannot(image, int(np.argmax(users)))


def _cannot(image: Image, sec: int) -> UnsupportedError:
    return UnsupportedError("debug sections cannot be left out of this file", image.path, found=image.names[sec],
                            expected="a final link without --emit-relocs",
                            todo="objcopy --strip-debug does it")  # fmt: skip


def _gone(image: Image, debug: Mask) -> Mask:
    """The symbols of the debug sections."""
    shndx = image.symbols.shndx
    return (shndx > 0) & debug[np.maximum(shndx, 0)]


def _relocations(image: Image, sec: int, debug: Mask) -> U8:
    """A relocation section that stays, with the new numbers of its symbols. Refused where it names one that goes."""
    gone = _gone(image, debug)
    content = image.content(sec)
    rows: Rows = np.array(content[: len(content) // t.RELA.itemsize * t.RELA.itemsize]).view(t.RELA)
    symbol = rows["r_info"] >> np.uint64(32)
    if len(rows) * t.RELA.itemsize != len(content) or (symbol >= len(gone)).any() or gone[symbol].any():
        raise _cannot(image, sec)
    new = np.cumsum(~gone) - 1
    rows["r_info"] = (rows["r_info"] & np.uint64(0xFFFF_FFFF)) | (new[symbol].astype(np.uint64) << np.uint64(32))
    return rows.view(np.uint8)


def _renumbered(image: Image, debug: Mask, number: I64) -> tuple[U8, int]:
    """The symbol table with new section numbers, without the debug sections' symbols; and its count of locals."""
    symbols = image.symbols
    gone = _gone(image, debug)
    rows: Rows = np.array(symbols.rows)
    ordinary = (symbols.shndx > 0) & (rows["st_shndx"] < t.SHN_LORESERVE)
    rows["st_shndx"][ordinary] = number[symbols.shndx[ordinary]]
    tab = int(np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)[0])
    n_local = int(image.shdr["sh_info"][tab])
    return np.ascontiguousarray(rows[~gone]).view(np.uint8), n_local - int(gone[:n_local].sum())
