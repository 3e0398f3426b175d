"""docs/static-calls.md: its commands print what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from test_redirects_page import run_as_shown

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "static-calls.md").read_text()
COMMANDS = re.findall(r"^```\n(\$ .*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.split("\n")[0])
def test_commands_print_what_the_page_shows(tmp_path: Path, block: str) -> None:
    shutil.copyfile(ROOT / "testdata/static_calls/vmlinux", tmp_path / "vmlinux")
    for command, shown in re.findall(r"^\$ ftpatch (.*)\n((?:[^$\n].*\n)*)", block, re.MULTILINE):
        run_as_shown(command, shown, tmp_path)
