#!/usr/bin/env python3
"""Make a live patch of an object, as kpatch-build and klp-build do.

The symbol NAME becomes `.klp.sym.OBJECT.NAME,POSITION` with st_shndx SHN_LIVEPATCH, and the relocations of SECTION that
name it move to a section `.klp.rela.OBJECT.SECTION` with the flag SHF_RELA_LIVEPATCH.
"""

import struct
import sys

SHN_LIVEPATCH, SHF_RELA_LIVEPATCH, SHF_ALLOC, SHF_INFO_LINK = 0xFF20, 0x00100000, 2, 0x40


def main(path, name, obj, position, section):
    d = bytearray(open(path, "rb").read())
    (shoff,) = struct.unpack_from("<Q", d, 40)
    shnum, shstrndx = struct.unpack_from("<HH", d, 60)
    sh = [list(struct.unpack_from("<IIQQQQIIQQ", d, shoff + 64 * i)) for i in range(shnum)]
    shstr = bytearray(d[sh[shstrndx][4] :][: sh[shstrndx][5]])
    names = [bytes(shstr[s[0] : shstr.index(0, s[0])]).decode() for s in sh]
    symtab = next(i for i, s in enumerate(sh) if s[1] == 2)
    strtab = sh[symtab][6]
    strings = bytearray(d[sh[strtab][4] :][: sh[strtab][5]])
    row = next(
        i
        for i in range(sh[symtab][5] // 24)
        if strings[(at := struct.unpack_from("<I", d, sh[symtab][4] + 24 * i)[0]) : strings.index(0, at)] == name.encode()
    )
    at = sh[symtab][4] + 24 * row
    struct.pack_into("<I", d, at, len(strings))
    struct.pack_into("<H", d, at + 6, SHN_LIVEPATCH)
    strings += f".klp.sym.{obj}.{name},{position}\0".encode()
    rela = names.index(f".rela{section}")
    rows = [bytes(d[sh[rela][4] + 24 * i :][:24]) for i in range(sh[rela][5] // 24)]
    moved = [r for r in rows if struct.unpack_from("<I", r, 12)[0] == row]
    kept = [r for r in rows if r not in moved]
    d[sh[rela][4] : sh[rela][4] + 24 * len(kept)] = b"".join(kept)
    sh[rela][5] = 24 * len(kept)
    new = [len(shstr), 4, SHF_ALLOC | SHF_INFO_LINK | SHF_RELA_LIVEPATCH, 0, 0, 0, symtab, sh[rela][7], 8, 24]
    shstr += f".klp.rela.{obj}.{section}\0".encode()
    for index, content in ((strtab, strings), (shstrndx, shstr)):
        sh[index][4:6] = len(d), len(content)
        d += content
    d += bytes(-len(d) % 8)
    new[4:6] = len(d), 24 * len(moved)
    d += b"".join(moved)
    struct.pack_into("<Q", d, 40, len(d))
    struct.pack_into("<H", d, 60, shnum + 1)
    d += b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in [*sh, new])
    open(path, "wb").write(d)


main(*sys.argv[1:])
