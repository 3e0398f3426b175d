"""What check does not answer of kernels without symbols is said, rule by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flat_kernels import flat_kernel

from ftpatch.cli import run
from ftpatch.recovered.left_out import OF_DATA
from ftpatch.rules.case import Case, Context
from ftpatch.rules.register import rules_for
from ftpatch.rules.run import kernel_of
from ftpatch.rules.skipped import BOUNDS, DATA, EXPORTS, NAMES, OF_RECORDS, skipped
from ftpatch.sites.scan import Scan, scan_file

MINI = Path(__file__).parents[1] / "testdata" / "mini"
VMLINUX, MODULE = MINI / "vmlinux-callops", MINI / "mini.ko"
STATIC_CALLS = [rule.id for rule in rules_for() if rule.id.startswith("static-call-")]


def case_of(scan: Scan) -> Case:
    return Case(scan.image, scan.records, scan.sites)


def of(path: Path) -> dict[str, str]:
    return dict(skipped(case_of(scan_file(str(path))), rules_for()))


def test_a_vmlinux_leaves_nothing_out() -> None:
    assert of(VMLINUX) == {}


def test_kallsyms_of_code_alone_name_no_keys_of_static_calls(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(flat_kernel(VMLINUX))
    assert of(tmp_path / "Image") == {"exit-text": BOUNDS}
    scan = scan_file(str(tmp_path / "Image"))
    assert scan.image.recovered is not None
    symbols = scan.image.recovered.symbols
    kept = np.ones(len(symbols.rows), dtype=bool)
    for name in OF_DATA:
        kept[symbols.rows_named(name)] = False
    fewer = replace(symbols, rows=symbols.rows[kept], shndx=symbols.shndx[kept])
    image = replace(scan.image, recovered=scan.image.recovered._replace(symbols=fewer))
    assert dict(skipped(case_of(scan._replace(image=image)), rules_for())) == {
        "exit-text": BOUNDS, **dict.fromkeys(STATIC_CALLS, DATA)
    }  # fmt: skip


def test_without_names_the_records_alone_are_judged(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(flat_kernel(VMLINUX))
    scan = scan_file(str(tmp_path / "Image"))
    assert scan.image.recovered is not None
    nameless = replace(scan.image, recovered=scan.image.recovered._replace(source="none"))
    told = dict(skipped(case_of(scan._replace(image=nameless)), rules_for()))
    assert set(told.values()) == {NAMES} and not set(told) & set(OF_RECORDS)
    assert {"dead-weak", "out-of-reach", "without-record", *STATIC_CALLS} <= set(told)
    known = {rule.id for rule in rules_for()}
    assert [rule for rule in OF_RECORDS if rule not in known] == []


def test_a_kernel_that_does_not_tell_its_exports_judges_no_symbols_of_modules(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(flat_kernel(VMLINUX, data=False))
    module = case_of(scan_file(str(MODULE)))
    for kernel, expected in ((tmp_path / "Image", {"module-versions", "module-symbols"}), (VMLINUX, set())):
        case = replace(module, context=Context(kernel_of(str(kernel), None)))
        assert dict(skipped(case, rules_for())) == dict.fromkeys(expected, EXPORTS)


def test_reports_name_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Image"
    path.write_bytes(flat_kernel(VMLINUX, data=False))
    run(["check", str(path), "--format", "json"])
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert {row["rule"]: row["needs"] for row in image["skipped"]} == of(path)
    run(["check", str(path), "--select", "exit-text,duplicate"])
    assert capsys.readouterr().out.splitlines()[2:] == [f"  skipped    needs {BOUNDS}", "             exit-text"]
