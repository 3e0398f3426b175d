"""Plans: which sites get which words, what stands in the way, and what is told about it."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfwriter import MINI, MOV_X9_X30, TEXT, Kernel, add, adrp, as_code, bl, edited, pos_of, symbol, words_at, written

from ftpatch import api
from ftpatch.document.summary import summary
from ftpatch.errors import FtpatchError, PolicyError, ReachError
from ftpatch.plan.decide import make_plan
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest, DropRequest, EnableRequest
from ftpatch.sites.select import select
from ftpatch.sites.table import ENABLED
from ftpatch.write import contents

LEAVES = (
    "the patched functions leave ftrace's list: "
    "they can no longer be traced by name, kprobed through ftrace or live-patched"
)
NO_FILTER = (
    "this kernel's ftrace_caller has no per-site filter: "
    "a tracer that runs alone also sees the patched sites, whatever its filter"
)
BUILD_ID = "the build-id still names the original build, not these bytes"
SIGNATURE = "a Secure Boot signature over the image is void"


def planned(path: str | Path, *func: str, status: tuple[str, ...] = (), **request: Any) -> Plan:
    scan = api.scan(str(path))
    chosen = select(scan.sites, func, status).mask
    return make_plan(scan, replace(EnableRequest(chosen), **request))


def result(path: str | Path, plan: Plan) -> bytes:
    """The file with the plan's edits in place, whose old bytes must be the file's."""
    file = bytearray(Path(path).read_bytes())
    for pos, old, new, _, _ in plan.edits:
        assert file[pos : pos + len(old)] == old
        file[pos : pos + len(new)] = new
    return bytes(file)


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("vmlinux-pfe2", 0),
        ("vmlinux-pfe2-bti", 4),
        ("vmlinux-exec", 0),
        ("vmlinux-kcfi", 0),
        ("vmlinux-callops", 0),
        ("vmlinux-callops-bti", 4),
    ],
)
def test_a_site_becomes_mov_and_a_call_of_ftrace_caller(name: str, lead: int) -> None:
    """lead: a `bti c` at vfs_read's label stays where it is."""
    before = (MINI / name).read_bytes()
    after = result(MINI / name, planned(MINI / name, "vfs_read"))
    entry = symbol(before, "vfs_read")
    expected = words_at(before, entry, 4)
    expected[lead // 4 : lead // 4 + 2] = [MOV_X9_X30, bl(entry + lead + 4, symbol(before, "ftrace_caller"))]
    assert words_at(after, entry, 4) == expected


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-kcfi", "vmlinux-callops-bti"])
def test_no_byte_of_text_changes_but_the_two_words_of_each_site(name: str) -> None:
    before = (MINI / name).read_bytes()
    plan = planned(MINI / name, "vfs_*", target="ftrace_stub_direct_tramp")
    after = result(MINI / name, plan)
    start, end = (pos_of(before, symbol(before, one)) for one in ("_stext", "vfs_write"))
    changed = {i & ~3 for i in range(start, end + 64) if before[i] != after[i]}
    sites = {int(pos) + 4 * k for pos in plan.scan.sites.pos[plan.index] for k in range(2)}
    assert changed == sites
    assert len(sites) == 4


def test_notes_of_a_kernel_without_call_ops() -> None:
    assert planned(MINI / "vmlinux-pfe2", "vfs_read").notes == (LEAVES, NO_FILTER, BUILD_ID, SIGNATURE)


def test_notes_of_a_kernel_with_call_ops() -> None:
    assert planned(MINI / "vmlinux-callops", "vfs_read").notes == (LEAVES, BUILD_ID, SIGNATURE)
    invisible = "ops nop: the sites run ftrace_caller but no tracer ever sees them"
    assert planned(MINI / "vmlinux-callops", "vfs_read", ops="nop").notes == (LEAVES, invisible, BUILD_ID, SIGNATURE)


def test_weak_leftovers_can_be_patched_when_chosen() -> None:
    plan = planned(MINI / "vmlinux-pfe2", status=("weak-leftover",))
    assert plan.index.tolist() == [4, 15, 18]
    assert plan.reasons == {}


def enabled(name: str, tmp_path: Path, *, call: bool) -> Path:
    """The fixture with vfs_read's site rewritten, or only its first word; the record stays."""
    file = (MINI / name).read_bytes()
    entry = symbol(file, "vfs_read")
    words = [MOV_X9_X30, bl(entry + 4, symbol(file, "ftrace_caller"))]
    return edited(MINI / name, tmp_path / "v", {entry: as_code(words if call else words[:1])})


@pytest.mark.parametrize(
    ("call", "reason"),
    [(True, "already enabled"), (False, "half enabled: the first word is rewritten, the call is missing")],
)
def test_a_site_that_was_rewritten_before_is_refused(call: bool, reason: str, tmp_path: Path) -> None:
    path = enabled("vmlinux-pfe2", tmp_path, call=call)
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_*")
    assert str(caught.value) == (
        f"{path}: 1 of 2 chosen sites cannot be patched: found vfs_read (row 13, .text+0x3e4): {reason}, "
        "expected all of them, or nothing is written – --skip-unpatchable patches the others"
    )
    assert caught.value.details == (f"vfs_read (row 13, .text+0x3e4): {reason}",)
    assert caught.value.exit_code == 5


def test_skip_unpatchable_patches_the_others_and_keeps_the_reason(tmp_path: Path) -> None:
    path = enabled("vmlinux-pfe2", tmp_path, call=True)
    plan = planned(path, "vfs_*", skip_unpatchable=True)
    assert plan.index.tolist() == [17]
    assert plan.reasons == {13: "already enabled"}
    after = result(path, plan)
    entry = symbol(after, "vfs_read")
    assert words_at(after, entry, 4) == words_at(path.read_bytes(), entry, 4)


def test_when_nothing_can_be_patched_nothing_changes(tmp_path: Path) -> None:
    plan = planned(enabled("vmlinux-pfe2", tmp_path, call=True), "vfs_read", skip_unpatchable=True)
    assert (len(plan.edits), plan.notes, len(plan.index)) == (0, (), 0)


def test_an_enabled_site_without_a_record_is_already_enabled(tmp_path: Path) -> None:
    path = written(tmp_path / "one", result(MINI / "vmlinux-callops", planned(MINI / "vmlinux-callops", "vfs_read")))
    with pytest.raises(PolicyError) as caught:
        planned(path, "vfs_read")
    assert caught.value.details == ("vfs_read (no record, .text+0x3b8): already enabled",)


def test_null_slots_cannot_be_patched() -> None:
    with pytest.raises(PolicyError) as caught:
        planned(MINI / "vmlinux-callops", status=("null",))
    reasons = "; ".join(f"unnamed site (row {i}, nowhere): a null slot names no function" for i in range(3))
    assert caught.value.found == reasons


def test_of_many_culprits_the_sentence_shows_three_and_the_details_all(tmp_path: Path) -> None:
    source = MINI / "vmlinux-pfe2"
    path = written(tmp_path / "v", result(source, planned(source, "*")))  # 16 sites without live records
    with pytest.raises(PolicyError) as caught:
        planned(path, "*")
    assert caught.value.what == "16 of 16 chosen sites cannot be patched"
    assert len(caught.value.details) == 16
    assert caught.value.found == "; ".join(caught.value.details[:3]) + "; …"


CALLER = Kernel.CALLER
LOW, HIGH = 1 << 27, (1 << 27) - 4  # how far back and forward a bl spans


def far(branch: int, full: bool = False) -> bytes:
    """A kernel whose function `far` has its call at va `branch`; ftrace_caller is at CALLER. full: no padding."""
    functions = [("f", TEXT + 0x200), ("g", TEXT + 0x210), ("far", branch - 4)]
    return Kernel(functions, full=full, padding=0 if full else 64).build()


@pytest.mark.parametrize("branch", [CALLER + LOW, CALLER - HIGH])
def test_a_branch_at_its_limit_is_encoded(branch: int, tmp_path: Path) -> None:
    path = written(tmp_path / "v", far(branch))
    after = result(path, planned(path, "far"))
    assert words_at(after, branch - 4, 2) == [MOV_X9_X30, bl(branch, CALLER)]


@pytest.mark.parametrize(
    ("branch", "beyond"), [(CALLER + LOW, 0), (CALLER + LOW + 4, 1), (CALLER - HIGH, 0), (CALLER - HIGH - 4, 1)]
)
def test_the_summary_counts_the_sites_that_a_branch_does_not_reach(branch: int, beyond: int, tmp_path: Path) -> None:
    """A branch spans four bytes more backwards than forwards."""
    scan = api.scan(written(tmp_path / "v", far(branch)))
    found = summary(scan)["reach"]
    assert found is not None
    assert (found["beyond"], found["max_distance"]) == (beyond, abs(CALLER - branch))


BR_X16 = 0xD61F_0200
FAR_LOW, FAR_HIGH = CALLER - HIGH - 4, CALLER + LOW + 4  # one step beyond what a call spans


@pytest.mark.parametrize(
    ("branch", "places"),
    [
        (FAR_HIGH, ", no free padding for a stub"),  # the tail is near enough, and taken
        (FAR_LOW, ", +0x8000220 to text tail, +0x800000c to padding"),  # what is free lies behind the caller
    ],
)
def test_a_branch_one_step_out_of_reach_is_refused(branch: int, places: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", far(branch, full=branch == FAR_HIGH))
    reason = (
        f"far (row 2, .text.far+0x0): out of reach: {CALLER - branch:+#x} bytes to ftrace_caller{places}, "
        "a call spans -0x8000000..+0x7fffffc"
    )
    with pytest.raises(ReachError) as caught:
        planned(path, "far", "f")
    assert str(caught.value) == (
        f"{path}: 1 of 2 chosen sites cannot be patched: found {reason}, "
        "expected all of them, or nothing is written – --skip-unpatchable patches the others"
    )


def test_a_branch_one_step_out_of_reach_goes_through_a_veneer(tmp_path: Path) -> None:
    path = written(tmp_path / "v", far(FAR_HIGH))
    plan = planned(path, "far", "f")
    (veneer,) = plan.calls.shared
    after = result(path, plan)
    assert (plan.stub, veneer.name) == (("", f"0x{veneer.va:016x}"), "text tail")
    assert words_at(after, FAR_HIGH - 4, 2) == [MOV_X9_X30, bl(FAR_HIGH, veneer.va)]
    assert words_at(after, veneer.va, 3) == [adrp(16, veneer.va, CALLER), add(16, 16, CALLER), BR_X16]


def test_a_kernel_without_function_tracer_is_refused() -> None:
    scan = api.scan(str(MINI / "vmlinux-notrace"))
    with pytest.raises(FtpatchError) as caught:
        make_plan(scan, EnableRequest(np.zeros(0, bool)))
    assert str(caught.value) == (
        f"{MINI / 'vmlinux-notrace'}: no patch site in this file: found no record table, "
        "expected a kernel or module built with CONFIG_FUNCTION_TRACER"
    )


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-exec", "vmlinux-kcfi", "vmlinux-callops"])
def test_every_site_at_once_leaves_no_live_record_and_every_site_enabled(name: str, tmp_path: Path) -> None:
    after = written(tmp_path / "all", result(MINI / name, planned(MINI / name, "*")))
    scan = api.scan(after)
    names = {scan.sites.name(int(i)) for i in np.flatnonzero(scan.sites.status == 1)}
    before = api.scan(str(MINI / name)).sites
    assert names == {before.name(int(i)) for i in np.flatnonzero(before.status == 0)}
    assert int(scan.records.live.sum()) == int((before.status == 4).sum())  # the weak leftovers


def test_patching_twice_is_patching_once(tmp_path: Path) -> None:
    """Two functions one after the other give the bytes of both at once, where each way leaves no trace of order."""
    source = MINI / "vmlinux-pfe2"
    both = result(source, planned(source, "vfs_read", "vfs_write"))
    one = written(tmp_path / "one", result(source, planned(source, "vfs_read")))
    assert result(one, planned(one, "vfs_write")) == both


def test_the_distance_is_target_minus_branch() -> None:
    file = (MINI / "vmlinux-exec").read_bytes()
    plan = planned(MINI / "vmlinux-exec", "vfs_read")
    assert plan.index.tolist() == [13] and plan.distance is not None
    assert plan.distance.tolist() == [symbol(file, "ftrace_caller") - (symbol(file, "vfs_read") + 4)]
    assert struct.pack("<I", plan.new_words[0][1]) == as_code([bl(0, int(plan.distance[0]))])


def test_the_columns_of_a_plan_have_one_row_per_patched_site() -> None:
    """Of sites with a call of their own, the call is the site's last word; there is no slot and no shared stub."""
    file = (MINI / "vmlinux-exec").read_bytes()
    plan = planned(MINI / "vmlinux-exec", "vfs_*")
    calls = [symbol(file, name) + 4 for name in ("vfs_read", "vfs_write")]
    assert plan.index.tolist() == [13, 17]
    assert plan.calls.call_va.tolist() == calls
    assert plan.calls.branch_to.tolist() == plan.calls.call_to.tolist() == [symbol(file, "ftrace_caller")] * 2
    assert (plan.calls.slot.tolist(), plan.calls.through.tolist(), plan.calls.shared) == ([0, 0], [-1, -1], ())
    assert plan.new_words.tolist() == [[MOV_X9_X30, bl(va, symbol(file, "ftrace_caller"))] for va in calls]


MODULE = MINI / "mini.ko"


@pytest.mark.parametrize("path", [MINI / "vmlinux-pfe2", MINI / "vmlinux-callops", MODULE], ids=lambda path: path.name)
def test_every_verb_makes_the_same_kind_of_plan(path: Path, tmp_path: Path) -> None:
    """One row per changed site in every column, what the verb does to it, and the records that stay and return."""
    scan = api.scan(str(path))
    chosen = select(scan.sites, ["mini_work", "mini_init"] if path == MODULE else ["vfs_read", "vfs_write"]).mask
    enable = make_plan(scan, EnableRequest(chosen))
    (tmp_path / "enabled.ko").write_bytes(contents.assembled(scan.image, enable.edits))
    there = api.scan(str(tmp_path / "enabled.ko"))
    enabled = there.sites.status == ENABLED
    disable = make_plan(there, DisableRequest(enabled))
    drop = make_plan(scan, DropRequest(chosen))
    linked, n_live = scan.image.linked, int(scan.records.live.sum())
    for plan, action, outcome, left in (
        (enable, "call" if linked else "call_via_stub", {"null", "minus4", "cut"}, n_live - 2),
        (disable, "restore", {"returned"}, n_live),
        (drop, "drop", {"null", "minus4", "cut"}, n_live - 2),
    ):
        columns = (plan.new_words, plan.stub, plan.stub_why, plan.record, plan.calls.branch_to, plan.calls.through)
        assert {len(column) for column in columns} == {len(plan.index)} == {2}
        assert [plan.action(at) for at in range(2)] == [action] * 2
        assert set(plan.record) <= outcome
        assert int((plan.scan.records.live & ~plan.gone).sum()) + len(plan.returned) == left
        assert (plan.distance is None) == (plan is not enable or not linked)
        assert (plan.callee is None) == (plan is not enable or linked)
    assert (enable.concurrency(0), disable.concurrency(0), drop.concurrency(0)) == ("pair", "pair", None)
    assert disable.returned.tolist() == disable.index.tolist() == np.flatnonzero(enabled).tolist()
