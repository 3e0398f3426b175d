"""The sets of arrays.py answer as numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftpatch.arrays import FEW, SPARSE, distinct, first_of_each, is_in

NUMBERS = st.lists(st.integers(0, 30) | st.integers(0, (1 << 64) - 1), max_size=40)


@given(NUMBERS, NUMBERS)
def test_is_in_is_isin(values: list[int], wanted: list[int]) -> None:
    array = np.array(values, np.uint64)
    assert is_in(array, wanted).tolist() == np.isin(array, np.array(wanted, np.uint64)).tolist()


@given(NUMBERS)
def test_distinct_and_first_of_each_are_unique(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    unique, first = np.unique(array, return_index=True)
    assert distinct(array).tolist() == unique.tolist()
    assert first_of_each(array).tolist() == sorted(first.tolist())


@pytest.mark.parametrize("n", [0, 1, FEW, FEW + 1, 100])
def test_is_in_of_nothing_and_of_many(n: int) -> None:
    assert is_in(np.zeros(0, np.int64), range(n)).tolist() == []
    assert is_in(np.array([-1, 0, n - 1, n]), range(n)).tolist() == [False, n > 0, n > 0, False]


def test_hardly_any_of_many_values_is_wanted() -> None:
    """Half of the values differ from a wanted one in their upper bits alone."""
    wanted = (1 << 40) + 3 * np.arange(FEW + 1, dtype=np.uint64)
    values = np.arange((FEW + 2) * SPARSE, dtype=np.uint64)
    values[::2] += np.uint64(1 << 40)
    assert np.flatnonzero(is_in(values, wanted)).tolist() == list(range(0, 3 * FEW + 1, 6))


def test_texts_are_distinct_too() -> None:
    assert distinct(np.array(["word", "rela", "word"])).tolist() == ["rela", "word"]
