"""The pictures of docs/machines, drawn from the tables in ftpatch/arch and from the small kernels in testdata.

    python -m tools.pictures          writes docs/machines/pictures/*.svg again

`svg.py` draws tables, blocks with arrows, and maps of addresses; `code.py` reads what is in the pictures, the other
files say what each shows. A picture has light and dark colours of its own, no script and no font to load.
"""

from __future__ import annotations

from pathlib import Path

from tools.pictures import kernels, patches, sites
from tools.pictures.svg import Picture

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "machines" / "pictures"
PICTURES = {**sites.PICTURES, **kernels.PICTURES, **patches.PICTURES}


def drawn(name: str) -> str:
    """One picture as SVG text."""
    picture: Picture = PICTURES[name]()
    return picture.svg(name)
