"""Sound command lines, each with the places where something hostile may stand.

A word `KIND:VALUE` is such a place: KIND says what is expected there (see `values`), VALUE is what a sound user gives.
`json=OUT:r` is one with something in front. Paths are those that `place` makes.
"""

from __future__ import annotations

import re

LINES = tuple(
    line.split()
    for line in """
scan ELF:vmlinux
scan ELF:vmlinux ELF:mini.ko --sites --format json
scan DIR:tree --jobs NUMBER:1
scan ELF:vmlinux --func PATTERN:vfs_*
scan ELF:vmlinux --func @LIST:names
scan ELF:vmlinux --func !@LIST:names --status NAME:ready
scan ELF:vmlinux --section NAME:.text
scan ELF:vmlinux --layout NAME:callops
scan ELF:vmlinux --max-size NUMBER:100000
scan ELF:vmlinux --report json=OUT:report
scan ELF:vmlinux --report csv=OUT:report --report sarif=OUT:other
scan ELF:vmlinux --format NAME:json
scan ELF:vmlinux --report NAME:json=x
enable ELF:vmlinux --func vfs_read -o OUT:out
enable ELF:vmlinux --func PATTERN:vfs_read -o OUT:out
enable ELF:vmlinux --func @LIST:names --skip-unpatchable -o OUT:out
enable ELF:vmlinux --func vfs_read --ops NAME:list -o OUT:out
enable ELF:vmlinux --func vfs_read --target NAME:ftrace_caller -o OUT:out
enable ELF:vmlinux --func vfs_read --report json=OUT:journal2 -o OUT:out
enable ELF:vmlinux --func vfs_read --layout NAME:callops --max-size NUMBER:1000000 -o OUT:out
enable ELF:mini.ko --func * --hook NAME:_printk -o OUT:out.ko
enable ELF:mini.ko --func * --hook _printk -o OUT:out.ko.xz
enable ELF:mini.ko --func * --hook _printk --stub-asm ASM:stub.S -o OUT:out.ko
enable ELF:mini.ko --func * --hook _printk --against ELF:vmlinux -o OUT:out.ko
enable ELF:mini.ko --func * --hook _printk --sign PEM:key.pem PEM:key.pem -o OUT:out.ko
enable ELF:mini.ko --func * --hook _printk --dry-run --report json=OUT:journal2
enable COPY:copy.ko --func * --hook _printk --in-place
enable ELF:x86 --func PATTERN:vfs_* -o OUT:out
enable ELF:x86.ko --func * --hook NAME:_printk -o OUT:out.ko
disable ELF:enabled --func PATTERN:vfs_read -o OUT:out
disable ELF:enabled --func @LIST:names --skip-unpatchable -o OUT:out
drop ELF:vmlinux --func PATTERN:vfs_read -o OUT:out
drop ELF:vmlinux --all-but PATTERN:vfs_* -o OUT:out
drop ELF:vmlinux --status NAME:ready --section NAME:.text -o OUT:out
restore ELF:enabled --journal JSON:journal -o OUT:back
restore ELF:enabled --journal JSON:journal -o back --dry-run --format json
restore ELF:enabled --journal JSON:journal --max-size NUMBER:1000000 -o OUT:back
verify ELF:vmlinux ELF:enabled
verify ELF:vmlinux ELF:enabled --journal JSON:journal
verify ELF:vmlinux ELF:enabled --layout NAME:callops --report junit=OUT:report
symbols ELF:vmlinux --name PATTERN:vfs_*
symbols ELF:mini.ko --report json=OUT:report --max-size NUMBER:1000000
check ELF:vmlinux
check ELF:mini.ko --against ELF:vmlinux
check DIR:tree --jobs NUMBER:1
check ELF:vmlinux --kconfig KCONFIG:config --lines --predict
check ELF:vmlinux --config TOML:ftpatch.toml
check ELF:vmlinux --baseline JSON:baseline
check ELF:vmlinux --write-baseline OUT:baseline2
check ELF:vmlinux --select NAME:dead-weak --ignore NAME:unsorted
check ELF:vmlinux --fail-on NAME:note --format NAME:markdown
diff ELF:vmlinux ELF:other
diff ELF:vmlinux ELF:other --fail-on NAME:lost --report markdown=OUT:report
diff DIR:tree DIR:tree --jobs NUMBER:1
explain PATTERN:vfs_read ELF:vmlinux
explain vfs_read ELF:vmlinux --format json
explain mini_work ELF:mini.ko --against ELF:vmlinux
explain no_such ELF:vmlinux --modules DIR:tree
explain --splat LOG:splat
explain --splat LOG:splat ELF:vmlinux
image ELF:vmlinux -o OUT:image
""".strip().splitlines()
)
PLACE = re.compile(r"(.*?)\b(ELF|DIR|NUMBER|PATTERN|LIST|NAME|OUT|ASM|PEM|COPY|JSON|KCONFIG|TOML|LOG):(.*)", re.DOTALL)


def places(line: list[str]) -> list[int]:
    """Which words of a line are places."""
    return [at for at, word in enumerate(line) if PLACE.fullmatch(word)]


def filled(line: list[str], hostile: dict[int, str]) -> list[str]:
    """The line as it is run: a hostile value in some of the places, sound ones in the others."""
    words = []
    for at, word in enumerate(line):
        match = PLACE.fullmatch(word)
        words.append(match[1] + hostile.get(at, match[3]) if match else word)
    return words


def kind_of(word: str) -> str:
    """What is expected at a place."""
    match = PLACE.fullmatch(word)
    assert match
    return match[2]
