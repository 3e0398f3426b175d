"""The runner of pages, and what mkdocs is told to do with them: each fails where it should."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pages import ROOT, Section, fits, lay_out, run_section, sections

from tools.site_hooks import SourceError, on_page_content, on_page_markdown, taken

PAGE = """
<!-- run: vmlinux=testdata/mini/vmlinux-callops new/mini.ko=testdata/mini/mini.ko
$ echo hidden >made
-->
Text.

```console
$ cat made
hidden
$ ftpatch enable \\
      --func no_such_function
…
$ echo $?
5
```

*Not run by the tests: it is only shown.*

```console
$ rm -rf everything
```
"""


def section_of(text: str) -> Section:
    return sections(ROOT / "README.md", text)[-1]


def ran(text: str, folder: Path) -> None:
    section = section_of(text)
    lay_out(section, folder)
    run_section(section, folder)


def test_a_page_is_read_with_its_folder_its_commands_and_its_reasons(tmp_path: Path) -> None:
    section = section_of(PAGE)
    assert section.files == (("vmlinux", "testdata/mini/vmlinux-callops"), ("new/mini.ko", "testdata/mini/mini.ko"))
    assert section.prepare == ("echo hidden >made",)
    shown, only_shown = section.blocks
    assert [(step.line, step.command, step.shown, step.code) for step in shown.steps] == [
        (8, "cat made", "hidden", 0), (10, "ftpatch enable \\\n      --func no_such_function", "…", 5),
    ]  # fmt: skip
    assert (only_shown.not_run, section.run) == ("it is only shown", [shown])
    ran(PAGE, tmp_path)
    assert (tmp_path / "new/mini.ko").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden\n$ ftpatch", "other\n$ ftpatch", "README.md:8: $ cat made"),
        ("hidden\n$ ftpatch", "hidden\nmore\n$ ftpatch", "README.md:8: $ cat made"),
        ("\n…\n", "\n", "README.md:10: $ ftpatch enable"),
        ("\n5\n", "\n0\n", "exit code 5, the page says 0"),
        ("$ cat made", "$ cat none", "exit code 1, the page says 0"),
        ("$ echo hidden >made", "$ false", "the preparation fails: false"),
    ],
)
def test_what_is_not_as_shown_fails(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert PAGE.count(old) == 1
    with pytest.raises(AssertionError) as caught:
        ran(PAGE.replace(old, new), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "output", "any_figures", "expected"),
    [
        ("a\n…\nb", "a\nb\n", False, True),
        ("a\n…\nb", "a\n1\n2\nb\n", False, True),
        ("a\n  …", "a\n", False, True),
        ("a … c", "a b c\n", False, True),
        ("a … c", "a b\nc\n", False, False),
        ("", "", False, True),
        ("", "a\n", False, False),
        ("44361 slots at 0xffff800080, 24.9 MiB", "44 slots at 0x1, 3.1 MiB", False, False),
        ("44361 slots at 0xffff800080, 24.9 MiB", "44999 slots at 0x1, 3.1 MiB", True, True),
        ("44361 slots", "44361 sites", True, False),
        ("arm64 (x.*)", "arm64 (x.*)", False, True),
        ("arm64 (x.*)", "arm64 (xyz)", False, False),
    ],
)
def test_what_fits(shown: str, output: str, any_figures: bool, expected: bool) -> None:
    assert fits(shown, output, any_figures) is expected


# -- mkdocs ------------------------------------------------------------------------------------------------------------


def page(name: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=name))


def test_a_file_at_the_top_has_its_links_as_they_are_from_the_page() -> None:
    assert "(limits.md)" in taken("SECURITY.md", None, "security.md")
    assert "(../limits.md)" in taken("SECURITY.md", None, "reference/security.md")
    assert "(../changelog.md)" in taken("SECURITY.md", None, "reference/security.md")


def test_a_line_that_is_not_in_the_file_is_an_error() -> None:
    with pytest.raises(SourceError, match=r"^docs/index\.md: README\.md has no line '## Nowhere'$"):
        taken("README.md", "## Nowhere", "index.md")


def test_how_a_page_is_run_is_not_shown() -> None:
    assert on_page_markdown("a\n<!-- run: x=y\n$ z\n-->\nb\n", page("index.md")) == "a\nb\n"


def test_a_picture_becomes_part_of_the_page_and_a_missing_one_is_an_error() -> None:
    text = on_page_content('<p><img alt="" src="assets/favicon.svg" /></p>', page("index.md"))
    assert "<svg " in text and "<img" not in text
    with pytest.raises(SourceError, match=r"^docs/index\.md: no picture assets/none\.svg$"):
        on_page_content('<img src="assets/none.svg">', page("index.md"))
