"""x86 bzImage: boot sectors, boot code, and in that the compressed ELF file with relocations behind it.

    setup_sects sectors │ boot code … payload … boot code          payload_offset counts from the boot code
Source: the kernel's Documentation/arch/x86/boot.rst; arch/x86/boot/compressed/Makefile for what the payload ends in.
"""

from __future__ import annotations

from ftpatch.container.fields import le32, require, require_inside
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import NAMES, Layer, Opened, Source
from ftpatch.container.unpack import unpack
from ftpatch.container.wrappings import HEAD, stream_of
from ftpatch.errors import EnvelopeError

KIND = "bzimage"
MAGIC, MAGIC_AT = b"HdrS", 0x202
SETUP_SECTS, VERSION, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x1F1, 0x206, 0x248, 0x24C
WITH_PAYLOAD = 0x208  # version of the boot protocol from which on the header tells where the payload is
HEADER = 0x250
SECTOR, SECTORS = 512, 4  # and how many of them 0 stands for
WHY_NOT = (
    "the boot code of a bzImage has the payload's size and place built in; make bzImage wraps a patched vmlinux in the "
    "build tree, and QEMU, Firecracker and kexec boot it as it is"
)


def open_bzimage(source: Source) -> Opened | None:
    """The layer, and what its payload unpacks to; None where the data are no bzImage."""
    head = source.data.peek(0, HEADER)
    if head[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        return None
    require_inside("a header", 0, HEADER, KIND, source)
    version = int.from_bytes(head[VERSION : VERSION + 2], "little")
    if version < WITH_PAYLOAD:
        raise EnvelopeError(f"{NAMES[KIND]} that does not tell where its payload is", source.path,
                            found=f"boot protocol {version >> 8}.{version & 255:02}", expected="2.08 or newer",
                            todo="give the ELF vmlinux that it was made of")  # fmt: skip
    pos = ((head[SETUP_SECTS] or SECTORS) + 1) * SECTOR + le32(head, PAYLOAD_OFFSET)
    size = le32(head, PAYLOAD_LENGTH)
    require_inside("a payload", pos, size, KIND, source)
    payload = source.data.part(pos, size)
    layer = Layer(KIND, source.data, None, WHY_NOT)
    stream = stream_of(payload.peek(0, HEAD))
    if stream == "none":  # the build did not compress it
        return (layer,), payload
    packed = payload.tobytes()
    content, end = unpack(stream, packed, source.path, source.max_size)
    if stream != "gz" or end < len(packed):  # gzip data end in the size themselves
        expected = len(content).to_bytes(4, "little")
        require(packed[end:] == expected, KIND, source, found=f"{packed[end : end + 8].hex(' ') or 'nothing'} behind "
                "the payload", expected=f"{expected.hex(' ')}, the size of its content")  # fmt: skip
    return (layer,), FileBytes.of(content)
