"""What a compiler was told, from the text that it leaves in debug information."""

from __future__ import annotations

import pytest

from ftpatch.elf.producers import parsed

KERNEL = (
    "GNU C11 14.2.0 -mlittle-endian -mbranch-protection=pac-ret -mbranch-protection=none -g -O2 -Os -std=gnu11 "
    "-fpatchable-function-entry=4,2 -fmin-function-alignment=8"
)
X86 = "GNU C11 12.2.0 -mrecord-mcount -mfentry -march=x86-64 -g -O2 -p -fcf-protection=none"
CLANG = "Debian clang version 14.0.6"
RECORDED = f"{CLANG} /usr/lib/llvm-14/bin/clang -O2 -D NAME=a\\ -pg -fpatchable-function-entry=2 -c x.c"


@pytest.mark.parametrize(
    ("text", "name", "shown"),
    [
        (
            KERNEL,
            "gcc 14.2.0",
            "-fpatchable-function-entry=4,2 -fmin-function-alignment=8 -Os -mbranch-protection=none",
        ),
        (X86, "gcc 12.2.0", "-pg -mfentry -mrecord-mcount -O2 -fcf-protection=none"),
        ("GNU C11 8.5.0 20210514 (Red Hat 8.5.0-3) -O2 -fno-ipa-ra", "gcc 8.5.0", "-O2 -fno-ipa-ra"),
        ("GNU C++17 13.1.0 -O3 -fno-instrument-functions", "gcc 13.1.0", "-O3 -fno-instrument-functions"),
        ("GNU GIMPLE 12.2.0 -O2 -flto=auto -fltrans", "gcc 12.2.0", "-O2 -flto=auto"),
        ("GNU Fortran2008 12.2.0 -O", "gcc 12.2.0", "-O"),
        ("GNU C17 12.2.0", "gcc 12.2.0", None),  # -gno-record-gcc-switches
        ("GNU AS 2.40", "GNU as 2.40", None),
        (CLANG, "clang 14.0.6", None),
        (RECORDED, "clang 14.0.6", "-fpatchable-function-entry=2 -O2"),
        ("clang version 19.1.7 (https://github.com/llvm/llvm-project abc-def)", "clang 19.1.7", None),
        ("clang LLVM (rustc version 1.78.0 (9b00956e5 2024-04-29))", "rustc 1.78.0", None),
        ("Go cmd/compile go1.21.1; regabi", "Go cmd/compile go1.21.1; regabi", None),
        ("", "", None),
        ("GNU ", "gcc", None),
        ("GNU C17 12.2.0 -fpatchable-function-entry=x -pgo -mfentry2", "gcc 12.2.0", ""),
    ],
)
def test_a_producer_is_taken_apart(text: str, name: str, shown: str | None) -> None:
    producer = parsed(text)
    switches = None if producer.switches is None else " ".join(producer.shown)
    assert (producer.name, switches) == (name, shown)


@pytest.mark.parametrize(
    ("switches", "layout"),
    [
        ("-fpatchable-function-entry=4,2", (4, 2)), ("-fpatchable-function-entry=2", (2, 0)), ("-O2", None),
        ("-fpatchable-function-entry=0", None), ("-fpatchable-function-entry=5 -fpatchable-function-entry=0,0", None),
        ("-fpatchable-function-entry=0 -fpatchable-function-entry=16,16", (16, 16)),
        (f"-fpatchable-function-entry={'9' * 4000}", None),  # no number that Python would refuse to read
    ],
)  # fmt: skip
def test_the_last_option_for_sites_counts(switches: str, layout: tuple[int, int] | None) -> None:
    assert parsed(f"GNU C17 12.2.0 {switches}").layout == layout


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("GNU C17 12.2.0 -O2", True),
        ("GNU C17 12.2.0 -O2 -Os", True),
        ("GNU C17 12.2.0 -O2 -fno-ipa-ra", False),
        ("GNU C17 12.2.0 -O2 -fno-ipa-ra -fipa-ra", True),
        ("GNU C17 12.2.0 -O2 -fpatchable-function-entry=2", False),
        ("GNU C17 12.2.0 -O2 -fpatchable-function-entry=2 -fpatchable-function-entry=0", True),
        ("GNU C17 12.2.0 -O2 -p", False),
        ("GNU C17 12.2.0 -O2 -flive-patching=inline-clone", False),
        ("GNU C17 12.2.0 -O1", False),
        ("GNU C17 12.2.0 -O1 -fipa-ra", True),
        ("GNU C17 12.2.0 -mtune=generic", False),  # without -O
        ("GNU C17 12.2.0", None),
        ("GNU AS 2.40", False),
        (CLANG, None),
        (RECORDED, False),
        (f"{CLANG} clang -O2 -mllvm -enable-ipra -c x.c", True),
        ("Go cmd/compile go1.21.1", None),
    ],
)
def test_whether_callers_may_know_which_registers_a_function_leaves_alone(text: str, shares: bool | None) -> None:
    assert parsed(text).shares_registers is shares
