#!/usr/bin/env python3
"""Zero the records of dead weak functions in a linked image, then sort the array.

Works on arrays whose values are in place (RELR or ET_EXEC).  A record is alive if it
lies in [symbol - 8, symbol + size) of some function symbol; the eight bytes are for
layouts that put NOPs before the label.  Zeros sort first, the rest ascends unsigned.
"""

import struct
import sys


def main(path):
    d = bytearray(open(path, "rb").read())
    (shoff,) = struct.unpack_from("<Q", d, 40)
    (shnum,) = struct.unpack_from("<H", d, 60)
    sh = [struct.unpack_from("<IIQQQQIIQQ", d, shoff + 64 * i) for i in range(shnum)]
    symtab = next(s for s in sh if s[1] == 2)
    strs = bytes(d[sh[symtab[6]][4] :][: sh[symtab[6]][5]])
    bounds, funcs = {}, []
    for o in range(symtab[4], symtab[4] + symtab[5], 24):
        st_name, info, _, shndx, value, size = struct.unpack_from("<IBBHQQ", d, o)
        name = strs[st_name : strs.index(0, st_name)].decode()
        if name in ("__start_mcount_loc", "__stop_mcount_loc"):
            bounds[name] = value
        if info & 15 == 2 and shndx:
            funcs.append((value - 8, value + size))
    start, stop = bounds["__start_mcount_loc"], bounds["__stop_mcount_loc"]
    home = next(s for s in sh if s[2] & 2 and s[1] == 1 and s[3] <= start and stop <= s[3] + s[5])
    at, n = home[4] + start - home[3], (stop - start) // 8
    vals = struct.unpack_from("<%dQ" % n, d, at)
    vals = sorted(v if any(a <= v < b for a, b in funcs) else 0 for v in vals)
    struct.pack_into("<%dQ" % n, d, at, *vals)
    open(path, "wb").write(d)


main(sys.argv[1])
