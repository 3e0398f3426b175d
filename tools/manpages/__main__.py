"""Write the pages, and remove those of commands that are gone."""

from __future__ import annotations

from tools.manpages.pages import FOLDER, pages


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.iterdir():
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, "ascii")


if __name__ == "__main__":
    main()
