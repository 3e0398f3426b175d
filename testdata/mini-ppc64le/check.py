#!/usr/bin/env python3
"""Verify what README.md says about each fixture, with readelf, objdump and nm.

Usage: check.py [--run] [DIR]     (default: the directory of this file)
--run also builds run.c and executes the vmlinux-* files with qemu-ppc64le: once as they
are, once with single sites enabled in memory.
"""

import os
import re
import struct
import subprocess
import sys
import tempfile

CROSS = os.environ.get("CROSS", "powerpc64le-linux-gnu-")
HERE = os.path.dirname(os.path.abspath(__file__))
BASE = 0xC000000000000000
M64 = (1 << 64) - 1
NOP, MFLR_R0, MTLR_R0, STD_R0_16, BLR = 0x60000000, 0x7C0802A6, 0x7C0803A6, 0xF8010010, 0x4E800020
MTCTR_R12, BCTR, BCTRL = 0x7D8903A6, 0x4E800420, 0x4E800421
LD_R12_SLOT, LD_R5_SLOT = 0xE98BFFF0, 0xE8ABFFF0
ENABLED, DIRECT = 0x234, 200
failures = 0


def run(tool, *args):
    return subprocess.run(
        [CROSS + tool, *args], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout


def target(at, word):
    """Where b/bl goes, None for another instruction."""
    if word & 0xFC000002 != 0x48000000:
        return None
    return (at + ((word & 0x3FFFFFC) ^ 0x2000000) - 0x2000000) & M64


def branch(at, to, lk):
    assert -0x2000000 <= to - at < 0x2000000 and (to - at) % 4 == 0, (hex(at), hex(to))
    return 0x48000000 | (to - at) & 0x3FFFFFC | lk


def reaches(at, to):
    return -0x2000000 <= to - at < 0x2000000


class Elf:
    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)
        self.data = open(path, "rb").read()
        self.header = run("readelf", "-hW", path)
        self.sections = [
            dict(
                idx=int(g[0]),
                name=g[1],
                type=g[2],
                addr=int(g[3], 16),
                off=int(g[4], 16),
                size=int(g[5], 16),
                flags=g[7],
                link=int(g[8]),
                info=int(g[9]),
                align=int(g[10]),
            )
            for g in re.findall(
                r"^ +\[ *(\d+)\] (\S*) +([A-Z_]+) +([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)"
                r" ([0-9a-f]+) +([A-Za-z]*) +(\d+) +(\d+) +(\d+)$",
                run("readelf", "-SW", path),
                re.M,
            )
        ]
        self.segments = [
            (g[0], int(g[1], 16), int(g[2], 16), int(g[3], 16), int(g[4], 16), int(g[5], 16), g[6].replace(" ", ""))
            for g in re.findall(
                r"^  (\w+) +0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+) 0x(\w+) ([RWE ]{3}) ", run("readelf", "-lW", path), re.M
            )
        ]
        self.syms = [
            dict(
                value=int(g[0], 16),
                size=int(g[1], 0),
                type=g[2],
                bind=g[3],
                local=int(g[4] or 0),
                ndx=g[5],
                name=g[6],
            )
            for g in re.findall(
                r"^ +\d+: ([0-9a-f]+) +(\w+) (\w+) +(\w+) +\w+ +(?:\[<localentry>: (\d+)\] +)?(\w+) ?(.*)$",
                run("readelf", "-sW", path),
                re.M,
            )
        ]
        self.rela, sec = {}, None
        for line in run("readelf", "-rW", path).splitlines():
            m = re.match(r"Relocation section '(.+)' at offset (\w+) ", line)
            if m:
                sec = m[2]
                self.rela.setdefault(sec, [])
                continue
            m = re.match(
                r"([0-9a-f]{16})  ([0-9a-f]{16}) (R_PPC64_\w+) +(?:([0-9a-f]{16})  ?(\S+) ([+-]) )?(-?[0-9a-f]+)$", line
            )
            if m:
                a = int(m[7], 16) * (-1 if m[6] == "-" else 1)
                self.rela[sec].append((int(m[1], 16), int(m[2], 16), m[3], m[5], a))

    def check(self, ok, text):
        global failures
        if not ok:
            failures += 1
            print("FAIL %s: %s" % (self.name, text))

    def sec(self, name):
        return next((s for s in self.sections if s["name"] == name), None)

    def sym(self, name):
        return next(s for s in self.syms if s["name"] == name)

    def at(self, name):
        return self.sym(name)["value"]

    def has(self, name):
        return any(s["name"] == name for s in self.syms)

    def bytes_at(self, va, n):
        for typ, off, addr, _, size, _, _ in self.segments:
            if typ == "LOAD" and addr <= va and va + n <= addr + size:
                return self.data[off + va - addr :][:n]
        raise KeyError(hex(va))

    def word(self, va):
        try:
            return struct.unpack("<I", self.bytes_at(va, 4))[0]
        except KeyError:
            return 0  # not an address of the image: fails every comparison

    def words(self, va, n):
        return [self.word(va + 4 * i) for i in range(n)]

    def quad(self, va):
        return struct.unpack("<Q", self.bytes_at(va, 8))[0]

    def rela_of(self, name):
        s = self.sec(name)
        return self.rela.get("0x%x" % s["off"], []) if s else []

    def extent(self, name):
        """The words of an assembly function without a size: up to the next symbol."""
        a = self.at(name)
        calls = ("ftrace_call", "ftrace_regs_call")
        end = min(s["value"] for s in self.syms if s["value"] > a and s["name"] not in calls and s["ndx"] != "ABS")
        return a, self.words(a, (end - a) // 4)

    def body(self, name):
        s = self.sym(name)
        return s["value"], self.words(s["value"], s["size"] // 4)


# layout, slots, leftovers, records in .init.text, ascending
VMLINUX = {
    "vmlinux-mprofile": ("mprofile", 32, 4, 11, False),
    "vmlinux-saved": ("mprofile", 34, 4, 11, False),
    "vmlinux-pfe2": ("pfe2", 34, 4, 11, True),
    "vmlinux-ool": ("ool", 32, 4, 11, True),
    "vmlinux-ool-noops": ("ool", 32, 4, 11, True),
    "vmlinux-far": ("pfe2", 32, 4, 11, True),
    "vmlinux-unreachable": ("pfe2", 32, 4, 11, True),
    "vmlinux-clang": ("clang", 32, 4, 11, True),
    "vmlinux-gcc12": ("gcc12", 32, 4, 11, False),
    "vmlinux-nm": ("nm", 32, 4, 11, True),
    "vmlinux-pg": ("pg", 32, 4, 11, False),
}
CALL_OPS = ("vmlinux-ool", "vmlinux-clang")
FAR = ("vmlinux-far", "vmlinux-unreachable")
UNTRACED = (
    "saved_untraced",
    "saved_untraced_too",
    "tiny_notrace",
    "asm_nops",
    "notrace_helper",
    "ftrace_caller",
    "ftrace_regs_caller",
    "ftrace_stub",
    "ftrace_stub_direct_tramp",
    "_mcount",
    "ftrace_init",
    "ftrace_process_locs",
    "ftrace_ops_nop_func",
    "ftrace_ops_list_func",
    "early_puts",
    "early_putn",
)


def check_site(e, layout, b, func):
    """The words of record b; the address ftrace would take, or None. func: (entry, offset) or None."""
    ck = e.check
    n = func and func["local"]
    off = func and b - func["value"]
    if layout == "mprofile":
        ck(target(b, e.word(b)) == e.at("_mcount") and e.word(b) & 1, "bl _mcount at %x" % b)
        gcc5 = e.word(b - 4) == STD_R0_16
        ck(e.word(b - 8 if gcc5 else b - 4) == MFLR_R0, "mflr before %x" % b)
        ck(not func or off == (12 if n else 4) + 4 * gcc5, "offset of %x" % b)
        ck(gcc5 == (func is not None and func["name"] == "asm_toc"), "gcc 5 form at %x" % b)
        return b
    if layout == "pg":
        ck(target(b, e.word(b)) == e.at("_mcount") and e.word(b) & 1, "bl _mcount at %x" % b)
        ck(e.word(b + 4) == NOP, "nop after %x" % b)
        before = e.words(b - 64, 16)
        ck(MFLR_R0 in before and any(w & 0xFFFF0003 == 0xF8210001 for w in before), "frame before %x" % b)
        return b
    if layout == "pfe2":
        ck(e.words(b, 2) == [NOP, NOP], "NOPs at %x" % b)
        ck(not func or off == {0: 0, 1: 0, 8: 8}[n], "offset of %x" % b)
        return b + 4
    if layout == "ool":
        ck(e.word(b) == NOP, "NOP at %x" % b)
        ck(not func or off == {0: 0, 8: 8}[n], "offset of %x" % b)
        return b
    if layout == "clang":
        ck(not func or off == 0, "record at the global entry: %x" % b)
        two = e.word(b) >> 16 == 0x3C4C
        ck(not func or two == (n == 8), "entries of %x" % b)
        ck(e.word(b + 8 * two) == NOP, "NOP at the local entry of %x" % b)
        return b + 8 * two
    if layout == "gcc12":
        ck(e.words(b, 2) == [NOP, NOP] and (not func or off == 0), "NOPs at the global entry %x" % b)
        two = e.word(b + 8) >> 16 == 0x3C4C
        ck(not func or n == (16 if two else 0), "entries of %x" % b)
        if two:
            ck(toc_of(e, b + 8, b) == e.at(".TOC.") - 8, "r2 is 8 too small: %x" % b)
        return b + 4
    if layout == "nm":
        two = e.word(b - 8) >> 16 == 0x3C4C and e.word(b - 4) >> 16 == 0x3842
        ck(e.words(b, 4) == [NOP] * 4, "NOPs of %x" % b)
        ck(not func or (off == 8 and n == 16 if two else off == -8 and n == 0), "entries of %x" % b)
        return b + 12
    raise AssertionError(layout)


def toc_of(e, at, r12):
    hi, lo = e.words(at, 2)
    s16 = lambda x: (x & 0xFFFF ^ 0x8000) - 0x8000
    return (r12 + (s16(hi) << 16) + s16(lo)) & M64


def check_vmlinux(e, layout, slots, leftovers, ninit, ascending):
    ck = e.check
    far = e.name in FAR
    island = e.name == "vmlinux-unreachable"
    callops = e.name in CALL_OPS
    ck(len(e.data) < 100 * 1024, "smaller than 100 KB")
    ck("PowerPC64" in e.header and "Type:                              EXEC" in e.header, "machine and type")
    ck(re.search(r"Flags: +0x2,", e.header), "ELFv2")
    loads = [s for s in e.segments if s[0] == "LOAD"]
    ck([s[0] for s in e.segments] == ["LOAD"] * len(loads) + ["NOTE"], "program headers")
    ck(len(loads) == (3 if island else 2 if far else 1), "PT_LOADs: %d" % len(loads))
    ck(all(s[6] == "RWE" and s[3] == s[2] - BASE for s in loads) and loads[0][2] == BASE, "PT_LOAD fields")
    for n in ".head.text .text .rodata .init.text .init.data .dynsym .dynamic .rela.dyn .data .bss .notes".split():
        ck(e.sec(n), "section " + n)
    for n in ("__patchable_function_entries", "__mcount_loc", ".interp"):
        ck(not e.sec(n), "no section " + n)
    ck("Build ID: " in run("readelf", "-nW", e.path), "build id")
    v = {n: e.at(n) for n in "_text _stext _etext __init_begin __init_end _end .TOC.".split()}
    ck(v["_text"] == v["_stext"] == BASE and "0x%x" % BASE in e.header, "_stext, entry point")
    ck(e.word(BASE) == 0x08000048 and target(BASE + 4, e.word(BASE + 4)) == BASE + 0x30, "entry in both byte orders")
    ck(e.word(BASE + 8) == 0xA600607D and e.word(BASE + 0x5C) == 0x72756E30, "big endian words, run0")
    ck(e.sym(".TOC.")["bind"] == "LOCAL" and v[".TOC."] == e.sec(".got")["addr"] + 0x8000, ".TOC.")
    ck(e.bytes_at(e.at("linux_banner"), 24) == b"Linux version 0.0.0-mini", "linux_banner")
    ck(len({s["value"] for s in e.syms if s["name"] == "init_once" and s["bind"] == "LOCAL"}) == 2, "two init_once")
    ck(e.at("sys_getppid") == e.at("__se_sys_getppid"), "aliases")
    for n in "start_kernel ftrace_init a_setup b_setup b_late early_setup initialise_paca fixup_boot_paca".split():
        ck(v["__init_begin"] <= e.at(n) < v["__init_end"], n + " is init text")
    if not island:
        ck(e.bytes_at(v["_etext"] - 128, 128) == bytes(128), "128 zero bytes before _etext")

    gap = e.sec("__spec_barrier_fixup")["addr"] + 4
    ck(not any(e.bytes_at(gap, v["__init_begin"] - gap)) and v["__init_begin"] - gap > 128, "zero gap")

    # relocations: RELATIVE everywhere, with the word in place equal to the addend
    rela = e.rela_of(".rela.dyn")
    other = [r for r in rela if r[1] != 22]
    ck([r[3] for r in other] == (["mach_mini"] if layout == "mprofile" else []), "relocations that are not RELATIVE")
    ck(all(r[1] & 0xFFFFFFFF == 38 for r in other), "ADDR64")
    relative = {r[0]: r[4] & M64 for r in rela if r[1] == 22}
    ck(len(relative) + len(other) == len(rela), "no place twice")
    ck(all(e.quad(o) == a for o, a in relative.items()), "word equals addend")
    places = [r[0] for r in rela]
    ck((places == sorted(places)) == (layout != "mprofile"), "order of .rela.dyn")
    text = e.sec(".text")
    ck(
        [o for o in places if text["addr"] <= o < text["addr"] + text["size"]]
        == [e.at("text_literals"), e.at("text_literals") + 8],
        "two places in .text",
    )

    # the array
    start, stop = e.at("__start_mcount_loc"), e.at("__stop_mcount_loc")
    home = e.sec(".init.data")
    ck(home["addr"] <= start and stop <= home["addr"] + home["size"] and start % 8 == 0, "array in .init.data")
    ck(all(p in relative for p in range(start, stop, 8)), "RELATIVE on every slot")
    vals = [e.quad(p) for p in range(start, stop, 8)]
    ck(len(vals) == slots and len(set(vals)) == slots and 0 not in vals, "slots: %d" % len(vals))
    ck((vals == sorted(vals)) == ascending, "ascending: %s" % (vals == sorted(vals)))

    # each record
    funcs = [s for s in e.syms if s["type"] == "FUNC" and s["ndx"] != "UND"]
    named = sorted({s["value"] for s in e.syms if s["type"] in ("FUNC", "NOTYPE") and s["ndx"] != "ABS"})
    lead = 8 if layout == "nm" else 0
    recorded, left, init, ips, kinds = set(), [], 0, {}, {}
    for b in vals:
        owner = [s for s in funcs if s["value"] <= b < s["value"] + s["size"]]
        if not owner and lead:
            owner = [s for s in funcs if s["value"] == b + 8 and s["local"] == 0]
        ip = check_site(e, layout, b, owner[0] if owner else None)
        ips[b] = ip
        init += v["__init_begin"] <= b < v["__init_end"]
        if owner:
            recorded.update(s["value"] for s in owner)
            n = owner[0]["local"]
            kinds[n] = kinds.get(n, 0) + 1
        else:
            left.append(ip - max(x for x in named if x <= ip))
    ck(len(left) == leftovers, "leftovers: %d" % len(left))
    ck(sorted(left)[0] == 16 and sorted(left)[1] > 16, "leftovers behind a symbol: %s" % left)
    ck(init == ninit, "records in .init.text: %d" % init)
    for s in funcs:
        untraced = s["name"] in UNTRACED or s["name"].startswith(("_savegpr0_", "_restgpr0_"))
        ck((s["value"] in recorded) != untraced, "record of " + s["name"])
    ck(e.words(e.at("asm_nops"), 4) == [NOP] * 4, "asm_nops")
    expect = {"gcc12": {0, 16}, "nm": {0, 16}, "pg": {8}}.get(layout, {0, 8})
    ck(set(kinds) == expect | ({1} if e.name == "vmlinux-pfe2" else set()), "kinds of entries: %s" % kinds)

    # start-up: who is called before setup_paca ends
    def callees(name):
        a, w = e.body(name)
        out = []
        for i, x in enumerate(w):
            t = target(a + 4 * i, x)
            if t is not None and x & 1:
                # a linker stub that goes on elsewhere counts as its destination
                stub = [s["name"] for s in e.syms if s["value"] == t and "_branch." in s["name"]]
                if stub:
                    out.append(stub[0].split("_branch.")[1])
                else:
                    out += [s["name"] for s in funcs if t == s["value"] + s["local"]]
        return out

    calls = [n for n in callees("early_setup") if n != "_mcount"]
    ck(calls[:3] == ["initialise_paca", "fixup_boot_paca", "setup_paca"], "early_setup calls %s" % calls)
    ck("paca_checksum" in callees("initialise_paca") + callees("early_init_devtree"), "paca_checksum")
    a, w = e.body("setup_paca")
    ck((0x7FEDFB78 if layout == "pg" else 0x7C6D1B78) in w, "setup_paca sets r13")

    # bounds, formed once from r2
    a, w = e.body("ftrace_init")
    formed = set()
    for n in range(len(w)):
        if w[n] >> 16 == 0x3C62 or w[n] >> 16 == 0x3C82:
            for k in w[n + 1 :]:
                if k >> 26 == 14 and (k >> 16 & 31) == (w[n] >> 21 & 31):
                    s16 = lambda x: (x & 0xFFFF ^ 0x8000) - 0x8000
                    formed.add(v[".TOC."] + (s16(w[n]) << 16) + s16(k))
        if w[n] >> 26 == 14 and (w[n] >> 16 & 31) == 2:
            formed.add(v[".TOC."] + (w[n] & 0xFFFF ^ 0x8000) - 0x8000)
    ck({start, stop} <= formed, "bounds in ftrace_init: %s" % [hex(x) for x in formed])

    # trampolines and ops
    ktoc = 8 if island else 16
    ck(e.word(e.at("ftrace_stub")) == BLR, "ftrace_stub")
    if layout in ("mprofile", "pg"):
        ck(e.words(e.at("_mcount"), 4) == [0x7D8802A6, MTCTR_R12, MTLR_R0, BCTR], "_mcount")
    else:
        ck(not e.has("_mcount"), "no _mcount")
    if layout != "pg":
        for n, c in (("ftrace_caller", "ftrace_call"), ("ftrace_regs_caller", "ftrace_regs_call")):
            a, w = e.extent(n)
            ck(w[:2] == [0xF821FFE1, 0xF821FE51], n + ": frames")
            ck(0xE84D0000 | ktoc in w and 0x886D0000 | ENABLED in w, n + ": paca")
            ck((LD_R12_SLOT in w) == callops == (0xE98C0000 | DIRECT in w), n + ": direct call")
            if callops:
                i = w.index(LD_R5_SLOT)
                ck(w[i : i + 4] == [LD_R5_SLOT, 0xE9850000, MTCTR_R12, BCTRL], n + ": ops->func")
            else:
                ck(target(e.at(c), e.word(e.at(c))) == e.at("ftrace_stub"), c + " calls ftrace_stub")
            ck(w[-1] == (BLR if layout in ("ool", "clang") else BCTR), n + ": leave")
        for n in ("ftrace_tramp_text", "ftrace_tramp_init"):
            ck(e.bytes_at(e.at(n), 32) == bytes(32), n + " is zero")
        ck(e.at("ftrace_tramp_text") >= max(s["value"] for s in funcs if s["value"] < v["_etext"] and s["name"] != "island"), "ftrace_tramp_text behind .text")
        ck(max(s["value"] for s in funcs) < e.at("ftrace_tramp_init") < v["__init_end"], "ftrace_tramp_init")
    ops = [("global_ops", "ftrace_ops_list_func" if callops else "ftrace_stub")]
    if callops:
        ops += [("ftrace_nop_ops", "ftrace_ops_nop_func"), ("ftrace_list_ops", "ftrace_ops_list_func")]
    ck(e.has("ftrace_nop_ops") == e.has("ftrace_list_ops") == callops, "ops with CALL_OPS only")
    for n, f in ops:
        s = e.sym(n)
        ck(s["type"] == "OBJECT" and s["size"] == 224 and relative.get(s["value"]) == e.at(f), n + ".func")
        ck(e.quad(s["value"] + DIRECT) == 0, n + ".direct_call")

    out = "slots %d, leftovers %d, .init.text %d, entries %s" % (
        len(vals),
        len(left),
        init,
        ", ".join("%d: %d" % k for k in sorted(kinds.items())),
    )
    if layout in ("ool", "clang"):
        out += "; " + check_areas(e, vals, init, 24 if callops else 16)
    else:
        ck(not e.has("ftrace_ool_stub_text"), "no stub areas")
    if far:
        out += "; " + check_far(e, ips, funcs, island)
    if e.name == "vmlinux-pfe2":
        for n in ("pcrel_read", "pcrel_edge"):
            s = e.sym(n)
            ck(s["local"] == 1 and s["value"] in vals, n + ": st_other 1, recorded")
            p = s["value"] + 8
            while e.word(p) == NOP:
                p += 4
            ck(e.word(p) >> 26 == 1 and p % 64 != 60, n + ": prefixed instruction")
            ck(p - s["value"] == (12 if n == "pcrel_edge" else 8), n + ": place of the prefix")
        b = e.at("pcrel_edge")
        ck((b + 8) % 64 == 60, "pcrel_edge: padding NOP")
        bytes_ = e.bytes_at(e.at("__start_BTF"), e.at("__stop_BTF") - e.at("__start_BTF"))
        ck(struct.unpack_from("<HB", bytes_) == (0xEB9F, 1), ".BTF")
    return out


def check_areas(e, vals, init, size):
    ck = e.check
    counts = {}
    for n in ("ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext"):
        c, s = e.sym(n + "_count"), e.sym(n)
        counts[n] = e.word(c["value"])
        ck(c["type"] == "OBJECT" and c["size"] == 4 and 4 <= s["value"] - c["value"] <= 8, n + "_count before the area")
        ck(s["size"] == counts[n] * size and s["value"] % 8 == 0, n + " size")
        ck(e.bytes_at(s["value"], s["size"]) == bytes(s["size"]), n + " is zero")
    ck(counts["ftrace_ool_stub_text"] == 4, "reserve")
    ck(counts["ftrace_ool_stub_text"] + counts["ftrace_ool_stub_text_end"] == len(vals) - init, "text slots")
    ck(counts["ftrace_ool_stub_inittext"] == init, "init slots")
    ck(0 < e.at("ftrace_ool_stub_text") - e.at("ftrace_caller") < 512, "reserve near ftrace_caller")
    ck(e.at("ftrace_tramp_text") < e.at("ftrace_ool_stub_text_end") < e.at("_etext"), "text_end before _etext")
    ck(e.at("ftrace_tramp_init") < e.at("ftrace_ool_stub_inittext") < e.at("__init_end"), "inittext")
    return "slots of %d: %d + %d + %d" % (size, *counts.values())


def check_far(e, ips, funcs, island):
    ck = e.check
    names = {s["value"] + (s["local"] & ~3): s["name"] for s in funcs}
    t = {n: e.at(n) for n in ("ftrace_caller", "ftrace_regs_caller", "ftrace_tramp_text", "ftrace_tramp_init")}
    kinds = {}
    for b, ip in ips.items():
        got = tuple(n for n in t if reaches(ip, t[n]))
        kinds.setdefault(got, []).append(names.get(b, "leftover"))
    only_init = kinds.get(("ftrace_tramp_init",), [])
    none = kinds.get((), [])
    gap = e.at("__init_begin") - (e.sec("__spec_barrier_fixup")["addr"] + 4)
    ck(gap == 0xBFC and e.bytes_at(e.at("__init_begin") - gap, gap) == bytes(gap), "zero gap before __init_begin")
    direct = [n for k, names_ in kinds.items() if "ftrace_caller" in k for n in names_]
    if island:
        ck(none == ["island"], "sites that reach nothing: %s" % none)
        ck(len(only_init) == 11 and e.at("__init_begin") - BASE == 0x5000000, "init sites reach ftrace_tramp_init only")
        ck(e.at("island") - BASE == 0x2800000 and e.at("island") < e.at("_etext"), "island")
        return "ftrace_caller %d, only ftrace_tramp_init %d, nothing 1" % (len(direct), len(only_init))
    ck(none == [] and e.at("__init_begin") - BASE == 0x2000000, "every site reaches something")
    ck(sorted(only_init) == ["b_late", "fixup_boot_paca"], "only ftrace_tramp_init: %s" % only_init)
    window = [n for k, ns in kinds.items() if "ftrace_caller" in k and "ftrace_regs_caller" not in k for n in ns]
    ck(window == ["a_window"], "ftrace_caller, not ftrace_regs_caller: %s" % window)
    tramps = kinds.get(("ftrace_tramp_text", "ftrace_tramp_init"), [])
    ck(tramps == ["b_mid"], "both trampolines, not ftrace_caller: %s" % tramps)
    ck(sum(".long_branch." in s["name"] for s in e.syms) == 6, "long_branch stubs")
    ck(max(ips.values()) - t["ftrace_caller"] == 0x2000330, "farthest call")
    return "ftrace_caller %d (%d not ftrace_regs_caller), both trampolines %d, only ftrace_tramp_init %d; farthest %#x" % (
        len(direct),
        len(window),
        len(tramps),
        len(only_init),
        max(ips.values()) - t["ftrace_caller"],
    )


def rel_word(e, idx, off):
    return struct.unpack_from("<I", e.data, e.sections[idx]["off"] + off)[0]


def check_rel(e, secname, nsec, nslots):
    """Rows (record section, index of the site's section, offset of the site)."""
    e.check("REL (" in e.header and re.search(r"Flags: +0x2,", e.header), "ET_REL, ELFv2")
    out, groups = [], []
    for s in e.sections:
        if s["name"] != secname:
            continue
        rel = [r for r in e.sections if r["type"] == "RELA" and r["info"] == s["idx"]]
        e.check(len(rel) == 1, "one RELA section per " + secname)
        rows = e.rela["0x%x" % rel[0]["off"]]
        e.check([r[0] for r in rows] == list(range(0, s["size"], 8)), "one relocation per slot")
        e.check(all(r[2] == "R_PPC64_ADDR64" for r in rows), "ADDR64")
        if s["type"] != "NOBITS":
            e.check(e.data[s["off"] : s["off"] + s["size"]] == bytes(s["size"]), "slots are zero on disk")
        groups.append(s)
        for r in rows:
            home = e.sec(r[3])
            e.check(home and "X" in home["flags"], "section symbol %s" % r[3])
            out.append((s, home["idx"], r[4]))
    e.check(len(groups) == nsec and len(out) == nslots, "%d sections, %d slots" % (len(groups), len(out)))
    return out


def check_objects(d):
    res = {}
    func_at = lambda e, idx, off: [
        s for s in e.syms if s["type"] == "FUNC" and s["ndx"] == str(idx) and s["value"] + s["local"] == off
    ]

    e = Elf(d + "/pfe2.o")
    rows = check_rel(e, "__patchable_function_entries", 1, 9)
    for _, i, o in rows:
        e.check(rel_word(e, i, o) == rel_word(e, i, o + 4) == NOP and func_at(e, i, o), "NOPs at the local entry")
    homes = sorted({e.sections[i]["name"] for _, i, _ in rows})
    e.check(homes == [".init.text", ".init.text.window", ".text"], "sections %s" % homes)
    e.check(e.sections[rows[0][0]["link"]]["name"] == ".text", "sh_link names .text only")
    res[e.name] = "9 slots, 1 section"

    e = Elf(d + "/mprofile.o")
    rows = check_rel(e, "__mcount_loc", 1, 9)
    calls = {(s["info"], r[0]) for s in e.sections if s["type"] == "RELA" for r in e.rela["0x%x" % s["off"]] if r[3] == "_mcount"}
    calls = {c for c in calls if "X" in e.sections[c[0]]["flags"]}
    e.check({(i, o) for _, i, o in rows} == calls, "records are the _mcount calls")
    for _, i, o in rows:
        e.check(rel_word(e, i, o - 4) == MFLR_R0 and rel_word(e, i, o) == 0x48000001, "mflr r0; bl")
    res[e.name] = "9 slots"

    e = Elf(d + "/clang.o")
    rows = check_rel(e, "__patchable_function_entries", 9, 9)
    two = 0
    for s, i, o in rows:
        f = [x for x in e.syms if x["type"] == "FUNC" and x["ndx"] == str(i) and x["value"] == o]
        e.check(f and s["link"] == i and s["size"] == 8, "record at a global entry, sh_link its section")
        e.check(rel_word(e, i, o + f[0]["local"]) == NOP, "NOP at the local entry")
        two += f[0]["local"] == 8
    e.check(two == 5, "two entries: %d" % two)
    res[e.name] = "9 slots, 9 sections, %d of them 8 before the NOP" % two

    e = Elf(d + "/mini.ko")
    rows = check_rel(e, "__patchable_function_entries", 1, 8)
    s = rows[0][0]
    homes = [e.sections[i]["name"] for _, i, _ in rows]
    e.check((homes.count(".text"), homes.count(".init.text"), homes.count(".text.unlikely")) == (3, 4, 1), "homes")
    e.check(e.sections[s["link"]]["name"] == ".init.text" and homes[0] == ".text" and s["addr"], "sh_link, sh_addr")
    e.check([(i, o) for _, i, o in rows] != sorted((i, o) for _, i, o in rows), "unsorted")
    one = 0
    for _, i, o in rows:
        e.check(rel_word(e, i, o) == NOP, "NOP at %x" % o)
        f = func_at(e, i, o)
        e.check(f, "local entry at %x" % o)
        if f[0]["local"]:
            e.check(rel_word(e, i, o - 8) == 0xE84CFFF8 and rel_word(e, i, o - 4) == 0x7C426214, "TOC load before %x" % o)
        else:
            one += 1
    e.check(one == 1, "one function with one entry")
    st = e.sec(".stubs")
    e.check((st["type"], st["size"], st["flags"], st["align"]) == ("NOBITS", 0, "AX", 8), ".stubs")
    e.check(b"vermagic=0.0.0-mini SMP mod_unload ppc64le" in e.data, ".modinfo")
    e.check([r[3] for r in e.rela_of(".rela.gnu.linkonce.this_module")] == ["init_module", "cleanup_module"], "this_module")
    ext = [r for s in e.sections if s["type"] == "RELA" for r in e.rela["0x%x" % s["off"]] if r[3] == "_printk"]
    e.check(len(ext) == 3 and all(r[2] == "R_PPC64_REL24" for r in ext), "calls of _printk")
    res[e.name] = "8 slots: 3 .text, 1 .text.unlikely, 4 .init.text"

    e = Elf(d + "/debug-only.ko")
    e.check("REL (" in e.header and e.sec(".debug_info")["type"] == "PROGBITS", "DWARF")
    for n in (".text", ".init.text", "__patchable_function_entries", ".modinfo"):
        e.check(e.sec(n)["type"] == "NOBITS", n + " is NOBITS")
    e.check(e.has("mini_work") and len(e.rela_of(".rela__patchable_function_entries")) == 8, "symbols and relocations")
    res[e.name] = "8 relocations of records, no text"

    e = Elf(d + "/headers-vmlinux")
    e.check([s["name"] for s in e.sections if "A" in s["flags"]] == [".BTF"], "allocated sections")
    e.check("EXEC" in e.header and e.has("__start_BTF") and not any(s["type"] == "FUNC" for s in e.syms), "symbols")
    e.check({s["name"] for s in e.syms if s["type"] == "NOTYPE" and s["name"]} == {"__start_BTF", "__stop_BTF"}, "names")
    s = e.sec(".BTF")
    e.check(struct.unpack_from("<H", e.data, s["off"]) == (0xEB9F,), "BTF magic")
    res[e.name] = ".BTF only"
    return res


def enable(e, layout, names):
    """Words that enable sites in memory, for run.c."""
    o = lambda va: va - BASE
    lep = lambda n: e.at(n) + (e.sym(n)["local"] & ~3)  # 1 means: one entry, r2 is scratch
    out = []
    word = lambda at, w: out.append("%x=%x" % (o(at), w))
    if e.name not in CALL_OPS:
        at = e.at("ftrace_call")
        word(at, branch(at, lep("ftrace_ops_list_func"), 1))
    slot = 0
    for n in names:
        to = e.at("ftrace_caller")
        s, at = e.sym(n), lep(n)
        if layout in ("mprofile", "pg"):
            a, w = e.body(n)
            at = next(a + 4 * i for i, x in enumerate(w) if target(a + 4 * i, x) == e.at("_mcount"))
            word(at, branch(at, to, 1))
        elif layout in ("pfe2", "nm"):
            if not reaches(at + 4, to):
                tramp, v = e.at("ftrace_tramp_init"), to - e.at(".TOC.")
                ktoc = 8 if e.name == "vmlinux-unreachable" else 16
                hi, lo = (v + 0x8000) >> 16 & 0xFFFF, v & 0xFFFF
                for i, x in enumerate([0xE98D0000 | ktoc, 0x3D8C0000 | hi, 0x398C0000 | lo, MTCTR_R12, BCTR]):
                    word(tramp + 4 * i, x)
                to = tramp
            word(at, MFLR_R0)
            word(at + 4, branch(at + 4, to, 1))
        else:
            size = 24 if e.name in CALL_OPS else 16
            stub = e.at("ftrace_ool_stub_text_end") + size * slot
            slot += 1
            if size == 24:
                out.append("%x@%x" % (o(stub), o(e.at("ftrace_list_ops"))))
                stub += 8
            word(at, branch(at, stub, 0))
            for i, x in enumerate([MFLR_R0, branch(stub + 4, to, 1), MTLR_R0, branch(stub + 12, at + 4, 0)]):
                word(stub + 4 * i, x)
        assert s["type"] == "FUNC"
    return out


def execute(e, layout, slots, runner):
    cmd = ["qemu-ppc64le", "-cpu", "power10", runner, e.path, "%x" % (e.at("log_buf") - BASE)]
    go = lambda extra: subprocess.run(cmd + extra, stdout=subprocess.PIPE, timeout=60, stderr=subprocess.DEVNULL)
    text = go([]).stdout.decode("latin-1")
    if layout == "gcc12":
        e.check("getppid" not in text, "broken code does not run")
        return
    e.check("ftrace: %d entries" % slots in text and "ftrace hits: 0" in text, "run: " + repr(text))
    names = ["vfs_read", "sys_getppid"]
    if e.name == "vmlinux-pfe2":
        names += ["pcrel_read", "pcrel_edge"]
    if e.name in FAR:
        names += ["b_late"]
    got = go(enable(e, layout, names)).stdout.decode("latin-1")
    e.check("ftrace hits: %d\n" % len(names) in got, "run with %s: %r" % (names, got))
    e.check(re.findall("getppid: .*", got) == re.findall("getppid: .*", text), "same result")


def main():
    args = sys.argv[1:]
    running = "--run" in args
    args = [a for a in args if a != "--run"]
    d = args[0] if args else HERE
    with tempfile.TemporaryDirectory() as t:
        if running:
            run("gcc", "-O1", "-static", "-w", "-o", t + "/run", HERE + "/run.c")
        for name, spec in VMLINUX.items():
            e = Elf(os.path.join(d, name))
            print("%-20s %s" % (name, check_vmlinux(e, *spec)))
            if running:
                execute(e, spec[0], spec[1], t + "/run")
    for name, text in check_objects(d).items():
        print("%-20s %s" % (name, text))
    print("FAILED: %d" % failures if failures else "all checks passed")
    return bool(failures)


sys.exit(main())
