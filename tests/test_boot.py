"""Real kernels in QEMU: what ftpatch writes boots, runs, and leaves ftrace alive, each beside a stock boot."""

from __future__ import annotations

import fcntl
import json
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ftpatch import api
from ftpatch.cli import run
from ftpatch.document.summary import summary
from tools.boot import boot
from tools.boot.verdict import Verdict
from tools.kernels import Kernel

pytestmark = pytest.mark.boot
EARLY = "_printk"  # runs in the first lines of start_kernel, long before ftrace is set up
SYSCALL = {  # the guest calls it 20 times; on x86_64 the name that the kernel prints of three at one address
    "arm64": "__arm64_sys_getppid", "ppc64le": "sys_getppid", "x86_64": "__do_sys_getppid",
}  # fmt: skip
CALL_SIZE = {"arm64": 4, "ppc64le": 4, "x86_64": 5}
FAR = "handshake_init"  # an initcall beyond a branch's reach of ftrace_caller in ppc64le 6.12 and sid
CALLS = 20
ARM64, PPC64LE = ("arm64-6.1", "arm64-6.12"), ("ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid")
NO_FILTER = ("arm64-6.1", "ppc64le-6.1", "ppc64le-6.12")  # kernels whose ftrace_caller has no ops per site


@dataclass
class Debian:
    """One Debian kernel: stock facts measured once, patched variants on demand."""

    kernel: Kernel
    folder: Path
    shared: Path | None = None  # where a stock boot is kept for other files of tests
    made: dict[str, Path] = field(default_factory=dict)
    predicted: dict[str, object] = field(default_factory=dict)  # what a scan of the patched file says of its boot

    @cached_property
    def scan(self) -> dict[str, Any]:
        report = self.folder / "scan.json"
        assert run(["scan", str(self.kernel.vmlinux), "--report", f"json={report}"]) == 0
        found: dict[str, Any] = json.loads(report.read_text())["images"][0]
        return found

    def prediction(self, vmlinux: Path) -> object:
        """What a scan says that the kernel will print and list at boot."""
        return summary(api.scan(str(vmlinux)))["boot"]

    @cached_property
    def stock(self) -> Verdict:
        """The stock kernel's boot, which the first file of tests that asks for it makes for all."""
        if self.shared is None:
            return self.boot(self.stock_image, names=[self.syscall])
        with (self.shared / f"stock-{self.kernel.name}").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if kept := file.read():
                verdict: Verdict = pickle.loads(kept)
            else:
                verdict = self.boot(self.stock_image, names=[self.syscall])
                file.write(pickle.dumps(verdict))
            return verdict

    @cached_property
    def stock_watched(self) -> Verdict:
        """A boot of the stock kernel in which the sites of all functions that are asked for are watched."""
        there = {name for site in self.scan["sites"] for name in (site["function"], *site["aliases"])}
        watch = [self.return_address(name) for name in (EARLY, self.syscall, FAR) if name in there]
        return self.boot(self.stock_image, watch=watch)

    @cached_property
    def stock_image(self) -> Path:
        return self.image(self.kernel.vmlinux)

    @property
    def syscall(self) -> str:
        return SYSCALL[self.kernel.arch]

    def boot(self, image: Path, **options: Any) -> Verdict:
        """Boot on this kernel's machine; watching needs to know where the text was linked, where it may move."""
        if options.get("watch") and self.kernel.arch == "arm64":
            options["text"] = self.symbol("_stext")
        if self.kernel.arch == "x86_64":
            options["kaslr"] = False  # nothing moves a vmlinux that is booted as it is
        return boot(image, arch=self.kernel.arch, **options)

    def image(self, vmlinux: Path) -> Path:
        out = vmlinux.with_name("Image") if vmlinux != self.kernel.vmlinux else self.folder / "Image"
        assert run(["image", str(vmlinux), "-o", str(out)]) == 0
        return out

    def patched(self, *options: str) -> Path:
        """Image of the kernel with these `enable` options."""
        key = " ".join(options)
        if key not in self.made:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            assert run(["enable", str(self.kernel.vmlinux), "-o", str(folder / "vmlinux"), *options]) == 0
            self.verify(folder / "vmlinux", sound="keep" not in options)
            self.made[key] = self.image(folder / "vmlinux")
            self.predicted[key] = self.prediction(folder / "vmlinux")
            (folder / "vmlinux").unlink()
        return self.made[key]

    def verify(self, patched: Path, sound: bool = True) -> None:
        """What boots has been proven before; a kept record is the one thing that verify must hold against a kernel."""
        code = run(["verify", str(self.kernel.vmlinux), str(patched), "--require-emulation"])
        assert code == (0 if sound else 1)

    def return_address(self, name: str) -> int:
        """Link-time address behind the call of a function's site."""
        site = next(s for s in self.scan["sites"] if name in (s["function"], *s["aliases"]))
        return int(site["branch"], 16) + CALL_SIZE[self.kernel.arch]

    def returns(self, *options: str) -> tuple[dict[str, int], dict[str, int]]:
        """How often the stock and the patched kernel returned behind the sites of the functions in `options`."""
        names = [value for key, value in pairwise(options) if key == "--func"]
        watch = {name: self.return_address(name) for name in names}
        counts = []
        for verdict in (self.stock_watched, self.boot(self.patched(*options), watch=list(watch.values()))):
            assert verdict.problems == ()
            counts.append({name: verdict.executed[va] for name, va in watch.items()})
        return counts[0], counts[1]

    def symbol(self, name: str) -> int:
        for line in (self.kernel.system_map or Path()).read_text().splitlines():
            value, _, found = line.split()
            if found == name:
                return int(value, 16)
        raise KeyError(name)


@pytest.fixture(scope="module")
def debian(
    kernel: Callable[[str], Kernel], tmp_path_factory: pytest.TempPathFactory, run_folder: Path
) -> Callable[[str], Debian]:
    known: dict[str, Debian] = {}

    def get(name: str) -> Debian:
        if name not in known:
            known[name] = Debian(kernel(name), tmp_path_factory.mktemp(name), run_folder)
        return known[name]

    return get


@pytest.mark.parametrize("name", ARM64 + PPC64LE)
def test_the_summary_of_a_stock_kernel_equals_its_boot(debian: Callable[[str], Debian], name: str) -> None:
    one = debian(name)
    assert one.stock.problems == ()
    assert one.stock.functions is not None
    predicted = one.scan["summary"]["boot"]
    assert predicted == {"allocating": one.stock.allocating, "listed": len(one.stock.functions)}
    assert one.stock.hits == {one.syscall: CALLS}
    nameless = [
        site for site in one.scan["sites"] if site["status"] == "weak-leftover" and ".init" not in site["section"]
    ]
    listed = Counter(one.stock.functions)
    for name, count in Counter(site["listed_as"] for site in nameless).items():
        if name == "__ftrace_invalid_address__":
            assert sum(n for text, n in listed.items() if text.startswith(name)) == count
        else:
            assert listed[name] > count or name not in {site["function"] for site in one.scan["sites"]}


CASES = [
    ("arm64-6.1", ["--records", "minus4"]),
    ("arm64-6.1", ["--records", "shrink"]),
    ("arm64-6.1", ["--records", "auto", "--target", "ftrace_regs_caller"]),
    ("arm64-6.12", ["--records", "null", "--ops-via", "literal"]),
    ("arm64-6.12", ["--records", "null", "--ops-via", "thunk"]),
    ("arm64-6.12", ["--records", "shrink", "--ops-via", "literal"]),
    ("arm64-6.12", ["--records", "auto", "--ops", "nop"]),
    ("arm64-6.12", ["--records", "auto", "--target", "ftrace_stub_direct_tramp"]),
    ("ppc64le-6.1", ["--records", "null"]),
    ("ppc64le-6.1", ["--records", "auto", "--target", "ftrace_regs_caller"]),
    ("ppc64le-6.12", ["--records", "null"]),
    ("ppc64le-6.12", ["--records", "minus4", "--target", "ftrace_regs_caller"]),
    ("ppc64le-sid", ["--records", "null"]),
    ("ppc64le-sid", ["--records", "auto", "--ops", "nop"]),
]


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_an_early_function_and_a_syscall_run_enabled_and_everything_else_is_traced(
    debian: Callable[[str], Debian], name: str, options: list[str]
) -> None:
    one = debian(name)
    patched = one.boot(one.patched("--func", EARLY, "--func", one.syscall, *options), names=[one.syscall])
    assert patched.problems == ()
    assert one.stock.functions is not None and patched.functions is not None
    assert Counter(one.stock.functions) - Counter(patched.functions) == Counter([EARLY, one.syscall])
    assert Counter(patched.functions) - Counter(one.stock.functions) == Counter()
    predicted = one.predicted[" ".join(["--func", EARLY, "--func", one.syscall, *options])]
    assert predicted == {"allocating": patched.allocating, "listed": len(patched.functions)}
    # The unfiltered tracer sees the site where it goes through the ops that walk all tracers, or through the one entry
    # of kernels without ops per site; a filter on another function holds in the first case only.
    silent = {"nop", "ftrace_stub_direct_tramp"} & set(options)
    leaks = name in NO_FILTER and not silent
    assert patched.hits == {one.syscall: 0 if silent else CALLS}
    assert patched.leaked == (CALLS if leaks else 0)
    assert set(patched.foreign) == ({one.syscall} if leaks else set())


@pytest.mark.parametrize("name", ARM64 + PPC64LE)
def test_the_sites_execute_from_the_first_call_on(debian: Callable[[str], Debian], name: str) -> None:
    """QEMU's log counts returns from the target to behind the call: with KASLR on arm64, beside a stock control."""
    one = debian(name)
    stock, patched = one.returns("--func", EARLY, "--func", one.syscall)
    calls_mcount = one.scan["layout"] == "mprofile"  # its sites are live calls until ftrace turns them into NOPs
    assert stock[one.syscall] == 0
    assert stock[EARLY] == 0 or calls_mcount
    assert patched[one.syscall] == CALLS
    assert patched[EARLY] > stock[EARLY] + 50


@pytest.mark.parametrize(
    ("name", "options", "through"),
    [
        ("ppc64le-6.12", [], "ftrace_tramp_text"),
        ("ppc64le-sid", [], "ftrace_tramp_text"),
        ("ppc64le-sid", ["--target", "ftrace_stub"], "text tail"),
    ],
)
def test_a_far_function_of_init_text_executes_through_a_trampoline(
    debian: Callable[[str], Debian], name: str, options: list[str], through: str
) -> None:
    one = debian(name)
    journal = one.folder / "far.json"
    stock, patched = one.returns("--func", FAR, *options, "--report", f"json={journal}")
    assert (stock, patched) == ({FAR: 0}, {FAR: 1})
    assert any(f" through {through} at" in note for note in json.loads(journal.read_text())["images"][0]["notes"])


@pytest.mark.parametrize(
    ("name", "options", "allocating"),
    [
        ("arm64-6.1", ["--func", "*", "--status", "weak-leftover"], None),
        ("arm64-6.12", ["--func", "*"], 0),
        ("arm64-6.12", ["--section", ".text"], 0),
        ("ppc64le-6.1", ["--func", "*", "--status", "weak-leftover", "--skip-unpatchable"], None),
        ("ppc64le-6.12", ["--func", "*", "--status", "weak-leftover", "--skip-unpatchable"], 4),
        ("ppc64le-6.12", ["--section", ".text", "--status", "ready", "--status", "weak-leftover", "--force-early"], 0),
        ("ppc64le-sid", ["--func", "*", "--status", "weak-leftover", "--skip-unpatchable"], 4),
    ],
)
def test_every_site_at_once_boots_to_user_space(
    debian: Callable[[str], Debian], name: str, options: list[str], allocating: int | None
) -> None:
    """All but what runs before ppc64le's boot CPU has its paca: three functions of init text, and setup_paca itself.

    With --section .text alone, records of init text would be the only ones left; the kernel would crash when it lists
    them, so they leave too.
    """
    one = debian(name)
    verdict = one.boot(one.patched(*options))
    kept = ("setup_paca",) if "--skip-unpatchable" in options else ()
    assert (verdict.problems, verdict.functions) == ((), kept)
    slots = one.scan["summary"]["slots"]  # both 6.1 count slots before they look into them
    assert verdict.allocating == (slots if allocating is None else allocating)
    assert one.predicted[" ".join(options)] == {"allocating": verdict.allocating, "listed": len(kept)}


@pytest.mark.parametrize(
    ("name", "sign"),
    [("arm64-6.12", "ftrace failed to modify"), ("ppc64le-6.12", "expected (60000000) != found (7c0802a6)")],
)
def test_a_kept_record_kills_ftrace_and_the_harness_sees_it(
    debian: Callable[[str], Debian], name: str, sign: str
) -> None:
    """The control of all the others: what `--records keep` warns of really happens."""
    one = debian(name)
    verdict = one.boot(one.patched("--func", one.syscall, "--records", "keep"))
    assert verdict.functions is None
    assert any(sign in line for line in verdict.splats)
