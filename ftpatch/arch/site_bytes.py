"""What the bytes of a site are that a kernel prints (` actual:   1f:20:03:d5`), on every machine that has ftrace.

A log need not say which machine it is from. How many bytes it prints, at which address, and what instruction they are
tells it nearly always: five on x86, six on s390, eight on riscv, an instruction word elsewhere. Machines whose files
this program does not read are here for that reason, and for nothing else.

Source: MCOUNT_INSN_SIZE of arch/*/include/asm/ftrace.h (Linux 4.4 to 7.2), show_regs() of each machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ftpatch.arch.known_code import (
    ARM,
    ARM64,
    LOONGARCH,
    MIPS,
    POWER,
    RISCV,
    RISCV_WORD,
    S390,
    UNKNOWN,
    WORD,
    X86,
    ZEROS,
    Known,
)

ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")
KERNEL64 = 0xFFFF_FFFF_8000_0000  # the last 2 GiB, where x86 and riscv have the kernel and its modules
ENDS = 1 << 64


class Machine(NamedTuple):
    """One machine, as its messages show it."""

    name: str
    sizes: tuple[int, ...]  # bytes that its kernels print of a site
    order: Literal["little", "big"]  # of the bytes in an instruction word
    known: tuple[Known, ...]  # the first that fits holds
    addresses: tuple[tuple[int, int], ...]  # [first, end) where its kernels and their modules lie
    # (text, pattern of module `re` in a line that has that text) that only logs of this machine have
    signs: tuple[tuple[str, str], ...] = ()
    capstone: tuple[str, ...] = ()  # names of capstone's constants, for what is not `known`
    family: str = ""  # machines of one family print the same lines, and signs in a log may mean any of them
    compiled_calls: bool = False  # what compilers leave at a site is a call, which a kernel looks for at boot
    pair: bool = False  # eight bytes are two words, the first in the upper half of the number
    arch: str = ""  # the name of its `Arch`, where that is another


class Reading(NamedTuple):
    """What the bytes of a site are."""

    kind: str
    text: str  # as assembly writes it, or "" where that is not known
    to: int | None = None  # where a call or jump leads
    exact: bool = False  # every bit of it is known: no other machine is likely to have this by chance


HIGH32 = ((0x8000_0000, 1 << 32),)
MACHINES = (
    Machine("arm64", (4,), "little", ARM64, ((0xFFF0 << 48, KERNEL64),),
            (("pstate", r"\bpstate ?: [0-9a-f]{8}"), ("ESR = ", r"\bESR = 0x"), ("aarch64", r"\baarch64\b"),
             ("arm64", r"[-.]arm64\b")),
            ("CS_ARCH_ARM64",)),
    Machine("ppc64le", (4,), "little", POWER, ((0xC << 60, 0xE << 60),),
            (("MSR:", r"\bMSR: .*\bSF\b.*\bLE\b"), ("powerpc64le", "powerpc64le"), ("ppc64le", r"\bppc64le\b"),
             ("ppc64el", r"\bppc64el\b")),
            ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_LITTLE_ENDIAN"), "power"),
    Machine("ppc64", (4,), "big", POWER, ((0xC << 60, 0xE << 60),),
            (("MSR:", r"\bMSR: .*<(?=[^>]*\bSF\b)(?![^>]*\bLE\b)[^>]*>"), ("ppc64", r"\bppc64\b")),
            ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_BIG_ENDIAN"), "power"),
    Machine("ppc32", (4,), "big", POWER, HIGH32, (("MSR:", r"\bMSR: .*<(?![^>]*\bSF\b)[^>]*>"),),
            ("CS_ARCH_PPC", "CS_MODE_32", "CS_MODE_BIG_ENDIAN"), "power"),
    Machine("x86-64", (5,), "big", X86, ((KERNEL64, ENDS),),
            (("RIP", r"\bRIP: 00[0-9a-f]{2}:"), ("RIP", r"\bRIP  ?\[?<"), ("RAX:", r"\bRAX: [0-9a-f]{16}"),
             ("x86_64", r"\bx86_64\b"), ("amd64", r"[-.]amd64\b")),
            ("CS_ARCH_X86", "CS_MODE_64"), "x86", compiled_calls=True, arch="x86_64"),
    Machine("x86 32-bit", (5,), "big", X86, HIGH32, (("EIP: ", r"\bEIP: "), ("i686", r"\bi686\b")),
            ("CS_ARCH_X86", "CS_MODE_32"), "x86", compiled_calls=True),
    Machine("s390", (6,), "big", S390, ((0x1_0000, 1 << 53),),
            (("Krnl ", r"\bKrnl (?:PSW|GPRS|Code)\b"), ("s390", r"\bs390x?\b")),
            ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN")),
    Machine("riscv", (8,), "little", RISCV, ((0xFFFF_FFD0 << 32, ENDS),),
            (("epc", r"\bepc ?: [0-9a-f]{8}"), ("epc", r"\bepc ?: \w+\+0x"), ("riscv", r"\briscv(?:64)?\b")),
            ("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
            pair=True),
    Machine("riscv", (4,), "little", RISCV_WORD, ((0xFFFF_FFD0 << 32, ENDS),), (),
            ("CS_ARCH_RISCV", "CS_MODE_RISCV64")),
    Machine("loongarch", (4,), "little", LOONGARCH, ((0x9 << 60, 0xA << 60),),
            (("ERA: ", r"\bERA: [0-9a-f]{16}"), ("ESTAT: ", r"\bESTAT: [0-9a-f]{8}"),
             ("loongarch", r"\bloongarch(?:64)?\b"))),
    Machine("arm 32-bit", (4,), "little", ARM, HIGH32, (("PC is at ", r"\bPC is at \w"), ("armv7", r"\barmv7l?\b"),
             ("unwind_back", "unwind_backtrace")),
            ("CS_ARCH_ARM", "CS_MODE_ARM"), compiled_calls=True),
    *(Machine("mips", (4,), order, MIPS, (*HIGH32, (KERNEL64, ENDS), (0x9 << 60, 0xC << 60)),
              (("epc", r"\bepc {2,}: [0-9a-f]{8}"), ("PrId", r"\bPrId {2,}: [0-9a-f]{8}")), (), "mips")
      for order in ORDERS),
)  # fmt: skip


def machines_named(name: str, size: int | None = None) -> tuple[Machine, ...]:
    """Those of that name that print `size` bytes of a site; of every size, where None is asked for."""
    return tuple(one for one in MACHINES if one.name == name and (size is None or size in one.sizes))


def name_in_logs(arch: str) -> str:
    """What a machine is called here that an `Arch` names."""
    return next((machine.name for machine in MACHINES if machine.arch == arch), arch)


def number(machine: Machine, code: bytes) -> int:
    """Bytes of code as the number by which the machine's documents name them: a word, or the first byte foremost."""
    if machine.pair and len(code) == 8:
        return int.from_bytes(code[:4], "little") << 32 | int.from_bytes(code[4:], "little")
    return int.from_bytes(code, machine.order)


def reading(machine: Machine, code: bytes, va: int | None = None) -> Reading:
    """What the bytes of a site at `va` are; kind UNKNOWN where they are nothing that ftrace or a compiler puts there.

    A site that is cut off is not read: fewer bytes than the machine prints are nothing.
    """
    if len(code) not in machine.sizes:
        return Reading(UNKNOWN, "")
    if not any(code) and not any(known.bits == 0 and known.mask == WORD for known in machine.known):
        return Reading(ZEROS, "zeros", exact=True)
    value = number(machine, code)
    for known in machine.known:
        if value & known.mask == known.bits:
            to = _target(machine, known, value, code, va)
            text = known.text.replace("{to}", f"0x{to:x}" if to is not None else "").strip()
            return Reading(known.kind, text, to, known.mask == WORD)
    return Reading(UNKNOWN, "")


def _target(machine: Machine, known: Known, value: int, code: bytes, va: int | None) -> int | None:
    """Where a branch leads; None for what is none, or without an address."""
    low, width, step = known.field
    if not width or va is None:
        return None
    if low < 0:  # auipc and jalr of riscv: the upper 20 bits in one word, a signed rest in the other
        distance = _signed((value >> 32 & 0xFFFF_F000) + _signed(value >> 20 & 0xFFF, 12), 32)
    elif machine.name.startswith("x86"):
        distance = int.from_bytes(code[1:5], "little", signed=True)
    else:
        distance = _signed(value >> low & (1 << width) - 1, width) * step
    bits = 32 if va < 1 << 32 and machine.addresses == HIGH32 else 64
    return (va + known.base + distance) % (1 << bits)


def _signed(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1) - ((value & 1 << bits - 1) << 1)


def family_of(name: str) -> tuple[Machine, ...]:
    """The machines of the family that a machine belongs to, itself first; none where it has no family."""
    family = next((machine.family for machine in MACHINES if machine.name == name and machine.family), "")
    members = [machine for machine in MACHINES if family and machine.family == family]
    return tuple(sorted(members, key=lambda machine: machine.name != name))


def has_code_at(machine: Machine, va: int | None) -> bool:
    """Whether kernels of that machine have code at an address; True where none is told."""
    return va is None or any(low <= va < end for low, end in machine.addresses)


def candidates(code: bytes | None, va: int | None) -> Iterator[tuple[Machine, Reading | None]]:
    """Machines that print so many bytes of a site, have code at that address, and to which these bytes mean something.

    code: None where the message has no bytes; va: None where it tells no address.
    """
    for machine in MACHINES:
        if not has_code_at(machine, va):
            continue
        if code is None:
            yield machine, None
        elif len(code) in machine.sizes:
            what = reading(machine, code, va)
            told = what.exact or va is not None or len(code) != 4  # a word in any machine's code says nothing alone
            if what.kind != UNKNOWN and told:
                yield machine, what
