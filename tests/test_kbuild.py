"""`ftpatch kbuild`: what it tells of a tree, what it puts in and takes out, and GNU make going through the hook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch.cli import run
from ftpatch.kbuild.hook import hook_text

ROOT = Path(__file__).parent.parent

# What matters of a kernel's makefiles, in words of our own: copies stand for links.
TOP = """\
export srctree ?= .
export objtree := .
export SRCARCH ?= arm64
export quiet := $(if $(filter 1,$(V)),,quiet_)
export Q := $(if $(filter 1,$(V)),,@)
export KCONFIG_CONFIG := .config
export KBUILD_EXTRA_WARN := $(W)
ARCH_POSTLINK := $(wildcard $(srctree)/arch/$(SRCARCH)/Makefile.postlink)
all: vmlinux modules
vmlinux:
	$(Q)$(MAKE) --no-print-directory -f $(srctree)/scripts/Makefile.vmlinux
modules:
	$(Q)$(MAKE) --no-print-directory -f $(srctree)/scripts/Makefile.modfinal
clean:
	$(Q)$(if $(ARCH_POSTLINK), $(MAKE) --no-print-directory -f $(ARCH_POSTLINK) clean)
.PHONY: all vmlinux modules clean
"""
VMLINUX = """\
ARCH_POSTLINK := $(wildcard $(srctree)/arch/$(SRCARCH)/Makefile.postlink)
.DELETE_ON_ERROR:
LINKED: linked/vmlinux
	+$(Q)cp $< $@; $(if $(ARCH_POSTLINK), $(MAKE) --no-print-directory -f $(ARCH_POSTLINK) $@, true)
"""
STRIPPED = """\
vmlinux: vmlinux.unstripped
	$(Q)cp $< $@
"""
MODFINAL = """\
__modfinal:
modules := $(patsubst linked/%,%,$(wildcard linked/*.ko))
__modfinal: $(modules)
	@:
cmd_ld_ko_o = cp $< $@BEHIND
%.ko: linked/%.ko
	+$(Q)$(cmd_ld_ko_o)
"""
FINDS = "__modfinal:\nARCH_POSTLINK := $(wildcard $(srctree)/arch/$(SRCARCH)/Makefile.postlink)\n"
CALLS = "; $(if $(ARCH_POSTLINK), $(MAKE) --no-print-directory -f $(ARCH_POSTLINK) $@, true)"
POSTLINK = """\
__archpost:

# relocations
vmlinux vmlinux.unstripped: FORCE
	@true
ifdef SRCARCH
	@echo CHKREL $@
endif

%.ko: FORCE
	@true

clean:
	@echo CLEAN

FORCE:
"""


def tree(top: Path, linked: str = "vmlinux", modules: str = "modfinal") -> Path:
    """A kernel tree: which file its final link makes, and who is called behind the link of a module."""
    calls = modules == "postlink"
    scripts = {
        "Makefile": TOP, "Kconfig": "", "scripts/Kbuild.include": "",
        "scripts/Makefile.vmlinux": ("vmlinux:\n" + STRIPPED if linked != "vmlinux" else "")
        + VMLINUX.replace("LINKED", linked),
        "scripts/Makefile.modfinal": (FINDS if calls else "") + MODFINAL.replace("BEHIND", CALLS if calls else ""),
        "arch/powerpc/Makefile.postlink": POSTLINK, "arch/arm64/Kconfig": "", "arch/s390/Kconfig": "",
    }  # fmt: skip
    for name, text in scripts.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "linked").mkdir()
    shutil.copyfile(MINI / "vmlinux-pfe2", top / "linked/vmlinux")
    shutil.copyfile(MINI / "mini.ko", top / "linked/mini.ko")
    return top


def fake(folder: Path) -> str:
    """An `ftpatch` that says what it was asked, and refuses what has the word `bad` in it."""
    program = folder / "fake-ftpatch"
    program.write_text(
        '#!/bin/sh\necho "$@" >>"$LOG"\nfor word; do case $word in json=*|sarif=*) : >"${word#*=}";; esac; done\n'
        'echo "report of $2"\n! grep -q bad "$2"\n'
    )
    program.chmod(0o755)
    return str(program)


def make(top: Path, *words: str, ftpatch: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # `make test` runs this
    program = top / "ftpatch-here"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ftpatch "$@"\n')
    program.chmod(0o755)
    environment = {**outside, "LOG": str(top / "log"), **variables}
    command = ["make", "-C", str(top), "--no-print-directory", "-j2", *words, f"FTPATCH={ftpatch or program}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def asked(top: Path) -> list[str]:
    """The files that the fake was asked about, and whether it was given a kernel."""
    lines = (top / "log").read_text().splitlines() if (top / "log").exists() else []
    (top / "log").unlink(missing_ok=True)
    return sorted(line.split()[1] + (" --against" if "--against" in line else "") for line in lines)


def content(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


# -- what is told of a tree, put in and taken out --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linked", "modules", "arch", "changed"),
    [
        ("vmlinux", "modfinal", "arm64", {"arch/arm64/Makefile.postlink", "scripts/Makefile.modfinal"}),
        ("vmlinux.unstripped", "modfinal", "aarch64", {"arch/arm64/Makefile.postlink", "scripts/Makefile.modfinal"}),
        ("vmlinux", "postlink", "arm64", {"arch/arm64/Makefile.postlink"}),
        ("vmlinux", "postlink", "powerpc", {"arch/powerpc/Makefile.postlink"}),
        ("vmlinux.unstripped", "modfinal", "ppc64le", {"arch/powerpc/Makefile.postlink", "scripts/Makefile.modfinal"}),
    ],
)
def test_what_is_put_in_is_taken_out_byte_for_byte(
    tmp_path: Path, linked: str, modules: str, arch: str, changed: set[str]
) -> None:
    before = content(tree(tmp_path, linked, modules))
    options = ["kbuild", "--tree", str(tmp_path)]
    assert run([*options, "--arch", arch, "--install"]) == 0
    installed = content(tmp_path)
    assert {name for name in installed if installed[name] != before.get(name)} == changed | {"scripts/Makefile.ftpatch"}
    assert run([*options, "--arch", arch, "--install"]) == 0
    assert content(tmp_path) == installed
    assert run([*options, "--remove"]) == 0
    assert content(tmp_path) == before
    assert run([*options, "--remove"]) == 0
    assert content(tmp_path) == before


def test_the_configuration_says_which_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "source").symlink_to(tree(tmp_path / "src"))
    (build / ".config").write_text("CONFIG_64BIT=y\nCONFIG_PPC64=y\n")
    assert run(["kbuild", "--tree", str(build), "--install", "--dry-run"]) == 0
    assert capsys.readouterr().out == (
        "scripts/Makefile.ftpatch         would be written\n"
        "arch/powerpc/Makefile.postlink   would have lines of ftpatch put in\n"
        "scripts/Makefile.modfinal        would have lines of ftpatch put in\n"
        "\nvmlinux is checked through arch/powerpc/Makefile.postlink, modules through scripts/Makefile.modfinal.\n"
        f"build as ever: make -C {tmp_path}/src O={build} ARCH=powerpc; without the check: … FTPATCH=\n"
    )
    assert not (tmp_path / "src/scripts/Makefile.ftpatch").exists()


def test_the_hook_alone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(tree(tmp_path))
    assert run(["kbuild", "--tree", str(tmp_path)]) == 0
    assert capsys.readouterr().out == hook_text().decode()
    assert content(tmp_path) == before


def test_the_patch_makes_what_install_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    for name in ("one", "two"):
        tree(tmp_path / name, modules="postlink")
    last = tmp_path / "one/arch/powerpc/Makefile.postlink"
    assert run(["kbuild", "--tree", str(tmp_path / "one"), "--patch"]) == 0
    patch = capsys.readouterr().out
    subprocess.run(["git", "apply", "-p1"], cwd=tmp_path / "one", input=patch, text=True, check=True)
    assert run(["kbuild", "--tree", str(tmp_path / "two"), "--install"]) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert last.read_bytes().count(b"# >>> ftpatch kbuild") == 2  # vmlinux and %.ko


def test_a_file_without_a_last_line_end_gets_its_old_bytes_back(tmp_path: Path) -> None:
    for name in ("scripts/Makefile.modfinal", "arch/powerpc/Makefile.postlink"):
        path = tree(tmp_path / name.replace("/", "-")) / name
        path.write_bytes(b"__modfinal:\nvmlinux: FORCE\n\t@true")
        before = content(path.parents[name.count("/")])
        for action in ("--install", "--remove"):
            assert run(["kbuild", "--tree", str(path.parents[name.count("/")]), "--arch", "powerpc", action]) == 0
        assert content(path.parents[name.count("/")]) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("scripts/Makefile.ftpatch", b"rm -f $1", b"true $1", "the lines of ftpatch were changed by hand: found a "
         "block at byte 0 – undo that, or take all from '# >>> ftpatch kbuild' to '# <<< ftpatch kbuild' out by hand"),
        ("scripts/Makefile.modfinal", b"# <<< ftpatch kbuild\n", b"", "the lines of ftpatch have lost one of their "
         "ends: found # >>> ftpatch kbuild – take them out by hand"),
        ("arch/arm64/Makefile.postlink", b"# >>> ftpatch kbuild", b"# >>>", "the lines of ftpatch have lost one of "
         "their ends: found # <<< ftpatch kbuild – take them out by hand"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["--install", "--remove"])
def test_lines_that_others_changed_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, old: bytes, new: bytes, message: str, action: str
) -> None:
    options = ["kbuild", "--tree", str(tree(tmp_path)), "--arch", "arm64"]
    assert run([*options, "--install"]) == 0
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(old, new))
    before = content(tmp_path)
    capsys.readouterr()
    assert run([*options, action]) == 5
    assert capsys.readouterr() == ("", f"ftpatch: {tmp_path}/{name}: {message}\n")
    assert content(tmp_path) == before


def _without(*names: str) -> dict[str, str | None]:
    return dict.fromkeys(names)


@pytest.mark.parametrize(
    ("files", "options", "code", "message"),
    [
        (_without("scripts/Kbuild.include"), (), 3, "ftpatch: TREE: not a kernel source tree: found no "
         "scripts/Kbuild.include, expected the top of one, or the folder that O= names – --tree names it"),
        ({"scripts/Makefile.vmlinux": "", "Makefile": ""}, (), 4, "ftpatch: TREE: this kernel's build calls no hook "
         "behind the link: expected ARCH_POSTLINK – call `ftpatch check vmlinux` where the build ends"),
        ({}, ("--arch", "riscv"), 2, "ftpatch: --arch riscv: no such machine in this tree: expected arm64, powerpc"),
        ({".config": "CONFIG_S390=y\n"}, (), 4, "ftpatch: TREE/.config: configured for a machine that ftpatch does not "
         "know: expected CONFIG_ARM64=y or CONFIG_PPC64=y – --arch names another"),
        ({"arch/powerpc/Makefile.postlink": "other:\n"}, ("--install",), 4, "ftpatch: "
         "TREE/arch/powerpc/Makefile.postlink: this makefile has no rule for what is linked: expected vmlinux: – "
         "ftpatch kbuild --out FILE hooks the build without it"),
        ({"scripts/Makefile.ftpatch": "mine\n"}, ("--install",), 4, "ftpatch: TREE/scripts/Makefile.ftpatch: is there "
         "already, and not by ftpatch – move it away"),
        ({}, ("--install", "--remove"), 2, "ftpatch: --install and --remove: exclude each other"),
        ({}, ("--dry-run",), 2, "ftpatch: --dry-run: --dry-run is for --install and --remove"),
        ({}, ("--out", "TREE/a b.mk"), 2, "ftpatch: TREE/a b.mk: make takes no makefile of such a name: found ' ' – "
         "choose another name"),
        ({}, ("--out", "TREE/$x.mk"), 2, "ftpatch: TREE/$x.mk: make takes no makefile of such a name: found '$' – "
         "choose another name"),
        ({}, ("--out", "TREE/no/x.mk"), 3, "ftpatch: TREE/no/x.mk: cannot be written: No such file or directory"),
        ({}, ("--build", "TREE/no"), 2, "ftpatch: TREE/no: not a directory – --build names the folder that O= names"),
        ({"Makefile": "x" * (5 << 20)}, (), 3, "ftpatch: TREE/Makefile: is too large: found 5242880 bytes, expected at "
         "most 4194304 bytes"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str | None], options: tuple[str, ...],
    code: int, message: str,
) -> None:  # fmt: skip
    top = tree(tmp_path)
    for name, text in files.items():
        (top / name).unlink() if text is None else (top / name).write_text(text)
    before = content(top)
    given = [option.replace("TREE", str(top)) for option in options]
    assert run(["kbuild", "--tree", str(top), *given]) == code
    assert capsys.readouterr() == ("", message.replace("TREE", str(top)) + "\n")
    assert content(top) == before


def test_a_tree_whose_name_is_hostile_is_hooked_and_its_command_line_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tree(tmp_path / "a b'$(id)\x1b[31m")
    assert run(["kbuild", "--tree", str(top), "--out", str(tmp_path / "hook.mk")]) == 0
    assert capsys.readouterr().out == (
        f"wrote {tmp_path}/hook.mk\nmake -C '{tmp_path}/a b'\"'\"'$(id)\\x1b[31m' MAKEFILES={tmp_path}/hook.mk\n"
    )
    assert run(["kbuild", "--tree", str(top), "--install"]) == 0
    assert "\x1b" not in capsys.readouterr().out


# -- GNU make goes through it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linked", "modules", "how", "arch"),
    [
        ("vmlinux", "postlink", "--install", "arm64"), ("vmlinux", "postlink", "--out", "powerpc"),
        ("vmlinux", "modfinal", "--install", "powerpc"), ("vmlinux", "modfinal", "--out", "arm64"),
        ("vmlinux.unstripped", "modfinal", "--install", "arm64"),
        ("vmlinux.unstripped", "modfinal", "--out", "powerpc"),
    ],
)  # fmt: skip
def test_each_file_is_checked_once_when_it_is_linked(
    tmp_path: Path, linked: str, modules: str, how: str, arch: str
) -> None:
    top, program = tree(tmp_path / "tree", linked, modules), fake(tmp_path)
    given = [how, *([str(tmp_path / "hook.mk")] if how == "--out" else [])]
    assert run(["kbuild", "--tree", str(top), "--arch", arch, *given]) == 0
    hooked = [f"MAKEFILES={tmp_path}/hook.mk"] if how == "--out" else []
    hooked.append(f"SRCARCH={arch}")
    done = make(top, "vmlinux", *hooked, ftpatch=program)
    assert (done.returncode, asked(top)) == (0, [linked]), done.stderr
    assert ("CHKREL" in done.stdout) == (arch == "powerpc")
    assert f"  FTPATCH {linked}\n" in done.stdout and "report" not in done.stdout + done.stderr
    done = make(top, "modules", *hooked, ftpatch=program)
    assert (done.returncode, asked(top)) == (0, ["mini.ko --against"]), done.stderr
    assert make(top, "all", *hooked, ftpatch=program).returncode == 0 and asked(top) == []
    (top / "linked/mini.ko").write_bytes(b"bad")
    done = make(top, "modules", *hooked, ftpatch=program)
    assert (done.returncode, asked(top)) == (2, ["mini.ko --against"])
    assert not (top / "mini.ko").exists() and (top / ".mini.ko.ftpatch.json").exists()
    assert done.stderr.startswith(
        "report of mini.ko\n"
        "mini.ko: refused by ftpatch and removed; reports: .mini.ko.ftpatch.txt, .json, .sarif\n"
    ), done.stderr  # fmt: skip
    assert make(top, "modules", *hooked, ftpatch=program).returncode == 2 and asked(top) == ["mini.ko --against"]
    (top / "linked/vmlinux").write_bytes(b"bad")
    assert make(top, "vmlinux", *hooked, ftpatch=program).returncode == 2
    assert asked(top) == [linked] and not (top / "vmlinux").exists() and not (top / linked).exists()
    done = make(top, "clean", *hooked, ftpatch=program)
    assert done.returncode == 0 and ("CLEAN" in done.stdout) == (arch == "powerpc")
    left = [path.name for path in top.glob(".*ftpatch*")]
    assert left == ([] if how == "--out" or arch == "arm64" else left)


def test_real_files_pass_and_fail_and_settings_of_the_tree_count(tmp_path: Path) -> None:
    top = tree(tmp_path)
    assert run(["kbuild", "--tree", str(top), "--arch", "arm64", "--install"]) == 0
    done = make(top, "modules", "vmlinux", "W=1", "-j1")  # the fixture's exports are none of a real kernel's
    assert done.returncode == 0 and "\nvmlinux: arm64 vmlinux" in done.stdout, done.stderr
    assert json.loads((top / ".mini.ko.ftpatch.sarif").read_text())["version"] == "2.1.0"
    (top / "ftpatch.toml").write_text('[check]\nfail-on = "warning"\n')
    os.utime(top / "linked/vmlinux")
    done = make(top, "vmlinux")
    assert done.returncode == 2 and "vmlinux: refused by ftpatch and removed" in done.stderr
    (top / "ftpatch.toml").unlink()
    known = ["check", "--lines", "--units", "--write-baseline", str(top / "ftpatch-baseline.json")]
    assert run([*known, str(top / "linked/vmlinux")]) == 0
    assert make(top, "vmlinux", "W=e").returncode == 0


def test_a_module_names_the_source_files_that_it_is_linked_from(tmp_path: Path) -> None:
    top = tree(tmp_path)
    assert run(["kbuild", "--tree", str(top), "--arch", "arm64", "--install"]) == 0
    (top / "linked/mini.ko").write_bytes(b"\x7fELF")
    (top / "mini.mod").write_text("fs/a.o\nb.o\nfs/gone.o\n")
    (top / "fs").mkdir()
    (top / "fs/.a.o.cmd").write_text("savedcmd_fs/a.o := gcc\nsource_fs/a.o := ../fs/a.c\n")
    (top / ".b.o.cmd").write_text("source_b.o := b.S\n")
    done = make(top, "modules")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:3] == [
        "ftpatch: mini.ko: ELF header lies outside the file: found bytes 0x0..0x10, expected at most 0x4 – the file is "
        "truncated or corrupt",
        "mini.ko: linked from ../fs/a.c b.S fs/gone.o ",
        "mini.ko: refused by ftpatch and removed; reports: .mini.ko.ftpatch.txt, .json, .sarif",
    ]


def test_without_a_program_the_build_fails_and_with_none_wanted_it_goes_on(tmp_path: Path) -> None:
    top = tree(tmp_path)
    assert run(["kbuild", "--tree", str(top), "--arch", "arm64", "--install"]) == 0
    done = make(top, "vmlinux", ftpatch="/no/such/program")
    assert done.returncode == 2 and not (top / "vmlinux").exists()
    assert "vmlinux: not checked: the program that FTPATCH= names cannot be run\n" in done.stderr
    done = subprocess.run(
        ["make", "-C", str(top), "all", "FTPATCH="], capture_output=True, text=True, timeout=60,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )  # fmt: skip
    assert done.returncode == 0 and "FTPATCH" not in done.stdout and (top / "mini.ko").exists(), done.stderr


def test_a_kernel_that_is_being_linked_anew_judges_no_module(tmp_path: Path) -> None:
    """Modules and vmlinux are linked side by side: the old vmlinux is of another build, the new one not whole."""
    top, program = tree(tmp_path / "tree"), fake(tmp_path)
    assert run(["kbuild", "--tree", str(top), "--arch", "arm64", "--install"]) == 0
    assert make(top, "vmlinux", ftpatch=program).returncode == 0
    (top / "vmlinux.o").touch()
    asked(top)
    assert make(top, "modules", ftpatch=program).returncode == 0
    assert asked(top) == ["mini.ko"]
