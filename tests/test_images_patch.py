"""Kernels in layers and without symbols are patched: what is written, and how it comes back."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from container_files import avb, boot_image, bzimage, uimage, zboot
from flat_kernels import flat_kernel

import ftpatch.report
from ftpatch.cli import run
from ftpatch.recovered.image import open_image

MINI = Path(__file__).parents[1] / "testdata" / "mini"
VMLINUX = MINI / "vmlinux-callops"
SCHEMA = json.loads((Path(ftpatch.report.__file__).parent / "schema.json").read_text())


def gz(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


def xz(content: bytes) -> bytes:
    """As the tool does, with a dictionary that is not too large for the content."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
    return lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def odd_gzip(content: bytes) -> bytes:
    """Compressed in a way that no encoder here finds again."""
    return gzip.compress(content[:100], 1, mtime=7) + gzip.compress(content[100:], 9, mtime=7)


# around an ELF file; the kinds, the outermost first, and whether a journal keeps what is in it
LAYERS: dict[str, tuple[Callable[[bytes], bytes], list[tuple[str, bool]]]] = {
    "gzip in xz": (lambda elf: xz(gz(elf)), [("xz", True), ("gzip", False)]),
    "xz in gzip": (lambda elf: gz(xz(elf)), [("gzip", True), ("xz", False)]),
    "odd gzip in xz": (lambda elf: xz(odd_gzip(elf)), [("xz", True), ("gzip", False)]),
    "xz in odd gzip": (lambda elf: odd_gzip(xz(elf)), [("gzip", True), ("xz", False)]),
    "boot image": (lambda elf: boot_image(2, gz(elf)), [("boot-img", False), ("gzip", True)]),
    "odd gzip in boot image": (
        lambda elf: avb(boot_image(4, odd_gzip(elf), 4096), 1 << 17),
        [("boot-img", False), ("gzip", True)],
    ),
    "zboot": (lambda elf: zboot(elf, "gzip", gz(elf, 1)), [("zboot", True)]),
    "uimage": (lambda elf: uimage(xz(elf)), [("uimage", False), ("xz", True)]),
    "odd gzip in odd gzip": (lambda elf: odd_gzip(odd_gzip(elf)), [("gzip", True), ("gzip", False)]),
}


def journal_of(path: Path) -> dict[str, Any]:
    image: dict[str, Any] = json.loads(path.read_text())["images"][0]
    return image


def patched(source: Path, out: Path, *options: str) -> Path:
    """A kernel patched to `out`; its journal."""
    journal = out.with_name(f"{out.name}.json")
    more = options if "--func" in options else ("--func", "sys_getppid", *options)
    assert run(["enable", str(source), "-o", str(out), "--report", f"json={journal}", *more]) == 0
    return journal


@pytest.fixture(params=LAYERS)
def layered(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[tuple[str, bool]]]:
    pack, kept = LAYERS[request.param]
    source = tmp_path / "kernel"
    source.write_bytes(pack(VMLINUX.read_bytes()))
    source.chmod(0o640)
    return source, kept


def test_a_kernel_in_layers_is_patched_in_them_and_comes_back(
    layered: tuple[Path, list[tuple[str, bool]]], tmp_path: Path
) -> None:
    source, kept = layered
    journal, alone = patched(source, tmp_path / "after"), patched(VMLINUX, tmp_path / "alone")
    after, bare = open_image(str(tmp_path / "after")), open_image(str(tmp_path / "alone"))
    assert after.data.tobytes() == bare.data.tobytes()
    assert [layer.kind for layer in after.layers] == [kind for kind, _ in kept]
    told, told_alone = journal_of(journal), journal_of(alone)
    packing = told["packing"]
    assert packing["wrapping"] == "layers"
    assert [(row["kind"], row["original"] is not None) for row in packing["layers"]] == kept
    assert packing["encoder"] == (None if any(original for _, original in kept) else "layers")
    assert packing["plain_sha256"] == told_alone["sha256"]
    assert (told["size"], told["edits"]) == (told_alone["size"], told_alone["edits"])
    assert told["output"]["elf_sha256"] == bare.sha256
    assert "packed as the input is: the kernel inside " in " ".join(told["notes"])
    jsonschema.validate(json.loads(journal.read_text()), SCHEMA)
    assert run(["verify", str(source), str(tmp_path / "after"), "--journal", str(journal)]) == 0
    assert run(["restore", str(tmp_path / "after"), "--journal", str(journal), "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_kernel_in_layers_is_patched_in_place_and_back(
    layered: tuple[Path, list[tuple[str, bool]]], tmp_path: Path
) -> None:
    source, before = layered[0], layered[0].read_bytes()
    assert run(["enable", str(source), "--func", "sys_getppid", "--in-place"]) == 0
    assert source.read_bytes() != before
    assert source.stat().st_mode & 0o777 == 0o640
    assert run(["restore", str(source), "--journal", f"{source}.ftpatch.json", "--in-place"]) == 0
    assert (source.read_bytes(), source.stat().st_mode & 0o777) == (before, 0o640)


def test_a_patched_kernel_in_layers_is_verified_against_others_of_it(tmp_path: Path) -> None:
    """What is inside counts: however a file is packed, the same kernel was patched."""
    bare, packed = tmp_path / "bare", tmp_path / "packed"
    journal = patched(VMLINUX, bare)
    packed.write_bytes(xz(gz(bare.read_bytes())))
    assert run(["verify", str(VMLINUX), str(packed)]) == 0
    assert run(["verify", str(packed), str(bare)]) == 0
    assert run(["restore", str(packed), "--journal", str(journal), "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == VMLINUX.read_bytes()


def test_layers_that_are_gone_cannot_be_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, after = tmp_path / "kernel", tmp_path / "after"
    source.write_bytes(boot_image(2, gz(VMLINUX.read_bytes())))
    journal = patched(source, after)
    after.write_bytes(open_image(str(after)).layers[1].outer.tobytes())
    capsys.readouterr()
    assert run(["restore", str(after), "--journal", str(journal), "-o", str(tmp_path / "back")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {after}: the layers around the kernel are not those that the patch left: found a kernel"
        " inside gzip data, expected an Android boot image – restore takes the file as the patch wrote it\n"
    )
    assert not (tmp_path / "back").exists()


def test_a_bzimage_cannot_take_a_patched_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "bzImage"
    source.write_bytes(bzimage(gz(VMLINUX.read_bytes()) + len(VMLINUX.read_bytes()).to_bytes(4, "little")))
    for more in ([], ["--dry-run"], ["-o", str(tmp_path / "out")]):
        assert run(["enable", str(source), "--func", "sys_getppid", *more]) == 5
        assert capsys.readouterr().err == (
            f"ftpatch: {source}: a changed kernel cannot be put back into an x86 bzImage – the boot code of a bzImage "
            "has the payload's size and place built in; make bzImage wraps a patched vmlinux in the build tree, and "
            "QEMU, Firecracker and kexec boot it as it is\n"
        )
    assert list(tmp_path.iterdir()) == [source]


def test_a_zboot_without_room_is_refused_by_a_dry_run_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elf, source = VMLINUX.read_bytes(), tmp_path / "vmlinuz.efi"
    source.write_bytes(zboot(elf, "gzip", gz(elf, 9)[:-8] + gz(elf, 9)[-8:]))
    for more in (["--dry-run"], []):
        assert run(["enable", str(source), "--func", "*", *more]) == 5
        assert "an EFI zboot image has no room for the patched kernel: found " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_what_a_patch_makes_void_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "boot.img"
    source.write_bytes(boot_image(2, gz(VMLINUX.read_bytes())))
    journal = patched(source, tmp_path / "out")
    text = "not valid any more: the signature of Android Verified Boot"
    assert f"ftpatch: warning: {text}\n" in capsys.readouterr().err
    assert journal_of(journal)["notes"][0] == text


def test_a_module_signature_is_for_no_boot_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "boot.img"
    source.write_bytes(boot_image(2, gz(VMLINUX.read_bytes())))
    assert run(["enable", str(source), "--func", "sys_getppid", "--sign", "key", "cert"]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {source}: only modules are signed so: found a vmlinux – leave --sign out; boot loaders check "
        "signatures of other kinds\n"
    )


@pytest.mark.parametrize(("where", "name"), [(64, "cmdline"), (-400, "device tree")])
def test_what_changed_around_the_kernel_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: int, name: str
) -> None:
    source, after = tmp_path / "boot.img", tmp_path / "after.img"
    source.write_bytes(boot_image(2, gz(VMLINUX.read_bytes()), 4096))
    patched(source, after)
    image = bytearray(after.read_bytes())
    at = where if where > 0 else image.rindex(b"tree tree")
    image[at] ^= 1
    after.write_bytes(image)
    capsys.readouterr()
    assert run(["verify", str(source), str(after)]) == 1
    assert (
        "verify-byte: what is around the kernel in an Android boot image is not what it was in the first file"
        in capsys.readouterr().out
    ), name


def test_another_form_is_a_note_and_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(xz(gz(VMLINUX.read_bytes())))
    assert run(["verify", str(VMLINUX), str(packed), "--deep"]) == 0
    assert (
        "packed in another way, so that only the kernels were compared: one alone, now one inside gzip data inside xz "
        "data" in " ".join(capsys.readouterr().out.split())
    )


# -- flat kernels ----------------------------------------------------------------------------------------------

FLAT = ("callops", "exec", "kcfi", "pfe2-bti")
REQUESTS: dict[str, tuple[str, ...]] = {
    "one site": ("enable", "--func", "sys_getppid"),
    "every site": ("enable", "--func", "*", "--status", "ready"),
    "all but one": ("enable", "--func", "*", "--func", "!sys_getppid", "--status", "ready"),
    "a thunk": ("enable", "--func", "sys_getppid", "--ops-via", "thunk"),
    "shrink": ("enable", "--func", "sys_getppid", "--records", "shrink"),
    "shrink to nothing": (
        "drop",
        "--func",
        "*",
        "--status",
        "ready",
        "--status",
        "weak-leftover",
        "--records",
        "shrink",
    ),
    "redirect": ("redirect", "--func", "sys_getppid", "--to", "invoke_syscall", "--force-signature"),
}


def tried(request: tuple[str, ...], source: Path, out: Path, *more: str) -> int:
    return run([*request, str(source), "-o", str(out), *more])


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("name", FLAT)
def test_a_flat_kernel_is_patched_as_its_vmlinux_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, request_: str
) -> None:
    """Byte for byte; and it comes back."""
    vmlinux = VMLINUX.with_name(f"vmlinux-{name}")
    source, journal, request = tmp_path / "Image", tmp_path / "journal", REQUESTS[request_]
    source.write_bytes(flat_kernel(vmlinux))
    code = tried(request, vmlinux, tmp_path / "vmlinux")
    said = capsys.readouterr().err.replace(str(vmlinux), "FILE")
    assert tried(request, source, tmp_path / "after", "--report", f"json={journal}") == code
    if code:
        assert capsys.readouterr().err.replace(str(source), "FILE") == said
        return
    expected = flat_kernel(tmp_path / "vmlinux", built=vmlinux)
    assert (tmp_path / "after").read_bytes() == expected
    assert run(["verify", str(source), str(tmp_path / "after"), "--journal", str(journal), "--deep"]) == 0
    assert run(["restore", str(tmp_path / "after"), "--journal", str(journal), "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


# where kallsyms name code alone (no CONFIG_KALLSYMS_ALL): what stands in the way of one site, or nothing
CODE_ALONE = {
    "callops": "ftrace_list_ops: no such symbol: found nothing of that name in kallsyms, expected a defined symbol",
    "exec": "",
    "kcfi": "",
}


@pytest.mark.parametrize("name", CODE_ALONE)
def test_a_flat_kernel_whose_kallsyms_name_code_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    vmlinux, source = VMLINUX.with_name(f"vmlinux-{name}"), tmp_path / "Image"
    source.write_bytes(flat_kernel(vmlinux, data=False))
    request, refusal = REQUESTS["one site"], CODE_ALONE[name]
    assert tried(request, source, tmp_path / "after") == (5 if refusal else 0)
    if refusal:
        assert capsys.readouterr().err == f"ftpatch: {refusal}\n"
        return
    assert tried(request, vmlinux, tmp_path / "vmlinux") == 0
    assert (tmp_path / "after").read_bytes() == flat_kernel(tmp_path / "vmlinux", data=False, built=vmlinux)
    assert run(["verify", str(source), str(tmp_path / "after")]) == 0


def test_the_last_records_of_a_table_that_nothing_names_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would find the table again: the file could neither be read nor patched any more."""
    source = tmp_path / "Image"
    source.write_bytes(flat_kernel(VMLINUX.with_name("vmlinux-exec"), data=False))
    assert tried(REQUESTS["shrink to nothing"], source, tmp_path / "after") == 5
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ftpatch: {source}: the patched kernel could not be read any more: found the records of its patch sites are "
        "not found – take fewer records out, or patch the vmlinux"
    )
    assert not (tmp_path / "after").exists()


def test_a_flat_kernel_is_no_elf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = tmp_path / "Image"
    flat.write_bytes(flat_kernel(VMLINUX))
    forms = ("a flat kernel", "an ELF file")
    for files, found, expected in (((VMLINUX, flat), *forms), ((flat, VMLINUX), *reversed(forms))):
        assert run(["verify", *map(str, files)]) == 2
        assert capsys.readouterr().err == (
            f"ftpatch: {files[1]}: the two files are not of one kind: found {found}, expected {expected} – ftpatch "
            "image makes a flat kernel of a vmlinux\n"
        )


def test_a_table_that_shrank_is_read_as_the_code_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its kallsyms still have the old end, whichever way the image came to be."""
    assert tried(REQUESTS["shrink"], VMLINUX, tmp_path / "vmlinux") == 0
    flat = tmp_path / "Image"
    flat.write_bytes(flat_kernel(tmp_path / "vmlinux", built=VMLINUX))
    capsys.readouterr()
    assert run(["scan", str(flat)]) == 0
    assert "  records    18 slots, 3 null, 15 live\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (None, "found nothing as its layers, expected a list"),
        ([], "found no layers, expected one or more"),
        ([1], "found a whole number as layer 0, expected an object"),
        ([{"original": None}], "found nothing as the kind of layer 0, expected a text"),
        ([{"kind": "tar", "original": None}], "found a layer 'tar', expected "),
        ([{"kind": "gzip", "original": 1}], "found a whole number as the original of layer 0, expected a text"),
        ([{"kind": "gzip", "original": "*"}], "found something else as the original of layer 0, expected base64"),
        ([{"kind": "gzip", "original": ""}], "the journal does not give back what was patched: found another file"),
        ([{"kind": "xz", "original": None}], "the layers around the kernel are not those that the patch left"),
        ([{"kind": "zboot", "original": None}], "the layers around the kernel are not those that the patch left"),
    ],
)
def test_a_journal_with_other_layers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layers: object, said: str
) -> None:
    source, after = tmp_path / "kernel", tmp_path / "after"
    source.write_bytes(gzip.compress(flat_kernel(VMLINUX), 1, mtime=5))
    journal = patched(source, after)
    report = json.loads(journal.read_text())
    report["images"][0]["packing"]["layers"] = layers
    journal.write_text(json.dumps(report))
    capsys.readouterr()
    assert run(["restore", str(after), "--journal", str(journal), "-o", str(tmp_path / "back")]) in (3, 5)
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_flat_kernel_is_its_own_boot_image(tmp_path: Path, packed: bool) -> None:
    """Its made-up sections have gaps, and not the zeros behind the last of them."""
    flat = flat_kernel(VMLINUX)
    (tmp_path / "Image").write_bytes(gz(flat) if packed else flat)
    assert run(["image", str(tmp_path / "Image"), "-o", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made").read_bytes() == flat


def test_reports_say_what_a_kernel_lies_in_and_where_its_symbols_are_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "Image.gz"
    path.write_bytes(gz(flat_kernel(VMLINUX)))
    assert run(["scan", str(path)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.startswith(f"{path}: arm64 vmlinux inside gzip data") and head.endswith(", symbols from kallsyms")
    for file, expected in {
        path: ("gzip", ["gzip", "arm64-image"], "kallsyms"), VMLINUX: (None, None, None)
    }.items():  # fmt: skip
        assert run(["scan", str(file), "--format", "json"]) == 0
        image = json.loads(capsys.readouterr().out)["images"][0]
        assert tuple(image.get(key) for key in ("container", "layers", "symbols_from")) == expected
