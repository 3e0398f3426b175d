"""Drawing: a picture is a column of headings, notes, tables, diagrams of blocks, and maps, one below the other.

Text is monospaced, so that its width is known without a font. Colours are named in one style sheet with a second set
for dark surroundings; the paper is drawn, too, so that a picture can be read on any page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

CHAR, LINE, PAD, MARGIN = 7.25, 20, 8, 16  # pixels: a character, a line of text, around text in a box, around all
LIGHT = "--paper:#ffffff;--ink:#1f2328;--soft:#59636e;--edge:#b7bfc8;--box:#f3f5f8;--new:#fff0b8;--line:#0550ae"
DARK = "--paper:#16191d;--ink:#e6e9ed;--soft:#a3acb6;--edge:#4a525b;--box:#22272d;--new:#4d3f0c;--line:#79b8ff"
FONT = '12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace'
# As an image a picture follows the reader's system; inside a page of the site, that page's own switch. Paper is white.
STYLE = f"""\
.picture{{{LIGHT}}}
@media(prefers-color-scheme:dark){{.picture{{{DARK}}}}}
[data-md-color-scheme=default] .picture{{{LIGHT}}}
[data-md-color-scheme=slate] .picture{{{DARK}}}
@media print{{.picture,[data-md-color-scheme] .picture{{{LIGHT}}}}}
.picture text{{font:{FONT};fill:var(--ink);white-space:pre}}
.picture .head{{font-weight:700}}.picture .soft{{fill:var(--soft)}}.picture .word{{fill:var(--line)}}
.picture .box{{fill:var(--box);stroke:var(--edge)}}.picture .new{{fill:var(--new);stroke:var(--edge)}}
.picture .paper{{fill:var(--paper)}}.picture .tip{{fill:var(--line)}}
.picture .arrow{{stroke:var(--line);fill:none;stroke-width:1.5}}"""


class Cell(NamedTuple):
    """One field of a table."""

    text: str
    style: str = "box"  # "box", "new" for what was changed, "" for words beside the boxes


class Block(NamedTuple):
    """A box of a diagram: its place in a grid, its heading, its lines."""

    column: int
    row: int
    head: str
    lines: tuple[str, ...] = ()
    style: str = "box"


class Arrow(NamedTuple):
    """From one block to another, by their numbers; to a neighbour in the same row or column."""

    start: int
    end: int
    text: str = ""


class Point(NamedTuple):
    """A place on a map."""

    at: int
    text: str


@dataclass
class Picture:
    """What was drawn so far; each method adds something below."""

    title: str
    text: str  # what the picture shows, for those who do not see it
    parts: list[str] = field(default_factory=list)
    width: float = 0
    y: float = MARGIN

    def _write(self, x: float, y: float, text: str, style: str = "", anchor: str = "") -> None:
        more = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{more}>{escape(text)}</text>')
        if not anchor:
            self.width = max(self.width, x + CHAR * len(text) + MARGIN)

    def _box(self, x: float, y: float, width: float, height: float, style: str) -> None:
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{style}"/>')
        self.width = max(self.width, x + width + MARGIN)

    def heading(self, text: str) -> None:
        self.y += 6
        self._write(MARGIN, self.y + 13, text, "head")
        self.y += LINE + 4

    def note(self, *lines: str) -> None:
        for line in lines:
            self._write(MARGIN, self.y + 13, line, "soft")
            self.y += LINE - 3
        self.y += 6

    def table(self, heads: list[str], rows: list[list[Cell]]) -> None:
        """Boxes in rows and columns, each column as wide as its longest text."""
        columns = list(zip(*([Cell(head) for head in heads], *rows), strict=True))
        widths = [max(len(cell.text) for cell in column) * CHAR + 2 * PAD for column in columns]
        first = [[Cell(head, "") for head in heads]] if any(heads) else []
        for row in (*first, *rows):
            x: float = MARGIN
            for width, cell in zip(widths, row, strict=True):
                if cell.style and cell.text:
                    self._box(x, self.y, width - 4, LINE, cell.style)
                style = "" if cell.style else "soft"
                self._write(x + PAD - 2, self.y + 14, cell.text, style)
                x += width
            self.y += LINE
        self.y += 12

    def blocks(self, blocks: list[Block], arrows: list[Arrow], gap: int = 56) -> None:
        """Boxes in a grid, and arrows between neighbours."""
        widths = [0.0] * (max(block.column for block in blocks) + 1)
        heights = [0.0] * (max(block.row for block in blocks) + 1)
        for block in blocks:
            longest = max(len(text) for text in (block.head, *block.lines))
            widths[block.column] = max(widths[block.column], longest * CHAR + 2 * PAD)
            heights[block.row] = max(heights[block.row], LINE * len(block.lines) + LINE + 8)
        labels = [arrow.text for arrow in arrows if blocks[arrow.start].row == blocks[arrow.end].row]
        across = max([gap, *(len(label) * CHAR + 24 for label in labels)])
        places = []
        for block in blocks:
            x = MARGIN + sum(widths[: block.column]) + across * block.column
            y = self.y + sum(heights[: block.row]) + gap * 0.8 * block.row
            height = LINE * len(block.lines) + LINE + 8
            self._box(x, y, widths[block.column], height, block.style)
            self._write(x + PAD, y + 17, block.head, "head")
            for number, line in enumerate(block.lines):
                self._write(x + PAD, y + 18 + LINE * (number + 1), line)
            places.append((x, y, widths[block.column], height))
        for arrow in arrows:
            self._arrow(places[arrow.start], places[arrow.end], arrow.text)
        self.y += sum(heights) + gap * 0.8 * (len(heights) - 1) + 16

    def _arrow(self, start: tuple[float, ...], end: tuple[float, ...], text: str) -> None:
        (x, y, width, height), (x2, y2, width2, height2) = start, end
        if y == y2 or abs(x - x2) > 1:  # to the side
            right = x2 > x
            line = (x + width if right else x, y + 14, x2 - 7 if right else x2 + width2 + 7, y2 + 14)
            tip = [(-7, -4), (0, 0), (-7, 4)] if right else [(7, -4), (0, 0), (7, 4)]
            at = (x2, y2 + 14) if right else (x2 + width2, y2 + 14)
            label = ((line[0] + line[2]) / 2, min(line[1], line[3]) - 6, "middle")
        else:
            middle = x + 28
            down = y2 > y
            line = (middle, y + height if down else y, middle, y2 - 7 if down else y2 + height2 + 7)
            tip, at = ([(-4, -7), (0, 0), (4, -7)], (middle, y2)) if down else (
                [(-4, 7), (0, 0), (4, 7)], (middle, y2 + height2))  # fmt: skip
            label = (middle + 10, (line[1] + line[3]) / 2 + 6, "start")
        self.parts.append(f'<path class="arrow" d="M{line[0]:g} {line[1]:g}L{line[2]:g} {line[3]:g}"/>')
        corners = " ".join(f"{at[0] + dx:g},{at[1] + dy:g}" for dx, dy in tip)
        self.parts.append(f'<polygon class="tip" points="{corners}"/>')
        if text:
            self._write(label[0], label[1], text, "word", label[2])

    def map(self, sections: list[tuple[str, int, int]], points: list[Point], reach: tuple[int, int, str]) -> None:
        """Sections to scale between the lowest and the highest address, named places, and how far a branch gets.

        sections: (name, start, end); reach: (from, bytes to either side, what spans it).
        """
        low, high = min(start for _, start, _ in sections), max(end for _, _, end in sections)
        scale = 640 / (high - low)
        origin, limit, text = reach
        behind = 0.0  # the last name that was written
        for name, start, end in sorted(sections, key=lambda section: section[1]):
            x, width = MARGIN + (start - low) * scale, max((end - start) * scale, 5)
            self._box(x, self.y + 22, width, 26, "box")
            left = max(min(x, MARGIN + 560), behind)
            self._write(left, self.y + 14, name, "soft")
            behind = left + CHAR * (len(name) + 1)
        bar = MARGIN + min((origin + limit - low) * scale, 640.0)
        start_x = MARGIN + (origin - low) * scale
        self.parts.append(f'<path class="arrow" d="M{start_x:g} {self.y + 58:g}H{bar:g}m0 -6v12"/>')
        self._write(start_x + 4, self.y + 76, text, "word")
        self.y += 92
        for point in sorted(points):
            self._write(MARGIN, self.y + 13, f"{(point.at - low) / (1 << 20):+10.4f} MiB  {point.text}")
            self.y += LINE - 3
        self.y += 10

    def svg(self, name: str) -> str:
        """The file's text. Its ids carry the picture's name, since a page may hold several pictures."""
        width, height = round(max(self.width, 400)), round(self.y + MARGIN - 8)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 {width} {height}" '
                f'style="max-width:{width}px;min-width:min({width}px,36rem)" role="img" '
                f'aria-labelledby="{name}-title {name}-text">',
                f'<title id="{name}-title">{escape(self.title)}</title>',
                f'<desc id="{name}-text">{escape(self.text)}</desc>',
                f"<style>{STYLE}</style>",
                f'<rect width="{width}" height="{height}" rx="8" class="paper"/>',
                *self.parts,
                "</svg>\n",
            ]
        )
