"""Contact sheets: rows of small pictures, each with words under it."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, HEADER, LINE = 8, 24, 13
"""Pixels between images, above them for the headings, and from line to line of what stands under them."""
NARROWEST = 128
"""Pixels: what the words under an image need; a smaller image is drawn larger, each of its pixels as a square."""
HEADING, CAPTION = 13, 11
"""Pixels: sizes of letters."""
NEW_LINE = "\n"
"""Among words: those after it stand in a line of their own."""
Cell = tuple[np.ndarray, list[str]]
"""Pixels, uint8 (H, W, C), C 1 or 3, of the same shape in all cells; and what stands under them."""


def contact_sheet(headings: list[str], rows: list[list[Cell]]) -> Image.Image:
    """Draw `rows` under `headings`, one for each column."""
    height, width, channels = rows[0][0][0].shape
    scale = -(-NARROWEST // width)  # rounded up
    height, width = height * scale, width * scale
    captions = [[wrap(words, width) for _, words in cells] for cells in rows]
    lines = max(len(caption) for cells in captions for caption in cells)
    across, down = width + GAP, height + lines * LINE + 2 * GAP
    canvas = Image.new("RGB", (across * len(headings) + GAP, down * len(rows) + HEADER), "white")
    pen = ImageDraw.Draw(canvas)
    for column, heading in enumerate(headings):
        pen.text((GAP + column * across, 5), heading, "black", font(HEADING))
    for y, cells in enumerate(rows):
        for x, (pixels, _) in enumerate(cells):
            left, top = GAP + x * across, HEADER + y * down
            picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            pen.rectangle((left - 1, top - 1, left + width, top + height), outline="silver")
            canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
            for n, line in enumerate(captions[y][x]):
                pen.text((left, top + height + 3 + n * LINE), line, "dimgrey", font(CAPTION))
    return canvas


def wrap(words: list[str], width: int) -> list[str]:
    """Put words into lines of at most `width` pixels; shorten a word that is wider. NEW_LINE begins another line."""
    lines = [""]
    for word in words:
        if word == NEW_LINE:
            lines.append("")
            continue
        longer = f"{lines[-1]}  {word}".strip()
        if font(CAPTION).getlength(longer) <= width:
            lines[-1] = longer
        else:
            while font(CAPTION).getlength(word) > width:
                word = word.removesuffix("…")[:-1] + "…"
            lines.append(word)
    return [line for line in lines if line]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font."""
    return ImageFont.load_default(size)
