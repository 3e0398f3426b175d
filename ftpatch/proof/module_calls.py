"""Where the sites of a patched module call, as its relocations say, and what code is there.

loader's jump       a symbol in `.text.ftrace_trampoline`, at one of the jumps
stub of the site's  mflr; bl; mtlr; b ─► behind the site, where sites are out of line
code of the patch   a far stub to the kernel's entry, the stub that calls a hook, or one of the user's own
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.proof_tables import CALL, JUMP
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import NEW, Case, Pairs, SiteCalls
from ftpatch.proof.code_tables import check_code_tables
from ftpatch.proof.decoders import both
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.emulate.loader import load_module
from ftpatch.proof.module_callees import check_circles, count_callees
from ftpatch.proof.module_code import OURS, Calls, Place
from ftpatch.proof.module_own import check_own
from ftpatch.proof.module_redirects import check_redirects, replaced
from ftpatch.proof.module_symbols import DATA, OPS_TEXT, plain
from ftpatch.proof.site_words import stub_faults

MIN_OPS = 216  # bytes of an ops object: the newest kernel reads direct_call at 208 (Linux 6.12)
NEARLY = 3  # words in which a damaged stub may differ from the one that it was; a stub of another kind has others


def check_calls(case: Case, pairs: Pairs) -> None:
    """Every enabled site of the second file: what it calls, its ops, and what is to be seen when it is executed."""
    calls = Calls(case, pairs, case.modules, load_module(case.after.image, case.arch))
    case.memory = calls.loaded.memory
    at = np.flatnonzero(pairs.new == NEW)
    seen = both(case.arch, pairs.words[at])
    wanted = JUMP if pairs.shape.out_of_line else CALL
    for row, i in enumerate(at.tolist()):  # a relocation or two per site
        sec = int(pairs.sec[i])
        to = calls.branch_at(sec, int(pairs.branch_off[i]))
        why = seen.why[row] or ("its branch is of another kind" if seen.kind[row] != wanted else "")
        if not why and not pairs.shape.called and seen.distance[row]:
            why = f"its branch goes {int(seen.distance[row]):+#x} bytes before the loader fills it, expected 0"
        if why or isinstance(to, str):
            pairs.say("verify-branch", i, why or str(to))
        elif pairs.shape.out_of_line:
            _check_stub(calls, i, to)
        else:
            literal = pairs.shape.literal
            _check_target(calls, i, to, sec, None if literal is None else int(pairs.record[i]) + literal)
    redirects = check_redirects(calls)
    check_own(calls)
    check_code_tables(calls)
    check_circles(calls, replaced(calls, redirects))
    count_callees(calls)
    ends = sorted(calls.ends.items())
    pos = pairs.pos[np.array([i for i, _ in ends], dtype=np.int64)]
    ops = np.array([of_site for _, (of_site, _) in ends], dtype=np.uint64)
    case.calls = SiteCalls(pos, np.zeros(len(pos), np.uint64), ops, tuple(called.names for _, (_, called) in ends))


def _check_stub(calls: Calls, at: int, to: Place) -> None:
    """The stub of a site out of line."""
    pairs, image = calls.pairs, calls.image
    sec, resume = int(pairs.sec[at]), int(pairs.branch_off[at]) + 4
    if not calls.is_ours(to, sec):
        pairs.say("verify-branch", at, f"it goes to {calls.name_of(to)}, which is no stub")
        return
    calls.reached.add((to.sec, to.off))
    (fault,), call, last = stub_faults(calls.case, calls.words(to.sec, to.off, 4)[None, :])
    inner, back = (calls.branch_at(to.sec, to.off + off) for off in (4, 12))
    if fault or call.any() or last.any():  # the loader fills in both distances
        pairs.say("verify-stub", at, fault or "its stub's branches have distances before the loader fills them")
    elif isinstance(inner, str) or isinstance(back, str):
        pairs.say("verify-stub", at, f"in its stub {inner if isinstance(inner, str) else back}")
    elif (back.sec, back.off) != (sec, resume):
        pairs.say("verify-stub", at, f"its stub goes on at {image.names[back.sec]}+{back.off:#x}, expected "
                  f"{image.names[sec]}+{resume:#x}")  # fmt: skip
    else:
        _check_target(calls, at, inner, to.sec, to.off - 8)


def _check_target(calls: Calls, at: int, to: Place, sec: int, literal: int | None) -> None:
    """What a call in section `sec` arrives at, and the ops that it will find at offset `literal` of the site's section,
    or of the stub's, where the layout has such a thing."""
    pairs, key = calls.pairs, (to.sec, to.off)
    if calls.jump_of(to, sec) is None:
        if not calls.is_ours(to, sec):
            pairs.say("verify-branch", at, f"it calls {calls.name_of(to)}, which is nothing that a site may call")
            return
        calls.reached.add(key)
        calls.entered[int(pairs.sec[at]), int(pairs.off[at])] = key
        calls.reached |= {(place.sec, place.off) for _, place in calls.branches_of(to) if isinstance(place, Place)}
        if key not in calls.judged:
            calls.judged[key] = _judged(calls, at, to)
        if calls.judged[key] and key not in calls.forced:
            pairs.say("verify-stub", at, calls.judged[key])
            return
    called = calls.called(to, sec)
    if fatal := sorted((called.names | called.pointers) & NORETURN):
        pairs.say("verify-branch", at, f"it calls {', '.join(fatal)}, which never returns")
        return
    ops: int | None = None
    if literal is not None and _reads_ops(calls, to, sec):
        ops, why = _ops(calls, literal, calls.named_at(sec, literal, 8))
        if why:
            pairs.say("verify-literal", at, why)
            return
    calls.ends[at] = ops or 0, called
    _expect_site(calls, at, to, sec, ops)


def _reads_ops(calls: Calls, to: Place, sec: int) -> bool:
    """Whether a call comes to an entry of the kernel's that reads an ops pointer, at once or in the end."""
    if calls.pairs.shape.literal is None and DATA not in map(plain, calls.image.names):
        return False  # nothing is known of the kernel then but that the patch saw no need
    return calls.entry_va(to, sec) is not None or calls.tail_target(to) is not None


def _judged(calls: Calls, at: int, to: Place) -> str:
    """Why code of the patch does not keep a site's contract; empty where it is shown to, or is known to."""
    if to.off % 8:
        return f"it enters {calls.name_of(to)}, and code of a patch begins at multiples of eight"
    if calls.far_target(to) is not None:
        calls.case.kinds["far stub"] += 1
        return ""
    words = calls.words(to.sec, to.off, len(calls.hook_code)).tolist()
    n_wrong = sum(word != other for word, other in zip(words, calls.hook_code, strict=True))
    if not n_wrong:
        calls.case.kinds["hook stub"] += 1
        return calls.hook_unfixed(to)
    if n_wrong <= NEARLY:
        return f"its stub is the one that calls a hook, but for {n_wrong} of its words"

    behind = int(calls.pairs.branch_off[at]) + calls.case.arch.call.size
    reason = calls.why_not_kept(to, (int(calls.pairs.sec[at]), behind))
    calls.case.kinds["stub of another kind"] += 1
    if reason and calls.case.forced:
        calls.forced.add((to.sec, to.off))
    return f"its stub was not shown to keep a site's contract: {reason}" if reason else ""


def _ops(calls: Calls, literal: int, rows: list[tuple[int, int, Place]]) -> tuple[int | None, str]:
    """(va of the ops object that a literal names, or None; why it cannot be one)."""
    case, image = calls.case, calls.image
    if len(rows) != 1 or rows[0][:2] != (literal, case.arch.abs64):
        return None, f"its ops pointer at {literal:#x} has {len(rows)} relocations, expected one to an ops object"
    to = rows[0][2]
    if to.sec <= 0 or plain(image.names[to.sec]) != DATA:
        return None, f"its ops pointer names {calls.name_of(to)}, expected an object in {DATA}"
    content = image.content(to.sec)[to.off :]
    inside = calls.named_at(to.sec, to.off, len(content))
    if len(content) < MIN_OPS or content.any():
        return None, f"its ops object has {len(content)} bytes, expected {MIN_OPS} zeros at the least"
    if len(inside) != 1 or inside[0][:2] != (to.off, case.arch.abs64):
        return None, f"{len(inside)} relocations write its ops object, expected one at its start"
    function = inside[0][2]
    returns = any(
        tuple(calls.words(function.sec, function.off, len(words)).tolist()) == words for words in case.tables.returns
    )
    if function.sec <= 0 or plain(image.names[function.sec]) != OPS_TEXT or not returns:
        return None, f"its ops call {calls.name_of(function)}, expected a function that returns"
    return calls.loaded.va(to.sec, to.off), ""


# -- what is to be seen when a site is executed ------------------------------------------------------------------------


def _expect_site(calls: Calls, at: int, to: Place, sec: int, ops: int | None) -> None:
    """Adds what one run of a site must show, or why it shows nothing."""
    pairs, name, base = calls.pairs, calls.pairs.name(at), calls.loaded.base[int(calls.pairs.sec[at])]
    resume = int(pairs.branch_off[at]) + calls.case.arch.call.size
    target, tail, why = _arrives(calls, to, sec, (int(pairs.sec[at]), resume))
    if (to.sec, to.off) in calls.forced:
        why = "what it calls was taken by force"
    if why:
        calls.case.unclaimed.append(f"{name}: {why}")
    else:
        entry = base + pairs.entry_off(at)
        calls.case.expectations.append(SiteExpectation(name, entry, base + resume, target, ops, tail))


def _arrives(calls: Calls, to: Place, sec: int, resume: tuple[int, int]) -> tuple[int, bool, str]:
    """(where a call arrives, whether that is a C function, why one run cannot show it). resume: section, offset."""
    if (va := calls.entry_va(to, sec)) is not None:
        return va, False, ""
    ways = calls.branches_of(to)
    out = [place for _, place in ways if isinstance(place, Place) and (place.sec, place.off) != resume]
    if calls.forks(to) or len(out) > 1 or _reads_data(calls, to):
        return 0, False, "its stub has more than one way"
    if not out:
        return calls.loaded.va(*resume), False, ""
    if (va := calls.entry_va(out[0], to.sec)) is not None:
        return va, False, ""
    if len(ways) == 1 and ways[0][0] == JUMP:
        return 0, False, "its stub ends in a jump to a function"
    called = calls.loaded.called(calls.image.symbols.name(out[0].symbol))
    return called or 0, True, "" if called else "what its stub calls is not known"


def _reads_data(calls: Calls, to: Place) -> bool:
    """Whether the code has pointers to data, which the emulation does not keep."""
    pointers = [place.sec for _, kind, place in calls.named_at(to.sec, to.off, calls.room(to))
                if kind == calls.case.arch.abs64]  # fmt: skip
    return any(sec and plain(calls.image.names[sec]) not in (DATA, *OURS) for sec in pointers)
