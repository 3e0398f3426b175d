"""Examples of the manual pages, a few for each command. tests/test_man.py runs each page's in a folder of its own."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A command line, and why one types it."""

    why: str
    line: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "": (
        Example("See what is in a kernel, and whether it is sound:", "ftpatch scan vmlinux\nftpatch check vmlinux"),
        Example("Have vfs_read traced from the first instruction on:",
                "ftpatch enable vmlinux --func vfs_read -o vmlinux.traced\nftpatch verify vmlinux vmlinux.traced"),
    ),
    "scan": (
        Example("The sites of ./vmlinux, counted:", "ftpatch scan"),
        Example("Those of some functions, one by one:", "ftpatch scan --func 'vfs_*' --sites"),
        Example("All modules of a build as a table:", "ftpatch scan modules --format csv >sites.csv"),
    ),
    "enable": (
        Example("One function of ./vmlinux, with a journal that restore can read:",
                "ftpatch enable --func vfs_read -o vmlinux.traced \\\n    --report json=vmlinux.traced.json"),
        Example("Many functions, only to see what would be done:",
                "ftpatch enable --func 'vfs_*' --func '!vfs_write' --dry-run"),
        Example("A function of a module:", "ftpatch enable mini.ko --func mini_step"),
    ),
    "disable": (
        Example("Take a call back out, and its record back into the table:",
                "ftpatch enable --func vfs_read -o vmlinux.traced\n"
                "ftpatch disable vmlinux.traced --func vfs_read -o vmlinux.again"),
    ),
    "drop": (
        Example("Hide a function from ftrace for good:", "ftpatch drop --func vfs_read -o vmlinux.hardened"),
        Example("Keep the records of a few functions only:", "ftpatch drop --all-but 'vfs_*' --dry-run"),
    ),
    "redirect": (
        Example("Have every call of vfs_read run vfs_write:",
                "ftpatch redirect --func vfs_read --to vfs_write -o vmlinux.redirected"),
    ),
    "record": (
        Example("Records for the calls of _mcount in an object:", "ftpatch record pg.o -o recorded.o"),
        Example("Records for functions that another build has records of:", "ftpatch record lost.ko --from mini.ko"),
    ),
    "static-calls": (
        Example("The static calls of ./vmlinux, key by key:", "ftpatch static-calls"),
        Example("Have one of them call another function from the first call on:",
                "ftpatch static-calls --set clock=clock_fast -o vmlinux.new"),
    ),
    "restore": (
        Example("Undo a patch by its journal:",
                "ftpatch enable --func vfs_read -o vmlinux.traced \\\n    --report json=vmlinux.traced.json\n"
                "ftpatch restore vmlinux.traced --journal vmlinux.traced.json \\\n    -o vmlinux.again"),
    ),
    "verify": (
        Example("Say what a patch did, and prove that it did nothing else:",
                "ftpatch enable --func vfs_read -o vmlinux.traced\nftpatch verify vmlinux vmlinux.traced"),
    ),
    "check": (
        Example("A gate over a kernel and its modules, with a report for the code host:",
                "ftpatch check vmlinux modules --report sarif=ftpatch.sarif"),
        Example("Only what is new since a baseline was written:",
                "ftpatch check vmlinux --write-baseline known.json\nftpatch check vmlinux --baseline known.json"),
    ),
    "diff": (
        Example("Functions that one build can trace and the next cannot:",
                "ftpatch diff vmlinux vmlinux.new --fail-on lost"),
    ),
    "explain": (
        Example("One site, from its bytes to a verdict:", "ftpatch explain vfs_read"),
    ),
    "image": (
        Example("What a boot loader takes, after a patch:",
                "ftpatch enable --func vfs_read -o vmlinux.traced\nftpatch image vmlinux.traced -o Image"),
    ),
    "symbols": (
        Example("Symbols by name, in the form of nm:", "ftpatch symbols --name 'vfs_*'"),
    ),
    "doctor": (
        Example("What is there, and what would add what:", "ftpatch doctor"),
    ),
    "kbuild": (
        Example("Put the gate into the tree at hand, and take it out again:",
                "cd linux\nftpatch kbuild --install\nftpatch kbuild --remove"),
        Example("The same without a change of the tree, for one build:", "ftpatch kbuild --out ../gate.mk"),
    ),
    "completion": (
        Example("For the running bash:", "source <(ftpatch completion bash)"),
        Example("For all shells to come:", "ftpatch completion zsh --install"),
    ),
}  # fmt: skip
