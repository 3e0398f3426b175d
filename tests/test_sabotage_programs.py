"""Bits of what a patch wrote into programs, flipped: `python -m tools.sabotage.programs` flips them all."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_program_proof import SMALL

from tools.sabotage.programs import WAYS, Score, attack


@pytest.mark.parametrize("name", ["arm64-pie", "ppc64le-so", "x86_64-exec"])
def test_no_flipped_bit_of_a_patched_program_is_accepted(name: str, tmp_path: Path) -> None:
    score = attack(SMALL / name, WAYS[0], tmp_path, step=61)
    assert score.missed == [] and sum(score.found.values()) > 100
    assert score.found["verify-section"] and score.found["verify-byte"] and score.found["verify-stub"]


def test_what_is_accepted_is_told_apart_by_what_it_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that calls what the sound one calls, and is accepted, is missed."""
    path = SMALL / "arm64-pie"
    monkeypatch.setattr("tools.sabotage.programs.flips", lambda content, where, step: [("nothing", content)])
    score = attack(path, WAYS[0], tmp_path, step=1)
    assert score == Score(missed=["arm64-pie: nothing: calls hook"])
