"""Every refusal of ftpatch, with its exit code.

    FtpatchError
    ├ InputError (3)        the file is missing, unreadable, corrupt, or not what it claims to be
    │ ├ ChangedError        another program wrote to the file while it was read
    │ ├ EnvelopeError       what is around the ELF file: compression, the appended signature
    │ ├ ElfError            headers, sections, symbols or relocations contradict the file
    │ ├ RecordError         the kernel's table of patch sites cannot be read
    │ └ UnsoundError        what a patch would have to leave is wrong in the file already
    ├ UnsupportedError (4)  a sound file that this program does not know
    │ ├ ArchError           machine, class or byte order
    │ └ ShapeError          the layout of the patch sites
    ├ PlanError (5)         the request cannot be carried out safely; nothing was written
    │ ├ SelectionError      a selector matches nothing, or something else than was meant
    │ ├ ReachError          a branch cannot span the distance
    │ └ PolicyError         possible, but not safe
    ├ UsageError (2)        options that contradict each other
    └ ApplyError (70)       a result that failed its own check: a bug in ftpatch; the result is not kept

A message is one line: what, where, found, expected – what to do. The parts stay readable as fields.
"""

from __future__ import annotations


class FtpatchError(Exception):
    """A refusal in one line, built from its parts; `exit_code` is the process's exit status."""

    exit_code = 70

    def __init__(
        self, what: str, where: str = "", *, found: str = "", expected: str = "", todo: str = "",
        details: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.what, self.where, self.found, self.expected, self.todo = what, where, found, expected, todo
        self.details = details  # one line for each of many culprits, where the sentence shows only the first
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The message as one line; control characters of hostile names cannot break it."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        facts = [f"found {self.found}" if self.found else "", f"expected {self.expected}" if self.expected else ""]
        body = ", ".join(fact for fact in facts if fact)
        line = head + (f": {body}" if body else "") + (f" – {self.todo}" if self.todo else "")
        return printable(line)


def printable(text: str) -> str:
    """The text with an escape for each control, format and unassigned character, for half characters and for spaces
    other than the usual one: names come from files that anybody may have made. All text for people goes through here.
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(char: str) -> str:
    """One character as it is, or as a number if a terminal might obey or hide it; half a character stands for a byte of
    a file name that is no text, and is written like one."""
    code = ord(char)
    if char.isprintable():
        return char
    byte = code < 0x100 or 0xD800 <= code < 0xE000
    return f"\\x{code:02x}" if byte else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class InputError(FtpatchError):
    exit_code = 3


class ChangedError(InputError): ...


class EnvelopeError(InputError): ...


class ElfError(InputError): ...


class RecordError(InputError): ...


class UnsoundError(InputError): ...


class UnsupportedError(FtpatchError):
    exit_code = 4


class ArchError(UnsupportedError): ...


class ShapeError(UnsupportedError): ...


class PlanError(FtpatchError):
    exit_code = 5


class SelectionError(PlanError): ...


class ReachError(PlanError): ...


class PolicyError(PlanError): ...


class UsageError(FtpatchError):
    exit_code = 2


class ApplyError(FtpatchError):
    exit_code = 70
