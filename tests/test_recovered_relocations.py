"""Tables of relocations that are found by their words."""

from __future__ import annotations

import numpy as np
import pytest

from ftpatch.container.file_bytes import FileBytes
from ftpatch.recovered.relocations import Table, packed_places

LAST = 0xFFFF_FFFF_FFFF_FFF8
WORDS: list[tuple[list[int], list[int]]] = [
    ([0x1000, 0b111], [0x1000, 0x1008, 0x1010]),
    ([0x1000, 0x2000], [0x1000, 0x2000]),
    ([LAST - 8], [LAST - 8]),  # damage: what a bitmap behind it could name ends behind the last address
]


@pytest.mark.parametrize(("words", "places"), WORDS)
def test_a_packed_table_names_places(words: list[int], places: list[int]) -> None:
    data = FileBytes.of(np.array(words, np.uint64).tobytes())
    assert packed_places(data, Table(0, len(data))).tolist() == places
