"""What a module's relocations write, per machine: a table from type to a function.

Source: ELF for the Arm 64-bit Architecture, 5.7; arch/arm64/kernel/module.c apply_relocate_add();
OpenPOWER ELFv2, 3.5; arch/powerpc/kernel/module_64.c apply_relocate_add(), create_stub(), restore_r2().
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

BIT64 = (1 << 64) - 1
LD_R2_24, PPC_NOP = 0xE841_0018, 0x6000_0000
STUB, STUB_ALIGN = 40, 8  # bytes of a stub at most


@dataclass(frozen=True)
class Spot:
    """One relocation: the section's bytes and the offset in them, the place's va, symbol plus addend, bytes from there
    to the local entry, and whether the symbol lives in another file."""

    content: bytearray
    off: int
    va: int
    value: int
    local: int
    outside: bool

    def word(self, more: int = 0) -> int:
        return int.from_bytes(self.content[self.off + more : self.off + more + 4], "little")

    def put(self, value: int, size: int = 4, more: int = 0) -> None:
        self.content[self.off + more : self.off + more + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


@dataclass
class Link:
    """What relocating a module makes: stubs from `free` on, and pointers: place → value. toc: the module's, if any."""

    free: int
    toc: int | None
    stubs: bytearray = field(default_factory=bytearray)
    pointers: dict[int, int] = field(default_factory=dict)
    _made: dict[int, int] = field(default_factory=dict)

    def stub(self, target: int) -> int:
        """Address of a stub that goes to the target."""
        if target not in self._made:
            va = self.free + len(self.stubs)
            words = _ppc_stub(va, target, self.toc) if self.toc is not None else _arm_stub(va, target)
            if self.toc is not None:
                self.pointers[va + 32] = target
            self._made[target] = va
            self.stubs += b"".join(word.to_bytes(4, "little") for word in words)
            self.stubs += bytes(-len(self.stubs) % STUB_ALIGN)
        return self._made[target]


def _arm_stub(va: int, target: int) -> list[int]:
    """adrp x16, target; add x16, x16, #lo12; br x16"""
    pages = (target >> 12) - (va >> 12)
    adrp = 0x9000_0010 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    return [adrp, 0x9100_0210 | (target & 0xFFF) << 10, 0xD61F_0200]


def _ppc_stub(va: int, target: int, toc: int) -> list[int]:
    """struct ppc64_stub_entry: seven words of code, a magic number, the function's address."""
    to = va - toc
    return [0x3D62_0000 | to + 0x8000 >> 16 & 0xFFFF,  # addis r11,r2,va@ha
            0x396B_0000 | to & 0xFFFF,                 # addi  r11,r11,va@l
            0xF841_0018,                               # std   r2,24(r1)
            0xE98B_0020,                               # ld    r12,32(r11)
            0x7D89_03A6,                               # mtctr r12
            0x4E80_0420,                               # bctr
            0, 0x7374_7562, target & 0xFFFF_FFFF, target >> 32]  # fmt: skip


def _pointer(link: Link, at: Spot) -> None:
    at.put(at.value, 8)
    link.pointers[at.va] = at.value


def _relative64(link: Link, at: Spot) -> None:
    at.put(at.value - at.va, 8)


def _relative32(link: Link, at: Spot) -> None:
    at.put(at.value - at.va)


def _branch26(link: Link, at: Spot) -> None:
    """bl, b: over a stub where the target is out of reach."""
    distance = at.value - at.va
    if not -(1 << 27) <= distance < 1 << 27:
        distance = link.stub(at.value) - at.va
    at.put(at.word() & 0xFC00_0000 | distance >> 2 & 0x03FF_FFFF)


def _branch(shift: int, width: int) -> Callable[[Link, Spot], None]:
    def apply(link: Link, at: Spot) -> None:
        mask = (1 << width) - 1 << shift
        at.put(at.word() & ~mask | at.value - at.va >> 2 << shift & mask)

    return apply


def _adr(page: int) -> Callable[[Link, Spot], None]:
    def apply(link: Link, at: Spot) -> None:
        distance = (at.value >> page) - (at.va >> page)
        at.put(at.word() & 0x9F00_001F | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5)

    return apply


def _lo12(scale: int) -> Callable[[Link, Spot], None]:
    def apply(link: Link, at: Spot) -> None:
        at.put(at.word() & ~(0xFFF << 10) | (at.value & 0xFFF) >> scale << 10)

    return apply


def _rel24(link: Link, at: Spot) -> None:
    """bl, b: to the local entry within the module; over a stub to what is outside, with the TOC loaded again."""
    word, to = at.word(), at.value + at.local
    if at.outside:
        to = link.stub(at.value)
        if word & 1 and at.off + 8 <= len(at.content) and at.word(4) == PPC_NOP:
            at.put(LD_R2_24, more=4)
    at.put(word & 0xFC00_0003 | to - at.va & 0x03FF_FFFC)


def _half(of: str, toc: bool, ds: bool = False) -> Callable[[Link, Spot], None]:
    """A 16-bit field: low, high or high adjusted; relative to the TOC or to the place."""

    def apply(link: Link, at: Spot) -> None:
        value = at.value - (link.toc or 0) if toc else at.value - at.va
        part = {"lo": value, "hi": value >> 16, "ha": value + 0x8000 >> 16}[of] & 0xFFFF
        old = int.from_bytes(at.content[at.off : at.off + 2], "little")
        at.put(old & 3 | part & 0xFFFC if ds else part, 2)

    return apply


def _toc(link: Link, at: Spot) -> None:
    at.put(link.toc or 0, 8)
    link.pointers[at.va] = link.toc or 0


Apply = Callable[[Link, Spot], None]
AARCH64: dict[int, Apply] = {
    257: _pointer,  # R_AARCH64_ABS64
    260: _relative64,  # PREL64
    261: _relative32,  # PREL32
    274: _adr(0),  # ADR_PREL_LO21
    275: _adr(12),  # ADR_PREL_PG_HI21
    276: _adr(12),  # ADR_PREL_PG_HI21_NC
    277: _lo12(0),  # ADD_ABS_LO12_NC
    278: _lo12(0),  # LDST8_ABS_LO12_NC
    279: _branch(5, 14),  # TSTBR14
    280: _branch(5, 19),  # CONDBR19
    282: _branch26,  # JUMP26
    283: _branch26,  # CALL26
    284: _lo12(1),  # LDST16_ABS_LO12_NC
    285: _lo12(2),  # LDST32_ABS_LO12_NC
    286: _lo12(3),  # LDST64_ABS_LO12_NC
    299: _lo12(4),  # LDST128_ABS_LO12_NC
}
PPC64: dict[int, Apply] = {
    10: _rel24,  # R_PPC64_REL24
    26: _relative32,  # REL32
    38: _pointer,  # ADDR64
    44: _relative64,  # REL64
    47: _half("lo", True),  # TOC16
    48: _half("lo", True),  # TOC16_LO
    49: _half("hi", True),  # TOC16_HI
    50: _half("ha", True),  # TOC16_HA
    51: _toc,  # TOC
    63: _half("lo", True, True),  # TOC16_DS
    64: _half("lo", True, True),  # TOC16_LO_DS
    250: _half("lo", False),  # REL16_LO
    251: _half("hi", False),  # REL16_HI
    252: _half("ha", False),  # REL16_HA
}
CALLS = (282, 283, 10)  # what may need a stub
APPLY = {183: AARCH64, 21: PPC64}
