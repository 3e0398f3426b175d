"""Numbers of DWARF that more than one reader needs, and how long an attribute of each form is.

Source: DWARF 5, 7.5.3 to 7.5.6 and 7.10.
"""

from __future__ import annotations

from ftpatch.errors import ElfError

MAX_LEB = 10  # bytes of a number: more than 64 bits are damage

DW_UT_COMPILE, DW_UT_TYPE, DW_UT_PARTIAL, DW_UT_SKELETON = 1, 2, 3, 4
FIRST_WITH_KIND = 5  # the version of DWARF from which on a unit tells its kind

DW_TAG_ARRAY_TYPE, DW_TAG_ENUMERATION_TYPE, DW_TAG_FORMAL_PARAMETER, DW_TAG_LEXICAL_BLOCK = 0x01, 0x04, 0x05, 0x0B
DW_TAG_MEMBER, DW_TAG_POINTER_TYPE, DW_TAG_COMPILE_UNIT, DW_TAG_STRUCTURE_TYPE = 0x0D, 0x0F, 0x11, 0x13
DW_TAG_SUBROUTINE_TYPE, DW_TAG_TYPEDEF, DW_TAG_UNION_TYPE, DW_TAG_UNSPECIFIED_PARAMETERS = 0x15, 0x16, 0x17, 0x18
DW_TAG_INLINED_SUBROUTINE, DW_TAG_SUBRANGE_TYPE, DW_TAG_BASE_TYPE, DW_TAG_CONST_TYPE = 0x1D, 0x21, 0x24, 0x26
DW_TAG_SUBPROGRAM, DW_TAG_VOLATILE_TYPE, DW_TAG_RESTRICT_TYPE, DW_TAG_PARTIAL_UNIT, DW_TAG_ATOMIC_TYPE = (
    0x2E, 0x35, 0x37, 0x3C, 0x47)  # fmt: skip

DW_AT_NAME, DW_AT_BYTE_SIZE, DW_AT_LOW_PC, DW_AT_HIGH_PC, DW_AT_LANGUAGE = 0x03, 0x0B, 0x11, 0x12, 0x13
DW_AT_COMP_DIR, DW_AT_PRODUCER = 0x1B, 0x25
DW_AT_INLINE, DW_AT_PROTOTYPED, DW_AT_UPPER_BOUND, DW_AT_ABSTRACT_ORIGIN, DW_AT_CALLING_CONVENTION = (
    0x20, 0x27, 0x2F, 0x31, 0x36)  # fmt: skip
DW_AT_COUNT, DW_AT_DECLARATION, DW_AT_ENCODING, DW_AT_SPECIFICATION, DW_AT_TYPE = 0x37, 0x3C, 0x3E, 0x47, 0x49
DW_AT_RANGES, DW_AT_STR_OFFSETS_BASE, DW_AT_ADDR_BASE, DW_AT_RNGLISTS_BASE = 0x55, 0x72, 0x73, 0x74
DW_AT_DWO_NAME, DW_AT_NORETURN, DW_AT_ALIGNMENT, DW_AT_GNU_VECTOR, DW_AT_GNU_DWO_NAME = (
    0x76, 0x87, 0x88, 0x2107, 0x2130)  # fmt: skip

DW_FORM_ADDR, DW_FORM_STRING, DW_FORM_SDATA, DW_FORM_STRP, DW_FORM_UDATA = 0x01, 0x08, 0x0D, 0x0E, 0x0F
DW_FORM_REF_ADDR, DW_FORM_REF_UDATA, DW_FORM_SEC_OFFSET, DW_FORM_FLAG_PRESENT = 0x10, 0x15, 0x17, 0x19
DW_FORM_STRX, DW_FORM_ADDRX, DW_FORM_LINE_STRP, DW_FORM_IMPLICIT_CONST, DW_FORM_RNGLISTX = 0x1A, 0x1B, 0x1F, 0x21, 0x23
DATA1, DATA2, DATA4, DATA8, FLAG = 0x0B, 0x05, 0x06, 0x07, 0x0C
PLAIN = (DW_FORM_ADDR, DATA1, DATA2, DATA4, DATA8, FLAG, DW_FORM_REF_ADDR, DW_FORM_SEC_OFFSET)
UNIT_REFERENCES = (0x11, 0x12, 0x13, 0x14, DW_FORM_REF_UDATA)  # counted from the unit's beginning
STRING_INDICES = (DW_FORM_STRX, 0x25, 0x26, 0x27, 0x28)
STRINGS = (DW_FORM_STRING, DW_FORM_STRP, DW_FORM_LINE_STRP, *STRING_INDICES)
ADDRESS_INDICES = (DW_FORM_ADDRX, 0x29, 0x2A, 0x2B, 0x2C)
ADDRESSES = (DW_FORM_ADDR, *ADDRESS_INDICES)

# How to pass over a form whose length stands in the attribute: a LEB128 number, a string that ends with a zero, bytes
# behind their number as LEB128, bytes behind their number in 1, 2 or 4 bytes (-BLOCK_OF - that).
NUMBER, TEXT, BLOCK, BLOCK_OF = -1, -2, -3, 8
SKIPS = {
    DW_FORM_ADDR: 8, 0x03: -BLOCK_OF - 2, 0x04: -BLOCK_OF - 4, DATA2: 2, DATA4: 4, DATA8: 8, DW_FORM_STRING: TEXT,
    0x09: BLOCK, 0x0A: -BLOCK_OF - 1, DATA1: 1, FLAG: 1, DW_FORM_SDATA: NUMBER, DW_FORM_UDATA: NUMBER, 0x11: 1, 0x12: 2,
    0x13: 4, 0x14: 8, DW_FORM_REF_UDATA: NUMBER, 0x18: BLOCK, DW_FORM_FLAG_PRESENT: 0, DW_FORM_STRX: NUMBER,
    DW_FORM_ADDRX: NUMBER, 0x1C: 4, 0x1E: 16, 0x20: 8, DW_FORM_IMPLICIT_CONST: 0, 0x22: NUMBER,
    DW_FORM_RNGLISTX: NUMBER, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
# Forms that are offsets in a section: four bytes, or eight in a unit of 64-bit DWARF.
OFFSETS = (DW_FORM_STRP, DW_FORM_REF_ADDR, DW_FORM_SEC_OFFSET, 0x1D, DW_FORM_LINE_STRP, 0x1F20, 0x1F21)


def skip(form: int, wide: bool, version: int) -> int:
    """Bytes of an attribute of that form, or a negative rule. wide: the unit is 64-bit DWARF. ElfError: not known."""
    if form in OFFSETS:
        return 8 if wide or (form == DW_FORM_REF_ADDR and version == 2) else 4  # an address, in DWARF 2
    if form not in SKIPS:
        raise ElfError("debug information has a form that is not known", found=f"{form:#x}")
    return SKIPS[form]


# What DW_AT_encoding of a base type may say, and DW_AT_language of a unit.
DW_ATE_BOOLEAN, DW_ATE_SIGNED, DW_ATE_SIGNED_CHAR, DW_ATE_UNSIGNED, DW_ATE_UNSIGNED_CHAR, DW_ATE_UTF = (
    2, 5, 6, 7, 8, 0x10)  # fmt: skip
FLOATS = (3, 4, 9, 0xF)  # complex, float, imaginary, decimal
C_LANGUAGES = (0x01, 0x02, 0x0C, 0x1D, 0x2C)  # C89, C, C99, C11, C17
DW_CC_NOCALL = 3  # the compiler changed how the function is called


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """(the LEB128 number at `at`, where the next byte is)."""
    number = 0
    for place in range(MAX_LEB):
        octet = data[at + place]
        number |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return number, at + place + 1
    raise ElfError("debug information has a number without end")
