"""Where the sites of a patched module call, as its relocations say, and what stands there.

loader's jump       a symbol in `.text.ftrace_trampoline`, at one of the jumps
stub of the site's  mflr; bl; mtlr; b ─► behind the site, where sites are out of line
code of the patch   a far stub to the kernel's entry, the stub that calls a hook, or one of the user's own
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.parts import Fixup
from ftpatch.arch.proof_tables import CALL, JUMP
from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.proof.case import Case, SiteCalls
from ftpatch.proof.decoders import both, branches
from ftpatch.proof.emulate.loader import load_module
from ftpatch.proof.module_code import (
    OURS,
    Branch,
    Calls,
    called_names,
    far_target,
    is_ours,
    jump_of,
    name_of,
    tail_target,
)
from ftpatch.proof.module_expectations import expect_site
from ftpatch.proof.pairs import NEW, Pairs
from ftpatch.proof.sections import DATA, OPS_TEXT

MIN_OPS = 216  # bytes of an ops object: the newest kernel reads direct_call at 208 (Linux 6.12)
NEARLY = 3  # words in which a damaged stub may differ from the one that it was; a stub of another kind has others


def check_rest(case: Case) -> None:
    """What lies between the pieces of code that a patch brings along, or waits for a relocation: zeros."""
    image = case.after.image
    symbols = image.symbols
    for sec in range(len(case.before.image.shdr), len(image.shdr)):
        if not image.executable[sec]:
            continue
        content = image.content(sec).copy()
        rows = symbols.rows[symbols.shndx == sec]
        for start, size in zip(rows["st_value"].tolist(), rows["st_size"].tolist(), strict=True):
            content[start : start + size] = 0
        if content.any():
            case.say("verify-stub", f"{image.names[sec]} has bytes outside its functions", sec=sec,
                     off=int(np.argmax(content != 0)))  # fmt: skip


def check_calls(case: Case, pairs: Pairs) -> None:
    """Every enabled site of the second file: what it calls, its ops, and what is to be seen when it is executed."""
    calls = Calls(case, pairs, load_module(case.after.image, case.arch))
    case.memory = calls.loaded.memory
    at = np.flatnonzero(pairs.new == NEW)
    seen = both(case.arch, pairs.words[at])
    wanted = CALL if not pairs.shape.out_of_line else JUMP
    for row, i in enumerate(at.tolist()):  # a relocation or two per site
        why = seen.why[row] or ("its branch is of another kind" if seen.kind[row] != wanted else "")
        if not why and not pairs.shape.called and seen.distance[row]:
            why = f"its branch goes {int(seen.distance[row]):+#x} bytes before the loader fills it, expected 0"
        if why:
            pairs.say("verify-branch", i, why)
        elif pairs.shape.out_of_line:
            _check_stub(calls, i)
        else:
            _check_inline(calls, i)
    found = sorted(calls.found.items())
    ops = np.array([of_site for _, (of_site, _) in found], dtype=np.uint64)
    pos = pairs.pos[np.array([at for at, _ in found], dtype=np.int64)]
    case.calls = SiteCalls(pos, np.zeros(len(pos), np.uint64), ops, tuple(names for _, (_, names) in found))


def _check_inline(calls: Calls, at: int) -> None:
    pairs = calls.pairs
    sec = int(pairs.sec[at])
    to = calls.branch_at(sec, int(pairs.branch_off[at]))
    if isinstance(to, str):
        pairs.say("verify-branch", at, to)
        return
    literal = int(pairs.record[at]) + pairs.shape.literal if pairs.shape.literal is not None else None
    _check_target(calls, at, to, sec, literal)


def _check_stub(calls: Calls, at: int) -> None:
    """The stub of a site out of line."""
    pairs, image = calls.pairs, calls.image
    sec, branch = int(pairs.sec[at]), int(pairs.branch_off[at])
    to = calls.branch_at(sec, branch)
    if isinstance(to, str) or not is_ours(calls, to, sec):
        why = to if isinstance(to, str) else f"it goes to {name_of(calls, to)}, which is no stub"
        pairs.say("verify-branch", at, why)
        return
    words = calls.words(to.sec, to.off, 4)
    kinds, _ = branches(calls.case.arch, words)
    seen = both(calls.case.arch, words.reshape(2, 2))
    save, restore, text = calls.case.tables.site_stub or (0, 0, "")
    right = (int(words[0]), int(words[2])) == (save, restore) and (kinds[1], kinds[3]) == (CALL, JUMP)
    if not right or any(seen.why) or seen.distance.any():
        shown = " ".join(f"{word:08x}" for word in words.tolist())
        pairs.say("verify-stub", at, f"its stub is {shown}, not {text}")
        return
    inner, back = calls.branch_at(to.sec, to.off + 4), calls.branch_at(to.sec, to.off + 12)
    if isinstance(inner, str) or isinstance(back, str):
        pairs.say("verify-stub", at, f"in its stub {inner if isinstance(inner, str) else back}")
    elif (back.sec, back.off) != (sec, branch + 4):
        pairs.say("verify-stub", at, f"its stub goes on at {image.names[back.sec]}+{back.off:#x}, expected "
                  f"{image.names[sec]}+{branch + 4:#x}")  # fmt: skip
    else:
        _check_target(calls, at, inner, to.sec, to.off - 8)


def _check_target(calls: Calls, at: int, to: Branch, sec: int, literal: int | None) -> None:
    """What a call in section `sec` arrives at, and the ops that it will find at offset `literal` of the site's section,
    or of the stub's, where the layout has such a thing."""
    pairs = calls.pairs
    jump = jump_of(calls, to, sec)
    if jump is None and not is_ours(calls, to, sec):
        pairs.say("verify-branch", at, f"it calls {name_of(calls, to)}, which is nothing that a site may call")
        return
    if jump is None and (why := _judge(calls, at, to)) and not calls.forced_code(to):
        pairs.say("verify-stub", at, why)
        return
    ops: int | None = None
    if literal is not None and _reads_ops(calls, to, sec):
        ops, why = _ops(calls, literal, calls.named_at(sec, literal, 8))
        if why:
            pairs.say("verify-literal", at, why)
            return
    calls.found[at] = ops or 0, called_names(calls, to, jump)
    if calls.forced_code(to):
        calls.case.unclaimed.append(f"{pairs.name(at)}: what it calls was taken by force")
    else:
        expect_site(calls, at, to, jump, ops)


def _reads_ops(calls: Calls, to: Branch, sec: int) -> bool:
    """Whether a call comes to an entry of the kernel's that reads an ops pointer, at once or in the end."""
    if calls.pairs.shape.literal is None and DATA not in calls.image.names:
        return False  # nothing is known of the kernel then but that the patch saw no need
    return (
        jump_of(calls, to, sec) is not None or far_target(calls, to) is not None or tail_target(calls, to) is not None
    )


def _judge(calls: Calls, at: int, to: Branch) -> str:
    """Why code of the patch does not keep a site's contract; empty where it is shown to, or is known to."""
    key = to.sec, to.off
    if key not in calls.judged:
        calls.judged[key] = _judged(calls, at, to)
    return calls.judged[key]


def _judged(calls: Calls, at: int, to: Branch) -> str:
    arch, shape, memory = calls.case.arch, calls.pairs.shape, calls.loaded.memory
    modules = arch.modules
    assert modules is not None
    if to.off % 8:
        return f"it enters {name_of(calls, to)}, and code of a patch begins at multiples of eight"
    if far_target(calls, to) is not None:
        calls.case.kinds["far stub"] += 1
        return ""
    known = modules.hook(shape.out_of_line)
    words = calls.words(to.sec, to.off, len(known.words) - known.entry // 4)
    if tuple(words.tolist()) == known.words[known.entry // 4 :]:
        calls.case.kinds["hook stub"] += 1
        right = all(_fixed(calls, to, one, one.off - known.entry) for one in known.fixups)
        return "" if right else "the hook's stub is not relocated as it must be"
    n_wrong = sum(one != two for one, two in zip(words.tolist(), known.words[known.entry // 4 :], strict=True))
    if n_wrong <= NEARLY:
        return f"its stub is the one that calls a hook, but for {n_wrong} of its words"

    def read(va: int, n: int) -> U32:
        places = np.array([va + 4 * i & (1 << 64) - 1 for i in range(n)], dtype=np.uint64)
        found, there = memory.words(places)
        return found[: int(np.argmin(there))] if not there.all() else found

    va, pairs = calls.loaded.va(to.sec, to.off), calls.pairs
    home = calls.loaded.va(int(pairs.sec[at]), int(pairs.branch_off[at]) + 4)
    last = tail_target(calls, to)
    target = calls.loaded.va(last.sec, last.off) if last else None
    reason = arch.keeps_contract(read, va, shape.out_of_line, home, target)
    calls.case.kinds["stub of another kind"] += 1
    if reason and calls.case.forced:
        calls.forced.add((to.sec, to.off))
    return f"its stub was not shown to keep a site's contract: {reason}" if reason else ""


def _fixed(calls: Calls, to: Branch, fixup: Fixup, off: int) -> bool:
    """Whether the hook's stub has the relocation that it needs, and no other, at an offset from its entry."""
    found = calls.named_at(to.sec, to.off + off, 8 if fixup.symbol == "toc" else 4)
    if len(found) != 1 or (found[0][0], found[0][1]) != (to.off + off, fixup.kind):
        return False
    named, modules, symbols = found[0][3], calls.case.arch.modules, calls.image.symbols
    addend = named.off - int(symbols.rows["st_value"][named.symbol])
    name = symbols.name(named.symbol)
    if fixup.symbol == "toc":
        return modules is not None and name == modules.toc and addend == fixup.addend
    function = int(symbols.type[named.symbol]) in (0, t.STT_FUNC) and calls.image.names[named.sec] not in OURS
    return addend == fixup.addend and bool(name) and function


def _ops(calls: Calls, literal: int, found: list[tuple[int, int, int, Branch]]) -> tuple[int | None, str]:
    """(va of the ops object that a literal names, or None; why it cannot be one)."""
    case, image = calls.case, calls.image
    if len(found) != 1 or (found[0][0], found[0][1]) != (literal, case.arch.abs64):
        return None, f"its ops pointer at {literal:#x} has {len(found)} relocations, expected one to an ops object"
    to = found[0][3]
    if to.sec <= 0 or image.names[to.sec] != DATA:
        return None, f"its ops pointer names {name_of(calls, to)}, expected an object in {DATA}"
    content = image.content(to.sec)[to.off :]
    inside = calls.named_at(to.sec, to.off, len(content))
    if len(content) < MIN_OPS or content.any():
        return None, f"its ops object has {len(content)} bytes, expected {MIN_OPS} zeros at the least"
    if len(inside) != 1 or (inside[0][0], inside[0][1]) != (to.off, case.arch.abs64):
        return None, f"{len(inside)} relocations write its ops object, expected one at its start"
    function = inside[0][3]
    right = any(
        tuple(calls.words(function.sec, function.off, len(words)).tolist()) == words for words in case.tables.returns
    )
    if function.sec <= 0 or image.names[function.sec] != OPS_TEXT or not right:
        return None, f"its ops call {name_of(calls, function)}, expected a function that returns"
    return calls.loaded.va(to.sec, to.off), ""
