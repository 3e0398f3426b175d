"""Where the record of an object's site returns to: the section of records that belongs to the section of the site."""

from __future__ import annotations

from ftpatch.elf.editor import Editor
from ftpatch.errors import PolicyError
from ftpatch.plan.module.records import section_symbol
from ftpatch.plan.records_back import BY_JOURNAL
from ftpatch.sites.records import SLOT, record_sections
from ftpatch.sites.table import SiteTable

SHF_LINK_ORDER = 0x80


def return_to_its_section(editor: Editor, sites: SiteTable, site: int) -> None:
    """A slot and its relocation behind the others of the record section that is linked to the site's.

    A linker throws the records of a section away with that section (SHF_LINK_ORDER), so that a record in another
    one would be lost, or name what is gone.
    """
    image, sec = editor.image, int(sites.sec[site])
    every = record_sections(image)
    tables = [
        table
        for table in every
        if not int(image.shdr["sh_flags"][table]) & SHF_LINK_ORDER or int(image.shdr["sh_link"][table]) == sec
    ]
    if not tables and len(every) == 1:  # gcc before 13 has one for all
        tables = every
    if not tables:
        raise PolicyError("a record cannot return to this object", image.path,
                          found=f"no record section of {image.names[sec]}", todo=BY_JOURNAL)  # fmt: skip
    symbol, addend = section_symbol(image, sec), int(sites.off[site])
    if symbol is None:  # a symbol that a patch adds would be one of every object that is linked with this one
        if sites.func[site] == sites.func_end[site]:
            raise PolicyError("a record cannot return to this object", image.path,
                              found=f"no symbol in {image.names[sec]} to name it by", todo=BY_JOURNAL)  # fmt: skip
        symbol = int(image.functions.row[sites.func[site]])
        addend -= int(image.symbols.rows["st_value"][symbol])
    slot = editor.append(tables[0], bytes(SLOT))
    editor.relocate(tables[0], slot, image.arch.abs64, symbol, addend)
