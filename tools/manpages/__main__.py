"""Write the pages, and remove those of commands that are gone."""

from __future__ import annotations

from tools.manpages.pages import FOLDER, pages


def main() -> None:
    made = pages()
    for path in FOLDER.glob("man*/*"):
        if str(path.relative_to(FOLDER)) not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, "ascii")


if __name__ == "__main__":
    main()
