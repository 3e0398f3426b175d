#!/usr/bin/env python3
"""Add __mcount_loc and .rela__mcount_loc to ppc64le objects built with -pg.

One 8-byte zero slot per `bl _mcount` (R_PPC64_REL24) in an executable section, and one
R_PPC64_ADDR64 per slot against that section's symbol or, if the object has none, against
the first local or global function of the section. The rest of the object stays as it is:
the new sections and a new section header table go to its end.
"""

import struct
import sys

SHF_ALLOC, SHF_EXECINSTR, SHF_INFO_LINK = 2, 4, 0x40
R_ADDR64, R_REL24 = 38, 10


def main(path):
    d = bytearray(open(path, "rb").read())
    (shoff,) = struct.unpack_from("<Q", d, 40)
    shnum, shstrndx = struct.unpack_from("<HH", d, 60)
    sh = [list(struct.unpack_from("<IIQQQQIIQQ", d, shoff + 64 * i)) for i in range(shnum)]
    symidx = next(i for i, s in enumerate(sh) if s[1] == 2)
    strs = bytes(d[sh[sh[symidx][6]][4] :][: sh[sh[symidx][6]][5]])
    syms = [struct.unpack_from("<IBBHQQ", d, sh[symidx][4] + 24 * i) for i in range(sh[symidx][5] // 24)]

    def name(s):
        return strs[s[0] : strs.index(0, s[0])].decode()

    base = {}
    for i, s in enumerate(syms):
        if s[1] & 15 == 3:
            base[s[3]] = (i, 0)
        elif s[1] & 15 == 2 and s[1] >> 4 != 2:
            base.setdefault(s[3], (i, s[4]))
    sites = []
    for s in sh:
        if s[1] != 4 or not sh[s[7]][2] & SHF_EXECINSTR:
            continue
        for o in range(s[4], s[4] + s[5], 24):
            off, typ, sym, add = struct.unpack_from("<QIIq", d, o)
            if typ == R_REL24 and name(syms[sym]) == "_mcount":
                sites.append((s[7], off))
    if not sites:
        return
    shstr = bytearray(d[sh[shstrndx][4] :][: sh[shstrndx][5]])
    n_rela = len(shstr)
    shstr += b".rela__mcount_loc\0"
    n_loc = n_rela + len(".rela")

    def append(blob):
        d.extend(bytes(-len(d) % 8))
        at = len(d)
        d.extend(blob)
        return at

    sh[shstrndx][5] = len(shstr)
    sh[shstrndx][4] = append(shstr)
    loc = append(bytes(8 * len(sites)))
    rel = append(
        b"".join(
            struct.pack("<QIIq", 8 * i, R_ADDR64, base[sec][0], off - base[sec][1])
            for i, (sec, off) in enumerate(sites)
        )
    )
    sh.append([n_loc, 1, SHF_ALLOC, 0, loc, 8 * len(sites), 0, 0, 8, 8])
    sh.append([n_rela, 4, SHF_INFO_LINK, 0, rel, 24 * len(sites), symidx, len(sh) - 1, 8, 24])
    at = append(b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sh))
    struct.pack_into("<Q", d, 40, at)
    struct.pack_into("<H", d, 60, len(sh))
    open(path, "wb").write(d)


for p in sys.argv[1:]:
    main(p)
