"""Device trees that were appended to a kernel, as `cat Image.gz board.dtb` does for boot loaders that look there.

Source: the Devicetree Specification 0.4, 5.2 (the header of a flattened device tree).
"""

from __future__ import annotations

import struct

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import Layer, Opened

MAGIC = b"\xd0\x0d\xfe\xed"
# magic, totalsize, off_dt_struct, off_dt_strings, off_mem_rsvmap, version, last_comp_version
HEADER = struct.Struct(">4s6I")
MIN_SIZE = 40  # of a header of version 17
MAX_TREES = 4096  # that are looked at; phones ship a hundred


def layer(data: FileBytes, end: int) -> Opened:
    """The layer of a kernel that ends at `end`, with device trees behind it."""
    behind = data[end:].tobytes()
    return (Layer("appended-dtb", data, lambda content: content + behind),), data.part(0, end)


def are_device_trees(data: FileBytes, pos: int) -> bool:
    """Whether one device tree after the other fills the data from `pos` on."""
    for _ in range(MAX_TREES):
        size = _size_at(data, pos)
        if size == 0:
            return False
        pos += size
        if pos == len(data):
            return True
    return False


def first_device_tree(data: FileBytes) -> int | None:
    """Where the device trees at the end of the data begin; None where there are none.

    A kernel has device trees of its own inside, for tests of its drivers: those do not reach the end.
    """
    starts, start = [], 0
    for piece in data.pieces():
        octets = piece.tobytes()
        edge = data.peek(start + len(octets), start + len(octets) + len(MAGIC) - 1)
        octets += edge
        at = octets.find(MAGIC)
        while at >= 0:
            starts.append(start + at)
            at = octets.find(MAGIC, at + 1)
        start += len(octets) - len(edge)
        if len(starts) > MAX_TREES:
            return None
    ends: set[int] = {len(data)}
    first = None
    for pos in reversed(starts):
        size = _size_at(data, pos)
        if size and pos + size in ends:
            ends, first = {*ends, pos}, pos
    return first


def _size_at(data: FileBytes, pos: int) -> int:
    """Bytes of the device tree at `pos`; 0 where there is none."""
    head = data.peek(pos, pos + HEADER.size)
    if len(head) < HEADER.size:
        return 0
    magic, size, structure, strings, _, version, compatible = HEADER.unpack(head)
    sound = size >= MIN_SIZE and size <= len(data) - pos and max(structure, strings) <= size and compatible <= version
    return int(size) if magic == MAGIC and sound else 0
