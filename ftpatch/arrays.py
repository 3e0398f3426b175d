"""The array types of this program, by the names that signatures use.

Addresses are stored and shown as U64 and subtracted as I64 (`.view(np.int64)`): numpy makes float64 of a mixture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[Any]  # structured rows: of one of the dtypes in elf.tables
