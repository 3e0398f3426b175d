"""What a hostile user puts in a place, by what is expected there. Files are those that `place` makes."""

from __future__ import annotations

BYTES = b"\xff\xfe\x80".decode("utf-8", "surrogateescape")  # as a file name that is not UTF-8 arrives
ODD = ("", "-", "--", " ", ".", "..", "a\nb", "a\rb", "\x1b[31mred", "\x07\x08", "\u202eevil", "\u2066\u2069", "\u2028",
       "\U000e0041", BYTES, "é" * 200, "x" * 255, "x" * 256, "x" * 5000, "x/" * 3000, "%s%n", "$(id)", "=1+1", "@SUM(A1)")
NODES = ("fifo", "folder", "zero", "full", "null", "socket", "loop", "dangling", "through/vmlinux", "no/such", "folder/",
         "/proc/self/mem", "/proc/self/maps", "/proc/self/fd/0", "/dev/stdin", "/proc/version")
FILES = (*NODES, "empty", "one-byte", "text", "noise", "huge", "huge-elf", "cut-1", "cut-2", "cut-3", "deep.json", "deep.toml",
         "wide.json", "digits.json", "digits.toml", "keys.toml", "bomb.gz", "bomb.xz", "bomb.zst", "gz-cut", "xz-cut",
         "vmlinux", "mini.ko", "enabled", "journal", "foreign-journal", "stub.S", "nulls", "long-line", "bom", "nan.json",
         "a\nb.ko", "\x1b[31mred.ko", "\u202eevil.ko", f"{BYTES}.ko", "hollow", "many-sections", "one-address")
PATTERNS = ("*", "?" * 200, "*" * 2000, "*a" * 60, "[", "[]", "[!]", "/", "//", "/(/", "/[/", "/[[]/", "/a||b--c/", r"/^(\w+)+!$/",
            "/(a|a)*b/", "/(" * 3000, "/" + "(" * 3000 + ")" * 3000 + "/", "/x{99999999999}/", "/(x{1,9999}){1,9999}/",
            "/" + "a?" * 40 + "a" * 40 + "/", r"/(?P<a>x)(?P=a)\1/", "/(?i)VFS/", "/x(?i)y/", "/(?<=a+)b/", "/\\/", "/\\p{L}/",
            "!", "!!vfs_read", "!vfs_read", "!@", "@", "@@", "@-", "!@-", "0x", "0x0", "0x" + "f" * 16, "0x" + "f" * 40, "row:",
            "row:-1", "row:0", "row:" + "9" * 18, "row:" + "9" * 4400, "row:٣", ".text+0x", ".text+0x10", "+0x10",
            ".text+0x" + "f" * 16, "vfs_read@", "@main.c", "vfs_read@main.c", "vfs_read@/", "x" * 200_000, "/" + "x" * 200_000 + "/")
NAMES = ("0", "-1", "0x", "0x0", "0x1", "0x" + "f" * 16, "0x" + "f" * 17, "0x" + "f" * 5000, "9" * 5000, "list", "nop", "init_task",
         "linux_banner", "vfs_read", "ftrace_caller", "no_such", "json", "text", "json=", "=x", "json=a=b", "callops", "pfe2",
         "mcount", "none", ".text", "*", "all", "note", "lost", "x" * 200_000, "dead-weak,unsorted", ",,,", "row:1")
NUMBERS = ("0", "-1", "1", "2", "-0", "+1", "1.5", "1e9", "nan", "0x10", "1_000", "٣", "²", str(1 << 31), str(1 << 63), str(1 << 64),
           "9" * 400, "9" * 5000, "1024", "1025", "99999999")
OUTS = (*NODES, "vmlinux", "mini.ko", "enabled", "journal", "hard", "soft", "out", "report", "read-only", "folder/new", "folder/.",
        "a\nb", "\x1b[31mred", "\u202eevil", f"{BYTES}", "x" * 255, "x" * 243, "out.xz", "out.gz", "out.zst", "/dev/stdout",
        "/proc/self/fd/1", "tree", "tree/new.ko", "./out", "folder/../out")
BY_KIND = {
    "ELF": (*FILES, *ODD), "COPY": (*FILES, *ODD), "DIR": (*FILES, *ODD, "tree", "folder", "bad-tree", "loop-tree"),
    "JSON": (*FILES, *ODD), "TOML": (*FILES, *ODD), "KCONFIG": (*FILES, *ODD), "LOG": (*FILES, *ODD), "LIST": (*FILES, *ODD),
    "ASM": (*FILES, *ODD), "PEM": (*FILES, *ODD), "PATTERN": (*PATTERNS, *ODD), "NAME": (*NAMES, *ODD),
    "NUMBER": (*NUMBERS, *ODD), "OUT": (*OUTS, *ODD),
}  # fmt: skip
# What may stand anywhere in a line.
EXTRAS = (
    ["--dry-run"], ["--in-place"], ["--format", "json"], ["--format", "csv"], ["--format", "sarif"], ["--format", "github"],
    ["--report", "json=out"], ["--report", "text=/dev/full"], ["--report", "json=same", "--report", "csv=same"],
    ["--color", "always"], ["--color", "maybe"], ["--sites"], ["--all"], ["--deep"], ["--require", "emulation"],
    ["--signature", "refuse"], ["--records", "shrink"], ["--records", "keep"], ["--status", "weak-leftover"],
    ["--force-early", "--force-target"], ["--ops-via", "thunk"], ["--layout", "pfe2"], ["--max-size", "1"], ["--help"],
    ["--no-such-option"], ["extra"], ["--func", "*"], ["--func"], ["--jobs", "2"], ["--"],
)  # fmt: skip
