#!/usr/bin/env python3
"""Verify what README.md says about each fixture, with readelf, objdump and nm.

Usage: check.py [--boot] [DIR]     (default: the directory of this file)
--boot also starts the relocatable images in qemu-system-aarch64.
"""

import os
import re
import struct
import subprocess
import sys
import tempfile

CROSS = os.environ.get("CROSS", "aarch64-linux-gnu-")
NOP, MOV_X0_X30, PACIASP = 0xD503201F, 0xAA1E03E0, 0xD503233F
failures = 0


def run(tool, *args):
    return subprocess.run(
        [CROSS + tool, *args], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout


class Elf:
    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)
        self.data = open(path, "rb").read()
        self.header = run("readelf", "-hW", path)
        self.sections = []
        for m in re.finditer(
            r"^ +\[ *(\d+)\] (\S*) +([A-Z_]+) +([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)"
            r" ([0-9a-f]+) +([A-Za-z]*) +(\d+) +(\d+) +(\d+)$",
            run("readelf", "-SW", path),
            re.M,
        ):
            g = m.groups()
            self.sections.append(
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
                )
            )
        self.syms = []
        for m in re.finditer(
            r"^ +\d+: ([0-9a-f]+) +(\w+) (\w+) +(\w+) +\w+ +(\w+) ?(.*)$", run("readelf", "-sW", path), re.M
        ):
            g = m.groups()
            self.syms.append(dict(value=int(g[0], 16), size=int(g[1], 0), type=g[2], bind=g[3], ndx=g[4], name=g[5]))
        self.rela, self.relr, sec = {}, [], None
        for line in run("readelf", "-rW", path).splitlines():
            m = re.match(r"Relocation section '(.+)' at offset (\w+) ", line)
            if m:
                sec = m[2]
                self.rela.setdefault(sec, [])
                continue
            m = re.match(
                r"([0-9a-f]{16})  ([0-9a-f]{16}) (R_AARCH64_\w+) +(?:([0-9a-f]{16}) (\S+) \+ )?"
                r"(-?[0-9a-f]+)$",
                line,
            )
            if m:
                self.rela[sec].append((int(m[1], 16), m[3], m[5], int(m[6], 16)))
                continue
            m = re.match(r"([0-9a-f]{16})$", line)
            if m:
                self.relr.append(int(m[1], 16))
        self.relr = sorted(self.relr)

    def check(self, ok, text):
        global failures
        if not ok:
            failures += 1
            print("FAIL %s: %s" % (self.name, text))

    def sec(self, name):
        return next((s for s in self.sections if s["name"] == name), None)

    def sym(self, name):
        return next(s for s in self.syms if s["name"] == name)

    def has(self, name):
        return any(s["name"] == name for s in self.syms)

    def bytes_at(self, va, n):
        for s in self.sections:
            if "A" in s["flags"] and s["type"] != "NOBITS" and s["addr"] <= va and va + n <= s["addr"] + s["size"]:
                o = s["off"] + va - s["addr"]
                return self.data[o : o + n]
        raise KeyError(hex(va))

    def word(self, va):
        try:
            return struct.unpack("<I", self.bytes_at(va, 4))[0]
        except KeyError:
            return 0  # not an address of the image: fails every comparison

    def quad(self, va):
        return struct.unpack("<Q", self.bytes_at(va, 8))[0]

    def rela_of(self, name):
        s = self.sec(name)
        return self.rela.get("0x%x" % s["off"], []) if s else []

    def insns(self, *sections):
        args = [a for s in sections for a in ("-j", s)]
        out = []
        for line in run("objdump", "-d", *args, self.path).splitlines():
            m = re.match(r" *([0-9a-f]+):\t([0-9a-f]{8}) +\t(\S+)\t?(.*)$", line)
            if m:
                out.append((int(m[1], 16), m[3], re.sub(r"\s*(//|<).*", "", m[4])))
        return out

    def function(self, name):
        s = self.sym(name)
        return [(m + " " + a).strip() for va, m, a in self.all_insns if s["value"] <= va < s["value"] + s["size"]]


M64 = (1 << 64) - 1

# layout, carrier, slots, nulls, weak leftovers, records in .init.text, records whose
# function starts with BTI C (None: layout without BTI)
VMLINUX = {
    "vmlinux-pfe2": ("pfe2", "rela", 19, 0, 3, 4, None),
    "vmlinux-pfe2-bti": ("pfe2", "rela", 19, 0, 3, 4, 17),
    "vmlinux-exec": ("pfe2", "plain", 19, 0, 3, 4, None),
    "vmlinux-kcfi": ("pfe2", "relr", 19, 3, 0, 4, None),
    "vmlinux-callops": ("callops", "relr", 19, 3, 0, 4, None),
    "vmlinux-callops-bti": ("callops", "relr", 19, 3, 0, 4, 14),
    "vmlinux-pg": ("pg", "plain", 19, 0, 3, 4, None),
    "vmlinux-notrace": ("none", "rela", 0, 0, 0, 0, None),
}


def check_vmlinux(e, layout, carrier, slots, nulls, leftovers, ninit, nbti):
    ck = e.check
    e.all_insns = e.insns(".head.text", ".text", ".init.text")
    ck(len(e.data) < 100 * 1024, "smaller than 100 KB")
    ck("AArch64" in e.header, "machine")
    ck(("EXEC" if carrier == "plain" else "DYN") in re.search(r"Type: +(\w+)", e.header)[1], "ELF type")
    for n in [".head.text", ".text", ".rodata", ".init.text", ".init.data", ".data", ".bss", ".notes", ".symtab"]:
        ck(e.sec(n), "section " + n)
    for n in ("__patchable_function_entries", "__mcount_loc", ".dynamic", ".dynsym", ".interp"):
        ck(not e.sec(n), "no section " + n)
    ck(not any(s["name"].startswith((".debug", ".zdebug")) for s in e.sections), "no DWARF")
    ck(bool(e.sec(".rela.dyn")) == (carrier != "plain"), ".rela.dyn")
    ck(bool(e.sec(".relr.dyn")) == (carrier == "relr"), ".relr.dyn")
    ck("Build ID: " in run("readelf", "-nW", e.path), "build id")
    for n in ["_text", "_stext", "_etext", "__init_begin", "__init_end", "_end", "start_kernel", "vfs_read", "ftrace_init"]:
        ck(e.has(n), "symbol " + n)
    v = {n: e.sym(n)["value"] for n in ["_text", "_stext", "_etext", "__init_begin", "__init_end", "_end"]}
    ck(v["_text"] == 0xFFFF800080000000, "_text")
    ck(
        len({(s["off"] - s["addr"]) & M64 for s in e.sections if "A" in s["flags"] and s["type"] != "NOBITS"}) >= 3,
        "offset minus address differs between sections",
    )
    h = e.bytes_at(v["_text"], 64)
    ck(h[:2] == b"MZ" and h[56:60] == b"ARM\x64", "Image magic")
    ck(struct.unpack_from("<QQQ", h, 8) == (0, v["_end"] - v["_text"], 0xA), "Image header fields")
    b = struct.unpack_from("<I", h, 4)[0]
    ck(
        b >> 26 == 5 and v["_text"] + 4 + 4 * (b & 0x3FFFFFF) == e.sym("primary_entry")["value"],
        "branch to primary_entry",
    )
    ck(e.bytes_at(v["_etext"] - 64, 64) == bytes(64), "64 zero bytes before _etext")
    ck(e.bytes_at(e.sym("linux_banner")["value"], 24) == b"Linux version 0.0.0-mini", "linux_banner")
    files = [s["name"] for s in e.syms if s["type"] == "FILE"]
    ck("a.c" in files and "b.c" in files, "STT_FILE a.c, b.c")
    ck(len({s["value"] for s in e.syms if s["name"] == "init_once" and s["bind"] == "LOCAL"}) == 2, "two init_once")
    ck(len({e.sym(n)["value"] for n in ("__arm64_sys_getppid", "sys_getppid", "__se_sys_getppid")}) == 1, "aliases")
    for n in ("start_kernel", "ftrace_init", "a_setup", "b_setup"):
        ck(v["__init_begin"] <= e.sym(n)["value"] < v["__init_end"], n + " is init text")

    rela = e.rela_of(".rela.dyn")
    ck({t for _, t, _, _ in rela} <= {"R_AARCH64_RELATIVE", "R_AARCH64_NONE"}, "relocation types")
    none = [r for r in rela if r[1] == "R_AARCH64_NONE"]
    ck(all(r[0] == 0 and r[3] == 0 for r in none), "NONE entries are all zero")
    ck(len(none) == (8 if carrier == "relr" else 0), "number of NONE entries")
    relative = {o: a & M64 for o, t, _, a in rela if t == "R_AARCH64_RELATIVE"}
    ck(not set(relative) & set(e.relr), "no place in both tables")
    if carrier == "relr":
        ck(
            len(relative) == 2
            and all(e.sym("unpacked_ptrs")["value"] <= o < e.sym("unpacked_ptrs")["value"] + 16 for o in relative),
            "two RELATIVE entries",
        )

    def value(va):
        return relative[va] if va in relative else e.quad(va)

    if layout == "none":
        for n in (
            "__start_mcount_loc",
            "__stop_mcount_loc",
            "ftrace_caller",
            "ftrace_stub",
            "ftrace_nop_ops",
            "_mcount",
        ):
            ck(not e.has(n), "no symbol " + n)
        return "no record array"

    # the array
    start, stop = e.sym("__start_mcount_loc")["value"], e.sym("__stop_mcount_loc")["value"]
    home = e.sec(".init.data")
    ck(home["addr"] <= start and stop <= home["addr"] + home["size"] and start % 8 == 0, "array in .init.data")
    places = range(start, stop, 8)
    vals = [value(p) for p in places]
    ck(len(vals) == slots, "slots: %d" % len(vals))
    ck(vals.count(0) == nulls, "null slots: %d" % vals.count(0))
    live = [x for x in vals if x]
    ck(len(set(live)) == len(live), "no duplicates")
    if carrier == "rela":
        ck(all(p in relative for p in places) and all(e.quad(p) == 0 for p in places), "values only in .rela.dyn")
        ck(live != sorted(live), "unsorted")
    elif carrier == "relr":
        ck(set(places) <= set(e.relr) and vals == sorted(vals), "RELR on every slot; zeros first, then ascending")
    else:
        ck(live != sorted(live), "plain words, unsorted")

    # each record's words
    text = [s for s in e.syms if s["type"] == "FUNC" and s["ndx"] != "UND"]
    starts = {s["value"] for s in text}
    covered = lambda a: any(s["value"] - 8 <= a < s["value"] + s["size"] for s in text)
    left = init = bti = pac = 0
    recorded = set()
    for r in live:
        init += v["__init_begin"] <= r < v["__init_end"]
        if layout == "callops":
            ck(r % 8 == 0 and e.word(r) == e.word(r + 4) == NOP, "literal NOPs at %x" % r)
            label = r + 8
            first = label
            if e.word(label) & 0xFFFFFF3F == 0xD503241F:
                bti += 1
                first += 4
        elif layout == "pfe2":
            label = first = r
            if nbti is not None and e.word(r - 4) == 0xD503245F and (r not in starts):
                bti += 1
                label = r - 4
        else:
            w = e.word(r)
            ck(
                w >> 26 == 0x25 and r + 4 * ((w & 0x3FFFFFF) - ((w & 0x2000000) << 1)) == e.sym("_mcount")["value"],
                "bl _mcount at %x" % r,
            )
            ck(MOV_X0_X30 in [e.word(r - 4 * i) for i in (1, 2, 3)], "mov x0, x30 before %x" % r)
            owner = [s for s in text if s["value"] < r < s["value"] + s["size"]]
            left += not owner
            recorded.update(s["value"] for s in owner)
            continue
        ck(e.word(first) == e.word(first + 4) == NOP, "NOP pair of %x" % r)
        pac += e.word(first + 8) == PACIASP
        if label in starts:
            recorded.add(label)
        else:
            left += 1
            ck(not covered(r), "leftover %x lies outside every symbol" % r)
        if e.name == "vmlinux-kcfi":
            ck(e.word(r - 4) not in (NOP, 0), "type hash before %x" % r)
    ck(left == leftovers, "weak leftovers: %d" % left)
    ck(init == ninit, "records in .init.text: %d" % init)
    if layout != "pg":
        ck(pac >= 5, "PACIASP after the NOPs: %d" % pac)
    if nbti is not None:
        ck(bti == nbti, "functions that start with BTI C: %d" % bti)
        ck(e.word(e.sym("direct_only")["value"]) == NOP, "direct_only has no BTI")
        ck(e.sym("direct_only")["value"] in recorded, "direct_only is recorded")
    for s in text:
        untraced = s["name"] in (
            "notrace_helper",
            "asm_nops",
            "ftrace_caller",
            "ftrace_regs_caller",
            "ftrace_stub",
            "ftrace_stub_direct_tramp",
            "_mcount",
            "ftrace_init",
            "ftrace_process_locs",
            "ftrace_ops_nop_func",
            "ftrace_ops_list_func",
            "primary_entry",
            "uart_putc",
        ) or s["name"].startswith("early_")
        ck((s["value"] in recorded) != untraced, "record of " + s["name"])
    if layout != "pg":
        at = e.sym("slot_probe")["value"] + (4 if nbti is not None else 0)
        ck([e.word(at + 4 * i) for i in range(4)] == [NOP] * 4, "slot_probe: two more NOPs")
    ck([e.word(e.sym("asm_nops")["value"] + 4 * i) for i in range(4)] == [NOP] * 4, "asm_nops")

    # bounds, formed once
    pages, pairs = {}, []
    for va, m, a in e.all_insns:
        ops = [x.strip() for x in a.split(",")]
        if m == "adrp":
            pages[ops[0]] = int(ops[1], 16)
        elif m == "add" and len(ops) == 3 and ops[1] in pages and ops[2].startswith("#"):
            pairs.append((va, pages[ops[1]] + int(ops[2][1:], 16)))
            if ops[0] == ops[1]:
                del pages[ops[0]]
        elif ops[0] in pages and not m.startswith(("st", "b", "c", "t")):
            del pages[ops[0]]
    fi = e.sym("ftrace_init")
    forms = [va for va, x in pairs if x == stop and fi["value"] <= va < fi["value"] + fi["size"]]
    ck(len(forms) == 1, "ftrace_init forms the end bound once")
    ck(any(x == start and fi["value"] <= va < fi["value"] + fi["size"] for va, x in pairs), "start bound")

    # trampolines and ops
    f = e.function("ftrace_caller")
    stub = e.function("ftrace_stub")
    ck(stub == (["bti c", "ret"] if nbti is not None else ["ret"]), "ftrace_stub")
    if layout == "callops":
        ck(
            f[0] == "bti c"
            and f[1].startswith("and x11, x30, #0xfffffffffffffff8")
            and f[2] == "ldur x11, [x11, #-16]"
            and f[3] == "ldr x17, [x11, #80]"
            and f[4].startswith("cbnz x17, ")
            and f[-1] == "br x17",
            "ftrace_caller entry",
        )
        ck("blr x4" in f and f[-3:-1] == ["mov x30, x9", "ret x10"], "ftrace_caller leave")
    elif layout == "pfe2":
        for n in ("ftrace_caller", "ftrace_regs_caller"):
            f = e.function(n)
            calls = [x for x in f if x.startswith("bl ")]
            ck(
                f[0] == "bti c"
                and calls == ["bl %x" % e.sym("ftrace_stub")["value"]]
                and f[-2:] == ["mov x30, x9", "ret x10"],
                n,
            )
    else:
        ck(f[-1] == "ret", "ftrace_caller")
    if layout != "pg":
        ck(
            e.function("ftrace_stub_direct_tramp") == ["bti c", "mov x10, x30", "mov x30, x9", "ret x10"],
            "direct tramp",
        )
    ro = e.sec(".rodata")
    for n, func in (("ftrace_nop_ops", "ftrace_ops_nop_func"), ("ftrace_list_ops", "ftrace_ops_list_func")):
        s = e.sym(n)
        ck(s["type"] == "OBJECT" and s["size"] == 96 and s["ndx"] == str(ro["idx"]), n + " object in .rodata")
        ck(value(s["value"]) == e.sym(func)["value"], n + ".func")
        ck(carrier == "plain" or s["value"] in relative or s["value"] in e.relr, n + ".func is relocated")
        ck(e.quad(s["value"] + 80) == 0, n + ".direct_call")
    return "slots %d, live %d, null %d, leftovers %d, .init.text %d%s" % (
        len(vals),
        len(live),
        vals.count(0),
        left,
        init,
        "" if nbti is None else ", BTI %d" % bti,
    )


def records_of(e, secname):
    out = []
    for s in e.sections:
        if s["name"] == secname:
            rel = [r for r in e.sections if r["type"] == "RELA" and r["info"] == s["idx"]]
            e.check(len(rel) == 1, "one RELA section per " + secname)
            rows = e.rela["0x%x" % rel[0]["off"]]
            e.check([r[0] for r in rows] == list(range(0, s["size"], 8)), "one relocation per slot")
            e.check(all(r[1] == "R_AARCH64_ABS64" for r in rows), "ABS64")
            e.check(e.data[s["off"] : s["off"] + s["size"]] == bytes(s["size"]), "slots are zero on disk")
            out.append((s, rows))
    return out


def rel_word(e, secname, off):
    s = e.sec(secname)
    return struct.unpack_from("<I", e.data, s["off"] + off)[0]


def check_rel(e, secname, nsec, nslots, prefix_nops):
    e.check("REL (" in e.header, "ET_REL")
    groups = records_of(e, secname)
    rows = [(s, r) for s, rr in groups for r in rr]
    e.check(len(groups) == nsec and len(rows) == nslots, "%d sections, %d slots" % (len(groups), len(rows)))
    secsyms = {n["name"] for n in e.sections}
    for s, (_, _, sym, off) in rows:
        e.check(sym in secsyms, "record against a section symbol")
        if prefix_nops:
            words = [rel_word(e, sym, off + 4 * i) for i in range(prefix_nops)]
            e.check(words == [NOP] * prefix_nops, "NOPs at %s+%x" % (sym, off))
    return groups, rows


def check_objects(d):
    res = {}
    e = Elf(d + "/pfe2.o")
    g, rows = check_rel(e, "__patchable_function_entries", 1, 8, 2)
    e.check({r[2] for _, r in rows} == {".text", ".init.text"}, "records in .text and .init.text")
    res[e.name] = "8 slots, 1 section"
    e = Elf(d + "/callops.o")
    g, rows = check_rel(e, "__patchable_function_entries", 1, 8, 4)
    starts = {(s["ndx"], s["value"]) for s in e.syms if s["type"] == "FUNC"}
    for _, r in rows:
        e.check((str(e.sec(r[2])["idx"]), r[3] + 8) in starts and r[3] % 8 == 0, "function at record + 8")
    res[e.name] = "8 slots, 1 section"
    e = Elf(d + "/clang-sections.o")
    g, rows = check_rel(e, "__patchable_function_entries", 8, 8, 2)
    e.check(all(s["link"] == e.sec(r[2])["idx"] for s, r in rows), "sh_link names the record's text section")
    res[e.name] = "8 slots, 8 sections"
    e = Elf(d + "/pg.o")
    g, rows = check_rel(e, "__mcount_loc", 1, 8, 0)
    calls = {
        (".text" if n == ".rela.text" else ".init.text", o)
        for n in (".rela.text", ".rela.init.text")
        for o, t, s, _ in e.rela_of(n)
        if t == "R_AARCH64_CALL26" and s == "_mcount"
    }
    e.check({(r[2], r[3]) for _, r in rows} == calls, "records are the _mcount calls")
    res[e.name] = "8 slots"
    e = Elf(d + "/mini.ko")
    g, rows = check_rel(e, "__patchable_function_entries", 1, 6, 4)
    e.check(sorted(r[2] for _, r in rows) == [".init.text"] * 3 + [".text"] * 3, "record sections")
    e.check(g[0][0]["link"] == e.sec(".text")["idx"], "sh_link names .text only")
    for n in (".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"):
        s = e.sec(n)
        e.check(s and s["type"] == "PROGBITS" and s["size"] == 1, n)
        e.check(s["flags"] == ("A" if n.startswith(".init") else "AX"), n + " flags")
    e.check(b"vermagic=0.0.0-mini" in e.data and e.sec(".modinfo") is not None, ".modinfo")
    e.check(
        [r[2] for r in e.rela_of(".rela.gnu.linkonce.this_module")] == ["init_module", "cleanup_module"], "this_module"
    )
    res[e.name] = "6 slots: 3 .text, 3 .init.text"
    e = Elf(d + "/program")
    e.check("DYN" in e.header, "ET_DYN")
    s = e.sec("__patchable_function_entries")
    rel = [r for r in e.rela_of(".rela.dyn") if s["addr"] <= r[0] < s["addr"] + s["size"]]
    e.check(len(rel) == s["size"] // 8 == 4, "4 records")
    starts = {x["value"] for x in e.syms if x["type"] == "FUNC"}
    for o, t, _, a in rel:
        e.check(t == "R_AARCH64_RELATIVE" and a in starts and e.word(a) == e.word(a + 4) == NOP, "site %x" % a)
    e.check(not e.has("__start_mcount_loc"), "no kernel symbols")
    res[e.name] = "4 slots"
    return res


def boot(e, n):
    with tempfile.TemporaryDirectory() as t:
        img = t + "/Image"
        run("objcopy", "-O", "binary", "-S", "-R", ".notes", e.path, img)
        out = subprocess.run(
            [
                "qemu-system-aarch64",
                "-M",
                "virt",
                "-cpu",
                "max",
                "-m",
                "64",
                "-net",
                "none",
                "-nographic",
                "-kernel",
                img,
            ],
            stdin=subprocess.DEVNULL,
            timeout=60,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout.decode("latin-1")
    e.check(
        "Linux version 0.0.0-mini" in out and "getppid: 69" in out and "ftrace hits: 0" in out, "boot: " + repr(out)
    )
    e.check(n is None or "ftrace: %d entries" % n in out, "boot: number of entries: " + repr(out))


def main():
    args = sys.argv[1:]
    booting = "--boot" in args
    args = [a for a in args if a != "--boot"]
    d = args[0] if args else os.path.dirname(os.path.abspath(__file__))
    for name, spec in VMLINUX.items():
        e = Elf(os.path.join(d, name))
        print("%-22s %s" % (name, check_vmlinux(e, *spec)))
        if booting and spec[1] != "plain":
            boot(e, None if spec[0] == "none" else spec[2] - spec[3])
    for name, text in check_objects(d).items():
        print("%-22s %s" % (name, text))
    print("FAILED: %d" % failures if failures else "all checks passed")
    return bool(failures)


sys.exit(main())
