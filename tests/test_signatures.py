"""When two functions have different signatures, and where their arguments travel."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elfwriter import BASE, LOCAL, NOP, RET, Elf, as_code
from test_btf import Types
from test_prototypes import DWARF, KERNEL_NAMES, file_of, kernel_types, module_content, types_of

from ftpatch.arch.parts import Passed
from ftpatch.arch.ppc64le import ARCH as PPC64LE
from ftpatch.elf import btf
from ftpatch.elf.c_types import VOID, CType, Kind, Prototype, array_of, function_of, number_of, pointer_to, qualified
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.type_difference import Relation, differences
from ftpatch.kernel.signatures import Comparison, compare_signatures, why_not_in_registers
from ftpatch.recovered.image import open_image

INT, UINT = number_of(Kind.INTEGER, "int", 4, True), number_of(Kind.INTEGER, "unsigned int", 4, False)
LONG, LONGLONG = number_of(Kind.INTEGER, "long int", 8, True), number_of(Kind.INTEGER, "long long int", 8, True)
ULONG, CHAR = number_of(Kind.INTEGER, "long unsigned int", 8, False), number_of(Kind.INTEGER, "char", 1, False)
BOOL, U8 = number_of(Kind.BOOL, "_Bool", 1, False), number_of(Kind.INTEGER, "unsigned char", 1, False)
SIZE_T = qualified(ULONG, [], "size_t", [])
RED, BLUE = (CType(Kind.ENUM, f"enum {name}", name, 4) for name in ("red", "blue"))
BUFFER, PAGE = (CType(Kind.STRUCT, f"struct {name}", name, 8) for name in ("sk_buff", "page"))
OPAQUE, LARGER = BUFFER._replace(size=None), BUFFER._replace(size=16)
WORD, PGD, PTE = CType(Kind.UNION, "union sk_buff", "sk_buff", 8), *(
    CType(Kind.STRUCT, name, name, 8) for name in ("pgd_t", "pte_t"))  # fmt: skip
NAMELESS = CType(Kind.STRUCT, "struct without a name", size=8)
DOUBLE, ODD = CType(Kind.FLOAT, "double", size=8), CType(Kind.UNKNOWN, "a type of another language")
ACTION = Prototype(VOID, (INT,))


def to(target: CType, *qualifiers: str) -> CType:
    """A pointer to a type with qualifiers."""
    return pointer_to(qualified(target, list(qualifiers)), 8)


SAME, CLOSE, NOT_KNOWN, DIFFERENT = Relation.SAME, Relation.CLOSE, Relation.NOT_KNOWN, Relation.DIFFERENT


@pytest.mark.parametrize(("foo", "bar", "relation", "text"), [
    (INT, INT, SAME, ""),
    (LONG, LONGLONG, SAME, ""),
    (SIZE_T, ULONG, SAME, ""),
    (INT, LONG, DIFFERENT, "int, but long"),
    (ULONG, LONG, CLOSE, "unsigned long, but long"),
    (INT, UINT, CLOSE, "int, but unsigned int"),
    (BOOL, U8, CLOSE, "bool, but unsigned char"),
    (BOOL, INT, DIFFERENT, "bool, but int"),
    (RED, INT, SAME, ""),
    (RED, UINT, SAME, ""),
    (RED, BLUE, DIFFERENT, "enum red, but enum blue"),
    (RED, LONG, DIFFERENT, "enum red, but long"),
    (to(BUFFER), INT, DIFFERENT, "struct sk_buff *, but int"),
    (to(BUFFER), ULONG, DIFFERENT, "struct sk_buff *, but unsigned long"),
    (to(BUFFER), to(BUFFER), SAME, ""),
    (to(BUFFER), to(PAGE), DIFFERENT, "struct sk_buff *, but struct page *"),
    (to(BUFFER), to(WORD), DIFFERENT, "struct sk_buff *, but union sk_buff *"),
    (to(BUFFER), to(OPAQUE), SAME, ""),
    (to(BUFFER), to(LARGER), DIFFERENT,
     "struct sk_buff * (struct sk_buff of 8 bytes), but struct sk_buff * (struct sk_buff of 16 bytes)"),
    (to(BUFFER), to(BUFFER, "const"), CLOSE, "struct sk_buff *, but const struct sk_buff *"),
    (qualified(to(BUFFER), ["const"]), to(BUFFER), SAME, ""),  # a const parameter is the function's own business
    (to(VOID), to(BUFFER), CLOSE, "void *, but struct sk_buff *"),
    (to(VOID), to(VOID), SAME, ""),
    (to(VOID), LONG, DIFFERENT, "void *, but long"),
    (to(CHAR), to(U8), SAME, ""),
    (to(INT), to(UINT), CLOSE, "int *, but unsigned int *"),
    (to(INT), to(LONG), DIFFERENT, "int *, but long *"),
    (to(to(CHAR)), to(CHAR), DIFFERENT, "char **, but char *"),
    (to(array_of(INT, [3])), to(array_of(INT, [4])), DIFFERENT, "int (*)[3], but int (*)[4]"),
    (to(array_of(INT, [None])), to(array_of(INT, [4])), SAME, ""),
    (to(function_of(ACTION)), to(function_of(ACTION)), SAME, ""),
    (to(function_of(ACTION)), to(function_of(ACTION._replace(variadic=True))), DIFFERENT,
     "void (*)(int), but void (*)(int, ...)"),
    (to(function_of(ACTION)), to(function_of(ACTION._replace(result=INT))), DIFFERENT,
     "void (*)(int), but int (*)(int)"),
    (to(function_of(ACTION)), to(function_of(None)), CLOSE, "void (*)(int), but a function *"),
    (to(function_of(ACTION)), to(VOID), CLOSE, "void (*)(int), but void *"),
    (PGD, PTE, DIFFERENT, "pgd_t, but pte_t"),
    (BUFFER, LARGER, DIFFERENT,
     "struct sk_buff (struct sk_buff of 8 bytes), but struct sk_buff (struct sk_buff of 16 bytes)"),
    (NAMELESS, NAMELESS, CLOSE, "struct without a name, but another struct without a name"),
    (BUFFER, to(BUFFER), DIFFERENT, "struct sk_buff, but struct sk_buff *"),
    (DOUBLE, LONG, DIFFERENT, "double, but long"),
    (ODD, LONG, NOT_KNOWN, "a type of another language, but long"),
])  # fmt: skip
def test_types_are_told_apart_as_calls_need_it(foo: CType, bar: CType, relation: Relation, text: str) -> None:
    found = list(differences(Prototype(VOID, (INT, foo)), Prototype(VOID, (INT, bar)), widened=False))
    assert found == ([(relation, f"parameter 2: {text}")] if relation else [])
    back = list(differences(Prototype(bar, ()), Prototype(foo, ()), widened=False))
    assert [difference.relation for difference in back] == [one.relation for one in found]


@pytest.mark.parametrize(("foo", "bar", "texts"), [
    (Prototype(LONG, ()), Prototype(VOID, ()), ["returns long, but void"]),
    (Prototype(VOID, (INT, INT, INT)), Prototype(VOID, (INT, INT)), ["3 parameters, but 2"]),
    (Prototype(VOID, (INT,)), Prototype(VOID, ()), ["1 parameter, but 0"]),
    (Prototype(VOID, (INT,), variadic=True), Prototype(VOID, (INT,)), ["one is variadic"]),
    (Prototype(INT, (LONG, to(PAGE))), Prototype(INT, (INT,)), ["2 parameters, but 1", "parameter 1: long, but int"]),
])  # fmt: skip
def test_prototypes_differ_in_results_numbers_and_dots(foo: Prototype, bar: Prototype, texts: list[str]) -> None:
    found = list(differences(foo, bar, widened=False))
    assert [difference.text for difference in found] == texts
    assert {difference.relation for difference in found} == {DIFFERENT}


@pytest.mark.parametrize(
    ("foo", "bar", "relation"), [(INT, UINT, DIFFERENT), (ULONG, LONG, CLOSE), (to(INT), to(UINT), CLOSE)]
)
def test_the_sign_counts_where_callers_widen_by_it(foo: CType, bar: CType, relation: Relation) -> None:
    """ppc64le: −1 as `int` is 64 ones in a register, 0xffffffff as `unsigned int` is not."""
    assert [one.relation for one in differences(Prototype(foo, ()), Prototype(bar, ()), PPC64LE.widens)] == [relation]


# -- functions of files ------------------------------------------------------------------------------------------------


def compared(foo: FunctionTypes, foo_name: str, bar: FunctionTypes, bar_name: str) -> Comparison:
    rows = foo.image.symbols.defined(foo_name), bar.image.symbols.defined(bar_name)
    assert rows[0] is not None and rows[1] is not None
    return compare_signatures(foo, rows[0], bar, rows[1])


NOT_COMPARED = "the signatures of {} and {} could not be compared: {}"
NO_PROTOTYPE = "old: DWARF has no prototype of it"


@pytest.mark.parametrize(("foo", "bar", "expected"), [
    ("first_user", "second_user", Comparison(source="DWARF")),
    ("first_user", "many", Comparison(
        "returns int, but long; 1 parameter, but 9; parameter 1: int, but long", "", "DWARF")),
    ("calls", "pointers", Comparison(
        "returns int, but size_t; 4 parameters, but 5; parameter 1: compare_t, but struct file * and 2 more", "",
        "DWARF")),
    ("first_user", "old", Comparison(warning=NOT_COMPARED.format("first_user", "old", NO_PROTOTYPE))),
    ("cloned.constprop.0", "first_user", Comparison(warning=NOT_COMPARED.format(
        "cloned.constprop.0", "first_user",
        "cloned.constprop.0: the compiler made it for constant arguments (.constprop)"))),
    ("old", "old", Comparison(warning=NOT_COMPARED.format("old", "old", "DWARF has no prototype of it"))),
])  # fmt: skip
def test_signatures_in_one_file(foo: str, bar: str, expected: Comparison) -> None:
    types = types_of(DWARF / "types.o")
    assert compared(types, foo, types, bar) == expected


def test_signatures_of_files_that_are_described_differently(tmp_path: Path) -> None:
    """A module with BTF, its kernel, and an object with DWARF that is linked to it."""
    kernel = file_of(tmp_path / "vmlinux", kernel_types().content(), KERNEL_NAMES)
    module = FunctionTypes(
        file_of(tmp_path / "m.ko", module_content(kernel_types()), ("mine",), module=True), kernel
    )  # int (struct file *)
    patch, of_kernel = types_of(DWARF / "types.o"), FunctionTypes(kernel)
    assert compared(module, "mine", of_kernel, "vfs_read") == Comparison(
        "returns int, but size_t; 1 parameter, but 2", "", "BTF"
    )
    assert compared(module, "mine", patch, "helper") == Comparison(
        "parameter 1: struct file *, but int", "", "BTF and DWARF"
    )
    assert compared(of_kernel, "_printk", patch, "text") == Comparison("returns void, but int", "", "BTF and DWARF")


def test_what_may_be_assembly_is_compared_with_nothing_but_its_like(tmp_path: Path) -> None:
    types = FunctionTypes(file_of(tmp_path / "vmlinux", kernel_types().content(), KERNEL_NAMES))
    assert compared(types, "vfs_read", types, "memcpy") == Comparison(
        warning="the signatures of vfs_read and memcpy could not be compared: memcpy: BTF has it as void (void), as it "
        "has functions in assembly"
    )
    foo, bar = (types.image.symbols.defined(name) or 0 for name in ("vfs_read", "memcpy"))
    assert compare_signatures(types, foo, types, bar, compiled=True).different == (
        "returns size_t, but void; 2 parameters, but 0"
    )
    assert compared(types, "memcpy", types, "memcpy") == Comparison(source="BTF")
    assert compared(types, "memcpy", types, "vfs_read").different  # the first has a patch site, so that it is of C


def test_differences_that_calls_do_not_depend_on_are_warnings(tmp_path: Path) -> None:
    types = Types()
    types.add(btf.PTR, "", 0)  # 1
    types.add(btf.STRUCT, "file", 96)  # 2
    types.add(btf.PTR, "", 2)  # 3
    types.add(btf.FUNC_PROTO, "", 1, (0, 1))  # 4
    types.add(btf.FUNC_PROTO, "", 1, (0, 3))  # 5
    types.add(btf.FUNC, "any", 4)  # 6
    types.add(btf.FUNC, "some", 5)  # 7
    found = FunctionTypes(file_of(tmp_path / "vmlinux", types.content(), ("any", "some")))
    assert compared(found, "any", found, "some") == Comparison(
        warning="the signatures of any and some differ: parameter 1: void *, but struct file *", source="BTF"
    )


# -- kCFI --------------------------------------------------------------------------------------------------------------


def with_hashes(path: Path, hashes: list[int], mark: bool = True, local: bool = False, nops: int = 0) -> FunctionTypes:
    """A file whose functions f0, f1 … have these words in front of them and of NOPs."""
    elf, words = Elf(), list[int]()
    for number in hashes:
        words += [number, *[NOP] * nops, NOP, RET]
    text = elf.section(".text", as_code(words), addr=BASE, flags=6)
    for number in range(len(hashes)):
        at = BASE + 4 * (number * (3 + nops) + 1 + nops)
        elf.symbol(f"f{number}", text, at, 8, bind=LOCAL if local else 1)
    if mark:
        elf.symbol("__kcfi_typeid_elsewhere", 0xFFF1, 0x1234_5678, type=0, bind=2)
    path.write_bytes(elf.build())
    return FunctionTypes(open_image(str(path)))


NEITHER = "the file has neither DWARF nor BTF"
UNKNOWN = Comparison(warning=NOT_COMPARED.format("f0", "f1", NEITHER))


@pytest.mark.parametrize("nops", [0, 2])
@pytest.mark.parametrize(("hashes", "options", "expected"), [
    ([0x1111_2222, 0x1111_2222], {}, Comparison(source="kCFI")),
    ([0x1111_2222, 0x3333_4444], {}, Comparison("kCFI type hash 0x11112222, but 0x33334444", "", "kCFI")),
    ([0x1111_2222, 0], {}, UNKNOWN),
    ([0x1111_2222, 0x3333_4444], {"mark": False}, UNKNOWN),  # not compiled with it: any instructions
    ([0x1111_2222, 0x3333_4444], {"local": True}, UNKNOWN),  # static functions may have none
])  # fmt: skip
def test_type_hashes_tell_where_types_are_not_described(
    nops: int, hashes: list[int], options: dict[str, bool], expected: Comparison, tmp_path: Path
) -> None:
    types = with_hashes(tmp_path / "vmlinux", hashes, nops=nops, **options)
    assert compared(types, "f0", types, "f1") == expected


# -- registers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "why"), [
    ("nothing", ""), ("numbers", ""), ("pointers", ""),
    ("many", "its 9th argument is on the stack"),
    ("text", "it is variadic"),
    ("by_value", "its 5th argument is on the stack"),  # behind the place of the result and seven doublewords
    ("old", None), ("cloned.constprop.0", None),
])  # fmt: skip
def test_arguments_travel_in_eight_registers(name: str, why: str | None) -> None:
    types = types_of(DWARF / "types-ppc64le.o")
    assert why_not_in_registers(types, types.image.symbols.defined(name) or 0) == why


@pytest.mark.parametrize("name", ["many", "text", "old"])
def test_it_makes_no_difference_where_replacements_are_jumped_to(name: str) -> None:
    types = types_of(DWARF / "types.o")
    assert why_not_in_registers(types, types.image.symbols.defined(name) or 0) == ""


def test_what_may_be_assembly_has_arguments_that_nobody_knows(tmp_path: Path) -> None:
    """opal-wrappers.S reads a tenth argument from the stack."""
    kernel = file_of(tmp_path / "vmlinux", kernel_types().content(), KERNEL_NAMES)
    data = bytearray((tmp_path / "vmlinux").read_bytes())
    struct.pack_into("<H", data, 18, PPC64LE.e_machine)
    (tmp_path / "vmlinux").write_bytes(data)
    types, row = FunctionTypes(open_image(str(tmp_path / "vmlinux"))), kernel.symbols.defined("memcpy") or 0
    assert (why_not_in_registers(types, row), why_not_in_registers(types, row, compiled=True)) == (None, "")


N, PAIR, TRIPLE, EMPTY = Passed("number", 8), Passed("aggregate", 16), Passed("aggregate", 24), Passed("aggregate", 0)
WIDE, F, BIG, NONE = Passed("number", 16), Passed("float", 8), Passed("aggregate", 72), Passed("none", 0)
QUAD = Passed("float", 16)


@pytest.mark.parametrize(("result", "parameters", "answers"), [
    (NONE, [N] * 9, [True] * 8 + [False]),
    (PAIR, [N] * 8, [True] * 8),
    (TRIPLE, [N] * 8, [True] * 7 + [False]),
    (NONE, [TRIPLE, TRIPLE, TRIPLE], [True, True, False]),  # the last lies half in memory
    (NONE, [BIG], [False]),
    (NONE, [N] * 7 + [WIDE], [True] * 7 + [False]),
    (NONE, [N] * 6 + [WIDE], [True] * 7),  # numbers are not aligned to more than a doubleword
    (NONE, [N] * 6 + [PAIR], [True] * 7),
    (NONE, [N] * 5 + [PAIR, N], [True] * 6 + [None]),  # where the pair begins depends on its alignment
    (NONE, [N, PAIR, N, N, N, N, N], [True] * 6 + [None]),
    (NONE, [EMPTY] * 9 + [N], [True] * 10),
    (NONE, [N] * 8 + [F] * 6, [True] * 14),  # floating point has registers of its own
    (NONE, [F] * 14, [True] * 13 + [False]),
    (NONE, [QUAD] * 5, [True] * 4 + [False]),
])  # fmt: skip
def test_the_abi_places_arguments_by_doublewords(
    result: Passed, parameters: list[Passed], answers: list[bool | None]
) -> None:
    assert PPC64LE.in_registers is not None
    assert PPC64LE.in_registers(result, parameters) == answers
