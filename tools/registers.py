"""Tables for manual pages and the reference: what the interface promises beside verbs and options."""

from __future__ import annotations

# What apropos(1) shows: a line of a terminal.
SUMMARIES = {
    "": "find, enable and check ftrace sites of Linux kernels on disk",
    "scan": "show the patch sites of kernels and modules",
    "enable": "enable patch sites in a new file", "disable": "give enabled sites their NOPs and records back",
    "drop": "take functions out of the table of records",
    "redirect": "let functions be others from the first call on",
    "record": "give objects and modules the records that were lost",
    "static-calls": "show and set static calls of kernels",
    "restore": "undo a patch by its journal", "verify": "prove what a patched file is", "check": "lint patch sites",
    "diff": "compare two builds for tracing", "explain": "explain one function, or a message of ftrace",
    "image": "make a boot image of a vmlinux", "symbols": "list the symbols of kernels that have none, too",
    "doctor": "say which optional parts are there", "kbuild": "check kernels and modules as they are linked",
    "completion": "complete command lines in bash, zsh and fish",
}  # fmt: skip

EXIT_CODES = (
    ("0", "Done; nothing to report."),
    ("1", "Findings of check, verify or diff, alike in every format."),
    ("2", "Usage: an option or argument that is not understood, an output that is an input."),
    (
        "3",
        "A file that is missing, unreadable, corrupt or not what it claims to be; among several files, at least one.",
    ),
    ("4", "A machine, byte order or layout of sites that is not supported."),
    ("5", "Refused: no such function, already enabled, out of reach, stripped, unsafe. Nothing was written."),
    ("70", "A bug in ftpatch: an unexpected exception, or a result that failed its check and was not kept."),
    ("128+N", "Ended by signal N, every file whole: 130 for Ctrl-C, 141 where the reader of stdout went away."),
)

SELECTORS = (
    ("NAME", "A function. A name that several functions share takes all of them, and says so."),
    ("GLOB", "Functions whose names match: * any characters, ? one, [ab] one of these."),
    ("/REGEX/", "Functions in whose names a regular expression is found, which is not anchored."),
    ("!SEL", "Takes away what SEL chooses. Where all selectors do so, they start from all named sites."),
    ("@FILE", "One selector a line, # begins a comment; a saved available_filter_functions will do. @- is stdin."),
    ("0xVA", "The site, record or function at a virtual address."),
    (".SECTION+0xOFF", "The same by section and offset, as objects and modules have them."),
    ("row:N", "Slot N of the table of records."),
    ("NAME@FILE.c", "A function by its source file, where several have its name."),
)

ENVIRONMENT = (
    ("FTPATCH_PAGER, PAGER", "The pager of reports that are longer than the terminal: the first that is set, else "
     "less. Empty or cat means none."),
    ("LESS, LV", "Options of the pagers less and lv. Where they are not set, they are given FRX and -c."),
    ("COLUMNS, LINES", "The size of the terminal, where it is another than it says itself."),
    ("NO_COLOR", "If it is not empty, --color auto means never."),
    ("FORCE_COLOR, CLICOLOR_FORCE", "If one is neither empty nor 0, --color auto means always, but for NO_COLOR."),
    ("CLICOLOR", "If it is 0, --color auto means never."),
    ("TERM", "If it is dumb, there is neither colour nor pager."),
    ("XDG_CACHE_HOME", "The folder below which names for completion are kept, in ftpatch/names (default: ~/.cache)."),
    ("XDG_CONFIG_HOME", "Where completion --install puts the script of fish (default: ~/.config)."),
    ("XDG_DATA_HOME", "Where completion --install puts those of bash and zsh (default: ~/.local/share)."),
    ("SHELL", "Whose script completion --install writes where none is named."),
    ("KBUILD_SIGN_PIN", "The password of the key of --sign."),
)  # fmt: skip

FILES = (
    ("vmlinux", "What is read where no FILE is named, in the current directory."),
    ("FILE.patched", "What a verb that writes makes of FILE, without -o."),
    ("FILE.ftpatch.json", "The journal of a run with --in-place, which restore reads back."),
    ("ftpatch.toml", "Settings of check --config, see ftpatch.toml(5)."),
    ("~/.cache/ftpatch/names", "Names of functions that were read for completion. Nothing is lost with it."),
)

STATUSES = (
    ("ready", "As the compiler left it: NOPs, or the call of the profiling function."),
    ("enabled", "A whole call, or the jump of a redirect."),
    ("half", "The first word is rewritten, and there is no call."),
    ("null", "A slot of the table that is empty: no site."),
    ("weak-leftover", "In code that the linker kept of an overridden weak function; it has no name."),
    ("outside-text", "Its record names no code."),
    ("unexpected", "Neither NOPs nor a call."),
    ("stripped", "Its function's symbol was stripped; it has no name."),
    ("unnamed", "No symbol names its function, and the file does not tell why."),
    ("unrecorded", "A call of the profiling function (-pg) that no record names."),
    ("armed", "Layout pad-before: the pad is filled, and the switch is off."),
    ("padding", "NOPs in front of a function that are padding, and no site."),
    ("off", "A call of the profiling function that was made a NOP, without a record."),
)

RECORD_WAYS = (
    ("auto", "What the file shows that its kernel takes: one of the next three."),
    ("null", "The slot becomes 0 and its relocation NONE; where zeros lead the table they stay in front."),
    ("minus4", "The slot becomes -4, for kernels that add 4 to a record before they test it."),
    ("shrink", "The record is cut out, and the end of the table that the kernel computes is lowered."),
    ("keep", "Nothing: the boot prints an ftrace bug and switches ftrace off. Programs keep theirs always."),
)

FORMATS = (
    ("text", "A summary for people. It may change from release to release."),
    ("json", "Everything; of a verb that writes, its journal. See the page about JSON."),
    ("csv", "One line for each site or finding. See the page about CSV."),
    ("sarif", "Findings as SARIF 2.1.0, for code scanning and editors."),
    ("junit", "A suite for each file, a test case for each rule."),
    ("ktap", "A test for each file, a subtest for each rule, as kselftest reads them."),
    ("markdown", "The first findings, the rest folded: a comment for a merge request."),
    ("github", "Annotations for GitHub Actions."),
    ("html", "One page for a browser, without network: map, findings, table of sites, edits."),
)
