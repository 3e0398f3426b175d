"""record: what gets a record, in which section, what is mended, what is refused; each result proven and undone."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elfedit import SHDR, Elf
from elfwriter import ALLOC, EXEC, FUNC, LOCAL, NOP, RELA, RET, SECTION, as_code, rela
from elfwriter import Elf as NewElf
from recorded_files import FIXTURES, Record, places, records_of, without_records
from test_signature import files, rsa_key

from ftpatch import api
from ftpatch.cli import run
from ftpatch.errors import FtpatchError

PFE, MCOUNT = "__patchable_function_entries", "__mcount_loc"
WAL, WALG, A = 0x83, 0x283, 0x2
LIVE = FIXTURES.parent / "live"


def made(tmp_path: Path, data: bytes | str, name: str = "in.o") -> Path:
    path = tmp_path / name
    path.write_bytes((FIXTURES / data).read_bytes() if isinstance(data, str) else data)
    return path


def record(path: Path, out: str = "out.o", **options: Any) -> dict[str, Any]:
    """Run it; what its report says. The result is verified and undone each time."""
    target = path.with_name(out)
    layout = options.pop("layout", None)
    delivery = api.Delivery(str(target), (f"json={target}.json",), layout)
    written = api.record(str(path), delivery, **options)
    assert api.verify(str(path), str(target)).findings == ()
    assert api.verify(str(path), str(target), f"{target}.json").findings == ()
    assert run(["restore", str(target), "--journal", f"{target}.json", "-o", str(target) + ".back"]) == 0
    assert target.with_name(out + ".back").read_bytes() == path.read_bytes()
    report: dict[str, Any] = written.document.images[0]  # type: ignore[assignment]
    return report


def stripped(name: str) -> bytes:
    return without_records((FIXTURES / name).read_bytes())


# -- calls of the profiling function -----------------------------------------------------------------------------------

RECORDED = ["local", "global", "weak", "starts", "seldom"]  # not what is in .exit.text and .noinstr.text
CALLS = ["arm64-pg.o", "ppc64le-mprofile.o", "x86_64-fentry.o"]


@pytest.mark.parametrize("name", CALLS)
def test_calls_get_the_records_that_recordmcount_makes(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    report = record(path)
    assert [row["function"] for row in report["recorded"]["functions"]] == RECORDED
    assert (report["recorded"]["section"], report["recorded"]["made"]) == (MCOUNT, 1)
    found = records_of((tmp_path / "out.o").read_bytes())
    assert {(one.section, one.flags, one.link, one.group) for one in found} == {(MCOUNT, A, 0, None)}
    assert [one.code for one in found] == [".text"] * 3 + [".init.text", ".text.unlikely"]
    assert api.scan(str(tmp_path / "out.o")).records.live.sum() == 5
    called = {"arm64-pg.o": "_mcount", "ppc64le-mprofile.o": "_mcount", "x86_64-fentry.o": "__fentry__"}[name]
    assert report["notes"] == [
        f"no record for 2 calls of {called} in .exit.text, .noinstr.text: no kernel traces what is there; --nop makes "
        "them NOPs, as recordmcount does"
    ]


NOPS = {"arm64-pg.o": "1f2003d5", "ppc64le-mprofile.o": "00000060", "x86_64-fentry.o": "0f1f440000"}


@pytest.mark.parametrize("name", CALLS)
def test_nop_makes_nops_of_the_calls_that_no_kernel_traces(tmp_path: Path, name: str) -> None:
    report = record(made(tmp_path, name), nop=True)
    sections = [place.split("+")[0] for place in report["recorded"]["nops"]]
    assert sections == [".exit.text", ".noinstr.text"]
    after = Elf(tmp_path / "out.o")
    for place in report["recorded"]["nops"]:
        section, off = place.split("+")
        pos = after.of_sec(section, "sh_offset") + int(off, 16)
        assert after.raw[pos:].hex().startswith(NOPS[name])
        rows = range(after.of_sec(f".rela{section}", "sh_size") // 24)
        assert int(off, 16) not in {after.relocation(f".rela{section}", row, "r_offset") for row in rows}
    kept = [note for note in report["notes"] if note.startswith("recorded calls stay calls: ")]
    assert len(kept) == 1
    assert ("CC_USING_NOP_MCOUNT" in kept[0]) == name.startswith("x86_64")


def test_recorded_calls_become_nops_where_a_module_shows_such_a_kernel(tmp_path: Path) -> None:
    report = record(made(tmp_path, "x86_64-fentry.o"), nop=True, against=[str(FIXTURES / "x86_64-nop.o")])
    assert len(report["recorded"]["nops"]) == 7
    data = (tmp_path / "out.o").read_bytes()
    code = api.scan(str(tmp_path / "out.o")).sites
    assert {bytes(row.tolist()).hex() for row in code.body()} == {"0f1f440000"}
    again = made(tmp_path, without_records(data), "bare.o")
    record(again, "again.o", func=["*"])
    assert places((tmp_path / "again.o").read_bytes()) == places(data)


def test_a_nop_of_x86_64_is_a_site_behind_endbr64(tmp_path: Path) -> None:
    data = (FIXTURES / "x86_64-nop.o").read_bytes()
    record(made(tmp_path, without_records(data)), func=["*"])
    ours = places((tmp_path / "out.o").read_bytes(), (MCOUNT,))
    untraced = [Elf(FIXTURES / "x86_64-nop.o").sec(name) for name in (".exit.text", ".noinstr.text")]
    assert ours == [place for place in places(data) if place[0] not in untraced]
    assert {off % 16 for _, off in ours} == {0, 4}


# -- functions by name -------------------------------------------------------------------------------------------------

COMPILED = ["arm64-clang.o", "arm64-gcc12.o", "arm64-callops.o", "arm64-comdat.o", "arm64-comdat-clang.o"]


def traced(name: str) -> list[Record]:
    """What a compiler recorded, but for exit text."""
    return [one for one in records_of((FIXTURES / name).read_bytes()) if one.code != ".exit.text"]


@pytest.mark.parametrize("way", ["by name", "by another build"])
@pytest.mark.parametrize("name", COMPILED)
def test_restored_records_are_those_of_the_compiler(tmp_path: Path, name: str, way: str) -> None:
    options: dict[str, Any] = {"func": ["*"]} if way == "by name" else {"other": str(FIXTURES / name)}
    report = record(made(tmp_path, stripped(name)), **options)
    found, wanted = records_of((tmp_path / "out.o").read_bytes()), traced(name)
    assert [one[:4] for one in found] == [one[:4] for one in wanted]
    if "clang" in name:
        assert found == wanted  # gcc 12 links all to the first: GCC PR 110729
    for one in found:
        assert (one.link, one.flags) == (one.number, WAL if one.group is None else WALG)
    assert report["recorded"]["layout"] == ("callops" if "callops" in name else "pfe2")


def test_records_of_an_inline_function_are_in_its_group(tmp_path: Path) -> None:
    record(made(tmp_path, stripped("arm64-comdat.o")), func=["*"])
    found = {one.code: one for one in records_of((tmp_path / "out.o").read_bytes())}
    after = Elf(tmp_path / "out.o")
    group = after.sec(".group")
    assert (found[".text"].group, found[".text._Z6sharedi"].group) == (None, group)
    content = after.raw[after.of_sec(".group", "sh_offset") :][: after.of_sec(".group", "sh_size")]
    members = struct.unpack(f"<{len(content) // 4}I", content)[1:]
    assert [after.names()[one] for one in members] == [
        ".text._Z6sharedi", ".rela.text._Z6sharedi", PFE, f".rela{PFE}",
    ]  # fmt: skip


def test_only_functions_that_are_named_get_records(tmp_path: Path) -> None:
    report = record(made(tmp_path, stripped("arm64-clang.o")), func=["starts", "glob*"])
    assert [row["function"] for row in report["recorded"]["functions"]] == ["global", "starts"]
    second = record(tmp_path / "out.o", "second.o", func=["*"])
    assert (second["recorded"]["kept"], second["recorded"]["added"]) == (2, 4)
    data = (tmp_path / "second.o").read_bytes()
    assert [one[:4] for one in records_of(data)] == [one[:4] for one in traced("arm64-clang.o")]


def test_a_pattern_passes_functions_without_a_site_by_and_a_list_of_names_may_skip_them(tmp_path: Path) -> None:
    path = made(tmp_path, stripped("arm64-clang.o"))
    (tmp_path / "list").write_text("local\nnotrace\nleaves\n")
    report = record(path, func=[f"@{tmp_path}/list"], skip_unpatchable=True)
    assert [row["function"] for row in report["recorded"]["functions"]] == ["local"]
    assert {row["function"]: row["reason"][:30] for row in report["recorded"]["left"]} == {
        "notrace": "no site at its entry, found a9", "leaves": "no kernel traces what is in .e",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["arm64.ko", "ppc64le.ko"])
def test_a_live_patch_keeps_all_that_is_special_in_it(tmp_path: Path, name: str) -> None:
    shipped = (LIVE / name).read_bytes()
    path = made(tmp_path, without_records(shipped), "in.ko")
    record(path, "out.ko", other=str(LIVE / name))
    data, before = (tmp_path / "out.ko").read_bytes(), path.read_bytes()
    assert places(data) == places(shipped)
    assert {at for at in range(len(before)) if before[at] != data[at]} <= {*range(40, 48), 60, 61}
    live = api.scan(str(tmp_path / "out.ko"))
    from ftpatch.kernel.live_patch import live_patch_of

    patch, was = live_patch_of(live.image), live_patch_of(api.scan(str(LIVE / name)).image)
    assert patch is not None and was is not None
    assert (patch.functions, patch.symbols, patch.objects) == (was.functions, was.symbols, was.objects)


def test_a_module_has_one_section_for_all_code(tmp_path: Path, mini: Path) -> None:
    shipped = (mini / "mini.ko").read_bytes()
    path = made(tmp_path, without_records(shipped), "in.ko")
    record(path, "out.ko", other=str(mini / "mini.ko"))
    found = records_of((tmp_path / "out.ko").read_bytes())
    assert [one[:3] for one in found] == [one[:3] for one in records_of(shipped)]
    assert len({one.code for one in found}) > 1
    assert {(one.flags, one.link) for one in found} == {(WAL, min(one.number for one in found))}


def test_many_sections_with_extended_numbers(tmp_path: Path) -> None:
    """65,300 sections of code: their numbers do not fit a symbol, and those of new sections neither."""
    n, elf, code = 65_300, NewElf(e_type=1), as_code((NOP, NOP, RET))
    for number in range(n):
        elf.section(f".text.f{number}" if number % 1000 == 0 else ".text", code if number % 1000 == 0 else b"",
                    flags=ALLOC | EXEC, align=4)  # fmt: skip
    named = range(0, n, 1000)
    for number in named:
        elf.symbol("", 1 + number, 0, type=SECTION, bind=LOCAL)
    for number in named:
        elf.symbol(f"f{number}", 1 + number, 0, 12)
    path = made(tmp_path, elf.build())
    written = api.record(str(path), api.Delivery(str(tmp_path / "out.o"), hashed=False), func=["*"])
    assert written.plan.recording is not None and written.plan.recording.made == len(named)
    after = api.scan(str(tmp_path / "out.o"))
    assert after.records.sec.tolist() == [1 + number for number in named]
    assert len(after.image.shdr) == len(written.plan.scan.image.shdr) + 2 * len(named)
    assert api.verify(str(path), str(tmp_path / "out.o")).findings == ()


# -- which layout, which section ---------------------------------------------------------------------------------------


def padded(front: bool) -> bytes:
    """Two functions with NOPs at their entries and in front; the first thing of the section is one of them, or not."""
    elf = NewElf(e_type=1)
    lead = 0 if front else 4
    words = (*(RET,) * lead, *(NOP,) * 4, RET, RET, *(NOP,) * 4, RET)
    sec = elf.section(".text", as_code(words), flags=ALLOC | EXEC, align=8)
    elf.symbol("", sec, 0, type=SECTION, bind=LOCAL)
    elf.symbol("first", sec, 4 * lead + 8, 16)
    elf.symbol("second", sec, 4 * lead + 32, 12)
    return elf.build()


def test_padding_is_not_taken_for_half_a_site(tmp_path: Path) -> None:
    path = made(tmp_path, padded(front=False))
    with pytest.raises(FtpatchError) as refused:
        record(path, func=["*"])
    assert str(refused.value) == (
        f"{path}: the NOPs do not tell the layout: found 2 functions with NOPs at the entry and in front, as padding "
        "has them, too – --layout NAME tells it (callops or pfe2), or --against a file of the same kernel"
    )
    record(path, func=["*"], layout="pfe2")
    assert places((tmp_path / "out.o").read_bytes()) == [(1, 24), (1, 48)]
    record(path, func=["*"], layout="callops")
    assert places((tmp_path / "out.o").read_bytes()) == [(1, 16), (1, 40)]
    record(path, func=["*"], against=[str(FIXTURES / "arm64-callops.o")])
    assert places((tmp_path / "out.o").read_bytes()) == [(1, 16), (1, 40)]
    record(made(tmp_path, padded(front=True)), func=["*"])
    assert places((tmp_path / "out.o").read_bytes()) == [(1, 0), (1, 24)]


def test_the_section_is_asked_for_where_files_contradict_each_other(tmp_path: Path) -> None:
    path = made(tmp_path, "arm64-pg.o")
    with pytest.raises(FtpatchError) as refused:
        record(path, against=[str(FIXTURES / "arm64-clang.o")])
    assert str(refused.value) == (
        f"{path}: the section of the records is not certain: found sites that belong into {MCOUNT}, but "
        f"{FIXTURES}/arm64-clang.o has its records in {PFE} – --section {PFE} or {MCOUNT} decides it"
    )
    report = record(path, against=[str(FIXTURES / "arm64-clang.o")], section=MCOUNT)
    assert report["recorded"]["section_why"] == "asked for"


def test_all_records_move_into_the_section_that_is_asked_for(tmp_path: Path) -> None:
    path = made(tmp_path, "arm64-clang.o")
    report = record(path, section=MCOUNT)
    assert report["recorded"]["repairs"][0] == f"1 record of section 4 {PFE} moved: {MCOUNT} was asked for"
    found = records_of((tmp_path / "out.o").read_bytes())
    assert {(one.section, one.flags, one.link) for one in found} == {(MCOUNT, A, 0)}
    assert [one[:3] for one in found] == [one[:3] for one in records_of(path.read_bytes())]


# -- what is mended ----------------------------------------------------------------------------------------------------


def clang() -> Elf:
    return Elf(FIXTURES / "arm64-clang.o")


def mended(**fields: int) -> Callable[[], Elf]:
    """The fixture with other fields in the header of its first record section."""
    return lambda: clang().sh(PFE, **fields)


def twice() -> Elf:
    elf = clang()
    second = [at for at in range(elf.n_sections()) if elf.names()[at] == f".rela{PFE}"][1]
    pos = elf.get(SHDR, elf.header(second), "sh_offset")
    elf.raw[pos + 16 : pos + 24] = bytes(8)  # the place of the first
    return elf


def nowhere() -> Elf:
    return clang().rela(f".rela{PFE}", 0, r_info=0)


def no_symbol() -> Elf:
    return clang().rela(f".rela{PFE}", 0, r_sym=0)


def of_data() -> Elf:
    elf = clang()
    data = 1 + next(row for row, at in enumerate(list(elf.symbols())[1:]) if elf.raw[at + 4] == 3 and
                    elf.names()[elf.raw[at + 6]] not in ("", ".text", ".init.text"))  # fmt: skip
    return elf.rela(f".rela{PFE}", 0, r_sym=data, r_addend=0x1000)


GONE = "section 4 __patchable_function_entries, slot 0 (1): "
MENDED: list[tuple[str, Callable[[], Elf], list[str], list[str], int]] = [
    ("no link", mended(sh_link=0), [f"section 4 {PFE}: sh_link 0x0 is 0x2 now"], [], 7),
    ("another link", mended(sh_link=20), [f"section 4 {PFE}: sh_link 0x14 is 0x2 now"], [], 7),
    ("no link order", mended(sh_flags=3), [f"section 4 {PFE}: sh_flags 0x3 is 0x83 now"], [], 7),
    ("not loaded", mended(sh_flags=0), [f"section 4 {PFE}: sh_flags 0x0 is 0x83 now"], [], 7),
    ("entry size", mended(sh_entsize=24), [f"section 4 {PFE}: sh_entsize 0x18 is 0x0 now"], [], 7),
    ("alignment", mended(sh_addralign=1), [f"section 4 {PFE}: sh_addralign 0x1 is 0x8 now"], [], 7),
    ("no power of two", mended(sh_addralign=12), [f"section 4 {PFE}: sh_addralign 0xc is 0x8 now"], [], 7),
    ("doubled", twice, [], [f"section 6 {PFE}, slot 0 (1): another record names the same place"], 6),
    ("no relocation", nowhere, [], [GONE + "it has no relocation: its function was discarded"], 6),
    ("no symbol", no_symbol, [], [GONE + "its relocation names no symbol: its function was discarded"], 6),
    ("no code", of_data, [], [GONE + "it names no code"], 6),
]  # fmt: skip


@pytest.mark.parametrize(
    ("break_it", "repairs", "lost", "n"), [row[1:] for row in MENDED], ids=[row[0] for row in MENDED]
)
def test_sections_are_mended_and_lost_records_leave(
    tmp_path: Path, break_it: Callable[[], Elf], repairs: list[str], lost: list[str], n: int
) -> None:
    path = made(tmp_path, bytes(break_it().raw))
    out = tmp_path / "out.o"
    written = api.record(str(path), api.Delivery(str(out)))
    done = written.document.images[0]["recorded"]
    assert (done["repairs"], done["lost"], done["kept"], done["added"]) == (repairs, lost, n, 0)
    assert api.verify(str(path), str(out)).findings == ()
    found = records_of(out.read_bytes())
    assert (len(found), {one.link == one.number for one in found}) == (n, {True})
    assert "link-order" not in {finding.rule for one in api.check(str(out)).files for finding in one.findings}
    again = api.record(str(out), api.Delivery(str(tmp_path / "again.o")))
    assert (tmp_path / "again.o").read_bytes() == out.read_bytes()
    assert again.plan.notes == (
        f"nothing to do: {n} records are there, and the file shows no other that belongs there",
    )


def test_the_records_of_gcc_12_move_to_their_code(tmp_path: Path) -> None:
    report = record(made(tmp_path, "arm64-comdat.o"))
    assert report["recorded"]["repairs"] == [
        f"1 record of section 8 {PFE} moved: a linker is to keep or drop them with their code",
        f"section 8 {PFE}: sh_link 0x6 is 0x2 now",
    ]
    found = records_of((tmp_path / "out.o").read_bytes())
    assert [(one.code, one.link == one.number, one.flags) for one in found] == [
        (".text", True, WAL), (".text._Z6sharedi", True, WALG),
    ]  # fmt: skip


def test_a_module_with_several_record_sections_keeps_the_first(tmp_path: Path, mini: Path) -> None:
    elf = Elf(mini / "mini.ko")
    symbol = elf.relocation(f".rela{PFE}", 0, "r_sym")
    first, table = elf.get(SHDR, elf.header(elf.sec(PFE)), "sh_name"), elf.of_sec(f".rela{PFE}", "sh_name")
    n = elf.of_sec(PFE, "sh_size") // 8
    last = elf.relocation(f".rela{PFE}", n - 1, "r_addend"), elf.relocation(f".rela{PFE}", n - 1, "r_sym")
    elf.sh(PFE, sh_size=8 * (n - 1)).sh(f".rela{PFE}", sh_size=24 * (n - 1))
    second = elf.add(bytes(8), sh_type=1, sh_flags=WAL, sh_name=first, sh_link=elf.of_sec(PFE, "sh_link"))
    elf.add(rela(0, 257, *last), sh_type=RELA, sh_name=table, sh_info=second, sh_flags=0x40, sh_entsize=24,
            sh_link=elf.sec(".symtab"))  # fmt: skip
    assert symbol
    path = made(tmp_path, bytes(elf.raw), "in.ko")
    report = record(path, "out.ko")
    assert report["recorded"]["repairs"] == [
        f"1 record of section {second} {PFE} moved: the kernel reads the first section of that name alone"
    ]
    assert places((tmp_path / "out.ko").read_bytes()) == places((mini / "mini.ko").read_bytes())
    assert Elf(tmp_path / "out.ko").of_sec(PFE, "sh_size") == 8 * n


def test_nothing_to_do_writes_the_same_bytes_with_the_signature(tmp_path: Path, mini: Path) -> None:
    data = (mini / "mini.ko").read_bytes()
    path = made(tmp_path, data, "in.ko")
    key, certificate = files(tmp_path, rsa_key())
    assert run(["record", str(path), "-o", str(tmp_path / "signed.ko"), "--sign", str(key), str(certificate)]) == 0
    signed = (tmp_path / "signed.ko").read_bytes()
    assert run(["record", str(tmp_path / "signed.ko"), "-o", str(tmp_path / "same.ko")]) == 0
    assert (tmp_path / "same.ko").read_bytes() == signed


# -- refusals ----------------------------------------------------------------------------------------------------------


def of(name: str) -> Callable[[], bytes]:
    return lambda: (FIXTURES / name).read_bytes()


def bare(name: str) -> Callable[[], bytes]:
    return lambda: stripped(name)


def edited(name: str, section: str, **fields: int) -> Callable[[], bytes]:
    return lambda: bytes(Elf(FIXTURES / name).sh(section, **fields).raw)


def weak_only() -> bytes:
    elf = NewElf(e_type=1)
    sec = elf.section(".text", as_code((NOP, NOP, RET)), flags=ALLOC | EXEC, align=4)
    elf.symbol("weak", sec, 0, 12, FUNC, 2)
    return elf.build()


def not_loaded() -> bytes:
    elf = Elf(FIXTURES / "arm64-clang.o")
    return without_records(bytes(elf.sh(".init.text", sh_flags=4).raw))


def patched(words: tuple[int, int]) -> Callable[[], bytes]:
    """The object with other words at the entry of `starts`."""

    def make() -> bytes:
        elf = Elf(FIXTURES / "arm64-clang.o").poke(".init.text", 0, as_code(words))
        return without_records(bytes(elf.raw))

    return make


SKIP = "expected a site as a compiler leaves it – --skip-unpatchable leaves them out"
ONE = "a function cannot have a record: found {}, " + SKIP
PATCHED = "starts: its site is patched already, by an earlier patch: ftpatch disable gives it its NOPs back"
SITE = "{}: no site at its entry, found {}"
REFUSED: list[tuple[str, Callable[[], bytes], list[str], int, str]] = [
    ("linked", lambda: (FIXTURES.parent / "mini" / "vmlinux-pfe2").read_bytes(), [], 5,
     "IN: the record table of a linked file cannot grow: found vmlinux, expected an object or module (ET_REL) – record "
     "the objects, or vmlinux.o, and link again"),
    ("no call and no name", bare("arm64-clang.o"), [], 5,
     "IN: nothing tells which functions are to be recorded: found no direct call of a profiling function, and no "
     "record – --func NAME names functions with NOPs at their entries, --from FILE another build that has its records"),
    ("calls through a pointer", lambda: (FIXTURES.parent / "calls" / "x86_64-got.o").read_bytes(), [], 5,
     "found no direct call of a profiling function, 5 through a pointer, which no tracer of a kernel can switch, and "
     "no record"),
    ("no NOPs", bare("arm64-clang.o"), ["--func", "notrace"], 5,
     "IN: " + ONE.format(SITE.format("notrace", "a9bf7bfd 910003fd 94000000 52800168"))),
    ("exit text", bare("arm64-clang.o"), ["--func", "leaves"], 5,
     "IN: " + ONE.format("leaves: no kernel traces what is in .exit.text")),
    ("noinstr calls", of("arm64-pg.o"), ["--func", "bare"], 5,
     "IN: " + ONE.format("bare: no kernel traces what is in .noinstr.text")),
    ("broken by gcc 12", bare("ppc64le-broken.o"), ["--func", "global"], 5,
     "IN: " + ONE.format("global: the NOPs stand in front of the set-up of r2, which is then off by 8: code that gcc "
                         "12 breaks")),
    ("enabled", patched((0xAA1E03E9, 0x94000000)), ["--func", "starts"], 5,
     "IN: " + ONE.format(PATCHED)),
    ("half", patched((0xAA1E03E9, NOP)), ["--func", "starts"], 5,
     "IN: " + ONE.format(PATCHED)),
    ("not loaded", not_loaded, ["--func", "starts"], 5,
     "IN: " + ONE.format("starts: its section .init.text is no code that is loaded")),
    ("no such name", bare("arm64-clang.o"), ["--func", "nobody"], 5,
     "nobody: nothing of that name: found no patch site, expected a function, see ftpatch scan --sites – it may be "
     "inlined, renamed by the compiler (.isra, .constprop), or in a module"),
    ("weak symbols alone", weak_only, ["--func", "weak"], 5,
     "IN: " + ONE.format("weak: its section .text has no symbol that a record could count from, but weak ones")),
    ("no such section", of("arm64-pg.o"), ["--section", "__ftrace"], 2,
     f"--section: no kernel of this machine reads that section: found __ftrace, expected {PFE} or {MCOUNT}"),
    ("padding of x86", of("x86_64-fentry.o"), ["--section", PFE], 2,
     f"--section: no kernel of this machine reads that section: found {PFE}, expected {MCOUNT}"),
    ("another layout than the records show", of("arm64-callops.o"), ["--func", "*", "--layout", "pfe2"], 5,
     "IN: --layout contradicts the records of the file: found callops, expected pfe2 – one file has one layout"),
    ("damaged code", lambda: bytes(Elf(FIXTURES / "ppc64le-mprofile.o").poke(".text", 0xBF, b"\1").raw), [], 5,
     "IN: 1 place is no site as a compiler leaves it: found .text+0xbc: 01000001 7c0802a6 f8010010 f821ffe1, expected "
     "the code of the layout mprofile"),
    ("no such layout", bare("arm64-clang.o"), ["--func", "*", "--layout", "mcount"], 4,
     "IN: no layout of that name is told by the words at an entry: found mcount, expected callops or pfe2"),
    ("from and func", bare("arm64-clang.o"), ["--func", "*", "--from", str(FIXTURES / "arm64-clang.o")], 2,
     "--func and --from exclude each other – one of them names the functions"),
    ("from another machine", bare("arm64-clang.o"), ["--from", str(FIXTURES / "x86_64-nop.o")], 2,
     "--from is for another machine: found x86_64, expected arm64"),
    ("from nothing", bare("arm64-clang.o"), ["--from", str(FIXTURES / "arm64-pg.o")], 5,
     "found no record, expected an object or module of the same sources that has its records"),
    ("from other code", lambda: stripped("arm64-callops.o"), ["--from", str(FIXTURES / "arm64-comdat.o")], 5,
     "IN: 2 functions cannot have a record: found _Z6sharedi: no function of that name has a site here; _Z3owni: no "
     "function of that name has a site here, " + SKIP),
    ("output is input", bare("arm64-clang.o"), ["--func", "*", "-o", "IN"], 2,
     "IN: the output is the input – name another output, or use --in-place"),
    ("link out of range", edited("arm64-clang.o", PFE, sh_link=900), [], 3,
     "IN: a section's sh_link is no section: found section 4, expected a link below"),
    ("half a slot", edited("arm64-clang.o", PFE, sh_size=5), [], 3,
     f"section 4 {PFE}: the record section holds no whole number of slots: found 5 bytes"),
    ("no contents", edited("arm64-clang.o", PFE, sh_type=8), [], 3,
     f"IN: section 4 {PFE}: the record section has no contents: found SHT_NOBITS, expected SHT_PROGBITS"),
    ("relocations without addends", edited("arm64-pg.o", ".rela.text", sh_type=9), [], 3,
     "relocations without addends: found SHT_REL, expected SHT_RELA – the compilers of this machine make no such "
     "table"),
    ("another type", lambda: bytes(Elf(FIXTURES / "arm64-clang.o").rela(f".rela{PFE}", 0, r_type=258).raw), [], 3,
     "a record has a relocation of another type: found type 258, expected type 257, a 64-bit address"),
    ("outside the slots", lambda: bytes(Elf(FIXTURES / "arm64-clang.o").rela(f".rela{PFE}", 0, r_offset=8).raw), [], 3,
     "a record's relocation lies outside the section's slots"),
    ("no such symbol", lambda: bytes(Elf(FIXTURES / "arm64-clang.o").rela(f".rela{PFE}", 0, r_sym=9999).raw), [], 3,
     "a record's relocation names no symbol of this file: found symbol 9999, expected less than"),
    ("group of nothing", lambda: bytes(Elf(FIXTURES / "arm64-comdat.o").poke(".group", 4, b"\x84\x03\0\0").raw), [], 3,
     "the group names no section of the file: found section 900, expected one below"),
    ("group that ends early", edited("arm64-comdat.o", ".group", sh_size=6), [], 3,
     "the group is no list of section numbers: found 6 bytes, expected the flags and 4 bytes a member"),
    ("not in its group", edited("arm64-comdat.o", ".group", sh_size=4), [], 3,
     "a section is of a group that no group section lists: found section 6 .text._Z6sharedi with SHF_GROUP"),
    ("truncated", lambda: of("arm64-pg.o")()[:2000], [], 3, "IN: "),
    ("no ELF file", lambda: b"#!/bin/sh\n", [], 3, "IN: not an ELF file"),
    ("another machine", lambda: bytes(Elf(FIXTURES / "arm64-pg.o").ehdr(e_machine=243).raw), [], 4,
     "IN: machine not supported: found e_machine 243 (riscv)"),
    ("no symbols", lambda: bytes(Elf(FIXTURES / "arm64-pg.o").sh(".symtab", sh_type=1).raw), ["--func", "*"], 5,
     "*: nothing of that name: found no patch site"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "options", "code", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Callable[[], bytes], options: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    path = made(tmp_path, content())
    before = sorted(tmp_path.iterdir())
    out = [] if "-o" in options else ["-o", str(tmp_path / "out.o")]
    capsys.readouterr()
    assert run(["record", str(path), *(option.replace("IN", str(path)) for option in options), *out]) == code
    assert message.replace("IN", str(path)) in capsys.readouterr().err.strip().split("\n")[-1]
    assert sorted(tmp_path.iterdir()) == before


# -- what verify finds -------------------------------------------------------------------------------------------------


def table(elf: Elf) -> str:
    return f".rela{MCOUNT}" if MCOUNT in elf.names() else f".rela{PFE}"


SABOTAGE: list[tuple[str, Callable[[Elf], object], str]] = [
    ("moved by 4", lambda elf: elf.rela(table(elf), 1, r_addend=elf.relocation(table(elf), 1, "r_addend") + 4),
     "verify-record"),
    ("moved to another function's body", lambda elf: elf.rela(table(elf), 0, r_addend=8), "verify-record"),
    ("doubled", lambda elf: elf.rela(table(elf), 1, r_addend=elf.relocation(table(elf), 0, "r_addend")),
     "verify-record"),
    ("another section", lambda elf: elf.rela(table(elf), 0, r_sym=elf.relocation(table(elf), 3, "r_sym"), r_addend=4),
     "verify-record"),
    ("no relocation", lambda elf: elf.rela(table(elf), 2, r_info=0), "verify-record"),
    ("relocation of another slot", lambda elf: elf.rela(table(elf), 0, r_offset=8), "verify-record"),
    ("a slot less", lambda elf: elf.sh(MCOUNT, sh_size=32), "verify-record"),
    ("not loaded", lambda elf: elf.sh(MCOUNT, sh_flags=0), "verify-section"),
    ("a link", lambda elf: elf.sh(MCOUNT, sh_link=1), "verify-section"),
    ("another name", lambda elf: elf.rename(".shstrtab", {MCOUNT: ".discard.loc"}), "verify-section"),
    ("an entry size", lambda elf: elf.sh(MCOUNT, sh_entsize=24), "verify-section"),
    ("alignment", lambda elf: elf.sh(MCOUNT, sh_addralign=1), "verify-section"),
    ("executable", lambda elf: elf.sh(MCOUNT, sh_flags=6), "verify-section"),
    ("relocations for code", lambda elf: elf.sh(f".rela{MCOUNT}", sh_info=1), "verify-section"),
    ("weak base", lambda elf: elf.rela(table(elf), 2, r_sym=(elf.symbol("weak") - elf.symbols()[0]) // 24,
                                       r_addend=elf.relocation(table(elf), 2, "r_addend") - elf.value("weak")),
     "verify-record"),
    ("code changed", lambda elf: elf.poke(".text", 16, b"\0\0\0\0"), "verify-byte"),
    ("another addend of a call", lambda elf: elf.rela(".rela.text", 0, r_addend=8), "verify-relocation"),
    ("a symbol", lambda elf: elf.sym("global", st_size=4), "verify-symbol"),
    ("another link of old code", lambda elf: elf.sh(".rela.text", sh_link=1), "verify-section"),
    ("more at the end", lambda elf: elf.raw.extend(b"payload."), "verify-byte"),
    ("a call without a record is a NOP with its relocation",
     lambda elf: elf.poke(".exit.text", elf.relocation(".rela.exit.text", 0, "r_offset"), as_code((NOP,))), "verify-"),
    ("a recorded call is a NOP", lambda elf: elf.poke(".init.text", elf.relocation(".rela.init.text", 0, "r_offset"),
                                                      as_code((NOP,))), "verify-"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "rule"), [row[1:] for row in SABOTAGE], ids=[row[0] for row in SABOTAGE])
def test_verify_finds_what_is_wrong_in_records(tmp_path: Path, damage: Callable[[Elf], object], rule: str) -> None:
    path = made(tmp_path, "arm64-pg.o")
    record(path)
    elf = Elf(tmp_path / "out.o")
    damage(elf)
    (tmp_path / "bad.o").write_bytes(elf.raw)
    for journal in (None, str(tmp_path / "out.o.json")):
        findings = api.verify(str(path), str(tmp_path / "bad.o"), journal).findings
        assert findings and any(one.rule.startswith(rule) for one in findings), findings


LINKS: list[tuple[str, Callable[[Elf], object], str]] = [
    ("wrong link", lambda elf: elf.sh(PFE, sh_link=2), "verify-section"),
    ("no link order", lambda elf: elf.sh(PFE, sh_flags=0x3), "verify-section"),
    ("out of its group", lambda elf: elf.sh(".group", sh_size=12), "verify-section"),
    ("another member", lambda elf: elf.poke(".group", 12, struct.pack("<I", 2)), "verify-section"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "rule"), [row[1:] for row in LINKS], ids=[row[0] for row in LINKS])
def test_verify_finds_wrong_links_and_groups(tmp_path: Path, damage: Callable[[Elf], object], rule: str) -> None:
    path = made(tmp_path, stripped("arm64-comdat.o"))
    record(path, func=["_Z6sharedi"])
    elf = Elf(tmp_path / "out.o")
    damage(elf)
    (tmp_path / "bad.o").write_bytes(elf.raw)
    assert rule in {one.rule for one in api.verify(str(path), str(tmp_path / "bad.o")).findings}


def test_a_record_that_nobody_asked_for_is_found_by_the_journal(tmp_path: Path) -> None:
    path = made(tmp_path, stripped("arm64-clang.o"))
    record(path, "few.o", func=["global"])
    record(path, "more.o", func=["global", "weak"])
    journal = json.loads((tmp_path / "few.o.json").read_text())
    findings = api.verify(str(path), str(tmp_path / "more.o"), str(tmp_path / "few.o.json")).findings
    assert journal["images"][0]["recorded"]["added"] == 1
    assert "the record of section 2+0x4c is new in the file, and not in the journal" in {
        one.message for one in findings
    }


# -- reports and the page ----------------------------------------------------------------------------------------------


def test_the_report_for_people(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    path = made(tmp_path, "arm64-pg.o")
    assert ftpatch("record", path, "-o", tmp_path / "out.o", "--nop") == (
        f"{path}: arm64 object\n"
        f"  records    5 added in {MCOUNT} (kernels whose sites are calls in the file read it), 0 there before\n"
        "  layout     mcount\n"
        "  sections   .text 3, .init.text 1, .text.unlikely 1\n"
        "    local (.text+0x18)\n    global (.text+0x58)\n    weak (.text+0x8c)\n    starts (.init.text+0x18)\n"
        "    seldom (.text.unlikely+0x18)\n"
        "  NOPs       2 calls made one: .exit.text+0x18, .noinstr.text+0x18\n"
        f"  output     {tmp_path}/out.o written and checked; 10 edits, 1754 bytes\n"
        "  live       no: only what is read when the file boots or is loaded changes\n"
        "  note       recorded calls stay calls: a kernel of arm64 expects the call of _mcount at a record, and a NOP "
        "there makes it switch ftrace off. --nop made NOPs of calls without a record alone\n"
        "  note       no record for 2 calls of _mcount in .exit.text, .noinstr.text: no kernel traces what is there; "
        "they are NOPs now\n"
    )


def test_csv_lists_the_records(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    path = made(tmp_path, stripped("arm64-clang.o"))
    lines = ftpatch("record", path, "--dry-run", "--func", "starts", "--format", "csv").splitlines()
    assert lines == ["file,function,section,shndx,offset", f"{path},starts,.init.text,10,0x0"]
    assert not (tmp_path / "in.o.patched").exists()


def test_in_place_writes_the_journal(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    path = made(tmp_path, stripped("arm64-clang.o"))
    before = path.read_bytes()
    ftpatch("record", path, "--in-place", "--func", "starts")
    assert places(path.read_bytes()) == [(10, 0)]
    ftpatch("restore", path, "--journal", f"{path}.ftpatch.json", "-o", tmp_path / "back.o")
    assert (tmp_path / "back.o").read_bytes() == before


PAGE = (Path(__file__).parents[1] / "docs" / "record.md").read_text()


def test_the_page_names_every_section_that_a_build_records() -> None:
    from ftpatch.kernel.recorded import RECORDED as SECTIONS

    row = next(line for line in PAGE.splitlines() if line.startswith("| no option"))
    assert set(re.findall(r"`(\.[a-z.]+\*?)`", row)) == {*SECTIONS, ".text*"}


def test_the_page_has_the_flags_of_both_sections() -> None:
    from ftpatch.plan.record.sections import LINKED_FLAGS

    assert f"| `{PFE}` | WRITE ALLOC LINK_ORDER |" in PAGE and LINKED_FLAGS == 1 | 2 | 0x80
    assert f"| `{MCOUNT}` | ALLOC |" in PAGE
