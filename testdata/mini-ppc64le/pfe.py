#!/usr/bin/env python3
"""Rewrite compiler output (assembly) so that its sites stand where other compilers put them.

Usage: pfe.py FORM [--link own] [--skip NAME,...] < in.s > out.s

gcc   input: gcc 12 with -fpatchable-function-entry=N. gcc 12 puts record and NOPs at the
      global entry; gcc 13 and later put them at the local entry, and so does the output.
nm    the same input with N,M: M NOPs and the record go between the entries, or stay before
      the label of a function with one entry; the others follow the local entry.
clang input: clang without the option (clang 16 refuses it for powerpc64le). One NOP at the
      local entry, a record of the global entry in a section of its own per function, as
      newer versions of clang write them.

--link own: one record section per text section (its first function is the name after "awo").
Without it gcc's own choice stays: the first function of the file.
"""

import re
import sys


def is_insn(line):
    return re.match(r"(\d+:)?\t[a-z]", line) is not None


def clang(lines, skip):
    out, i, n = [], 0, 0
    section = "\t.text"
    while i < len(lines):
        line = lines[i]
        out.append(line)
        i += 1
        if re.match(r"\t\.(text|section)\b", line):
            section = line
        m = re.match(r"([\w.$]+):", line)
        if not m or not any(re.match(r"\t\.type\t%s,@function" % re.escape(m[1]), x) for x in lines) or m[1] in skip:
            continue
        at = ".Lpatch%d" % n
        end = next(k for k in range(i, len(lines)) if lines[k].startswith("\t.size\t" + m[1] + ","))
        local = [k for k in range(i, end) if lines[k].startswith("\t.localentry\t")]
        stop = local[0] + 1 if local else next(k for k in range(i, end) if is_insn(lines[k]))
        out += [at + ":"] + lines[i:stop] + ["\tnop"]
        i = stop
        out += [
            '\t.section\t__patchable_function_entries,"awo",@progbits,%s,unique,%d' % (at, n),
            "\t.p2align\t3",
            "\t.quad\t" + at,
            section,
        ]
        n += 1
    return out


def gcc(lines, link, nm):
    out, i, first = [], 0, {}
    while i < len(lines):
        line = lines[i]
        if not line.startswith("\t.section\t__patchable_function_entries"):
            out.append(line)
            i += 1
            continue
        # header, .align, .8byte, back to the text section, label, NOPs
        header, align, word, back, label = lines[i : i + 5]
        i += 5
        assert label == word.split()[1] + ":", label
        nops = 0
        while lines[i] == "\tnop":
            nops += 1
            i += 1
        name, pre = None, 0
        if nm:
            typ, lab = lines[i : i + 2]
            name, pre, nops = lab[:-1], nops, 0
            i += 2
            while lines[i] == "\tnop":
                nops += 1
                i += 1
        else:
            name = next(x for x in reversed(out) if re.match(r"[A-Za-z_][\w.]*:$", x))[:-1]
        if link == "own":
            header = re.sub(r",[^,]*$", "," + first.setdefault(back, name), header)
        record = [header, align, word, back, label]
        # the entry pair ends with .localentry; a function without it has one entry
        end = next(k for k in range(i, len(lines)) if lines[k].startswith("\t.size\t" + name + ","))
        local = [k for k in range(i, end) if lines[k].startswith("\t.localentry\t" + name + ",")]
        two = bool(local) and not lines[local[0]].endswith(",1")
        if nm:
            if two:
                out += [typ, lab] + lines[i : local[0]] + record + ["\tnop"] * pre + [lines[local[0]]]
                i = local[0] + 1
            else:
                out += record + ["\tnop"] * pre + [typ, lab]
            out += ["\tnop"] * nops
        else:
            if local:
                out += lines[i : local[0] + 1]
                i = local[0] + 1
            out += record + ["\tnop"] * nops
    return out


def main():
    form, args = sys.argv[1], sys.argv[2:]
    opts = dict(zip(args[::2], args[1::2]))
    lines = sys.stdin.read().splitlines()
    if form == "clang":
        out = clang(lines, set(opts.get("--skip", "").split(",")))
    else:
        out = gcc(lines, opts.get("--link"), form == "nm")
    print("\n".join(out))


main()
