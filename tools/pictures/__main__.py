"""`python -m tools.pictures`: writes all pictures."""

from __future__ import annotations

from tools.pictures import FOLDER, PICTURES, drawn

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_text(drawn(name))
