"""The sites of a file as columns, for programs: numpy arrays by name, and one table for whatever speaks Arrow.

A column has the name, and its values the meaning, that the field of the same name has in the JSON report. Numbers stay
numbers: addresses are uint64, everything else that counts is int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ftpatch.arrays import I64, U64, Mask
from ftpatch.errors import UsageError
from ftpatch.sites.table import STATUSES, SiteTable

if TYPE_CHECKING:
    import pyarrow as pa

Values = npt.NDArray[Any]


class Column(NamedTuple):
    """One column of SiteColumns."""

    name: str
    dtype: str  # of the array; `object` has Python values
    unit: str  # what a value is, and in which unit
    null: str  # what a row has that has no value; "" where every row has one
    values: Callable[[SiteColumns], Values]


class SiteColumns:
    """Rows are sites, in the order of the report: the slots of the record table, then sites without a record.

    sites["branch"] is the column of that name: an array with a value for each row, made when it is first asked for.
    Wherever a null is a number (−1, 0), Arrow has a null.
    """

    def __init__(self, table: SiteTable, index: I64 | None = None) -> None:
        self._table = table
        self._index = np.arange(len(table)) if index is None else index  # rows of the table
        self._made: dict[str, Values] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in their order."""
        return tuple(_BY_NAME)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"<{len(self)} sites: {', '.join(self.names)}>"

    def __getitem__(self, name: str) -> Values:
        """One column. Raises KeyError for a name that is none."""
        if name not in self._made:
            self._made[name] = values = _BY_NAME[name].values(self)
            values.flags.writeable = False
        return self._made[name]

    def where(self, mask: Mask) -> SiteColumns:
        """The rows that a mask marks, in the same order. mask: one bool a row, such as `sites["status"] == "ready"`."""
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise UsageError("no mask over the sites", found=f"{mask.dtype} of shape {mask.shape}",
                             expected=f"bool of shape ({len(self)},)")  # fmt: skip
        return SiteColumns(self._table, self._index[mask])

    def select(self, *selectors: str, status: Sequence[str] = (), section: Sequence[str] = ()) -> SiteColumns:
        """The rows that selectors choose, as --func, --status and --section do. Raises SelectionError."""
        from ftpatch.sites.select import select

        chosen = select(self._table, selectors, status, section).mask
        return self.where(chosen[self._index])

    def to_arrow(self) -> pa.Table:
        """All columns as a pyarrow.Table. Raises UsageError where pyarrow is not installed."""
        if find_spec("pyarrow") is None:
            raise UsageError("pyarrow is not installed", todo="pip install 'ftpatch[arrow]'")
        import pyarrow as pa

        return pa.table({name: _as_arrow(self, column) for name, column in _BY_NAME.items()})

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface: pyarrow.table(sites), polars.DataFrame(sites), DuckDB and others take it."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    # -- what columns are made of --------------------------------------------------------------------------------------

    @cached_property
    def known(self) -> Mask:
        """Whether a row is a place in the file; null slots are none."""
        return self._table.sec[self._index] >= 0

    @cached_property
    def _base(self) -> U64 | None:
        """What is taken off addresses: in a relocatable file the start of their section."""
        image = self._table.image
        return None if image.linked else image.va(self._table.sec, np.zeros(len(self._table), np.int64))[self._index]

    def _address(self, va: U64) -> U64:
        values = va[self._index].copy() if self._base is None else va[self._index] - self._base
        values[~self.known] = 0
        return values

    def _place(self, values: I64) -> I64:
        """File positions and offsets: −1 where there is none."""
        places = values[self._index]
        return np.where(self.known & (places >= 0), places, -1)

    def _objects(self, value: Callable[[int], object]) -> Values:
        values = np.empty(len(self), dtype=object)
        for at, site in enumerate(self._index.tolist()):  # a Python value per site is what the column is
            values[at] = value(site)
        return values

    def _section_name(self, site: int) -> str | None:
        sec = int(self._table.sec[site])
        return self._table.image.names[sec] if sec >= 0 else None

    def _target(self, site: int) -> str | None:
        return self._table.redirects[site].name if site in self._table.redirects else None


def _as_arrow(sites: SiteColumns, column: Column) -> Any:
    """A column as a pyarrow array, with nulls for what is none."""
    import pyarrow as pa

    values = sites[column.name]
    if column.dtype == "object":
        types = {"words": pa.list_(pa.string()), "aliases": pa.list_(pa.string())}
        array = pa.array(values.tolist(), types.get(column.name, pa.string()))
        return array.dictionary_encode() if column.name in ("section", "status") else array
    missing = values < 0 if column.null == "-1" else ~sites.known if column.null else None
    return pa.array(values, mask=missing)


_ADDRESS = "address; in a relocatable file byte offset in `section`"
COLUMNS = (
    Column("row", "int64", "slot of the record table", "-1", lambda s: s._table.row[s._index].copy()),
    Column("record", "uint64", _ADDRESS, "0", lambda s: s._address(s._table.va)),
    Column("section", "object", "str: name of the section that the record points into", "None",
           lambda s: s._objects(s._section_name)),
    Column("shndx", "int64", "number of that section", "-1", lambda s: s._place(s._table.sec)),
    Column("function", "object", "str: symbol at the entry", "None", lambda s: s._objects(s._table.name)),
    Column("aliases", "object", "list of str: other symbols at the entry", "",
           lambda s: s._objects(s._table.aliases)),
    Column("entry", "uint64", _ADDRESS, "0", lambda s: s._address(s._table.entry_va)),
    Column("local_entry", "uint64", _ADDRESS, "0", lambda s: s._address(s._table.local_va)),
    Column("site", "uint64", f"{_ADDRESS}: the first word that enabling rewrites", "0",
           lambda s: s._address(s._table.body_va)),
    Column("branch", "uint64", f"{_ADDRESS}: the call", "0", lambda s: s._address(s._table.branch_va)),
    Column("offset", "int64", "bytes from the start of `section` to the site", "-1",
           lambda s: s._place(s._table.off + s._table.site)),
    Column("pos", "int64", "bytes from the start of the uncompressed file to the site", "-1",
           lambda s: s._place(s._table.pos)),
    Column("words", "object", "list of str: the code, as in JSON", "", lambda s: s._objects(s._table.words_text)),
    Column("status", "object", "str: `ready`, `enabled`, `null` …", "",
           lambda s: np.array(STATUSES, dtype=object)[s._table.status[s._index]]),
    Column("target", "object", "str: the function that takes the place of this one (redirected)", "None",
           lambda s: s._objects(s._target)),
)  # fmt: skip
_BY_NAME = {column.name: column for column in COLUMNS}
