"""JSON and TOML that anybody may have made: what is parsed, what is malformed, and what is more than is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from elfwriter import MINI
from limits import limited

from ftpatch.cli import run
from ftpatch.document import json_input, toml_input
from ftpatch.document.json_input import NotJson
from ftpatch.document.toml_input import NotToml
from ftpatch.errors import UnsupportedError

Capture = pytest.CaptureFixture[str]
SECONDS, SPACE = 5, 200 << 20  # of each case; the machine that runs the tests may be busy
LIMITS = " – docs/limits.md has all limits"
BITS = "expected a number that 64 bits hold"


def in_dots(n: int, part: str = "a") -> str:
    return ".".join([part] * n)


TOO_MUCH_TOML: list[tuple[str, str, str]] = [
    ("brackets", "[" * 3000, "values nested deeper, expected at most 32"),
    ("lists", "x = " + "[" * 3000, "values nested deeper, expected at most 32"),
    ("lists-closed", "x = " + "[" * 33 + "]" * 33, "values nested deeper, expected at most 32"),
    ("tables", "x = " + "{a=" * 3000, "values nested deeper, expected at most 32"),
    ("lists-of-tables", "x = " + "[{a=" * 17 + "1" + "}]" * 17, "values nested deeper, expected at most 32"),
    ("lists-over-lines", "x = " + "[\n# [\n" * 33, "values nested deeper, expected at most 32"),
    ("digits", "x = " + "1" * 5000, "a number of 5000 digits, expected at most 128"),
    ("digits-negative", "x = -" + "1" * 128, "a number of 129 digits, expected at most 128"),
    ("digits-apart", "x = 1" + "_1" * 5000, "a number of 10001 digits, expected at most 128"),
    ("digits-hex", "x = 0x" + "f" * 5000, "a number of 5002 digits, expected at most 128"),
    ("digits-of-a-fraction", "x = 1." + "1" * 5000, "a number of 5000 digits, expected at most 128"),
    ("digits-million", "x = " + "1" * 1_000_000, "a number of 1000000 digits, expected at most 128"),
    ("dotted", in_dots(20_000) + " = 1", "a key of more parts, expected at most 16"),
    ("dotted-17", in_dots(17) + " = 1", "a key of more parts, expected at most 16"),
    ("dotted-apart", " . ".join(["a"] * 17) + " = 1", "a key of more parts, expected at most 16"),
    ("dotted-quoted", in_dots(20_000, '"a"') + " = 1", "a key of more parts, expected at most 16"),
    ("dotted-quoted-once", in_dots(20_000, "'a.b'") + " = 1", "a key of more parts, expected at most 16"),
    ("dotted-header", f"[{in_dots(20_000)}]", "a key of more parts, expected at most 16"),
    ("dotted-list-header", f"[[{in_dots(20_000)}]]", "a key of more parts, expected at most 16"),
    ("dotted-inline", f"x = {{{in_dots(20_000)} = 1}}", "a key of more parts, expected at most 16"),
    ("headers", "".join(f"[a{n}]\n" for n in range(70_000)), "more tables and lists, expected at most 65536"),
    ("list-headers", "[[ignore]]\n" * 200_000, "more tables and lists, expected at most 65536"),
    ("inline-tables", "x = [" + "{}," * 70_000 + "]", "more tables and lists, expected at most 65536"),
    ("strings", "x = [" + '"a",' * 600_000 + "]", "more names and values, expected at most 1048576"),
    ("lines", "x = 1\n" * 300_000, "more names and values, expected at most 1048576"),
    ("comments", "#\n" * 600_000, "more names and values, expected at most 1048576"),
    ("escapes", 'x = "' + "\\n" * 1_100_000 + '"', "more escapes, expected at most 1048576"),
    ("string", 'x = "' + "a" * 70_000 + '"', "a string of 70002 characters, expected at most 65536"),
    ("string-of-lines", 'x = """' + "a\n" * 70_000 + '"""', "a string of 140006 characters, expected at most 65536"),
    ("quoted-key", '"' + "a" * 70_000 + '" = 1', "a string of 70002 characters, expected at most 65536"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), [pytest.param(*case[1:], id=case[0]) for case in TOO_MUCH_TOML])
def test_more_toml_than_is_read_is_refused(text: str, line: str) -> None:
    """Nesting was a RecursionError, digits a ValueError, a key of 20,000 parts took 1.4 GB."""
    with limited(SECONDS, SPACE), pytest.raises(UnsupportedError) as caught:
        toml_input.parse(text.encode(), "c")
    assert str(caught.value) == f"c: more than is read of TOML: found {line}{LIMITS}"


@pytest.mark.parametrize(("data", "found"), [
    (b'x = "\xff"', "'utf-8' codec can't decode byte 0xff in position 5: invalid start byte"),
    (b'x = "\xed\xa0\x80"', "'utf-8' codec can't decode byte 0xed in position 5: invalid continuation byte"),
    ("x = 1".encode("utf-16"), "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    (b'x = "\\ud800"', "Escaped character is not a Unicode scalar value (at line 1, column 12)"),
    (b'x = "\0"', "Illegal character '\\x00' (at line 1, column 6)"),
    (b"x = 1\nx = 2", "Cannot overwrite a value (at end of document)"),
    (b"[a]\n[a]", "Cannot declare ('a',) twice (at line 2, column 3)"),
    (b'x = "a', "Unterminated string (at end of document)"),
    (b'x = """' + b"a\n" * 300_000, "Unterminated string (at end of document)"),
    (b'x = "' + b'\\"' * 300_000, "Unterminated string (at end of document)"),
    (b"]" * 30_000, "Invalid statement (at line 1, column 1)"),
])  # fmt: skip
def test_what_is_no_toml_is_said(data: bytes, found: str) -> None:
    with limited(SECONDS, SPACE), pytest.raises(NotToml) as caught:
        toml_input.parse(data, "c")
    assert str(caught.value) == found


@pytest.mark.parametrize(("text", "value"), [
    ("x = " + "[" * 32 + "]" * 32, None),
    ("x = " + "1" * 128, int("1" * 128)),
    (in_dots(16) + " = 1", None),
    ('x = "' + "[" * 60_000 + '"', "[" * 60_000),
    ('x = "' + "." * 60_000 + '"', "." * 60_000),
    ("x = '" + "{" * 60_000 + "'", "{" * 60_000),
    ('x = "' + '\\"[' * 600 + '"', '"[' * 600),
    ('x = """' + "[\n" * 600 + '"""', "[\n" * 600),
    ('x = """a""""""[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["""', None),
    ("x = '''" + "['" * 600 + "'''", "['" * 600),
    ("x = [1] # " + "[" * 600, [1]),
    ("\ufeffx = 1", 1),
    ("x = 1\r\n# " + "[" * 600 + "\r\n", 1),
])  # fmt: skip
def test_toml_at_its_limits_is_read(text: str, value: object) -> None:
    """Brackets and dots within strings and comments are text."""
    try:
        tree = toml_input.parse(text.encode(), "c")
    except NotToml:
        assert value is None and '""""""' in text
        return
    assert value is None or tree == {"x": value}


TOO_MUCH_JSON: list[tuple[str, bytes, str]] = [
    ("lists", b"[" * 3000, "values nested deeper, expected at most 1000"),
    ("lists-closed", b"[" * 3000 + b"]" * 3000, "values nested deeper, expected at most 1000"),
    ("lists-100000", b"[" * 100_000, "values nested deeper, expected at most 1000"),
    ("objects", b'{"a":' * 100_000, "values nested deeper, expected at most 1000"),
    ("lists-of-objects", b'[{"a":' * 100_000, "values nested deeper, expected at most 1000"),
    ("digits", b"[" + b"1" * 5000 + b"]", f"a number of 5000 digits, {BITS}"),
    ("digits-million", b"-" + b"1" * 1_000_000, f"a number of 1000000 digits, {BITS}"),
    ("over-64-bits", b"[18446744073709551616]", f"18446744073709551616, {BITS}"),
    ("under-64-bits", b"[-9223372036854775809]", f"-9223372036854775809, {BITS}"),
    ("infinite", b"[1e999]", f"1e999, {BITS}"),
    ("minus-infinite", b"[-1.5E+400]", f"-1.5E+400, {BITS}"),
    ("exponent", b"1e" + b"1" * 1_000_000, f"a number of 1000002 characters, {BITS}"),
    ("lists-many", b"[" + b"[]," * 1_000_000 + b"[]]", "more values, expected at most 1298576"),
    ("objects-many", b"[" + b'{"":0},' * 1_000_000 + b"{}]", "more values, expected at most 1631909"),
    ("numbers-many", b"[" + b"0," * 2_000_000 + b"0]", "more values, expected at most 1381909"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "line"), [pytest.param(*case[1:], id=case[0]) for case in TOO_MUCH_JSON])
def test_more_json_than_is_read_is_refused(data: bytes, line: str) -> None:
    with limited(SECONDS, SPACE), pytest.raises(UnsupportedError) as caught:
        json_input.parse(data, "j")
    assert str(caught.value) == f"j: more than is read of JSON: found {line}{LIMITS}"


@pytest.mark.parametrize(("data", "found"), [
    (b"", "Expecting value: line 1 column 1 (char 0)"),
    (b"NaN", "NaN, which is no number of JSON"),
    (b"[-Infinity]", "-Infinity, which is no number of JSON"),
    (b'{"a": 1, "a": 1}', "a member that is there twice"),
    (b'"\xff"', "a byte at 0x1 that is not UTF-8"),
    (b'"\0"', "Invalid control character at: line 1 column 2 (char 1)"),
    (b"1 2", "Extra data: line 1 column 3 (char 2)"),
    (b"01", "Extra data: line 1 column 2 (char 1)"),
    (b"[1,]", "Expecting value: line 1 column 4 (char 3)"),
    (b"'a'", "Expecting value: line 1 column 1 (char 0)"),
    (b'"\\x"', "Invalid \\escape: line 1 column 2 (char 1)"),
    (b"// a", "Expecting value: line 1 column 1 (char 0)"),
    ("1".encode("utf-16"), "a byte at 0x0 that is not UTF-8"),
])  # fmt: skip
def test_what_is_no_json_is_said(data: bytes, found: str) -> None:
    with limited(SECONDS, SPACE), pytest.raises(NotJson) as caught:
        json_input.parse(data, "j")
    assert str(caught.value) == found


@pytest.mark.parametrize(("data", "value"), [
    (b"18446744073709551615", (1 << 64) - 1), (b"-9223372036854775808", -(1 << 63)), (b"-0", 0), (b"1e308", 1e308),
    (b"1e-999", 0.0), (b"\xef\xbb\xbf[]", []), (b'"\\ud800"', "\ud800"), (b'"\\u0000"', "\0"),
    (b'"' + b"[" * 100_000 + b'"', "[" * 100_000),
])  # fmt: skip
def test_json_at_its_limits_is_read(data: bytes, value: object) -> None:
    assert json_input.parse(data, "j") == value


def test_a_list_of_200000_names_is_a_configuration() -> None:
    """As many as a big kernel has functions, one a line."""
    names = [f"function_with_a_long_name_{n}" for n in range(200_000)]
    text = "must-be-traceable = [\n" + "".join(f'  "{name}",\n' for name in names) + "]\n"
    with limited(SECONDS, SPACE):
        assert toml_input.parse(text.encode(), "c") == {"must-be-traceable": names}


KERNEL = str(MINI / "vmlinux-callops")


@pytest.mark.parametrize(("arguments", "content", "code"), [
    (("check", KERNEL, "--config", "x"), "[" * 3000, 4),
    (("check", KERNEL, "--config", "x"), "x = " + "1" * 5000, 4),
    (("check", KERNEL, "--config", "x"), in_dots(20_000) + " = 1", 4),
    (("check", KERNEL, "--config", "x"), "x = ", 2),
    (("check", KERNEL, "--baseline", "x"), '{"baseline": 1, "records": {}, "findings": [1e999]}', 4),
    (("check", KERNEL, "--baseline", "x"), "[" * 3000, 4),
    (("check", KERNEL, "--baseline", "x"), "[", 2),
    (("restore", KERNEL, "--journal", "x", "-o", "out"), "[" * 3000, 4),
    (("restore", KERNEL, "--journal", "x", "-o", "out"), '{"schema": 18446744073709551616}', 4),
    (("verify", KERNEL, KERNEL, "--journal", "x"), '{"schema": 1, "size": 1e999}', 4),
    (("verify", KERNEL, KERNEL, "--journal", "x"), "[", 3),
])  # fmt: skip
def test_a_file_beyond_the_limits_gets_one_line(
    arguments: tuple[str, ...], content: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("x").write_text(content)
    with limited(20):
        found = run(list(arguments))
    captured = capsys.readouterr()
    assert (found, captured.out, captured.err.count("\n")) == (code, "", 1)
    assert captured.err.startswith("ftpatch: x: ")
    assert not Path("out").exists()
