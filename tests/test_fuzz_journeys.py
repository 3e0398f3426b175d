"""The other part of the short run of the fuzzing: texts, and whole command lines. A file of its own, for a worker of
its own."""

from __future__ import annotations

import pytest
from test_fuzz import WHOLE, short_run


@pytest.mark.parametrize("name", WHOLE)
def test_mutated_files_end_in_what_every_command_line_promises(name: str) -> None:
    assert short_run(name).findings == {}
