"""The plot of benchmarks.incremental --growth: time per image and memory over the size of the dataset."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANEL_WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 340, 70, 60, 90
INK, FAINT, LINE = "#222222", "#dddddd", "#1f6feb"


def draw(taken: Mapping[int, tuple[float, float]], caption: str, path: Path) -> None:
    """Write a PNG.

    Args:
        taken: by number of images, seconds and peak MiB.
        caption: below it.
    """
    image = Image.new("RGB", (2 * PANEL_WIDTH, HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    each = {size: 1000 * seconds / size for size, (seconds, _) in taken.items()}
    panel(canvas, 0, "dvc repro from nothing: milliseconds an image", each)
    panel(canvas, PANEL_WIDTH, "largest process: MiB", {size: peak for size, (_, peak) in taken.items()})
    canvas.multiline_text((20, HEIGHT - 48), caption, fill=INK, font=ImageFont.load_default(11))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def panel(canvas: ImageDraw.ImageDraw, x: int, title: str, values: Mapping[int, float]) -> None:
    """One line over the sizes, from zero up."""
    font = ImageFont.load_default(13)
    right, floor = x + PANEL_WIDTH - 30, HEIGHT - BOTTOM
    most_images, most = max(values), max(values.values()) * 1.25

    def place(size: float, value: float) -> tuple[float, float]:
        return x + LEFT + (right - x - LEFT) * size / most_images, floor - (floor - TOP) * value / most

    canvas.text((x + LEFT, 20), title, fill=INK, font=ImageFont.load_default(15))
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = place(0, share * most)[1]
        canvas.line((x + LEFT, y, right, y), fill=FAINT)
        canvas.text((x + LEFT - 8, y), f"{share * most:.3g}", fill=INK, font=font, anchor="rm")
    points = [place(size, value) for size, value in sorted(values.items())]
    canvas.line(points, fill=LINE, width=2)
    for (size, value), (px, py) in zip(sorted(values.items()), points, strict=True):
        canvas.ellipse((px - 4, py - 4, px + 4, py + 4), fill=LINE)
        canvas.text((px, py - 12), f"{value:.3g}", fill=INK, font=font, anchor="ms")
        canvas.text((px, floor + 8), f"{size:,}", fill=INK, font=font, anchor="mt")
