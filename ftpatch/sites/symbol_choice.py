"""Selectors of symbols: from what a user writes after --name to those of a list."""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.errors import SelectionError
from ftpatch.near_names import did_you_mean
from ftpatch.recovered.symbol_list import SymbolList
from ftpatch.sites.name_choice import choose_names


def choose_symbols(symbols: SymbolList, selectors: Sequence[str]) -> SymbolList:
    """The symbols that names, globs and /regex/ choose, joined; `!` takes away, and only negative ones start from all.

    Raises SelectionError where a selector matches nothing.
    """
    chosen = choose_names(symbols.names(), selectors, lambda text: _nothing(symbols, text))
    if not chosen.any():
        raise SelectionError("the selection is empty", symbols.image.path, found="no symbol is left by --name")
    return symbols.chosen(chosen)


def _nothing(symbols: SymbolList, text: str) -> SelectionError:
    """Why a selector matched nothing."""
    if not text:
        return SelectionError("an empty selector", symbols.image.path, expected="the name of a symbol")
    what = f"{len(symbols)} symbols of other names" if len(symbols) else "a file without symbols"
    todo = did_you_mean(text, symbols.names())
    return SelectionError("no symbol of that name", text, found=what, expected="a name, glob or /regex/", todo=todo)
