"""One ftrace bug in every form in which logs hold it: each is read to the last field, whatever stands around it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.errors import InputError
from ftpatch.explanation import log_lines
from ftpatch.explanation.message import Splat
from ftpatch.explanation.splat import parse, parse_log

LINES = (
    "------------[ ftrace bug ]------------",
    "ftrace failed to modify ",
    "[<ffffa1b2c3d4e5f0>] frob_init+0x8/0xe0 [frob]",
    " actual:   c0:03:5f:d6",
    "Initializing ftrace call sites",
    "ftrace record flags: 2000001",
    " (1)  ",
    " expected tramp: ffffa1b2c0001234",
)
MESSAGE = Splat(
    "failed to modify", function="frob_init", offset=8, size=0xE0, module="frob", ip=0xFFFFA1B2C3D4E5F0, phase="init",
    flags=0x2000001, actual=bytes.fromhex("c0035fd6"), users=1, tramp=0xFFFFA1B2C0001234,
)  # fmt: skip
OTHER = (  # a second message, which another processor prints at the same time
    "------------[ ftrace bug ]------------",
    "ftrace faulted on writing ",
    "[<ffffa1b2c0404040>] other_fn+0x4/0x30",
    "Setting ftrace call site to NOP",
    "ftrace record flags: 80000002",
    " (2)  ",
    " expected tramp: ffffa1b2c0009999",
)
SECOND = Splat(
    "faulted on writing", function="other_fn", offset=4, size=0x30, ip=0xFFFFA1B2C0404040, phase="off",
    flags=0x80000002, users=2, tramp=0xFFFFA1B2C0009999,
)  # fmt: skip

Form = Callable[[int, str], str]  # from the number of a line and its text to the line of a log


def escaped(text: str) -> str:
    return json.dumps(text)


FORMS: dict[str, Form] = {
    "plain": lambda i, text: text,
    "dmesg": lambda i, text: f"[   12.34567{i}] {text}",
    "dmesg -T": lambda i, text: f"[Mon Nov 30 08:07:1{i} 2026] {text}",
    "dmesg -r": lambda i, text: f"<6>[   12.34567{i}] {text}",
    "dmesg -x": lambda i, text: f"kern  :info  : [   12.34567{i}] {text}",
    "dmesg --time-format iso": lambda i, text: f"2026-11-30T08:07:12,34567{i}+00:00 {text}",
    "dmesg --time-format delta": lambda i, text: f"[<    0.00000{i}>] {text}",
    "dmesg -d": lambda i, text: f"[   12.34567{i} <    0.000001>] {text}",
    "dmesg --json": lambda i, text: f'      "pri": 6, "time":   12.34567{i}, "msg": {escaped(text)}',
    "/dev/kmsg": lambda i, text: f"6,{1200 + i},12345678{i},-;{text}",
    "/proc/kmsg with a facility": lambda i, text: f"<14>[   12.34567{i}] {text}",
    "caller of a task": lambda i, text: f"[   12.34567{i}][   T12] {text}",
    "caller of a processor": lambda i, text: f"[   12.34567{i}][    C3] {text}",
    "caller behind a level": lambda i, text: f"<6>[   12.34567{i}][ T1234] {text}",
    "journalctl": lambda i, text: f"Nov 30 08:07:12 host kernel: {text}",
    "journalctl -o short-precise": lambda i, text: f"Nov 30 08:07:12.34567{i} host kernel: {text}",
    "journalctl -o short-iso": lambda i, text: f"2026-11-30T08:07:12+0000 host kernel: {text}",
    "journalctl -o short-iso-precise": lambda i, text: f"2026-11-30T08:07:12.34567{i}+00:00 host kernel: {text}",
    "journalctl -o short-monotonic": lambda i, text: f"[   12.34567{i}] host kernel: {text}",
    "journalctl -o short-unix": lambda i, text: f"1764489632.34567{i} host kernel: {text}",
    "journalctl -o with-unit": lambda i, text: f"Mon 2026-11-30 08:07:12 UTC host kernel[0]: {text}",
    "journalctl -o json": lambda i, text: f'{{"PRIORITY":"6","MESSAGE":{escaped(text)},"_TRANSPORT":"kernel"}}',
    "journalctl -o json, bytes": lambda i, text: f'{{"MESSAGE":{json.dumps(list(text.encode()))},"PRIORITY":"6"}}',
    "journalctl -o json-pretty": lambda i, text: f'\t"MESSAGE" : {escaped(text)},',
    "journalctl -o export": lambda i, text: f"MESSAGE={text}",
    "journalctl -o verbose": lambda i, text: f"    MESSAGE={text}",
    "netconsole": lambda i, text: text,
    "netconsole, extended": lambda i, text: f"6,{1200 + i},12345678{i},-;{text}",
    "netconsole, extended with a caller": lambda i, text: f"6,{1200 + i},12345678{i},-,caller=T12;{text}",
    "netconsole, extended with a release": lambda i, text: f"6.12.0,6,{1200 + i},12345678{i},-,ncfrag=0/9;{text}",
    "netconsole behind syslog": lambda i, text: f"2026-11-30T08:07:12+00:00 10.0.0.7 [   12.34567{i}] {text}",
    "rsyslog": lambda i, text: f"Nov 30 08:07:12 host kernel: [   12.34567{i}] {text}",
    "syslog, RFC 3164": lambda i, text: f"<6>Nov 30 08:07:12 host kernel: [   12.34567{i}] {text}",
    "syslog, RFC 5424": lambda i, text: f"<6>1 2026-11-30T08:07:12.34567{i}Z host kernel - - - [   12.34567{i}] {text}",
    "syslog-ng, ISO dates": lambda i, text: f"2026-11-30T08:07:12+01:00 host kernel: [   12.34567{i}] {text}",
    "busybox klogd": lambda i, text: f"Nov 30 08:07:12 host kern.info kernel: [   12.34567{i}] {text}",
    "openwrt logread": lambda i, text: f"Mon Nov 30 08:07:12 2026 kern.info kernel: [   12.34567{i}] {text}",
    "logcat": lambda i, text: f"11-30 08:07:12.345     0     0 I         : {text}",
    "logcat, kernel tag": lambda i, text: f"11-30 08:07:12.345     0     0 I KERNEL  : [   12.34567{i}]c3 {text}",
    "android last_kmsg": lambda i, text: f"<6>[   12.34567{i} / 11-30 08:07:12.345] {text}",
    "samsung": lambda i, text: f"<6>[   12.34567{i}] [3:  insmod:  812] {text}",
    "qualcomm": lambda i, text: f"[   12.34567{i}] (3)[812:insmod]{text}",
    "a quoted mail": lambda i, text: f"> > [   12.34567{i}] {text}",
    "a table of a bug tracker": lambda i, text: f"| [   12.34567{i}] {text}",
    "an HTML page": lambda i, text: text.replace("<", "&lt;").replace(">", "&gt;"),
    "colours": lambda i, text: f"\x1b[32m[   12.34567{i}] \x1b[0m\x1b[33m{text}\x1b[0m",
    "colours of a serial console": lambda i, text: f"\x1b[1;31m{text}\x1b[m\x1b[K",
    "colours that a pager shows": lambda i, text: f"^[[32m[   12.34567{i}] ^[[0m{text}",
    "colours as rsyslog writes them": lambda i, text: f"#033[0m{text}",
    "a terminal's log with NULs": lambda i, text: f"\0\0[   12.34567{i}] {text}\0",
    "bells and backspaces": lambda i, text: f"\x07\x08[   12.34567{i}] {text}",
    "LAVA": lambda i, text: f"<4>[   12.34567{i}]  {text}",
    "LAVA's YAML": lambda i, text: f'- {{"dt": "2026-11-30T08:07:12", "lvl": "target", "msg": {escaped(text)}}}',
    "a kernel test robot": lambda i, text: f"kern  :info  : [   12.34567{i}] {text}",
    "minicom": lambda i, text: f"[2026-11-30 08:07:12] [   12.34567{i}] {text}",
    "ts": lambda i, text: f"Nov 30 08:07:12 [   12.34567{i}] {text}",
    "docker": lambda i, text: f'{{"log":{escaped(text)},"stream":"stdout"}}',
    "grep -n": lambda i, text: f"{400 + i}:[   12.34567{i}] {text}",
    "grep of several files": lambda i, text: f"/var/log/kern.log:{400 + i}:[   12.34567{i}] {text}",
}  # fmt: skip


def log_of(form: Form, lines: tuple[str, ...] = LINES, end: str = "\n") -> str:
    return "".join(form(i, text) + end for i, text in enumerate(lines))


@pytest.mark.parametrize("name", FORMS)
def test_a_message_is_read_in_every_form_of_a_log(name: str) -> None:
    assert parse(log_of(FORMS[name])) == [MESSAGE]


def test_a_quoted_printable_mail_is_read() -> None:
    lines = (text.replace("=", "=3D").replace("_init+", "_init+=\n") + "=20" * text.endswith(" ") for text in LINES)
    assert parse("\n".join(lines)) == [MESSAGE]


def test_an_address_whose_name_the_kernel_doubts_is_an_address() -> None:
    (splat,) = parse("\n".join([*LINES[:2], "[<a82ca82d>] (suspected corrupt symbol) ", *LINES[3:]]))
    assert (splat.ip, splat.function) == (0xA82CA82D, None)


@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_a_log_with_a_byte_order_mark_is_read(coding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("\n".join(LINES), coding)
    assert run(["explain", "--splat", str(tmp_path / "log")]) == 0
    assert capsys.readouterr().out.startswith("frob_init+0x8 [frob]: ftrace failed to modify")


@pytest.mark.parametrize("end", ["\r\n", "\r\r\n", "\n\n", " \n"])
@pytest.mark.parametrize("name", ["dmesg", "plain", "journalctl", "netconsole, extended"])
def test_ends_of_lines_do_not_matter(name: str, end: str) -> None:
    assert parse(log_of(FORMS[name], end=end)) == [MESSAGE]


@pytest.mark.parametrize("name", FORMS)
def test_other_lines_between_do_not_matter(name: str) -> None:
    """Drivers print at the same time; `usb 1-1: (1)` and call traces of old kernels look like parts of a message."""
    noise = ("usb 1-1: new device (1)", "frob: expected 12, actual 14", "audit: type=1400 tramp", "[<0>] idle+0x1/0x2")
    lines = tuple(line for i, text in enumerate(LINES) for line in (noise[i % 2], text, noise[1 + i % 2]))
    text = "".join(FORMS[name](i % 9, line) + "\n" for i, line in enumerate(lines))
    if FORMS[name](0, "") == FORMS[name](1, ""):  # where lines are numbered, those beyond nine are out of order
        assert parse(text) == [MESSAGE]
    else:
        numbered = (FORMS[name](i * 9 // len(lines), line) for i, line in enumerate(lines))
        assert parse("\n".join(numbered)) == [MESSAGE]


@pytest.mark.parametrize("name", ["dmesg", "dmesg -r", "netconsole, extended", "rsyslog", "LAVA"])
def test_lines_out_of_order_are_put_in_order(name: str) -> None:
    lines = [FORMS[name](i, text) for i, text in enumerate(LINES)]
    for seed in range(5):
        random.Random(seed).shuffle(lines)
        assert parse("\n".join(lines)) == [MESSAGE]


@pytest.mark.parametrize("name", FORMS)
def test_the_newest_line_first_is_read_as_well(name: str) -> None:
    """`journalctl -r`, and web pages of logs."""
    assert parse("\n".join(reversed(log_of(FORMS[name]).splitlines()))) == [MESSAGE]


@pytest.mark.parametrize("first", [1, 2])
def test_parts_of_a_dump_are_read_from_the_last(first: int) -> None:
    """pstore cuts what a panic leaves: Part1 has the end of the log, and files may come in any order."""
    lines = log_of(FORMS["dmesg -r"]).splitlines(keepends=True)
    parts = [f"Panic#2 Part{3 - i}\n" + "".join(lines[3 * i : 3 * i + 3]) for i in range(3)]
    parts = parts[first:] + parts[:first]
    assert parse("".join(parts)) == [MESSAGE]
    older = "Oops#1 Part1\n" + log_of(FORMS["dmesg -r"], OTHER)
    assert parse("".join(parts) + older) == [SECOND, MESSAGE]


@pytest.mark.parametrize("names", [("caller of a task", "caller of a processor"),
                                   ("netconsole, extended with a caller", "caller behind a level")])  # fmt: skip
def test_two_messages_at_once_are_told_apart_by_their_callers(names: tuple[str, str]) -> None:
    ours, theirs = (log_of(FORMS[name], lines).splitlines() for name, lines in zip(names, (LINES, OTHER), strict=True))
    for seed in range(5):
        mixed: list[str] = []
        rest = [list(ours), list(theirs)]
        while any(rest):
            mixed.append(random.Random(f"{seed} {len(mixed)}").choice([lines for lines in rest if lines]).pop(0))
        assert sorted(parse("\n".join(mixed)), key=lambda splat: splat.what) == [MESSAGE, SECOND]


def test_two_messages_at_once_without_callers_are_both_read_and_doubted() -> None:
    mixed = [line for pair in zip(LINES[:3], OTHER[:3], strict=True) for line in pair]
    told = parse("\n".join([*mixed, *LINES[3:], *OTHER[3:]]))
    assert [splat.mixed for splat in told] == [True, True]
    assert {splat.function for splat in told} == {"frob_init", "other_fn"}


def test_one_message_behind_another_is_not_mixed_with_it() -> None:
    assert parse("\n".join([*LINES, *OTHER])) == [MESSAGE, SECOND]
    assert parse("\n".join([*OTHER, *LINES, *OTHER])) == [SECOND, MESSAGE, SECOND]


def test_a_boot_behind_a_boot_keeps_its_order() -> None:
    """The time starts from 0 again: these lines are not those of the boot before."""
    first = log_of(FORMS["dmesg"], LINES)
    second = log_of(lambda i, text: f"[    0.00000{i}] {text}", OTHER)
    assert parse(first + second) == [MESSAGE, SECOND]


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (LINES[1:], {}),
        (LINES[2:], {"what": "", "function": None, "offset": 0, "size": 0, "module": None, "ip": None}),
        (LINES[:2] + LINES[3:], {"function": None, "offset": 0, "size": 0, "module": None, "ip": None}),
        (LINES[:3] + LINES[4:], {"actual": None}),
        (LINES[:4] + LINES[5:], {"phase": ""}),
        (LINES[:5], {"flags": None, "users": None, "tramp": None}),
        (LINES[:4], {"phase": "", "flags": None, "users": None, "tramp": None}),
        (LINES[:3], {"actual": None, "phase": "", "flags": None, "users": None, "tramp": None}),
        ((*LINES[:3], " actual:   c0:03"), {"actual": bytes.fromhex("c003"), "phase": "", "flags": None,
                                            "users": None, "tramp": None}),
        ((*LINES[:2], "[<ffffa1b2c3d4e5f0>] frob_in"), {"actual": None, "phase": "", "flags": None, "users": None,
                                                        "tramp": None, "function": None, "offset": 0, "size": 0,
                                                        "module": None, "ip": None}),
    ],
)  # fmt: skip
def test_what_is_missing_is_missing_and_nothing_else(lines: tuple[str, ...], lost: dict[str, object]) -> None:
    assert parse("\n".join(lines)) == [Splat(**{**MESSAGE.__dict__, **lost})]


def test_a_call_trace_is_no_place() -> None:
    """Its lines have the form of the missing one: that ftrace_bug failed at ftrace_bug would be wrong."""
    text = "\n".join([*LINES[:2], "------------[ cut here ]------------", "Call Trace:",
                      " [<ffffffff8110b0fd>] ftrace_bug+0x25d/0x270", " [<ffffffff8110b0fe>] ? f+0x1/0x2"])  # fmt: skip
    assert [(splat.function, splat.ip) for splat in parse(text)] == [(None, None)]


@pytest.mark.parametrize(
    "lines",
    [
        (*LINES[:1], "ftrace failed to modify [<ffffa1b2c3d4e5f0>] frob_init+0x8/0xe0 [frob]", *LINES[3:]),
        (*LINES[:2], "[<ffffa1b2c3d4e5f0>]", "frob_init+0x8/0xe0 [frob]", *LINES[3:]),
        (*LINES[:3], " actual:   c0:03:", "5f:d6", *LINES[4:]),
        (*LINES[:2], "[<ffffa1b2c3d4e5f0>] frob_", "init+0x8/0xe0 [frob]", *LINES[3:]),
        (*LINES[:2], "[<ffffa1b2c3d4e5f0>] frob_init+0x", "8/0xe0 [frob]", *LINES[3:]),
        (*LINES[:5], "ftrace record flags: 200", "0001", *LINES[6:]),
        (*LINES[:7], " expected tramp: ffffa1b2", "c0001234"),
        (*LINES[:3], " actual:   c0:03", ":5f:d6", *LINES[4:]),
        (*LINES[:6], " (1)   expected tramp: ffffa1b2c0001234"),
        (*LINES[:2], "[<ffffa1b2c3d4e5f0>] frob_init+0x8/0xe0 [frob a1b2c3d4]", *LINES[3:]),
        (*LINES[:2], "[<(ffffa1b2c3d4e5f0)>] frob_init+0x8/0xe0 [frob]", *LINES[3:]),
    ],
)
def test_lines_that_are_joined_or_wrapped_are_read(lines: tuple[str, ...]) -> None:
    assert parse("\n".join(lines)) == [MESSAGE]


def test_trampolines_of_the_tracers_are_read() -> None:
    line = " (1) R\ttramp: ftrace_regs_caller+0x0/0x98 (klp_ftrace_handler+0x0/0x1d0 [klp])\ttramp: ERROR!"
    (told,) = parse("\n".join([*LINES[:6], line, LINES[7]]))
    assert told.tramps == ("ftrace_regs_caller+0x0/0x98 (klp_ftrace_handler+0x0/0x1d0 [klp])", "ERROR!")
    assert (told.users, told.tramp) == (1, MESSAGE.tramp)


def test_a_log_in_one_string_is_read() -> None:
    """As programs print them, with the ends of lines written out."""
    assert parse(json.dumps({"output": "\n".join(LINES)})) == [MESSAGE]
    assert parse("\r".join(LINES)) == [MESSAGE]


def test_a_line_of_utf_8_that_was_read_byte_by_byte_is_decoded() -> None:
    text = "\n".join(f"Größe → {line}" for line in LINES)
    assert parse(text.encode().decode("latin-1")) == parse(text) == [MESSAGE]


SIZE = 1 << 20  # characters; what takes the square of it would not end


@pytest.mark.parametrize(
    "text",
    [
        "x" * SIZE, "[<" * (SIZE // 2), "(1)" * (SIZE // 3), "\0" * SIZE, "\n" * SIZE, "\r" * SIZE, "ftrace " * SIZE,
        "ftrace " + "0;" * SIZE, "ftrace != " + "a" * SIZE, "ftrace WARNING: ftrace_bug" + " at kernel/trace/" * SIZE,
        '"MESSAGE":[' + "1" * SIZE, '"MESSAGE":["' + "\\" * SIZE, "ftrace Tainted:" + " " * SIZE + "x",
        "ftrace \x1b[" + "0;" * SIZE, "MSR: " + "<SF" * SIZE, "ftrace &lt;" + "&amp;" * SIZE, "ftrace [" + " " * SIZE,
        ("ftrace " + "\x1b]" * 500 + "\n") * (SIZE // 1000), ("ftrace != " + "a" * 900 + "\n") * 500,
        "".join(f"Panic#{i % 9} Part{i}\n" for i in range(4_000)),
        "".join(f"{i}: ftrace\n(1) expected 1 actual: 2\n" for i in range(4_000)),
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_hostile_text_without_a_message_is_refused_in_linear_time(text: str) -> None:
    with pytest.raises(InputError, match=r"^no ftrace message in this text: found \d+ lines, expected `ftrace bug`"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (f"{LINES[0]}\n" * 2_000, ("257 messages; the first 256 are taken apart",)),
        (f"{LINES[1]}\n" * 2_000, ("257 messages; the first 256 are taken apart",)),
        ("\n".join(LINES * 300), ("257 messages; the first 256 are taken apart",)),
        ("".join(f"[ 1.000000][ T{i}] {LINES[1]}\n" for i in range(2_000)),
         ("257 messages; the first 256 are taken apart",)),
        ("\n".join(LINES) + "\n" + "ftrace: x\n" * 3_000, ("the log has more lines that may matter than are read",)),
    ],
    ids=["heads", "cases", "whole", "callers", "noise"],
)  # fmt: skip
def test_more_than_is_read_is_said(text: str, notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "MAX_LINES", 2_600)
    told, said = parse_log(text)
    assert (len(told), said) == (min(len(told), 256), notes)


@pytest.mark.parametrize("head", [LINES[1] + "\n[<" + "f" * 4096, LINES[1] + "\n[<ffff>] " + "a" * 4096 + "+0x1/0x2",
                                  LINES[1] + "\n actual: " + "ff:" * 4096, LINES[5] + "f" * 4096,
                                  LINES[7] + "f" * 4096])  # fmt: skip
def test_endless_values_are_bounded(head: str) -> None:
    (told,) = parse(head)
    assert len(told.actual or b"") <= 16
    assert max(told.ip or 0, told.flags or 0, told.tramp or 0) < 1 << 64
