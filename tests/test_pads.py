"""Pads and switches of pad-before: what is written, what is proven of it, what is refused, on small arm64 programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_verify import enabled, verify

from ftpatch.cli import run
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file
from ftpatch.sites.table import STATUSES
from tools.sabotage.__main__ import quietly

PADS = Path(__file__).parent.parent / "testdata" / "programs" / "pads"
PIE, BTI, SO, EXEC, SMALL = (PADS / f"arm64-{kind}" for kind in ("pie", "bti", "so", "exec", "small"))
NOP, TO_X9, FROM_X9 = 0xD503_201F, 0xAA1E_03E9, 0xAA09_03FE
PUSH, POP = 0xA9BF_7BFD, 0xA8C1_7BFD


def words(path: Path, function: str, n: int, before: int = 0) -> list[int]:
    """n words from `before` words in front of a function on."""
    image = open_image(str(path))
    va = image.symbols.value(function)
    assert va is not None
    return [int(word) for word in image.code(va - 4 * before, n)]


def leads(word: int, at: int) -> int:
    """Words from the start of a run to where its branch at word `at` goes."""
    return at + ((word & 0x3FF_FFFF ^ 0x200_0000) - 0x200_0000)


def statuses(path: Path) -> dict[str, str]:
    sites = scan_file(str(path)).sites
    return {sites.name(at) or "": STATUSES[sites.status[at]] for at in range(len(sites))}


@pytest.mark.parametrize(
    ("target", "save", "code"),
    [
        ("trampoline", "register", [TO_X9, "bl", "b"]),
        ("plain", "register", [TO_X9, "bl", FROM_X9, "b"]),
        ("trampoline", "stack", [PUSH, "bl", POP, "b"]),
        ("plain", "stack", [PUSH, "bl", POP, "b"]),
        ("uses_x9", "stack", [PUSH, "bl", POP, "b"]),
    ],
)
@pytest.mark.parametrize("before", [PIE, BTI, SO], ids=lambda path: path.name)
def test_the_pad_fits_what_the_target_does(
    before: Path, target: str, save: str, code: list[Any], tmp_path: Path
) -> None:
    after, journal = enabled(before, tmp_path, "--func", "numbers", "--target", target, "--save", save)
    room = 4 if before is SO else 5
    site = room + (before is BTI)  # word of the switch, from the pad's first on
    seen = words(after, "numbers", site + 1, before=room)
    spare = [NOP] * (room - len(code))
    exact = [word if isinstance(word, int) else seen[at] for at, word in enumerate([*code, *spare])]
    assert seen[:room] == exact
    assert [seen[at] >> 26 for at in (1, len(code) - 1, site)] == [0b100101, 0b000101, 0b000101]
    assert leads(seen[len(code) - 1], len(code) - 1) == site + 1 and leads(seen[site], site) == 0
    image = open_image(str(after))
    start = (image.symbols.value("numbers") or 0) - 4 * room
    assert start + 4 * leads(seen[1], 1) == image.symbols.value(target)
    proof = verify(before, after, "--journal", str(journal), "--require", "emulation")["proof"]
    assert proof["sites"]["site enabled"] == 1 and proof["callees"] == {target: 1} and proof["emulated"] == 1
    assert proof["edits"] == {"site words": 1, "pad": 1}


def test_arm_turn_on_turn_off_disarm(tmp_path: Path) -> None:
    """Each step is one run, and the last gives the first file."""
    armed, journal = enabled(BTI, tmp_path, "--func", "*", "--target", "plain", "--arm", out="armed")
    assert set(statuses(armed).values()) == {"armed"}
    proof = verify(BTI, armed, "--journal", str(journal), "--require", "emulation")["proof"]
    assert proof["sites"]["site armed"] == 5 and proof["emulated"] == 5 and proof["edits"] == {"pad": 5}

    on, journal = enabled(armed, tmp_path, "--func", "work", "--func", "inside", out="on")
    assert statuses(on) == {"inside": "enabled", "also": "enabled"} | dict.fromkeys(
        ("numbers", "structure", "nothing"), "armed"
    )
    changed = [at for at, (a, b) in enumerate(zip(armed.read_bytes(), on.read_bytes(), strict=True)) if a != b]
    assert len({at // 4 for at in changed}) == 2  # a word each
    proof = verify(armed, on, "--journal", str(journal), "--require", "emulation")["proof"]
    assert proof["edits"] == {"site words": 2} and proof["callees"] == {"plain": 5} and proof["emulated"] == 5

    off, journal = enabled(on, tmp_path, "--func", "work", "--func", "inside", verb="disable", out="off")
    assert off.read_bytes() == armed.read_bytes()
    assert verify(on, off, "--journal", str(journal))["proof"]["sites"]["site disabled"] == 2

    back, journal = enabled(on, tmp_path, "--func", "*", "--disarm", verb="disable", out="back")
    assert back.read_bytes() == BTI.read_bytes()
    sites = verify(on, back, "--journal", str(journal))["proof"]["sites"]
    assert sites["site disabled"] == 2 and sites["site disarmed"] == 3


def test_what_leaves_the_switch_off_changes_code_that_nothing_leads_to(tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    _, text = quietly(["enable", str(PIE), "--func", "work", "--target", "plain", "--arm", "-o", str(armed),
                       "--format", "json"])  # fmt: skip
    image = json.loads(text)["images"][0]
    site = image["sites"][0]
    assert (site["action"], site["concurrency"], site["new_words"]) == ("arm", "unreached", [f"0x{NOP:08x}"])
    assert image["live"]["answer"] == "yes" and len(image["live"]["steps"]) == 1
    _, text = quietly(["disable", str(armed), "--func", "work", "--disarm", "-o", str(tmp_path / "back"),
                       "--format", "json"])  # fmt: skip
    image = json.loads(text)["images"][0]
    site = image["sites"][0]
    assert (site["action"], site["concurrency"]) == ("disarm", "unreached")
    assert image["live"]["steps"] == ["stubs and pads, but only once no processor can be in them any more"]


def test_another_target_goes_into_pads_whose_switches_are_off(tmp_path: Path) -> None:
    armed, _ = enabled(PIE, tmp_path, "--func", "*", "--target", "plain", "--arm", out="armed")
    after, journal = enabled(armed, tmp_path, "--func", "work", "--target", "trampoline", out="after")
    proof = verify(armed, after, "--journal", str(journal), "--require", "emulation")["proof"]
    assert proof["callees"] == {"plain": 4, "trampoline": 1} and proof["edits"] == {"site words": 1, "pad": 1}


def test_restore_gives_the_input_back(tmp_path: Path) -> None:
    after, journal = enabled(SO, tmp_path, "--func", "*", "--target", "plain")
    back = tmp_path / "back"
    assert run(["restore", str(after), "--journal", str(journal), "-o", str(back)]) == 0
    assert back.read_bytes() == SO.read_bytes()


def test_a_report_says_the_class_of_the_switch_and_the_order(tmp_path: Path) -> None:
    _, text = quietly(["enable", str(PIE), "--func", "work", "--target", "plain", "-o", str(tmp_path / "out"),
                       "--format", "json"])  # fmt: skip
    image = json.loads(text)["images"][0]
    site = image["sites"][0]
    assert (site["action"], site["concurrency"], site["status"]) == ("call_via_stub", "single", "ready")
    assert (site["stub"], site["reason"]) == ("0x0000000000001020", "its pad, the NOPs in front of the entry")
    assert [edit["owner"] for edit in image["edits"]] == ["pad row:1", "site row:1"]
    live = image["live"]
    assert live["answer"] == "in-order" and [step.partition(",")[0] for step in live["steps"]] == [
        "stubs and pads",
        "the jump of each site",
    ]


REFUSALS: list[tuple[str, Path, tuple[str, ...], int, str]] = [
    ("two words less", SMALL, ("--func", "*", "--target", "trampoline"), 5,
     "{path}: the NOPs in front of the entries are too few for a pad that calls trampoline: found 1 "
     "(-fpatchable-function-entry=2,1), expected 3 (-fpatchable-function-entry=4,3 is enough) – build the file with "
     "more"),
    ("one word less", EXEC, ("--func", "*", "--target", "plain"), 5,
     "{path}: the NOPs in front of the entries are too few for a pad that calls plain: found 3 "
     "(-fpatchable-function-entry=4,3), expected 4 (-fpatchable-function-entry=5,4 is enough) – build the file with "
     "more; a target that itself brings the return address back, and a hook, need 3"),
    ("one word less, stack", EXEC, ("--func", "*", "--target", "plain", "--save", "stack"), 5,
     "{path}: the NOPs in front of the entries are too few for a pad that calls plain: found 3 "
     "(-fpatchable-function-entry=4,3), expected 4 (-fpatchable-function-entry=5,4 is enough) – build the file with "
     "more; a target that itself brings the return address back, and a hook, need 3"),
    ("x9", PIE, ("--func", "*", "--target", "uses_x9"), 5,
     "--target uses_x9: the target is not shown to keep what a function is called with: found it changes x9 (which it "
     "may with --save stack), expected x0-x8, x18-x29, v0-v7, sp kept, x30 := x9, return to the old x30; or x0-x8, "
     "x18-x29, v0-v7, sp and x9 kept, return to x30 – --hook calls it by a stub that saves them; --force-target takes "
     "it nevertheless"),
    ("v3", PIE, ("--func", "*", "--target", "uses_v3", "--save", "stack"), 5,
     "--target uses_v3: the target is not shown to keep what a function is called with: found it changes x3, v3, "
     "expected x0-x8, x18-x29, v0-v7, sp kept, return to x30 – --hook calls it by a stub that saves them; "
     "--force-target takes it nevertheless"),
    ("nothing to call", PIE, ("--func", "*"), 5,
     "{path}: nothing says what the pads call: found 5 of 5 chosen sites without a filled pad, expected --target or "
     "--hook – without these only armed sites are turned on: --status armed"),
    ("a hook on the stack", PIE, ("--func", "*", "--hook", "hook", "--save", "stack"), 2,
     "--save stack is for --target: found --hook, expected the return address in a register: the hook's stub puts it "
     "on the stack itself"),
    ("a switch as target", PIE, ("--func", "*", "--target", "nothing", "--force-target"), 5,
     "--target nothing: what the sites would call is itself among the chosen ones: found a call that leads back to "
     "itself, expected a function that stays as it is – --func '!nothing' leaves it out"),
    ("arm elsewhere", PADS.parent / "small" / "arm64-pie", ("--func", "*", "--target", "direct", "--arm"), 2,
     "{path}: --arm is for layout pad-before: found pfe2"),
    ("save elsewhere", PADS.parent / "small" / "arm64-pie", ("--func", "*", "--target", "direct", "--save", "stack"),
     2, "{path}: --save is for layout pad-before: found pfe2"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "options", "code", "message"), [row[1:] for row in REFUSALS],
                         ids=[row[0] for row in REFUSALS])  # fmt: skip
def test_refusals(
    path: Path, options: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    found = run(["enable", str(path), *options, "-o", str(tmp_path / "out")])
    assert capsys.readouterr().err.splitlines()[-1] == "ftpatch: " + message.format(path=path)
    assert found == code and not (tmp_path / "out").exists()


def test_a_hook_gets_the_entry_and_the_caller(tmp_path: Path) -> None:
    """Its pad has the call, and its address belongs to no function: the stub of pads gives the entry instead."""
    after, journal = enabled(BTI, tmp_path, "--func", "*", "--hook", "hook")
    proof = verify(BTI, after, "--journal", str(journal), "--require", "emulation")["proof"]
    assert proof["callees"] == {"hook": 5} and proof["emulated"] == 5
    image = open_image(str(after))
    stub = next(int(image.base[sec]) for sec in image.sections_named(".text.ftpatch"))
    assert 0x9100_33C0 in image.code(stub, 16).tolist()  # add x0, x30, #12: from behind the call to the entry
    off, _ = enabled(after, tmp_path, "--func", "*", verb="disable", out="off")
    again, journal = enabled(off, tmp_path, "--func", "work", out="again")
    assert verify(off, again, "--journal", str(journal))["proof"]["edits"] == {"site words": 1}
    same, _ = enabled(off, tmp_path, "--func", "work", "--hook", "hook", out="same")
    assert same.read_bytes() == again.read_bytes()


def test_what_was_taken_by_force_can_be_turned_off_and_on(tmp_path: Path) -> None:
    on, journal = enabled(PIE, tmp_path, "--func", "work", "--target", "uses_v3", "--force-target", out="on")
    assert verify(PIE, on, "--journal", str(journal))["proof"]["emulated"] == 0
    assert verify(PIE, on, code=1)["findings"][0]["message"] == (
        "also: its pad calls 0x11c4, which was not shown to keep what a pad needs kept (it changes x3, v3)"
    )
    off, journal = enabled(on, tmp_path, "--func", "work", verb="disable", out="off")
    verify(on, off, "--journal", str(journal))
    assert run(["enable", str(off), "--func", "work", "-o", str(tmp_path / "again")]) == 5
    again, _ = enabled(off, tmp_path, "--func", "work", "--force-target", out="again")
    assert again.read_bytes() == on.read_bytes()
