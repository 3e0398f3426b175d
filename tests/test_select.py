"""Selectors: every form, what they choose, what they refuse and with which words."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from elfwriter import MINI, parsed, symbol

from ftpatch import api
from ftpatch.errors import InputError, SelectionError
from ftpatch.sites.select import select
from ftpatch.sites.table import SiteTable

# Rows of vmlinux-callops, in the order of its addresses (nm -n), behind three zeros.
CALLOPS = [
    None, None, None, "init_once", "arch_hook_early", "arch_hook_power", "sys_getppid", "invoke_syscall",
    "arch_hook_late", "rest_init", "direct_only", "init_once", "vfs_read", "slot_probe", "vfs_write", "b_setup",
    "b_late", "start_kernel", "a_setup",
]  # fmt: skip
FILE = MINI / "vmlinux-callops"
NO_ROW = "no such row: found 19 rows, from 0 on, expected the row of a site – ftpatch scan --sites lists all"
NO_PLACE = (
    "no patch site at this place: found none, expected the address of a site, a record or an entry – "
    "ftpatch scan --sites lists all"
)
MISSING = (
    "nothing of that name: found no patch site, expected a function, see ftpatch scan --sites – "
    "it may be inlined, renamed by the compiler (.isra, .constprop), or in a module"
)


@pytest.fixture(scope="module")
def table() -> SiteTable:
    return api.scan(str(FILE)).sites


@pytest.fixture(scope="module")
def unsorted() -> SiteTable:
    return api.scan(str(MINI / "vmlinux-pfe2")).sites


def rows(table: SiteTable, *func: str, status: tuple[str, ...] = (), section: tuple[str, ...] = ()) -> list[int]:
    mask = select(table, func, status, section).mask
    return [int(i) for i in np.flatnonzero(mask)]


def named(*names: str) -> list[int]:
    return [i for i, name in enumerate(CALLOPS) if name in names]


VFS_READ = symbol(FILE.read_bytes(), "vfs_read")


@pytest.mark.parametrize(
    ("func", "names"),
    [
        (("vfs_read",), ("vfs_read",)),
        (("vfs_read", "slot_probe"), ("vfs_read", "slot_probe")),
        (("__arm64_sys_getppid",), ("sys_getppid",)),
        (("__se_sys_getppid",), ("sys_getppid",)),
        (("vfs_*",), ("vfs_read", "vfs_write")),
        (("?_setup",), ("a_setup", "b_setup")),
        (("[ab]_*",), ("a_setup", "b_setup", "b_late")),
        (("__arm64_*",), ("sys_getppid",)),
        (("/hook/",), ("arch_hook_early", "arch_hook_power", "arch_hook_late")),
        (("/^vfs.*e$/",), ("vfs_write",)),
        (("vfs_*", "!vfs_write"), ("vfs_read",)),
        (("!vfs_write", "vfs_*"), ("vfs_read",)),
        (("/hook/", "!*_late"), ("arch_hook_early", "arch_hook_power")),
        (("init_once@a.c", "vfs_read"), ("vfs_read",)),
        ((f"{VFS_READ:#x}",), ("vfs_read",)),
        ((f"0X{VFS_READ:X}",), ("vfs_read",)),
        ((f"{VFS_READ - 8:#x}",), ("vfs_read",)),
        ((f"{VFS_READ + 4:#x}",), ("vfs_read",)),
        (("row:12",), ("vfs_read",)),
        (("row:12", "row:13"), ("vfs_read", "slot_probe")),
        (("*", "!row:12"), tuple({name for name in CALLOPS if name and name != "vfs_read"})),
    ],
)
def test_a_selector_takes_what_it_names(table: SiteTable, func: tuple[str, ...], names: tuple[str, ...]) -> None:
    found = [row for row in rows(table, *func) if CALLOPS[row] != "init_once" or "init_once" in names]
    assert found == named(*names)


@pytest.mark.parametrize(("file", "number"), [("a.c", 11), ("b.c", 3), ("deep/in/a.c", 11)])
def test_a_name_that_two_files_share_is_told_apart_by_the_file(table: SiteTable, file: str, number: int) -> None:
    """vmlinux-callops is linked b.o first (nm -n): its init_once lies in front of a.c's."""
    assert rows(table, f"init_once@{file}") == [number]


def test_an_ambiguous_name_takes_all_and_says_so(table: SiteTable) -> None:
    selection = select(table, ("init_once",))
    assert np.flatnonzero(selection.mask).tolist() == [3, 11]
    assert selection.notes == ("init_once names 2 functions, all of them are taken (name@file.c tells them apart)",)


def test_a_name_of_one_site_is_no_note(table: SiteTable) -> None:
    assert select(table, ("vfs_read", "init_once@a.c")).notes == ()


def test_only_negative_selectors_start_from_all_named_sites(table: SiteTable) -> None:
    assert rows(table, "!vfs_*", "!init_once") == [
        i for i, name in enumerate(CALLOPS) if name and not name.startswith("vfs_") and name != "init_once"
    ]


def test_a_star_and_negatives_never_take_leftovers(unsorted: SiteTable) -> None:
    assert rows(unsorted, "*") == [i for i in range(19) if i not in (4, 15, 18)]
    assert rows(unsorted, "!vfs_read") == [i for i in range(19) if i not in (4, 13, 15, 18)]


def test_status_weak_leftover_selects_them_alone_and_joins_them_to_names(unsorted: SiteTable) -> None:
    assert rows(unsorted, status=("weak-leftover",)) == [4, 15, 18]
    assert rows(unsorted, "vfs_read", status=("weak-leftover",)) == [4, 13, 15, 18]


def test_any_other_status_narrows(unsorted: SiteTable, table: SiteTable) -> None:
    assert rows(unsorted, "vfs_read", status=("ready",)) == [13]
    assert rows(table, status=("null",)) == [0, 1, 2]


def test_section_narrows(table: SiteTable) -> None:
    assert rows(table, "/setup/", "vfs_read", section=(".init.text",)) == named("a_setup", "b_setup")
    assert rows(table, section=(".init.text",)) == [15, 16, 17, 18]


def test_no_selector_at_all_is_every_row(table: SiteTable) -> None:
    assert rows(table) == list(range(19))


def test_an_offset_in_a_section_takes_the_site_around_it(table: SiteTable) -> None:
    start = parsed(FILE.read_bytes()).get_section_by_name(".text")["sh_addr"]
    off = VFS_READ - start
    for at in (off - 8, off, off + 4):  # literal, first word, call
        assert rows(table, f".text+{at:#x}") == [12]
    for at in (off - 12, off + 8):
        with pytest.raises(SelectionError):
            select(table, (f".text+{at:#x}",))


def test_an_offset_is_the_way_to_name_a_site_in_an_object() -> None:
    assert rows(api.scan(str(MINI / "callops.o")).sites, ".init.text+0x8") == [5]


def test_an_address_means_nothing_in_an_object() -> None:
    with pytest.raises(SelectionError) as caught:
        select(api.scan(str(MINI / "callops.o")).sites, ("0x30",))
    assert str(caught.value) == ("0x30: addresses have no meaning in an unlinked file – use .section+0xOFF or row:N")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vfs_raed", f"vfs_raed: {MISSING.rpartition(' – ')[0]} – did you mean vfs_read?"),
        (
            "vfs_read@x.c",
            "vfs_read@x.c: no function of that name in that source file: found a global symbol without a "
            "file, expected a file that the symbol table names, as it does for local symbols – without @FILE, "
            "all of that name are taken",
        ),
        ("nope@x.c", f"nope@x.c: {MISSING}"),
        ("nope_*", f"nope_*: {MISSING}"),
        ("/^nope/", f"/^nope/: {MISSING}"),
        ("!nope", f"nope: {MISSING}"),
        ("row:99", f"row:99: {NO_ROW}"),
        ("row:99999999999999999999", f"row:99999999999999999999: {NO_ROW}"),
        ("0x1234", f"0x1234: {NO_PLACE}"),
        (".nowhere+0x10", f".nowhere+0x10: {NO_PLACE}"),
        (
            "init_once@c.c",
            "init_once@c.c: no function of that name in that source file: found a.c, b.c, expected a file "
            "that the symbol table names, as it does for local symbols – without @FILE, all of that name are taken",
        ),
        (
            "asm_nops",
            "asm_nops: the function has no patch site: found a symbol without record, expected a traceable function "
            "– it is notrace, assembly, or was dropped from the table",
        ),
        ("/(/", "/(/: not a regular expression: found missing ), unterminated subpattern at position 0"),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error(table: SiteTable, text: str, message: str) -> None:
    with pytest.raises(SelectionError) as caught:
        select(table, ("vfs_read", text))
    assert str(caught.value) == message
    assert caught.value.exit_code == 5


def test_what_was_taken_away_whole_is_an_empty_selection(table: SiteTable) -> None:
    with pytest.raises(SelectionError) as caught:
        select(table, ("vfs_read", "!vfs_*"))
    assert str(caught.value) == (
        f"{FILE}: the selection is empty: found no site matches all of --func, --status and --section"
    )


def test_unknown_status_and_section_are_named(table: SiteTable) -> None:
    with pytest.raises(SelectionError) as caught:
        select(table, ("*",), ("redy",))
    assert str(caught.value) == (
        "no such status: found redy, expected ready, enabled, half, null, weak-leftover, outside-text, unexpected, "
        "stripped, unnamed, unrecorded, armed, padding, off"
    )
    with pytest.raises(SelectionError) as caught:
        select(table, ("*",), (), (".txet",))
    assert str(caught.value) == f"{FILE}: no section of that name: found .txet – did you mean .text?"


def listed(tmp_path: Path, text: str) -> str:
    path = tmp_path / "list"
    path.write_text(text)
    return f"@{path}"


def test_a_list_is_one_selector_per_line_with_comments(table: SiteTable, tmp_path: Path) -> None:
    text = "# functions\nvfs_read\n\n  slot_probe   # behind a comment\nb_*\nrow:3\n"
    assert rows(table, listed(tmp_path, text)) == sorted([3, *named("vfs_read", "slot_probe", "b_setup", "b_late")])


def test_a_negative_list_takes_away(table: SiteTable, tmp_path: Path) -> None:
    assert rows(table, "vfs_*", "!" + listed(tmp_path, "vfs_write\n")) == named("vfs_read")


def test_functions_of_modules_in_a_list_are_left_out(table: SiteTable, tmp_path: Path) -> None:
    assert rows(table, listed(tmp_path, "vfs_read\nvfs_write [dummy]\nopen [ext4]\n")) == named("vfs_read")


def test_unnamed_entries_of_available_filter_functions_are_left_out(table: SiteTable, tmp_path: Path) -> None:
    assert rows(table, listed(tmp_path, "vfs_read\n__ftrace_invalid_address___64\n")) == named("vfs_read")


def test_addresses_of_available_filter_functions_addrs_are_ignored(table: SiteTable, tmp_path: Path) -> None:
    text = "ffff800010000000 vfs_read\nffff800010000040 __ftrace_invalid_address___64\n"
    assert rows(table, listed(tmp_path, text)) == named("vfs_read")


def test_functions_of_modules_with_addresses_are_left_out(table: SiteTable, tmp_path: Path) -> None:
    """Once the address of a module's line of available_filter_functions_addrs was taken for a name."""
    text = "ffff800010000000 vfs_read\nffff800008000000 dummy_xmit [dummy]\n"
    assert rows(table, listed(tmp_path, text)) == named("vfs_read")


def test_a_list_from_stdin(table: SiteTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"vfs_read\nvfs_write\n")))
    assert rows(table, "@-") == named("vfs_read", "vfs_write")


def test_a_list_of_many_names_chooses_as_single_names_do(table: SiteTable, tmp_path: Path) -> None:
    names = [name for name in CALLOPS if name]
    selection = select(table, (listed(tmp_path, "\n".join(names)),))
    assert np.flatnonzero(selection.mask).tolist() == list(range(3, 19))
    assert set(selection.notes) == {"init_once names 2 functions, all of them are taken (name@file.c tells them apart)"}


def test_a_list_without_a_function_of_this_file_is_an_error(table: SiteTable, tmp_path: Path) -> None:
    name = listed(tmp_path, "# nothing\nvfs_read [mod]\n")
    with pytest.raises(SelectionError) as caught:
        select(table, (name,))
    assert str(caught.value) == f"{name}: the list names no function of this file: expected one function a line"


def test_a_list_that_cannot_be_read_is_an_input_error(table: SiteTable, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        select(table, (f"@{tmp_path}/absent",))
    assert str(caught.value) == f"{tmp_path}/absent: the list cannot be read: No such file or directory"
    assert caught.value.exit_code == 3


def test_an_empty_name_matches_nothing(table: SiteTable) -> None:
    with pytest.raises(SelectionError):
        select(table, ("",))


@pytest.mark.parametrize("pattern", ["/[[]|vfs_read/", "/[a||b]|vfs_read/", "/[a~~b]|vfs_read/", "[[v]fs_read"])
def test_remarks_of_python_on_a_pattern_are_not_shown(pattern: str, table: SiteTable) -> None:
    """`FutureWarning: Possible nested set` stood on stderr, with a line of the program. Found by fuzzing."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert rows(table, pattern)
    assert shown == []
