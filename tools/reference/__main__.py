"""`python -m tools.reference`: writes the pages of docs/reference that are made from the program.

They are checked in, so that they can be read without a build and a change of the interface shows in its review;
tests/test_reference.py holds them to the program.
"""

from __future__ import annotations

from pathlib import Path

from tools.reference import commands, data, rules

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """File → text."""
    return {
        "commands.md": commands.page(), "interface.md": commands.tables(), "json.md": data.json_page(),
        "csv.md": data.csv_page(), "layouts.md": data.layouts_page(), "rules.md": rules.page(),
    }  # fmt: skip


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
        print(FOLDER / name)
