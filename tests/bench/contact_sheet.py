"""Pictures in rows, each over its words."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, TEXT = 16, 12, 11
PAPER, INK, MARK = (255, 255, 255), (60, 60, 66), (196, 30, 40)


def lines(words: str, width: float, font: ImageFont.FreeTypeFont) -> List[str]:
    """The words, broken where a line would be wider than `width` pixels."""
    out: List[str] = []
    for word in words.split():
        longer = f"{out[-1]} {word}" if out else word
        if out and font.getlength(longer) <= width:
            out[-1] = longer
        else:
            out.append(word)
    return out


def contact_sheet(cards: Sequence[Tuple[Image.Image, str, str]], columns: int) -> Image.Image:
    """One image of all cards: a picture, its caption, and what to say of it in red. Pictures have one size."""
    font = ImageFont.load_default(TEXT)
    width, height = cards[0][0].size
    texts = [[(line, ink) for words, ink in ((caption, INK), (mark, MARK)) for line in lines(words, width, font)]
             for _, caption, mark in cards]
    leading = TEXT + 3
    rows = [range(first, min(first + columns, len(cards))) for first in range(0, len(cards), columns)]
    heights = [height + 6 + leading * max(len(texts[index]) for index in row) for row in rows]
    size = (2 * MARGIN + columns * (width + GAP) - GAP, 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for row, row_height in zip(rows, heights):
        for column, index in enumerate(row):
            left = MARGIN + column * (width + GAP)
            sheet.paste(cards[index][0], (left, top))
            # White on white has an edge too.
            pen.rectangle((left, top, left + width - 1, top + height - 1), outline=(222, 222, 226))
            for number, (line, ink) in enumerate(texts[index]):
                pen.text((left, top + height + 5 + number * leading), line, ink, font)
        top += row_height + GAP
    return sheet
