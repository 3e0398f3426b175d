"""Puts two NOPs at the local entry of each function of gcc's assembly, and a record of them, as gcc 13 does on ppc64le.

gcc 12 puts them at the global entry, where they are of no use. sites.py FILE.s NAME… changes the file; NAME: functions.
"""

import re
import sys

path, names = sys.argv[1], sys.argv[2:]
text = open(path).read()
for name in names:
    label = re.compile(rf"^{name}:\n(?:\.L\w+:\n)*(?:0:\taddis 2,12.*\n\taddi 2,2.*\n\t\.localentry.*\n)?", re.M)
    local = re.compile(rf"^{name}:\n(?:\.L.*\n|0:\t.*\n|\t(?:addis|addi) 2,.*\n|\t\.localentry.*\n)*", re.M)
    begin = (local if f".localentry\t{name}" in text else label).search(text)
    record = f'.Lsite_{name}:\n\tnop\n\tnop\n\t.section\t__patchable_function_entries,"awo",@progbits,{name}\n'
    record += f"\t.align 3\n\t.8byte\t.Lsite_{name}\n\t.previous\n"
    text = text[: begin.end()] + record + text[begin.end() :]
open(path, "w").write(text)
