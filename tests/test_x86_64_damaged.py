"""Damaged and hostile kernels of x86_64, whose sites may begin at any byte: what is said of each, and that nothing of
it is patched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.elf.image import Image
from ftpatch.recovered.image import open_image

FIXTURES = Path(__file__).resolve().parents[1] / "testdata/x86_64"
KERNEL, NOPS = FIXTURES / "vmlinux-fentry", FIXTURES / "vmlinux-nop"
N_NULL = 2  # slots in front of the live ones
NOP5 = bytes.fromhex("0f1f440000")


class Damaged:
    """The fixture with bytes at addresses, and records, of another kind."""

    def __init__(self, path: Path = KERNEL) -> None:
        self.image: Image = open_image(str(path))
        self.content = bytearray(path.read_bytes())

    def at(self, name: str) -> int:
        va = self.image.symbols.value(name)
        assert va is not None
        return va

    def put(self, va: int, code: bytes) -> None:
        pos = self.image.pos_of_va(va)
        self.content[pos : pos + len(code)] = code

    def call(self, va: int, name: str = "__fentry__") -> bytes:
        return b"\xe8" + (self.at(name) - va - 5).to_bytes(4, "little", signed=True)

    def record(self, n: int, va: int, n_null: int = N_NULL) -> None:
        """The live slot n."""
        self.put(self.at("__start_mcount_loc") + 8 * (n_null + n), va.to_bytes(8, "little"))

    def move(self, name: str, va: int) -> None:
        """A symbol is at another address."""
        (table,) = self.image.sections_named(".symtab")
        pos = int(self.image.shdr["sh_offset"][table]) + 24 * int(self.image.symbols.rows_named(name)[0])
        self.content[pos + 8 : pos + 16] = va.to_bytes(8, "little")


def at_the_end(left: int) -> Callable[[Damaged], None]:
    """A record of which the text has no more than some bytes of a call."""

    def change(file: Damaged) -> None:
        site = file.at("_etext") - left
        file.put(site, file.call(site)[:left])
        file.record(8, site)

    return change


def inside_an_instruction(file: Damaged) -> None:
    """movabs $…, %rax: what it loads looks like a call of __fentry__."""
    site = file.at("ftrace_regs_caller") + 6
    file.put(site - 2, b"\x48\xb8" + file.call(site) + bytes(3))
    file.record(0, site)


def in_data(file: Damaged) -> None:
    file.record(8, file.at("function_trace_op"))


def beside(step: int) -> Callable[[Damaged], None]:
    return lambda file: file.record(2, file.at("vfs_write") + 4 + step)


def twice(file: Damaged) -> None:
    file.record(2, file.at("vfs_read") + 4)


def calls_nothing(file: Damaged) -> None:
    """A call of the greatest distance, which leads behind the end of all addresses and to their beginning."""
    file.put(file.at("vfs_write") + 4, bytes.fromhex("e8ffffff7f"))


def another_nop(file: Damaged) -> None:
    file.put(file.at("vfs_write") + 4, bytes.fromhex("0f1f440001"))


def int3(file: Damaged) -> None:
    file.put(file.at("vfs_write") + 4, b"\xcc")


CASES: tuple[tuple[str, Callable[[Damaged], None], str], ...] = (
    *((f"{left} bytes left", at_the_end(left), "record-without-nops") for left in (1, 4)),
    ("inside an instruction", inside_an_instruction, "not-at-entry"),
    ("in data", in_data, "outside-text"),
    *((f"{step:+d}", beside(step), "not-at-entry") for step in (-1, 1, 4, 5)),
    ("twice", twice, "duplicate"),
    ("calls nothing", calls_nothing, "site-enabled"),
    ("another NOP", another_nop, "unexpected-words"),
    ("int3", int3, "unexpected-words"),
)


Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    def make(change: Callable[[Damaged], None], fixture: Path = KERNEL) -> Path:
        file = Damaged(fixture)
        change(file)
        path = tmp_path / "vmlinux"
        path.write_bytes(file.content)
        return path

    return make


@pytest.mark.parametrize(("change", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_record_that_names_no_site_is_found_and_never_patched(
    change: Callable[[Damaged], None], rule: str, made: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = made(change)
    assert run(["check", str(path)]) == 1
    assert f" {rule}: 1 finding" in capsys.readouterr().out
    out = path.with_name("out")
    options = ["--func", "*", "--func", "!_printk", "--skip-unpatchable", "-o", str(out)]
    code = run(["enable", str(path), *options])
    said = capsys.readouterr()
    assert code in (0, 3, 5), said.err  # 3: the file itself is not what verify accepts
    if code == 0:  # the others are
        before, after = path.read_bytes(), out.read_bytes()
        assert run(["verify", str(path), str(out)]) == 0
        odd = _places(path)
        assert odd and all(before[pos : pos + 5] == after[pos : pos + 5] for pos in odd)


def _places(path: Path) -> list[int]:
    """File positions of the records that the damage was done to."""
    image, sound = open_image(str(path)), open_image(str(KERNEL))
    start = sound.symbols.value("__start_mcount_loc") or 0
    places = []
    for n in range(11):
        pos = sound.pos_of_va(start + 8 * (N_NULL + n))
        now, was = (int.from_bytes(one.data[pos : pos + 8].tobytes(), "little") for one in (image, sound))
        site = sound.pos_of_va(was)
        if now != was or image.data[site : site + 5].tobytes() != sound.data[site : site + 5].tobytes():
            places.append(image.pos_of_va(now))
    return places


def refused(path: Path, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that writes nothing."""
    capsys.readouterr()
    assert run([arguments[0], str(path), *arguments[1:], "-o", str(path.with_name("out"))]) == 5
    assert not path.with_name("out").exists()
    return capsys.readouterr().err.splitlines()[-1]


def test_one_of_two_records_of_a_site_is_not_dropped_alone(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The other one would stay. The check of the result found that, with exit code 70 for a damaged file."""
    path = made(twice)
    assert "row 4" in refused(path, ["drop", "--func", "row:4"], capsys)
    assert run(["drop", str(path), "--func", "row:3", "--func", "row:4", "-o", str(path.with_name("out"))]) == 0


def test_sites_that_overlap_are_patched_neither_alone_nor_together(
    made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """The distance of a call of __fentry__ is the beginning of a NOP of five bytes; both have a symbol and a record."""

    def overlapping(file: Damaged) -> None:
        site = file.at("vfs_write")
        file.put(site, b"\xe8" + NOP5)
        file.move("__fentry__", site + 5 + int.from_bytes(NOP5[:4], "little"))
        file.move("slot_probe", site + 1)
        file.record(3, site + 1, 0)

    path = made(overlapping, NOPS)
    for functions in (("vfs_write",), ("slot_probe",), ("vfs_write", "slot_probe")):
        options = [word for name in functions for word in ("--func", name)]
        said = refused(path, ["enable", *options], capsys)
        assert f"{len(functions)} of {len(functions)} chosen sites cannot be patched" in said
        assert said.count("it shares words with") == len(functions)


@pytest.mark.parametrize("addend", [0, -5, -3, 1 << 40])
def test_a_call_beside_fentry_is_no_site_of_a_module(
    addend: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its relocation counts from another place than every compiler's: it would go to the middle of __fentry__."""
    image, content = open_image(str(FIXTURES / "told.ko")), bytearray((FIXTURES / "told.ko").read_bytes())
    (table,) = image.sections_named(".rela.text")
    start = int(image.shdr["sh_offset"][table])
    (fentry,) = image.symbols.rows_named("__fentry__").tolist()
    rows = range(start, start + int(image.shdr["sh_size"][table]), 24)
    row = next(pos for pos in rows if content[pos + 12 : pos + 16] == fentry.to_bytes(4, "little"))
    content[row + 16 : row + 24] = addend.to_bytes(8, "little", signed=True)
    path = tmp_path / "told.ko"
    path.write_bytes(content)
    said = refused(path, ["enable", "--func", "row:0", "--hook", "_printk"], capsys)
    assert "told_work (row 0, .text+0x14): its call has no single relocation to __fentry__" in said


def test_a_site_that_calls_a_function_of_another_name_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """gcc -mfentry-name=…, objcopy --redefine-sym: only the relocation tells, and ftrace wants a call of __fentry__."""
    path = tmp_path / "told.ko"
    path.write_bytes((FIXTURES / "told.ko").read_bytes().replace(b"\0__fentry__\0", b"\0__gentry__\0"))
    assert run(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "row 0 has e800000000, which the loader lets call another function than __fentry__\n" in said
    assert run(["explain", "told_work", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "told_work: the loader will let its site call another function than __fentry__, and its record is live: "
        "the kernel will raise an ftrace bug there"
    )
    said = refused(path, ["enable", "--func", "told_work", "--hook", "_printk"], capsys)
    assert "told_work (row 0, .text+0x14): its call has no single relocation to __fentry__" in said
