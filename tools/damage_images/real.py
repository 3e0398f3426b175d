"""A real kernel's file, with the places of its tables as the program itself finds them in the sound file."""

from __future__ import annotations

from pathlib import Path

from ftpatch.recovered.kallsyms import find_tables
from ftpatch.recovered.kallsyms_values import NONE
from ftpatch.sites.scan import scan_file
from tools.damage_images.kernels import Sound


def real(path: Path) -> Sound:
    """A kernel that lies in no layers."""
    scan = scan_file(str(path))
    image = scan.image
    (tables,) = find_tables(image.data)
    names, values, tokens, n = tables.names, tables.values, tables.tokens, tables.n
    width = 8 if values.kind == "absolute" else 4
    parts = {
        "names": (names.pos, names.end), "num_syms": (names.count_pos, names.count_pos + 4),
        "markers": (names.markers_pos, names.markers_end), "token_table": (tokens.pos, tokens.pos + len(tokens.texts)),
        "token_index": (tokens.index_pos, tokens.end), "offsets": (values.pos, values.pos + width * n),
        "header": (0, 64), "records": (int(scan.records.slot.min()), int(scan.records.slot.max()) + 8),
    }  # fmt: skip
    if values.base_pos != NONE:
        parts["relative_base"] = (values.base_pos, values.base_pos + 8)
    if values.ranks_pos != NONE:
        parts["seqs_of_names"] = (values.ranks_pos, values.ranks_pos + values.ranks_size * n)
    for name in (".rela.dyn", ".relr.dyn"):
        for sec in image.sections_named(name):
            start = int(image.shdr["sh_offset"][sec])
            parts["relocations"] = (start, start + int(image.shdr["sh_size"][sec]))
    code = [
        (int(head["sh_offset"]), int(head["sh_offset"]) + int(head["sh_size"])) for head in image.shdr[image.executable]
    ]
    parts["code"] = max(code, key=lambda part: part[1] - part[0])
    at = image.data.tobytes().find(b"Linux version ")
    parts["banner"] = (at, at + 64)
    return Sound(path.name, image.data.tobytes(), parts, flat=image.recovered is not None and image.recovered.flat)
