"""arm64 text that a call does not cross: veneers, where they may stand, and what the proof says of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfwriter import BASE, MINI, TEXT, Kernel, add, adrp, as_code, pos_of, symbol, words_at, written
from test_plan import planned
from test_redirect_proof import found

from ftpatch import api
from ftpatch.arch.arm64_proof_text import leaves, names
from ftpatch.arch.arm64_veneer import ENDS, named
from ftpatch.errors import FtpatchError
from ftpatch.proof.prove import prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file
from tools.sabotage.__main__ import quietly

FIXTURES = MINI.parent / "far"
NOP, RET, BR_X16 = 0xD503_201F, 0xD65F_03C0, 0xD61F_0200
FAR = TEXT + 0x200 + (1 << 28)  # 256 MB from ftrace_caller
ROOM = FAR + 16  # where the padding behind it begins, at a multiple of 16


def call(*args: str) -> Any:
    """The IMAGE object of a command that has to succeed."""
    code, text = quietly([*args, "--format", "json"])
    assert code == 0, text
    return json.loads(text)["images"][0]


# -- a linked image ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mid", "far"), [("vmlinux", 0x1C, 0xD0), ("vmlinux-bti", 0x20, 0xD4)])
@pytest.mark.parametrize("ops", ["literal", "thunk"])
def test_a_text_of_450_mb_is_enabled_through_one_veneer_for_each_part(
    name: str, mid: int, far: int, ops: str, tmp_path: Path
) -> None:
    """.text.mid has NOPs alone and one of them stays in front; .text.far has what looks like padding and is not."""
    before, out, journal, back = FIXTURES / name, tmp_path / "out", tmp_path / "journal", tmp_path / "back"
    image = call("enable", str(before), "--func", "*", "-o", str(out), "--ops-via", ops, "--report", f"json={journal}")
    stubs = {site["function"]: site["stub"] for site in image["sites"]}
    file, after = before.read_bytes(), out.read_bytes()
    mid_va, far_va = symbol(file, "mid_a") - 8 + mid, symbol(file, "far_a") - 8 + far
    thunk = stubs["near_a"]
    assert (thunk is not None) == (ops == "thunk")
    assert stubs == {
        "near_a": thunk, "near_b": thunk, "mid_a": f"{mid_va:#x}", "mid_b": f"{mid_va:#x}",
        "far_a": f"{far_va:#x}", "far_b": f"{far_va:#x}", "far_c": f"{far_va:#x}", "init_a": f"{far_va:#x}",
    }  # fmt: skip
    target = int(thunk, 16) if thunk else symbol(file, "ftrace_caller")
    for va in (mid_va, far_va):
        assert words_at(after, va, 3) == [adrp(16, va, target), add(16, 16, target), BR_X16]
    assert words_at(after, mid_va - 4, 1) == [NOP]
    proof = prove(scan_file(str(before)), open_image(str(out)))
    assert (list(proof.findings), proof.outcome.n, proof.outcome.failures) == ([], 8, ())
    call("restore", str(out), "--journal", str(journal), "-o", str(back))
    assert back.read_bytes() == file


def test_the_last_user_takes_its_veneer_along(tmp_path: Path) -> None:
    """And NOPs come back as NOPs, zeros as zeros."""
    before, out, one, all_ = FIXTURES / "vmlinux-bti", tmp_path / "out", tmp_path / "one", tmp_path / "all"
    funcs = [word for name in ("mid_a", "mid_b", "far_a", "far_b") for word in ("--func", name)]
    call("enable", str(before), *funcs, "-o", str(out))
    file = before.read_bytes()
    places = [symbol(file, "mid_a") - 8 + 0x20, symbol(file, "far_a") - 8 + 0xD4]
    enabled = [words_at(out.read_bytes(), va, 3) for va in places]
    call("disable", str(out), "--func", "mid_a", "--func", "far_a", "-o", str(one))
    assert [words_at(one.read_bytes(), va, 3) for va in places] == enabled
    call("verify", str(out), str(one))
    call("disable", str(one), "--func", "mid_b", "--func", "far_b", "-o", str(all_))
    assert all_.read_bytes() == file


def test_a_veneer_of_an_earlier_patch_serves_more_sites(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    call("enable", str(FIXTURES / "vmlinux"), "--func", "far_a", "-o", str(first))
    image = call("enable", str(first), "--func", "far_b", "-o", str(second))
    assert image["sites"][0]["stub"] == f"{symbol(first.read_bytes(), 'far_a') - 8 + 0xD0:#x}"
    assert "stub" not in {edit["owner"].split()[0] for edit in image["edits"]}


def test_who_reads_the_result_sees_what_is_behind_the_veneer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("enable", str(FIXTURES / "vmlinux"), "--func", "far_a", "--func", "near_a", "-o", str(out))
    image = call("scan", str(out), "--sites")
    va = symbol(out.read_bytes(), "far_a") - 8 + 0xD0
    assert image["summary"]["patched"] == [{"calls": "ftrace_caller", "sites": 2, "sure": True, "through_veneer": 1}]
    seen = {site["function"]: (site["calls"], site.get("stub")) for site in image["sites"] if "calls" in site}
    assert seen == {"near_a": ("ftrace_caller", None), "far_a": ("ftrace_caller", f"{va:#x}")}
    assert quietly(["explain", "far_a", str(out)])[1].startswith(
        "far_a: enabled on disk, without a record: it runs the tracer's entry from the first instruction on, and is "
        f"not listed; it calls ftrace_caller through a veneer at {va:#x}\n"
    )
    assert "far_a (calls ftrace_caller through a veneer)\n" in quietly(["scan", str(out), "--sites"])[1]


def test_a_redirect_goes_through_the_same_padding(tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = call("redirect", str(FIXTURES / "vmlinux"), "--func", "far_b", "--to", "near_a", "-o", str(out),
                 "--force-signature", "--assume-register-args")  # fmt: skip
    assert image["sites"][0]["stub"] == f"{symbol(out.read_bytes(), 'far_a') - 8 + 0xD0:#x}"
    call("verify", str(FIXTURES / "vmlinux"), str(out))


def test_a_target_without_a_landing_pad_is_refused_where_jumps_are_guarded() -> None:
    with pytest.raises(FtpatchError, match="reads_it is beyond the call's reach, and begins with no bti c for an "):
        planned(FIXTURES / "vmlinux-bti", "near_a", target="reads_it", force_target=True)
    (stub,) = planned(FIXTURES / "vmlinux", "near_a", target="reads_it", force_target=True).stub
    assert stub


@pytest.mark.parametrize("bit", range(0, 96, 4))
def test_a_veneer_with_another_bit_is_a_finding(bit: int, far_out: Path, tmp_path: Path) -> None:
    damaged = bytearray(far_out.read_bytes())
    damaged[pos_of(bytes(damaged), symbol(bytes(damaged), "far_a") - 8 + 0xD4) + bit // 8] ^= 1 << bit % 8
    assert found(FIXTURES / "vmlinux-bti", Path(written(tmp_path / "damaged", damaged)))


@pytest.fixture(scope="module")
def far_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with far_a and far_b enabled."""
    out = tmp_path_factory.mktemp("far") / "out"
    call("enable", str(FIXTURES / "vmlinux-bti"), "--func", "far_a", "--func", "far_b", "-o", str(out))
    return out


# -- where no veneer may stand -----------------------------------------------------------------------------------------


def kernel(**rest: Any) -> Kernel:
    """Two functions far from the caller, each with four zero words behind it."""
    return Kernel([("near", TEXT + 0x200), ("far", FAR), ("far2", FAR + 0x1000)], table=TEXT + 0x40_0000,
                  far_padding=16, **rest)  # fmt: skip


def with_words(words: Mapping[int, int]) -> bytes:
    file = bytearray(kernel().build())
    for va, word in words.items():
        pos = pos_of(bytes(file), va)
        file[pos : pos + 4] = as_code((word,))
    return bytes(file)


def with_pointer(va: int) -> bytes:
    file = bytearray(kernel().build())
    pos = pos_of(bytes(file), BASE + 0x10_0000)
    file[pos : pos + 8] = struct.pack("<Q", va)
    return bytes(file)


def with_distance(va: int) -> bytes:
    """Data of a table whose rows are distances from themselves; .rodata is 1 MB behind ftrace_caller's page."""
    file = bytearray(kernel().build())
    pos = pos_of(bytes(file), BASE + 0x10_0004)
    file[pos : pos + 4] = struct.pack("<i", va - BASE - 0x10_0004)
    return bytes(file)


def b(va: int, to: int) -> int:
    return 0x1400_0000 | (to - va) // 4 & 0x3FF_FFFF


LAST = FAR + 0x1008  # the return of far2
TAKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "a symbol": (kernel(marks=[("table", ROOM + 4, 4)]).build, "which belongs to table"),
    "a symbol without a size": (kernel(marks=[("label", ROOM, 0)]).build, "behind label, which has no size"),
    "kprobes text": (
        kernel(marks=[("__kprobes_text_start", FAR, 0), ("__kprobes_text_end", FAR + 28, 0)]).build,
        f"between the symbols of {FAR:#x} and {FAR + 28:#x}, whose code is not executed as other code is",
    ),
    "an alternative": (kernel(replaced=[(TEXT + 0x200, ROOM + 4, 8)]).build, "in the code of an alternative"),
    "code that goes on": (
        lambda: with_words({FAR + 8: 0x9100_0400}), "where execution may go on from the code in front",
    ),
    "a call that may return": (
        lambda: with_words({FAR + 8: 0x97FF_FF00}), "where execution may go on from the code in front",
    ),
    "a branch": (
        lambda: with_words({LAST: b(LAST, ROOM + 8)}), "which code of the file names, by a branch or as an address",
    ),
    "an address": (  # adr x0
        lambda: with_words({LAST + 4: 0x1000_0000 | (ROOM - LAST - 4) // 4 << 5 & 0xFF_FFE0}),
        "which code of the file names, by a branch or as an address",
    ),
    "a page and its low bits": (
        lambda: with_words({LAST + 4: adrp(3, LAST + 4, ROOM), LAST + 8: add(4, 3, ROOM + 4)}),
        "which code of the file names, by a branch or as an address",
    ),
    "a distance, as in __ex_table": (lambda: with_distance(ROOM + 4), "which data names, as a pointer or a distance"),
    "a pointer": (lambda: with_pointer(ROOM + 8), "which data names, as a pointer or a distance"),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_no_padding_is_left_alone_and_a_finding(case: str, tmp_path: Path) -> None:
    """The plan takes another place; the place of a plan that knew nothing of it is found by the proof."""
    build, text = TAKEN[case]
    plain = written(tmp_path / "plain", kernel().build())
    taken = written(tmp_path / "taken", build())
    unaware = planned(plain, "far")
    assert unaware.stub == (f"0x{ROOM:016x}",)
    try:
        (stub,) = planned(taken, "far").stub
        assert int(stub, 16) >= FAR + 0x1000
    except FtpatchError as error:  # far2's return was in the way of its padding, too
        assert "out of reach" in str(error) and case.startswith(("a branch", "an address", "a page"))
    after = bytearray(Path(taken).read_bytes())
    veneer = pos_of(bytes(after), ROOM)
    after[veneer : veneer + 12] = unaware.calls.shared[0].words.astype("<u4").tobytes()
    site = pos_of(bytes(after), FAR)
    after[site : site + 8] = unaware.new_words.astype("<u4").tobytes()
    said = found(Path(taken), Path(written(tmp_path / "after", bytes(after))))
    assert f"verify-stub: a shared stub of 12 bytes stands at {ROOM:#x}, {text}" in said


def test_a_relocation_moves_the_veneer(tmp_path: Path) -> None:
    file = bytearray(kernel(relocatable=True, spare=1).build())
    at = file.index(bytes(24), pos_of(bytes(file), BASE + 0x40_0000))
    file[at : at + 24] = struct.pack("<QQQ", ROOM + 4, 1027, FAR)
    (stub,) = planned(written(tmp_path / "v", bytes(file)), "far").stub
    assert int(stub, 16) == FAR + 0x100C


def test_a_segment_that_is_not_executable_has_no_room(tmp_path: Path) -> None:
    file = bytearray((FIXTURES / "vmlinux").read_bytes())
    phoff = struct.unpack_from("<Q", file, 32)[0]
    struct.pack_into("<I", file, phoff + 2 * 56 + 4, 4)  # PF_R alone
    path = written(tmp_path / "v", bytes(file))
    with pytest.raises(
        FtpatchError,
        match=r"far_a .*, -0x1c1fff3c to text tail, -0x12bfffb0 to padding, a",
    ):
        planned(path, "far_a")


@pytest.mark.parametrize("ahead", [0xFF8, 0xFFC])
def test_no_adrp_stands_where_the_erratum_may_hit_it(ahead: int, tmp_path: Path) -> None:
    """Cortex-A53 843419."""
    va = (FAR & ~0xFFF) + ahead - 12
    path = written(tmp_path / "v", Kernel([("near", TEXT + 0x200), ("far", va)], table=TEXT + 0x40_0000,
                                          far_padding=32).build())  # fmt: skip
    assert planned(path, "far").stub == (f"0x{(FAR & ~0xFFF) + 0x1000:016x}",)


def test_a_veneer_reaches_4_gb_and_no_farther(tmp_path: Path) -> None:
    va = TEXT + (1 << 32) + 0x200
    path = written(tmp_path / "v", Kernel([("near", TEXT + 0x200), ("far", va)], table=TEXT + 0x40_0000,
                                          far_padding=32).build())  # fmt: skip
    with pytest.raises(FtpatchError, match=r", -0xfffffff4 to text tail, -0xfffffff8 to padding, a call"):
        planned(path, "far")


def test_only_init_text_uses_init_text(tmp_path: Path) -> None:
    """All other padding within reach is taken, and this is freed after boot."""
    marks = [("_sinittext", FAR, 0), ("_einittext", FAR + 28, 0), ("table", FAR + 0x100C, 16)]
    path = written(tmp_path / "v", kernel(marks=marks).build())
    assert planned(path, "far").stub == (f"0x{FAR + 12:016x}",)
    with pytest.raises(FtpatchError, match=r"far2 .*: out of reach: -0x10001204 bytes to ftrace_caller, "):
        planned(path, "far2")


# -- the two readings --------------------------------------------------------------------------------------------------


def test_two_decoders_agree_on_what_code_names() -> None:
    """One for the plan, one for the proof, on random words of every encoding group."""
    random = np.random.default_rng(16)
    words = random.integers(0, 1 << 32, 4096, dtype=np.uint32)
    near = random.integers(0, 1 << 12, 4096, dtype=np.uint32)
    words = np.where(random.random(4096) < 0.7, words & np.uint32(0xFF00_001F) | near << np.uint32(5), words)
    for low in range(BASE - 0x4000, BASE + 0x8000, 0x400):
        span = np.array([low], dtype=np.uint64).view(np.int64)
        va = int(np.array([BASE], dtype=np.uint64).view(np.int64)[0])
        assert bool(len(named(words, va, span, span + 64))) == names(words, BASE, low, low + 64), hex(low)


def test_two_decoders_agree_on_what_ends_a_path() -> None:
    ends = (RET, BR_X16, 0xD65F_0BFF, 0xD65F_0FFF, 0xD61F_081F, 0xD71F_0911, 0xD69F_03E0, 0x1400_0000)
    for word in ends:
        assert leaves(word) and any(bool(kind.matches(np.array([word], dtype=np.uint32))[0]) for kind in ENDS)
    for word in (0xD63F_0200, 0xD73F_0911, 0x9400_0000, 0x5400_0001, 0xD420_0000, NOP, 0):  # blr, blraa, bl, b.ne, brk
        assert not leaves(word) and not any(bool(kind.matches(np.array([word], dtype=np.uint32))[0]) for kind in ENDS)


def test_the_fixture_is_small_and_wide() -> None:
    for name in ("vmlinux", "vmlinux-bti"):
        scan = api.scan(str(FIXTURES / name))
        assert len(scan.image.data) < 24_000
        assert int(scan.sites.va.max() - scan.sites.va.min()) > 450 << 20
