"""Completion: which values may stand at the cursor, the cache of names, and the verb that prints the scripts."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elfedit import MINI, Elf
from hypothesis import given
from hypothesis import strategies as st

from ftpatch.cli import run
from ftpatch.completion import cache, names, shells
from ftpatch.completion.line import read_line
from ftpatch.completion.place import place_of
from ftpatch.completion.table import PATH, read_table
from ftpatch.completion.values import answer_for
from tools import command_table

BREAKS = " \t\n\"'@><=;|&(:"  # those that bash has from the start
CALLS = Path(__file__).parent.parent / "testdata/static_calls"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "ftpatch/names"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of each kind, which is the current directory and the home."""
    for name, source in (("vmlinux", "vmlinux-callops"), ("mini.ko", "mini.ko"), ("patch.o", "callops.o")):
        shutil.copyfile(MINI / source, tmp_path / name)
    shutil.copyfile(CALLS / "vmlinux", tmp_path / "calls")
    (tmp_path / "notes.txt").write_text("text\n")
    (tmp_path / "a b.json").write_text(' {"schema": 1}\n')
    (tmp_path / "ftpatch.toml").write_text("")
    (tmp_path / "list").write_text("vfs_read\n")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "sub").mkdir()
    shutil.copyfile(MINI / "mini.ko", tmp_path / "sub/other.ko")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def candidates(text: str) -> list[str]:
    """The whole words that may stand at the cursor, `|`; one that goes on ends in …, a folder in a slash."""
    point = text.index("|")
    line = read_line(text.replace("|", "", 1), point, BREAKS)
    table = read_table()
    answer = answer_for(place_of(line, table), table)
    end = "/" if answer.paths else "…"
    return [answer.lead + value.text + end * value.goes_on for value in answer.values]


def test_the_table_is_made_from_the_commands() -> None:
    """After a change of options: python -m tools.command_table."""
    assert PATH.read_text() == command_table.text()


FUNCTIONS = ["sys_getppid", "vfs_read", "vfs_write"]
IMAGES = ["calls", "mini.ko", "patch.o", "sub/", "vmlinux"]
CASES = [
    # verbs and options
    ("ftpatch sc|", ["scan"]),
    ("ftpatch re|", ["redirect", "record", "restore"]),
    ("ftpatch --v|", ["--version"]),
    ("ftpatch nonsense |", []),
    ("ftpatch scan --se|", ["--section"]),
    ("ftpatch check --fail|", ["--fail-on"]),
    ("ftpatch image vmlinux --o|", ["--output"]),
    ("ftpatch enable --dry-run --d|", []),  # given, and not repeatable
    ("ftpatch enable --d| --dry-run", []),
    ("ftpatch enable --func a --fun|", ["--func"]),
    ("ftpatch nonsense --f|", []),
    ("ftpatch doctor --require lie|", ["lief"]),
    ("ftpatch kbuild --arch ppc|", ["ppc64le"]),
    ("ftpatch kbuild --tree |", ["sub/"]),
    ("ftpatch completion |", ["bash", "zsh", "fish"]),
    ("ftpatch completion bash --i|", ["--install"]),
    # values of lists
    ("ftpatch scan --color |", ["auto", "always", "never"]),
    ("ftpatch scan --color=a|", ["--color=auto", "--color=always"]),
    ("ftpatch scan --format js|", ["json"]),
    ("ftpatch scan --format=js|", ["--format=json"]),
    ("ftpatch scan --status no|", []),
    ("ftpatch scan --status half|", ["half"]),
    ("ftpatch enable --records m|", ["minus4"]),
    ("ftpatch enable --ops-via th|", ["thunk"]),
    ("ftpatch enable --ops l|", ["list"]),
    ("ftpatch check --select dead-w|", ["dead-weak"]),
    ("ftpatch check --select dead-weak,dead|", []),  # named already
    ("ftpatch check --ignore=dead-weak,dup|", ["--ignore=dead-weak,duplicate"]),
    ("ftpatch enable --layout call|", ["callops"]),
    ("ftpatch scan --jobs |", []),
    ("ftpatch scan --max-size=|", []),
    # functions
    ("ftpatch enable --func vfs|", ["vfs_read", "vfs_write"]),
    ("ftpatch enable --func=vfs_r|", ["--func=vfs_read"]),
    ("ftpatch enable --func 'vfs_r|", ["vfs_read"]),
    ("ftpatch enable --func vfs\\_r|", ["vfs_read"]),
    ("ftpatch enable --func !vfs_r|", ["!vfs_read"]),
    ("ftpatch enable --func vfs_r| vmlinux", ["vfs_read"]),
    ("ftpatch enable --func vfs_r|x vmlinux", ["vfs_read"]),
    ("ftpatch enable --func 'vfs_r|' sub/other.ko", []),
    ("ftpatch enable sub/other.ko --func mini_s|", ["mini_step"]),
    ("ftpatch enable --func mini_s| sub/other.ko", ["mini_step"]),
    ("ftpatch enable ~/sub/other.ko --func mini_s|", ["mini_step"]),
    ("ftpatch enable $HOME/sub/other.ko --func mini_s|", ["mini_step"]),
    ("ftpatch enable -o out.ko --func mini_s| -- sub/other.ko", ["mini_step"]),
    ("ftpatch enable --sign key cert --func mini_s| sub/other.ko", ["mini_step"]),
    ("ftpatch enable -oout.ko --func mini_s| sub/other.ko", ["mini_step"]),
    ("ftpatch enable 2>/dev/null >log --func mini_s| sub/other.ko > vmlinux", ["mini_step"]),
    ("ftpatch enable --func vfs_*|", []),
    ("ftpatch enable --func /vfs|", []),
    ("ftpatch enable --func row:|", []),
    ("ftpatch enable --func @l|", ["@list"]),
    ("ftpatch enable --func !@l|", ["!@list"]),
    ("ftpatch enable --func .te|", [".text+0x…"]),
    ("ftpatch enable --section .te|", [".text"]),
    ("ftpatch enable absent --func vfs|", []),
    ("ftpatch enable notes.txt --func vfs|", []),
    ("ftpatch enable sub --func vfs|", []),
    ("ftpatch disable --func vfs|", []),  # none is enabled
    ("ftpatch drop --all-but vfs_w|", ["vfs_write"]),
    ("ftpatch record --func vfs_r|", []),  # of no file: it takes none by itself
    ("ftpatch record --func vfs_r| vmlinux", ["vfs_read"]),
    ("ftpatch image --func vfs_r|", []),
    ("ftpatch explain vfs_r|", ["vfs_read"]),
    ("ftpatch explain mini_s| sub/other.ko", ["mini_step"]),
    ("ftpatch explain vfs_read vml|", ["vmlinux"]),
    ("ftpatch explain --splat list vml|", ["vmlinux"]),
    ("ftpatch explain --splat li|", ["list"]),
    ("ftpatch enable --target ftrace_c|", ["ftrace_caller"]),
    ("ftpatch symbols --name __start_mc|", ["__start_mcount_loc"]),
    ("ftpatch redirect --func vfs_read --to vfs_w|", ["vfs_write"]),
    ("ftpatch redirect --map vfs_r|", ["vfs_read=…"]),
    ("ftpatch redirect --map vfs_read=vfs_w|", ["vfs_read=vfs_write"]),
    ("ftpatch redirect --map @l|", ["@list"]),
    ("ftpatch static-calls calls --set a=re|", ["a=return0"]),
    # files
    ("ftpatch scan |", IMAGES),
    ("ftpatch scan vmlinux m|", ["mini.ko"]),
    ("ftpatch scan sub/|", ["sub/other.ko"]),
    ("ftpatch scan ~/su|", ["~/sub/"]),
    ("ftpatch scan ~/sub/|", ["~/sub/other.ko"]),
    ("ftpatch scan ./v|", ["./vmlinux"]),
    ("ftpatch scan $HOME/su|", ["$HOME/sub/"]),
    ("ftpatch scan '$HOME/su|", []),
    ('ftpatch scan "~/su|', []),
    ("ftpatch redirect --with |", ["mini.ko", "patch.o", "sub/"]),
    ("ftpatch restore --journal |", ["a b.json", "sub/"]),
    ("ftpatch restore --journal a\\ |", ["a b.json"]),
    ("ftpatch restore --journal 'a |", ["a b.json"]),
    ("ftpatch check --config |", ["ftpatch.toml", "sub/"]),
    ("ftpatch explain --modules |", ["sub/"]),
    ("ftpatch scan --report |", [f"{name}=…" for name in ("text", "json", "csv", "sarif")]),
    ("ftpatch scan --report json=n|", ["json=notes.txt"]),
    ("ftpatch scan --report=json=sub/|", ["--report=json=sub/other.ko"]),
    ("ftpatch enable -o .h|", [".hidden"]),
    ("ftpatch enable -on|", ["-onotes.txt"]),
    ("ftpatch enable --sign n|", ["notes.txt"]),
    ("ftpatch enable --sign list n|", ["notes.txt"]),
]


def _shown(wanted: list[str], got: list[str]) -> list[str]:
    """As many of the candidates as the case has; all of them where it has none."""
    return got[: len(wanted)] if wanted and wanted[0].endswith("=…") else got


@pytest.mark.parametrize(("text", "wanted"), CASES, ids=[text for text, _ in CASES])
def test_candidates(text: str, wanted: list[str], here: Path) -> None:
    assert _shown(wanted, candidates(text)) == wanted


def test_behind_the_last_argument_options_follow(here: Path) -> None:
    words = candidates("ftpatch enable vmlinux |")
    assert {"--func", "-o", "--output", "--in-place"} <= set(words)
    assert all(word.startswith("-") for word in words)


def test_enabled_functions_are_those_to_disable(here: Path) -> None:
    assert run(["enable", "--func", "vfs_read"]) == 0
    assert candidates("ftpatch disable vmlinux.patched --func |") == ["vfs_read"]


def test_keys_of_static_calls(here: Path) -> None:
    keys = candidates("ftpatch static-calls calls --key |")
    assert keys
    assert candidates("ftpatch static-calls calls --set |") == [f"{key}=…" for key in keys]
    functions = candidates(f"ftpatch static-calls calls --set {keys[0]}=|")
    assert functions[:2] == [f"{keys[0]}=NULL", f"{keys[0]}=return0"]
    assert len(functions) > 2


def test_names_of_what_is_linked_or_loads_are_targets(here: Path) -> None:
    assert candidates("ftpatch enable mini.ko --hook vfs_r|") == []
    assert candidates("ftpatch enable mini.ko --against vmlinux --hook vfs_r|") == ["vfs_read"]
    assert "mini_step" not in candidates("ftpatch redirect --to |")
    assert "mini_step" in candidates("ftpatch redirect --with mini.ko --to |")


def test_names_that_several_functions_share_have_their_files(here: Path) -> None:
    assert candidates("ftpatch enable --func init_on|") == ["init_once"]
    assert candidates("ftpatch enable --func init_once@|") == ["init_once@a.c", "init_once@b.c"]


def test_folders_of_others_and_odd_files_have_no_candidates(here: Path) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    for name in ("pipe", "loop", "/dev/zero", "/proc/self/mem", "x" * 5000, "sub"):
        assert candidates(f"ftpatch enable {name} --func |") == []
        assert candidates(f"ftpatch scan {name}/|")[1:] == []


def test_a_word_that_no_file_can_have_has_no_candidates(here: Path) -> None:
    assert candidates("ftpatch scan a\0b|") == []
    assert candidates("ftpatch enable a\0b --func v|") == []


def test_where_no_file_is_of_the_kind_all_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("x")
    assert candidates("ftpatch scan |") == ["notes"]
    assert candidates("ftpatch check --config |") == ["notes"]


# -- many names ------------------------------------------------------------------------------------------------------


def test_many_names_are_offered_by_their_beginnings() -> None:
    """None is left out, and what bash puts into the line is what all begin with."""
    all_names = sorted([*(f"vfs_{i}" for i in range(999)), "__vma_a", "__vma_b", "ext4_read", "vm"])
    assert names.stems(all_names, "") == [("__vma_", True), ("ext4_read", False), ("vfs_", True), ("vm", False)]
    assert names.stems(all_names[:3], "") == [(name, False) for name in all_names[:3]]


def test_a_single_beginning_is_no_choice() -> None:
    kin = sorted(f"acpi_{kind}_{i}" for kind in "ab" for i in range(600))
    assert names.stems(kin, "ac") == [("acpi_a_", True), ("acpi_b_", True)]
    same = sorted(f"x_{i}" for i in range(1200))
    assert names.stems(same, "x") == [(name, False) for name in same]


# -- names that anybody may have made --------------------------------------------------------------------------------

HOSTILE = [
    "$(touch pwned)", "`touch pwned`", "a b", "it's", 'say"so', "x;touch pwned", "a&b", "a|b", "~root", "{a,b}", "#c",
    "back\\slash", "a:b", "-rf", "%n", "é", "a!b", "<x", "(x)", "$HOME", "tail\\", "'",
]  # fmt: skip
NEVER = ["a\nb", "a\tb", "\x1b[31m", "a\u202eb", "*", "!x", "x@y", "0x12", "n" * 300]


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_names_are_quoted_for_bash(quote: str, tmp_path: Path) -> None:
    words = [quote + shells.quoted([name], quote)[0] + quote for name in HOSTILE]
    command = ["bash", "-c", f"printf '%s\\n' {' '.join(words)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == HOSTILE
    assert [*tmp_path.iterdir()] == []


def test_half_an_escape_is_never_what_names_begin_with_alike() -> None:
    """bash puts that into the line: `a\\` of `a\\ b` and `a\\$c` would take the next character's meaning away."""
    assert shells.quoted(["a b", "a$c", "ac"], "") == ["'a b'", "'a$c'", "'ac'"]


@pytest.mark.parametrize("name", NEVER)
def test_names_that_cannot_be_typed_are_no_candidates(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.READERS, "sites", lambda path: iter(["good", *names.selectable(iter([name]))]))
    assert candidates("ftpatch enable --func |") == ["good"]


def test_hostile_names_of_a_real_file(here: Path) -> None:
    new = {"vfs_read": "$(touch pwned)", "vfs_write": "a\n\x1b[31m b", "sys_getppid": "it's"}
    Path("vmlinux").write_bytes(Elf("vmlinux-callops").rename(".strtab", new).raw)
    words = candidates("ftpatch enable --func |")
    assert {"$(touch pwned)", "it's"} <= set(words)
    assert all(word.isprintable() for word in words)


# -- the cache -------------------------------------------------------------------------------------------------------

LINE = "ftpatch enable --func vfs_r|"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose functions were read."""
    read: list[str] = []
    sites = names.READERS["sites"]

    def noted(path: str) -> Iterator[str]:
        read.append(path)
        return sites(path)

    monkeypatch.setitem(names.READERS, "sites", noted)
    return read


def test_a_file_is_read_once(here: Path, reads: list[str], own_cache: Path) -> None:
    assert candidates(LINE) == candidates("ftpatch drop --func vfs_r|") == ["vfs_read"]
    assert candidates("ftpatch drop ./vmlinux --func vfs_r|") == candidates(
        f"ftpatch scan {here}/vmlinux --func vfs_r|"
    )
    assert reads == ["vmlinux"]
    (kept,) = own_cache.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [stat.S_IMODE(path.stat().st_mode) for path in (own_cache, own_cache.parent)] == [0o700, 0o700]


def test_a_file_that_changed_is_read_again_and_its_old_names_go(here: Path, reads: list[str], own_cache: Path) -> None:
    candidates(LINE)
    content = Elf("vmlinux-callops").rename(".strtab", {"vfs_read": "vfs_renamed"}).raw
    Path("vmlinux").write_bytes(content)
    assert candidates(LINE) == ["vfs_renamed"]
    assert reads == ["vmlinux", "vmlinux"]
    assert len([*own_cache.iterdir()]) == 1


def test_a_file_without_names_is_not_read_twice(here: Path, reads: list[str]) -> None:
    """A corrupt kernel: each TAB would take as long as the first."""
    Path("vmlinux").write_bytes(Elf("vmlinux-callops").ehdr(e_shoff=1 << 60).raw)
    assert candidates(LINE) == candidates(LINE) == []
    assert reads == ["vmlinux"]


def _cut(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-1])


def _flipped(kept: Path) -> None:
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)


def _of_another_file(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes().replace(kept.name.encode(), b"0-0-0-0-0.sites"))


def _a_link(kept: Path) -> None:
    kept.rename(kept.parent.parent / "elsewhere")
    kept.symlink_to(kept.parent.parent / "elsewhere")


def _a_pipe(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)


def _a_folder(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()


def _huge(kept: Path) -> None:
    os.truncate(kept, cache.MAX_SIZE + 1)


def _empty(kept: Path) -> None:
    kept.write_bytes(b"")


DAMAGES = [_cut, _flipped, _of_another_file, _a_link, _a_pipe, _a_folder, _huge, _empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_is_not_taken(
    damage: Callable[[Path], None], here: Path, reads: list[str], own_cache: Path
) -> None:
    candidates(LINE)
    (kept,) = own_cache.iterdir()
    damage(kept)
    assert candidates(LINE) == ["vfs_read"]
    assert reads == ["vmlinux", "vmlinux"]


@pytest.mark.parametrize("folder", ["ftpatch", "ftpatch/names"])
def test_a_cache_that_others_may_write_is_not_used(folder: str, here: Path, reads: list[str], own_cache: Path) -> None:
    candidates(LINE)
    (own_cache.parent.parent / folder).chmod(0o770)
    assert candidates(LINE) == ["vfs_read"]
    assert len(reads) == 2


@pytest.mark.parametrize("variable", ["", "relative"])
def test_without_a_variable_the_cache_is_below_the_home(
    variable: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert candidates(LINE) == ["vfs_read"]
    assert len([*(here / ".cache/ftpatch/names").iterdir()]) == 1


def test_where_nothing_can_be_kept_there_are_candidates_all_the_same(
    here: Path, reads: list[str], own_cache: Path
) -> None:
    own_cache.parent.write_text("a file where the folder should be")
    assert candidates(LINE) == candidates(LINE) == ["vfs_read"]
    assert len(reads) == 2


def test_the_oldest_lists_go(here: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_LISTS", 3)
    for i in range(5):
        shutil.copyfile("vmlinux", f"k{i}")
        candidates(f"ftpatch enable k{i} --func |")
        (new,) = [path for path in own_cache.iterdir() if path.name == cache.key_of(f"k{i}", "sites")]
        os.utime(new, ns=(i, i))
    (own_cache / "mine.txt").write_text("kept: no list of ours")
    candidates("ftpatch enable vmlinux --func |")
    kept = {path.name for path in own_cache.iterdir()}
    assert kept == {"mine.txt", *(cache.key_of(name, "sites") for name in ("vmlinux", "k4", "k3"))}


def test_all_lists_together_are_bounded(here: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates(LINE)
    monkeypatch.setattr(cache, "MAX_BYTES", 10)
    candidates("ftpatch explain |")
    assert [*own_cache.iterdir()] == []


def test_a_list_that_is_too_long_is_not_kept(here: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_SIZE", 100)
    assert candidates(LINE) == ["vfs_read"]
    assert not own_cache.exists()


# -- the verb --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_the_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert out == Path(shells.script_path(shell)).read_text()
    assert (shells.MARK in out, err) == (True, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no shell is named: expected bash, zsh, fish – ftpatch completion bash"),
        (["bash", "zsh"], "zsh: unexpected argument: expected one shell"),
    ],
)
def test_usage_errors_of_the_verb(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", *arguments]) == 2
    assert capsys.readouterr() == ("", f"ftpatch: {message}\n")


@pytest.mark.parametrize("shell", shells.SHELLS)
@pytest.mark.parametrize(
    "words", [[], ["x"], ["-1", ""], ["\ud800", "9" * 5000, "x"], ["a", "b", "c", "d"], ["", "", ""], ["1", "2", "3"]]
)
def test_what_no_script_asks_is_answered_with_silence(
    shell: str, words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell, "--answer", "--", *words]) == 0
    assert capsys.readouterr().err == ""


def test_a_failure_in_the_middle_of_a_line_is_silent(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: str) -> Iterator[str]:
        raise MemoryError

    monkeypatch.setitem(names.READERS, "sites", fails)
    line = "ftpatch enable --func v"
    assert run(["completion", "bash", "--answer", "--", line, str(len(line)), BREAKS]) == 0
    assert capsys.readouterr() == ("", "")


PLACES = {
    "bash": ("share/bash-completion/completions/ftpatch", ".local/share/bash-completion/completions/ftpatch"),
    "zsh": ("share/zsh/site-functions/_ftpatch", ".local/share/zsh/site-functions/_ftpatch"),
    "fish": ("config/fish/completions/ftpatch.fish", ".config/fish/completions/ftpatch.fish"),
}


@pytest.mark.parametrize("shell", shells.SHELLS)
@pytest.mark.parametrize("own_folders", [True, False])
def test_scripts_are_installed_for_the_user(
    shell: str, own_folders: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(here / "share") if own_folders else "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config") if own_folders else "")
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    path = here / PLACES[shell][not own_folders]
    for arguments in ([], [shell]):  # the second time, our own script is replaced
        assert run(["completion", *arguments, "--install"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"{path}: written; ")
        assert err == ""
        assert path.read_bytes() == Path(shells.script_path(shell)).read_bytes()


def test_the_line_for_zsh_can_be_copied(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", f"{here}/a b\x1b")
    assert run(["completion", "zsh", "--install"]) == 0
    folder = f"{here}/a b\\x1b/zsh/site-functions"
    todo = f"if $fpath lacks its folder, add to ~/.zshrc in front of compinit: fpath+=('{folder}')"
    assert capsys.readouterr().out == f"{folder}/_ftpatch: written; {todo}\n"


def test_a_script_of_somebody_else_is_not_replaced(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
    path = here / "fish/completions/ftpatch.fish"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    assert run(["completion", "fish", "--install"]) == 5
    line = f"ftpatch: {path}: is not a completion script of ftpatch's – move it away, and try again\n"
    assert capsys.readouterr() == ("", line)
    assert path.read_text() == "# mine\n"


def test_a_folder_that_cannot_be_made_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "notes.txt"))
    assert run(["completion", "fish", "--install"]) == 3
    line = f"ftpatch: {here}/notes.txt/fish/completions: cannot be made: Not a directory\n"
    assert capsys.readouterr() == ("", line)


def test_an_unknown_login_shell_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run(["completion", "--install"]) == 2
    line = "ftpatch: no shell is named: expected bash, zsh, fish – ftpatch completion bash\n"
    assert capsys.readouterr() == ("", line)


def test_a_tab_on_names_that_are_kept_loads_nothing_heavy(here: Path) -> None:
    """0.2 s are asked for, and numpy alone takes half of them."""
    program = (
        "import sys\nfrom ftpatch.cli import run\ncode = run(sys.argv[1:])\n"
        "print([name for name in ('numpy', 'json', 'hashlib', 'ftpatch.api', 'ftpatch.write') if name in sys.modules])"
    )
    words = ["completion", "bash", "--answer", "--", "ftpatch enable --func vfs_r", "27", BREAKS]
    command = [sys.executable, "-B", "-c", program, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout for _ in range(2)
    )
    assert first == "\nvfs_read\n['numpy', 'ftpatch.write']\n"
    assert second == "\nvfs_read\n[]\n"


# -- any line --------------------------------------------------------------------------------------------------------


TABLE = read_table()


@given(st.text(alphabet="ftpach enbl-funcsv_r='\"\\!@/.|<>2 \n", max_size=40), st.integers(0, 60))
def test_any_line_has_an_answer(text: str, point: int) -> None:
    line = read_line(f"ftpatch {text}", point, BREAKS)
    assert 0 <= line.kept <= len(line.current)
    assert place_of(line, TABLE).verb.name in TABLE.verbs


@given(st.lists(st.text(alphabet="ab '\"\\$", min_size=1), min_size=1), st.integers(0, 3))
def test_words_are_those_of_the_shell(words: list[str], n_after: int) -> None:
    before, after = words, words[:n_after]
    text = f"ftpatch {shlex.join(before)} "
    line = read_line(text + " " + shlex.join(after), len(text), BREAKS)
    assert (line.before, line.current, line.after) == (tuple(before), "", tuple(after))
