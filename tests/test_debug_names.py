"""Names in debug information: what each kind of it tells of a function. Hostile cases are in test_debug_info.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftpatch.elf.debug_names import DebugMention, Subprogram, find
from ftpatch.recovered.image import open_image

DWARF = Path(__file__).parent.parent / "testdata" / "dwarf"
NUMBERED = "its debug information refers to names by number (clang), and is not searched"


@pytest.mark.parametrize(
    "name", ["gcc3", "gcc4", "gcc5", "gcc5-zlib", "gcc5-zstd", "gcc4.o", "gcc5.o", "ppc64le.o", "beside.o"]
)
def test_a_function_is_found_in_linked_relocatable_and_compressed_files(name: str) -> None:
    image = open_image(str(DWARF / name))
    assert find(image, "three") == DebugMention("", True, (Subprogram(False, 0, 3),))
    assert find(image, "no_such_function") == DebugMention("", False, ())


@pytest.mark.parametrize("name", ["gcc4", "gcc5.o"])
def test_a_function_that_other_files_may_call_is_only_mentioned(name: str) -> None:
    """Its entry begins with DW_AT_external, and its symbol tells more than debug information does."""
    assert find(open_image(str(DWARF / name)), "begin") == DebugMention("", True, ())


@pytest.mark.parametrize("name", ["clang5", "clang5.o"])
def test_names_that_are_numbers_are_said_to_be_unknown(name: str) -> None:
    image = open_image(str(DWARF / name))
    assert find(image, "begin") == DebugMention(NUMBERED, True, ())
    assert find(image, "no_such_function") == DebugMention("", False, ())


def test_an_inlined_function_is_counted_by_its_copies() -> None:
    """clang puts one() into begin(), and keeps it as a function beside."""
    assert find(open_image(str(DWARF / "clang4")), "one") == DebugMention("", True, (Subprogram(True, 1, 6),))
