"""A seeded campaign of random damage to results: how many of it `verify` accepts, and why each of those may be.

    python -m tools.sabotage --seed 7 --runs 5000

Each run takes one result of a verb on a fixture, as no kernel has to be fetched for that, changes it in one way of
`anywhere` or `grown`, and has it verified: without the emulator, which would only help, and half of the times with a
journal that was made to agree with the damage. What is accepted must be, byte for byte, the result of another request,
or differ from a sound one in what only the kernel tells: versions of imports, and names in depends=.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from ftpatch.cli import run
from ftpatch.document.journal import Edit, Journal
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError
from ftpatch.journal.read import read_journal
from ftpatch.proof.changes import differences, place
from ftpatch.proof.prove import Checks, Proof, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import Scan, scan_file
from tools.sabotage import anywhere, grown
from tools.sabotage.layout import layout_of
from tools.sabotage.victim import Victim, applied, victim_of

ROOT = Path(__file__).parents[2] / "testdata"
MODULES_SHARE, GROWN_SHARE = 0.6, 0.7  # of runs on modules, and of those that change whole parts
UNREADABLE = "unreadable"
TWO, ALL = ("--func", "row:8", "--func", "row:9"), ("--func", "*", "--skip-unpatchable")
STEP = ("--func", "mini_step")
FORCED = ("--force-signature", "--assume-register-args")
KERNEL_PAIR = ("--map", "vfs_read=vfs_write", "--map", "slot_probe=vfs_write")
MODULE_PAIRS = ("mini_util=mini_work", "mini_work=_printk", "mini_util=_printk")
PAIR = ("--func", "row:0", "--func", "row:1")


@dataclass(frozen=True)
class Result:
    """A sound result, and how to make others like it."""

    name: str
    victim: Victim
    before: Scan
    sound: bytes
    journal: Journal | None  # of its only step; None where there were several
    steps: tuple[tuple[str, ...], ...]  # verb and options of each


@dataclass
class Score:
    """What came of a campaign."""

    runs: int = 0
    found: Counter[str] = field(default_factory=Counter)  # by rule
    legal: list[str] = field(default_factory=list)  # accepted, with the reason why it may be
    missed: list[str] = field(default_factory=list)  # accepted without one
    crashed: list[str] = field(default_factory=list)


def fixtures() -> Iterator[tuple[str, Path, tuple[tuple[str, ...], ...]]]:
    """(name, file, steps) of what is made of the fixtures."""
    for folder, stub in (("mini", "arm64.S"), ("mini-ppc64le", "ppc64le.S"), ("x86_64", "")):
        for path in sorted((ROOT / folder).glob("vmlinux*")):
            for what, options in (("two", TWO), ("all", ALL), ("all but one", (*ALL, "--func", "!vfs_write"))):
                yield f"{folder}/{path.name} {what}", path, (("enable", *options),)
            yield f"{folder}/{path.name} dropped", path, (("drop", *TWO),)
            yield f"{folder}/{path.name} redirected", path, (("redirect", *KERNEL_PAIR, *FORCED[:1]),)
        module, hook = ROOT / folder / "mini.ko", ("--hook", "_printk")
        steps: dict[str, tuple[tuple[str, ...], ...]] = {
            "jump": (("enable", *PAIR),), "hook": (("enable", *PAIR, *hook),), "all": (("enable", *ALL, *hook),),
            "own function": (("enable", "--func", "row:1", "--func", "row:2", "--hook", "mini_util"),),
            "stub": (("enable", *PAIR, "--stub-asm", str(ROOT / "stubs" / stub)),),
            "twice": (("enable", *PAIR, *hook), ("enable", "--func", "mini_util_probe", *hook)),
            "disabled": (("enable", *PAIR, *hook), ("disable", "--status", "enabled")),
            "enabled, disabled, enabled": (("enable", *PAIR, *hook), ("disable", "--status", "enabled"),
                                           ("enable", "--func", "mini_util_probe", *hook)),
            "dropped": (("drop", *PAIR),),
            **{f"redirected, {pair}": (("redirect", "--map", pair, *FORCED),) for pair in MODULE_PAIRS},
            "redirected twice": (("redirect", "--map", MODULE_PAIRS[0], *FORCED),
                                 ("redirect", "--map", "mini_step=_printk", *FORCED)),
            "redirected, enabled": (("redirect", "--map", MODULE_PAIRS[0], *FORCED), ("enable", *STEP, *hook)),
        }  # fmt: skip
        for what, made in steps.items():
            if stub or not what.startswith(("redirected", "disabled", "enabled,")):  # x86_64 has but --hook in modules
                yield f"{folder}/mini.ko {what}", module, made
    yield "mini/vmlinux-callops-bti thunk", ROOT / "mini/vmlinux-callops-bti", (("enable", *TWO, "--ops-via", "thunk"),)
    far = ROOT / "far/vmlinux-bti"
    yield "far/vmlinux-bti veneers", far, (("enable", "--func", "far_*", "--func", "mid_a"),)
    yield "far/vmlinux-bti veneers and thunk", far, (("enable", *ALL, "--ops-via", "thunk"),)
    yield "far/vmlinux-bti veneer left", far, (("enable", "--func", "far_*"), ("disable", "--func", "far_a"))


def results(made: Iterable[tuple[str, Path, tuple[tuple[str, ...], ...]]], folder: Path) -> Iterator[Result]:
    """What can be made; requests that are refused are passed over, as not every layout has everything."""
    for number, (name, path, steps) in enumerate(made):
        out, journal = folder / f"{number}{path.suffix}", folder / f"{number}.json"
        if not _make(path, steps, out, journal):
            continue
        victim = victim_of(path, out, journal)
        record = read_journal(str(journal)) if len(steps) == 1 else None
        yield Result(name, victim, scan_file(str(path)), out.read_bytes(), record, steps)


def _make(path: Path, steps: Sequence[tuple[str, ...]], out: Path, journal: Path) -> bool:
    """Whether the steps can be made, one on the result of the other."""
    for number, (verb, *options) in enumerate(steps):
        source = path if not number else out
        if run(
            [verb, str(source), *options, "-o", str(out) + ".new", "--report", f"json={journal}", "--format", "json"]
        ):
            return False
        Path(f"{out}.new").replace(out)
    return True


def campaign(some: Sequence[Result], seed: int, runs: int) -> Score:
    """Damage the results at random, `runs` times."""
    rng, score = Random(seed), Score()
    modules = [result for result in some if not result.victim.linked]
    while score.runs < runs:
        result = rng.choice(modules if modules and rng.random() < MODULES_SHARE else some)
        damaged, name = _damaged(result, rng)
        if damaged is None or damaged == result.sound:
            continue
        score.runs += 1
        what = f"run {score.runs}: {result.name}: {name}"
        try:
            proof = verified(result, damaged, rng.random() < 0.5)
        except FtpatchError:
            score.found[UNREADABLE] += 1
            continue
        except Exception as error:
            score.crashed.append(f"{what}: {type(error).__name__}: {error}")
            continue
        score.found.update({finding.rule for finding in proof.findings})
        if not proof.findings:
            reason = why_legal(result, damaged, proof)
            what += f", from {_first_difference(result, damaged)}"
            (score.legal if reason else score.missed).append(f"{what}{': ' * bool(reason)}{reason}")
    return score


def _first_difference(result: Result, damaged: bytes) -> str:
    """Where a damaged result begins to differ, for people."""
    pairs = zip(result.sound, damaged, strict=False)
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(result.sound), len(damaged)))
    return place(result.victim.after, at)


def _damaged(result: Result, rng: Random) -> tuple[bytes | None, str]:
    """The result with one random change, None where the change does not apply; and the name of the change."""
    seed = Random(rng.getrandbits(32))
    if not result.victim.linked and rng.random() < GROWN_SHARE:
        change, layout = rng.choice(grown.CHANGES), layout_of(result.victim.before, result.victim.after)
        return layout.assembled() if change(layout, result.victim, seed) else None, change.__name__
    plain = rng.choice(anywhere.CHANGES)
    damage = plain(result.victim, seed)
    return (None if damage is None else applied(result.sound, damage)), plain.__name__


def verified(result: Result, damaged: bytes, with_journal: bool) -> Proof:
    """The proof of a damaged result."""
    path = result.victim.path.with_name(f"damaged{result.victim.path.suffix}")
    path.write_bytes(damaged)
    after = open_image(str(path))
    journal = forged(result.journal, result.before.image, after) if with_journal and result.journal else None
    return prove(result.before, after, journal, checks=Checks(execute=False, deep=False))


def forged(journal: Journal, before: Image, after: Image) -> Journal:
    """The journal as who did the damage would have written it."""
    runs, size = differences(before, after), len(before.data)
    edits = [Edit(start, before.data[start:end].tobytes(), after.data[start:end].tobytes(), "site")
             for start, end in zip(runs.start.tolist(), runs.end.tolist(), strict=True)]  # fmt: skip
    output = replace(journal.output, sha256=after.sha256, elf_sha256=after.data.sha256())
    return replace(journal, edits=edits, appended=after.data[size:].tobytes(), signature=after.trailer, output=output)


# -- what may be accepted ----------------------------------------------------------------------------------------------


def why_legal(result: Result, damaged: bytes, proof: Proof) -> str:
    """Which other request, or other kernel, has this file as its result; empty where none is known."""
    if len(damaged) == len(result.sound) and (why := _other_kernel(result, damaged, proof)):
        return why
    before, folder = Path(result.before.image.path), result.victim.path.parent
    out = folder / f"other{result.victim.path.suffix}"
    names = [name for name in (*proof.callees, *proof.ops) if name.isidentifier()]
    more = (
        _by_target(result, proof),
        _with_disable(result, proof),
        *_drops(result, proof),
        *_by_redirect(result, proof),
    )
    for steps in (*_other_requests(result, names), *more):
        if steps and _make(before, steps, out, folder / "other.json") and out.read_bytes() == damaged:
            return f"as of {'; '.join(' '.join(step) for step in steps)}"
    if not proof.replacements and _same_but_callees(result, damaged):
        requests = _by_callee(result, proof, [imported.name for imported in proof.imports])
        requests = iter(_by_target(result, proof)) if result.victim.linked else requests
        if all(_make(before, (step,), out, folder / "other.json") for step in requests):
            return f"calls {' and '.join(names)}, each of which a request may name for these sites"
    return ""


def _other_kernel(result: Result, damaged: bytes, proof: Proof) -> str:
    """Whether the file is the sound one but for versions of its imports, which only a kernel tells."""
    masked = [bytearray(result.sound), bytearray(damaged)]
    for imported in proof.imports:
        for content in masked:
            at = content.rfind(imported.name.encode() + b"\0", 0)
            content[max(at - 8, 0) : at] = bytes(min(at, 8))
    return "another kernel's version of an import" if masked[0] == masked[1] and proof.imports else ""


def _other_requests(result: Result, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Requests that may have made a file whose sites lead to these names."""
    *first, (verb, *options) = result.steps
    for option in ("--hook", "--target", "--ops"):
        for name in names:
            if option in options:
                at = options.index(option)
                yield (*first, (verb, *options[: at + 1], name, *options[at + 2 :]))
            else:
                yield (*first, (verb, *options, option, name))


def _by_target(result: Result, proof: Proof) -> tuple[tuple[str, ...], ...]:
    """A request for each target that sites of a kernel have, for just these sites."""
    sites, chosen = result.before.sites, dict[int, list[str]]()
    if not len(proof.calls.pos):
        return ()
    va_of = dict(zip(sites.pos.tolist(), sites.va.tolist(), strict=True))
    for pos, target in zip(proof.calls.pos.tolist(), proof.calls.target.tolist(), strict=True):
        chosen.setdefault(target, []).append(f"{va_of.get(pos, 0):#x}")
    return tuple(("enable", *(word for va in some for word in ("--func", va)), "--target", f"{target:#x}")
                 for target, some in chosen.items() if target)  # fmt: skip


def _by_redirect(result: Result, proof: Proof) -> Iterator[tuple[tuple[str, ...], ...]]:
    """A request for what the redirected functions lead to now, in the order of the sound one's and in theirs."""
    sites, redirects, symbols = result.before.sites, proof.redirects, proof.after.symbols
    row_of = dict(zip(sites.pos.tolist(), range(len(sites)), strict=True))
    pairs = []
    for pos, row, name in zip(redirects.pos.tolist(), redirects.rows.tolist(), redirects.names, strict=True):
        to = f"0x{int(symbols.rows['st_value'][row]):x}" if result.victim.linked else name
        if not result.victim.linked and symbols.shndx[row] > 0:
            to = f"{proof.after.names[int(symbols.shndx[row])]}+0x{int(symbols.rows['st_value'][row]):x}"
        pairs.append(f"row:{int(sites.row[row_of[pos]])}={to}")
    for some in (pairs, pairs[::-1]) if pairs else ():
        yield (("redirect", *(word for pair in some for word in ("--map", pair)), *FORCED),)


def _with_disable(result: Result, proof: Proof) -> tuple[tuple[str, ...], ...]:
    """The result's own steps, and behind them one that disables the sites that call nothing any more."""
    sites, calls = result.before.sites, set(proof.calls.pos.tolist())
    silent = [row for row in proof.gone.tolist() if int(sites.pos[row]) not in calls]
    places = [word for row in silent for word in ("--func", f"{int(sites.va[row]):#x}")]
    return (*result.steps, ("disable", *places)) if silent and result.victim.linked else ()


def _by_callee(result: Result, proof: Proof, imports: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A request for each function that sites of a module call, for just these; what is imported needs a kernel."""
    sites, chosen = result.before.sites, dict[str, list[str]]()
    row_of = dict(zip(sites.pos.tolist(), sites.row.tolist(), strict=True))
    for pos, names in zip(proof.calls.pos.tolist(), proof.calls.names, strict=True):
        for name in names:
            chosen.setdefault(name, []).append(f"row:{row_of[pos]}")
    for name, rows in chosen.items():
        if name not in imports:
            yield ("enable", *(word for row in rows for word in ("--func", row)), "--hook", name)


def _drops(result: Result, proof: Proof) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Requests that drop the records that left: at once, or one of them in another way."""
    sites, gone = result.before.sites, proof.gone.tolist()
    places = [("--func", f"{int(sites.va[row]):#x}") for row in gone]
    if len(proof.calls.pos) or not gone:
        return
    if not result.victim.linked:
        yield (("drop", *(word for row in gone for word in ("--func", f"row:{row}"))),)
        return
    yield (("drop", *(word for place in places for word in place)),)
    for last in range(len(places)):
        rest = [word for at, place in enumerate(places) if at != last for word in place]
        for way in ("null", "minus4", "shrink"):
            yield ("drop", *rest), ("drop", *places[last], "--records", way)


def _same_but_callees(result: Result, damaged: bytes) -> bool:
    """Whether a module is the sound one but for the symbols that relocations of the patch's own code name. Of a kernel,
    and of a module that grew by an import, `verify` sees that nothing else is new."""
    if result.victim.linked or len(damaged) != len(result.sound):
        return result.victim.linked == (len(damaged) == len(result.sound))
    image, masked = result.victim.after, [bytearray(result.sound), bytearray(damaged)]
    for sec in range(len(result.before.image.shdr), len(image.shdr)):
        if image.names[sec].startswith(".rela"):
            start, size = (int(image.shdr[field][sec]) for field in ("sh_offset", "sh_size"))
            for content in masked:
                for row in range(start, start + size, 24):
                    content[row + 12 : row + 16] = bytes(4)
    return masked[0] == masked[1]
